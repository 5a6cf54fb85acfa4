"""PortalError, the only error that commands raise, and its rendering as JSON for clients or as a page for people.

Every error response of the API has the shape of `error_body`. MEANINGS in portal/api/routes.py documents each status.
"""

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent
from django.db import DatabaseError, DataError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from psycopg.errors import LockNotAvailable, QueryCanceled, ReadOnlySqlTransaction
from redis.exceptions import RedisError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from portal.attempts import note_refusal
from portal.outages import is_database_outage, note_database_outage
from portal.rate_limits import RateLimit
from portal.request_id import request_id_var

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

MFA_REQUIRED = "mfa_required_by_organization"
NOT_STORABLE = "The request contains a character or value that cannot be stored."
NOT_FOUND = "This does not exist, or you do not have access to it."
DEPENDENCY_DOWN = "A service that the portal depends on is down. Nothing was changed. Try again in a few seconds."
LOCKED = "Something else holds what this needs. Nothing was changed. Try again in a few seconds."
TIMEOUT = "The database did not answer in time. Nothing was changed. Try again in a few seconds."
READ_ONLY = "The database accepts no changes at the moment. Nothing was changed. Try again in a few seconds."
TOO_LARGE = "The request is larger than 1 MiB."
CSRF_MISSING = (
    f"Send the value of the {settings.CSRF_COOKIE_NAME} cookie in the X-CSRFToken header, and over HTTPS the portal's "
    "address in Origin or Referer."
)
API_PREFIXES = ("/api/", "/deployments", "/agents")
RETRY_AFTER_SECONDS = 5
# The most errors of one kind that a response names, and the most characters of a name that the caller chose.
MAX_NAMED, MAX_NAME_LENGTH = 10, 100


class PortalError(Exception):
    """An error that a person or client can act on.

    `code` is snake_case. `message` is one sentence that names the object, its state and what to do. `extra` is added to
    the JSON body unchanged (the blocking id, field errors). `retry_after` is in seconds, for status 429 and 503; `limit` is
    the rate limit that a 429 is about.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int,
        *,
        retry_after: int = RETRY_AFTER_SECONDS,
        limit: RateLimit | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.extra = code, message, status, extra
        self.headers = {"Retry-After": str(retry_after)} if status in (429, 503) else {}
        if limit:
            self.headers |= limit.headers(0, seconds=retry_after)


class FilesRefused(SuspiciousOperation):
    """A form was sent with a file (portal/web/bodies.py). Django answers with `bad_request`: no view was called yet."""


def found_or_404(found: Found | None) -> Found:
    """Return `found`, or raise a 404.

    Objects of other organizations also get 404 so that their existence is not revealed.
    """
    if found is None:
        raise PortalError("not_found", NOT_FOUND, 404)
    return found


def too_many_keys(count: int, most: int) -> PortalError:
    """Return the refusal of an object, a form or a query that has more keys than any route takes."""
    return PortalError("too_many_keys", f"The request has {count} keys where at most {most} are accepted.", 400)


def printable(name: str) -> str:
    """Return a caller's field name for a response: shortened, with lone surrogates escaped so that it can be encoded."""
    return name[:MAX_NAME_LENGTH].encode("utf-8", "backslashreplace").decode()


def error_body(code: str, detail: str, **extra: Any) -> dict[str, Any]:
    return {"detail": detail, "code": code, **extra}


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API_PREFIXES)


class ErrorMiddleware:
    """Render an exception of a view as JSON or as error.html, with the request id.

    Exceptions of other middleware (the session's, while the database is down) reach `server_error` instead.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        error = as_portal_error(exception)
        return respond(request, error) if error else None


def as_portal_error(exception: BaseException | None) -> PortalError | None:
    """Return the PortalError for an exception. None means a defect of the portal (500)."""
    if isinstance(exception, PortalError):
        return exception
    if isinstance(exception, Http404):
        return PortalError("not_found", NOT_FOUND, 404)
    if isinstance(exception, PermissionDenied):
        return PortalError("forbidden", str(exception) or "You may not do this.", 403)
    if isinstance(exception, RequestDataTooBig):
        return PortalError("too_large", TOO_LARGE, 413)
    if isinstance(exception, TooManyFieldsSent):
        most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
        return PortalError("too_many_keys", f"The request has more than {most} fields.", 400)
    if isinstance(exception, FilesRefused):
        return PortalError("files_not_accepted", "The portal takes no files.", 415)
    if isinstance(exception, DataError):
        # Fields are validated earlier. What remains is a NUL in a URL or header, which PostgreSQL cannot store.
        logger.warning("refused by the database: %s", exception)
        return PortalError("bad_request", NOT_STORABLE, 400)
    if isinstance(exception, DatabaseError | InterfaceError | RedisError):
        return as_outage(exception)
    return None


def as_outage(exception: Exception) -> PortalError | None:
    """Return the 503 for a lock, a time-out or an outage of database or cache. None if the exception is none of them."""
    if isinstance(exception.__cause__, LockNotAvailable):
        logger.warning("a lock was not given in time")
        return PortalError("locked", LOCKED, 503)
    if isinstance(exception.__cause__, QueryCanceled):
        logger.warning("a statement took too long")
        return PortalError("timeout", TIMEOUT, 503)
    if isinstance(exception, RedisError):
        return PortalError("dependency_down", DEPENDENCY_DOWN, 503)
    if not is_database_outage(exception):
        return None
    note_database_outage(exception)
    if isinstance(exception.__cause__, ReadOnlySqlTransaction):
        return PortalError("read_only", READ_ONLY, 503)
    return PortalError("dependency_down", DEPENDENCY_DOWN, 503)


def respond(request: HttpRequest, error: PortalError | None) -> HttpResponse:
    """Return the error as JSON for the API, else as a page. None is an unexpected error: 500 with the request id."""
    if error is None:
        error = PortalError(
            "internal_error",
            "The portal failed unexpectedly and rolled back what it was doing. "
            f"Give the request id {request_id_var.get()} to the people who run it.",
            500,
        )
    note_refusal(error)
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
    """Return DRF's exceptions in our JSON shape (EXCEPTION_HANDLER). None lets Django answer 500 via `server_error`."""
    if isinstance(exception, drf.ValidationError):
        return Response(validation_body(exception), status=400)
    if isinstance(exception, drf.APIException):
        code = {"authentication_failed": "not_authenticated", "permission_denied": "forbidden"}.get(
            str(exception.default_code), str(exception.default_code)
        )
        return Response(error_body(code, str(exception.detail)), status=exception.status_code)
    error = as_portal_error(exception)
    if error is None:
        return None
    note_refusal(error)
    return Response(error_body(error.code, error.message, **error.extra), status=error.status, headers=error.headers)


def validation_body(exception: drf.ValidationError) -> dict[str, Any]:
    """Return `{"detail", "code": "invalid", "errors": {field: [sentence]}}`. The detail names the fields."""
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
    if isinstance(exception, RequestDataTooBig | TooManyFieldsSent | FilesRefused):
        return respond(request, as_portal_error(exception))
    return respond(request, PortalError("bad_request", "The request cannot be read.", 400))


def too_many_requests(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer a request that exceeds one of allauth's rate limits (`handler429`)."""
    message = "You sent too many requests of this kind. Wait a minute, then try again."
    return respond(request, PortalError("too_many_requests", message, 429, retry_after=60))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an unhandled exception (`handler500`). It is still being handled, so sys.exc_info() has it."""
    return respond(request, as_portal_error(sys.exc_info()[1]))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    message = "The form's security token is missing or expired. Nothing was changed. Reload the page and try again."
    if is_api(request):
        message = CSRF_MISSING
    return respond(request, PortalError("csrf_failed", message, 403))


def is_unique_violation(error: DatabaseError, constraint: str) -> bool:
    """Return whether PostgreSQL refused a row because of this constraint or unique index."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return getattr(diagnostics, "constraint_name", None) == constraint
