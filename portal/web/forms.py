"""What the forms of all pages share: being sent twice, and showing what a command refused."""

import secrets
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeVar

from django import forms
from django.http import HttpRequest, HttpResponse

from portal.errors import PortalError, is_api, respond
from portal.models.idempotency import MAX_KEY_LENGTH
from portal.pagination import MAX_SKIP

Result = TypeVar("Result")

# For fields in which a browser has nothing to suggest or correct.
QUIET = {"autocomplete": "off", "spellcheck": "false"}

FORM_MEDIA_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data"}


class FormBodyMiddleware:
    """Refuse a page's body that is not a form with 415: Django reads it as an empty form, without its fields."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        has_body = request.META.get("CONTENT_LENGTH") not in (None, "", "0")
        if (
            request.method == "POST"
            and has_body
            and not is_api(request)
            and request.content_type not in FORM_MEDIA_TYPES
        ):
            message = f"This page takes {' or '.join(sorted(FORM_MEDIA_TYPES))}. Clients use the API (/api/docs)."
            return respond(request, PortalError("unsupported_media_type", message, 415))
        return self.get_response(request)


class SkipField(forms.IntegerField):
    """How far into a list, from the address."""

    def __init__(self) -> None:
        super().__init__(required=False, min_value=0, max_value=MAX_SKIP, widget=forms.HiddenInput, label="Skip")


class OnceForm(forms.Form):
    """Sent again by a double click or a reload, it does nothing twice."""

    idempotency_key = forms.CharField(
        widget=forms.HiddenInput,
        max_length=MAX_KEY_LENGTH,
        initial=secrets.token_hex,
        error_messages={"required": "The form came without its key. It has one now: send it again."},
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "idempotency_key" in self.errors:
            self.renew_key()
        return cleaned

    def renew_key(self, **others: str) -> None:
        """Before a refused form is shown again: nothing was done, and what is sent next may be another request.

        `others`: what else it is shown with, whatever was sent.
        """
        data: Any = copy(self.data)
        for name, value in (others | {"idempotency_key": secrets.token_hex()}).items():
            data[name] = value
        self.data = data


def refuse(form: forms.Form, error: PortalError, *, names: Mapping[str, str] | None = None) -> int:
    """Show a command's refusal at its field, or above the form. Returns the status of the answer; raises 403 and 404.

    `names`: the form's names of fields that the command calls otherwise.
    """
    if error.status in (403, 404):
        raise error
    errors: dict[str, list[str]] = error.extra.get("errors") or {}
    for name, sentences in errors.items():
        field = (names or {}).get(name, name)
        form.add_error(field if field in form.fields else None, sentences)
    if not errors:
        form.add_error(None, error.message)
    return 422 if error.status == 400 else error.status


def submit(
    form: forms.Form, command: Callable[[], Result], *, names: Mapping[str, str] | None = None
) -> tuple[Result | None, int]:
    """Run the command of a POST form. Return its result and 200, or None and the status of the refusal.

    The refusal is shown on the form, which the caller renders again with that status. `names`: see `refuse`.
    *Raises* PortalError 403 and 404 of the command.
    """
    if not form.is_valid():
        return None, 422
    try:
        return command(), 200
    except PortalError as error:
        return None, refuse(form, error, names=names)
