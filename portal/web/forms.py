"""Shared by the forms of all pages: protection against double submission, and errors of commands."""

import secrets
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeVar

from django import forms
from django.http import HttpRequest, HttpResponse

from portal.attempts import note_refusal
from portal.errors import PortalError, is_api, respond
from portal.models.idempotency import MAX_KEY_LENGTH
from portal.pagination import MAX_SKIP
from portal.web.headers import CSP_REPORTS_PATH

Result = TypeVar("Result")

# For fields in which a browser has nothing to suggest or correct.
QUIET = {"autocomplete": "off", "spellcheck": "false"}

FORM_MEDIA_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data"}


class FormBodyMiddleware:
    """Answer 415 to a POST to a page whose body is not a form. Django would read it as an empty form."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        has_body = request.META.get("CONTENT_LENGTH") not in (None, "", "0")
        if (
            request.method == "POST"
            and has_body
            and not is_api(request)
            and request.path != CSP_REPORTS_PATH
            and request.content_type not in FORM_MEDIA_TYPES
        ):
            message = f"This page takes {' or '.join(sorted(FORM_MEDIA_TYPES))}. Clients use the API (/api/docs)."
            return respond(request, PortalError("unsupported_media_type", message, 415))
        return self.get_response(request)


class SkipField(forms.IntegerField):
    """The offset into a list, from the URL."""

    def __init__(self) -> None:
        super().__init__(required=False, min_value=0, max_value=MAX_SKIP, widget=forms.HiddenInput, label="Skip")


class IdempotentForm(forms.Form):
    """A form with an idempotency key, so that a double click or a reload does nothing twice."""

    idempotency_key = forms.CharField(
        widget=forms.HiddenInput,
        max_length=MAX_KEY_LENGTH,
        initial=secrets.token_hex,
        error_messages={"required": "The form was sent without its key. A new key was added: send the form again."},
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "idempotency_key" in self.errors:
            self.renew_key()
        return cleaned

    def renew_key(self, **others: str) -> None:
        """Replace the key before a refused form is shown again: the next submission may be a different request.

        `others`: further values to show instead of the submitted ones.
        """
        data: Any = copy(self.data)
        for name, value in (others | {"idempotency_key": secrets.token_hex()}).items():
            data[name] = value
        self.data = data


def refuse(form: forms.Form, error: PortalError, *, names: Mapping[str, str] | None = None) -> int:
    """Add a command's error to its field or to the form. Return the response status.

    `names` maps the command's field names to the form's, where they differ.
    """
    errors: dict[str, list[str]] = error.extra.get("errors") or {}
    for name, sentences in errors.items():
        field = (names or {}).get(name, name)
        form.add_error(field if field in form.fields else None, sentences)
    if not errors:
        form.add_error(None, error.message)
    return 422 if error.status == 400 else error.status


def attempt(command: Callable[[], Result]) -> tuple[Result | None, PortalError | None]:
    """Run a command. Return its result, or None and its refusal. *Raises* PortalError 403 and 404 of the command."""
    try:
        return command(), None
    except PortalError as error:
        if error.status in (403, 404):
            raise
        note_refusal(error)
        return None, error


def submit(
    form: forms.Form, command: Callable[[], Result], *, names: Mapping[str, str] | None = None
) -> tuple[Result | None, int]:
    """Run the command of a POST form. Return its result and 200, or None and the status of the refusal.

    The refusal is shown on the form, which the caller renders again with that status. `names`: see `refuse`.
    *Raises* PortalError 403 and 404 of the command.
    """
    if not form.is_valid():
        return None, 422
    result, refusal = attempt(command)
    return result, refuse(form, refusal, names=names) if refusal else 200
