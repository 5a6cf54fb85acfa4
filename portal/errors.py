"""PortalError, the one error that commands raise, and its translators: JSON for clients, a page for people.

Every answer of the API that is no success has the shape of `error_body`; api.MEANINGS says what each status means.
"""

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, TooManyFieldsSent
from django.db import DatabaseError, DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from redis.exceptions import RedisError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from portal.request_id import request_id_var

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

NOT_FOUND = "There is nothing here, or it is not yours to see."
DEPENDENCY_DOWN = "A part that the portal needs is down: nothing was changed. Try again in a few seconds."
CSRF_MISSING = f"Send the {settings.CSRF_COOKIE_NAME} cookie's value in the X-CSRFToken header."
API_PREFIXES = ("/api/", "/deployments", "/agents")
RETRY_AFTER_SECONDS = 5
# An answer names so many of what is wrong of one kind, and so much of a name that the caller chose.
MAX_NAMED, MAX_NAME_LENGTH = 10, 100


class PortalError(Exception):
    """A refusal that a person or client can act on.

    `code` is snake_case, `message` one sentence that names the thing, its state and what to do; `extra` goes into the
    JSON body as it is (the id of what blocks, field errors). `retry_after` is in seconds, for status 429 and 503.
    """

    def __init__(
        self, code: str, message: str, status: int, *, retry_after: int = RETRY_AFTER_SECONDS, **extra: Any
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.extra = code, message, status, extra
        self.headers = {"Retry-After": str(retry_after)} if status in (429, 503) else {}


def existing(found: Found | None) -> Found:
    """What was found. Raises PortalError 404 for nothing: what is another's is told as what does not exist."""
    if found is None:
        raise PortalError("not_found", NOT_FOUND, 404)
    return found


def too_many_keys(count: int, most: int) -> PortalError:
    """Return the refusal of an object, a form or a query that has more keys than any route takes."""
    return PortalError("too_many_keys", f"The request has {count} keys where at most {most} are accepted.", 400)


def printable(name: str) -> str:
    """A caller's name of a field as it may stand in an answer: a lone surrogate cannot be encoded, and it has an end."""
    return name[:MAX_NAME_LENGTH].encode("utf-8", "backslashreplace").decode()


def error_body(code: str, detail: str, **extra: Any) -> dict[str, Any]:
    return {"detail": detail, "code": code, **extra}


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API_PREFIXES)


class ErrorMiddleware:
    """Turns what a view raised into the one JSON shape or into error.html, with the request id on both.

    What another middleware raised (the session's, while the database is down) comes to `server_error`.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        error = as_portal_error(exception)
        return respond(request, error) if error else None


def as_portal_error(exception: BaseException | None) -> PortalError | None:
    """Our error for a foreign one; None for what is a defect of ours (500)."""
    if isinstance(exception, PortalError):
        return exception
    if isinstance(exception, Http404):
        return PortalError("not_found", NOT_FOUND, 404)
    if isinstance(exception, PermissionDenied):
        return PortalError("forbidden", str(exception) or "You may not do this.", 403)
    if isinstance(exception, RequestDataTooBig):
        return PortalError("too_large", "The request is larger than 1 MiB.", 413)
    if isinstance(exception, TooManyFieldsSent):
        most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
        return PortalError("too_many_keys", f"The request has more than {most} fields.", 400)
    if isinstance(exception, DataError):
        # Fields are checked before; what comes here is a NUL in an address or header, which PostgreSQL cannot hold.
        logger.warning("refused by the database: %s", exception)
        return PortalError("bad_request", "The request holds a character or value that cannot be stored.", 400)
    if isinstance(exception, OperationalError | InterfaceError | RedisError):
        logger.error("dependency down: %s", type(exception).__name__)
        return PortalError("dependency_down", DEPENDENCY_DOWN, 503)
    return None


def respond(request: HttpRequest, error: PortalError | None) -> HttpResponse:
    """Answer with the error as JSON for the API, else as a page. None is an unforeseen error: 500, the id alone."""
    if error is None:
        error = PortalError(
            "internal_error",
            "The portal failed in a way nobody foresaw; what it was doing was rolled back. "
            f"Give the request id {request_id_var.get()} to whoever runs it.",
            500,
        )
    response: HttpResponse
    if is_api(request):
        response = JsonResponse(error_body(error.code, error.message, **error.extra), status=error.status)
    else:
        context = {
            "error": error,
            "title": HTTPStatus(error.status).phrase.capitalize(),
            "request_id": request_id_var.get(),
        }
        response = render(request, "error.html", context, status=error.status)
    for name, value in error.headers.items():
        response[name] = value
    return response


def api_exception_handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER: the one JSON shape. None lets Django answer 500 through `server_error`."""
    if isinstance(exception, drf.ValidationError):
        return Response(validation_body(exception), status=400)
    if isinstance(exception, drf.Throttled):
        headers = {"Retry-After": str(int(getattr(exception, "wait", None) or RETRY_AFTER_SECONDS))}
        return Response(error_body("throttled", str(exception.detail)), status=429, headers=headers)
    if isinstance(exception, drf.APIException):
        code = {"authentication_failed": "not_authenticated", "permission_denied": "forbidden"}.get(
            str(exception.default_code), str(exception.default_code)
        )
        return Response(error_body(code, str(exception.detail)), status=exception.status_code)
    error = as_portal_error(exception)
    if error is None:
        return None
    return Response(error_body(error.code, error.message, **error.extra), status=error.status, headers=error.headers)


def validation_body(exception: drf.ValidationError) -> dict[str, Any]:
    """`{"detail", "code": "invalid", "errors": {field: [sentence]}}`; the detail names the fields."""
    detail = exception.detail
    errors = detail if isinstance(detail, dict) else {"body": detail}
    fields = {field: shortened([str(s) for s in _flatten(sentences)]) for field, sentences in errors.items()}
    return error_body("invalid", f"Not accepted: {', '.join(fields)}. See errors.", errors=fields)


def shortened(sentences: list[str]) -> list[str]:
    """Return the first ten sentences, and how many more there are."""
    more = len(sentences) - MAX_NAMED
    return sentences if more <= 0 else [*sentences[:MAX_NAMED], f"And {more} more."]


def _flatten(sentences: Any) -> list[Any]:
    if isinstance(sentences, dict):
        return [f"{printable(str(key))}: {text}" for key, value in sentences.items() for text in _flatten(value)]
    if isinstance(sentences, list):
        return [text for value in sentences for text in _flatten(value)]
    return [sentences]


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(request, PortalError("not_found", NOT_FOUND, 404))


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(request, PortalError("forbidden", str(exception or "") or "You may not do this.", 403))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig | TooManyFieldsSent):
        return respond(request, as_portal_error(exception))
    return respond(request, PortalError("bad_request", "The request cannot be read.", 400))


def too_many_requests(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """allauth's rate limits end here (`handler429`)."""
    message = "Too many requests of this kind from you in a short time. Wait a minute, then try again."
    return respond(request, PortalError("too_many_requests", message, 429, retry_after=60))


def server_error(request: HttpRequest) -> HttpResponse:
    """`handler500`: called where the exception is handled, so it is still known."""
    return respond(request, as_portal_error(sys.exc_info()[1]))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    message = "The form's security token is missing or old. Reload the page and send it again; nothing was changed."
    if is_api(request):
        message = CSRF_MISSING
    return respond(request, PortalError("csrf_failed", message, 403))


def is_unique_violation(error: DatabaseError, constraint: str) -> bool:
    """Whether PostgreSQL refused a row by this constraint or unique index."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return getattr(diagnostics, "constraint_name", None) == constraint
