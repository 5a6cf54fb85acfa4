"""The request id: read from `X-Request-ID` or generated. It is in the response, every log line and every error page.

It follows the work: tasks carry it in their message (portal/celery.py), upgrades and deployments in their row, and calls to
AWS in their User-Agent (portal/aws/observed.py).
"""

import logging
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponse

NO_REQUEST = "-"
request_id_var: ContextVar[str] = ContextVar("request_id", default=NO_REQUEST)

ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


@contextmanager
def carrying(request_id: str) -> Iterator[None]:
    """Work for the request with this id in the block. NO_REQUEST keeps the id that is set."""
    is_known = request_id != NO_REQUEST and ACCEPTED.fullmatch(request_id)
    token = request_id_var.set(request_id if is_known else request_id_var.get())
    try:
        yield
    finally:
        request_id_var.reset(token)


def request_pool(size: int, name: str) -> ThreadPoolExecutor:
    """Return a pool of threads for the present request or step, which log and call AWS with its id."""
    given = (request_id_var.get(),)
    return ThreadPoolExecutor(size, thread_name_prefix=name, initializer=request_id_var.set, initargs=given)


class RequestIdMiddleware:
    """Accept a well-formed `X-Request-ID`, else generate one, so that callers cannot inject text into the log."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if ACCEPTED.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined] # for RequestIdFilter
        token = request_id_var.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            request_id_var.reset(token)
        response["X-Request-ID"] = request_id
        return response


class RequestIdFilter(logging.Filter):
    """Add the `request_id` that the log format uses to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Django logs a refused request after the middleware has returned, but attaches the request to the record.
        request = getattr(record, "request", None)
        record.request_id = getattr(request, "request_id", None) or request_id_var.get()
        return True
