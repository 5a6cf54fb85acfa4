"""The address of the client that sent the current request, for the audit trail."""

from collections.abc import Callable
from contextvars import ContextVar

from allauth.core.internal.httpkit import get_client_ip
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)


class ClientIpMiddleware:
    """Keep the request while it is answered. Few need the address, so it is read when it is asked for."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def get_present_client_ip() -> str | None:
    """Return the client's address as the proxies of TRUSTED_PROXY_COUNT give it; None if that is not an address.

    Outside of a request there is none either.
    """
    request = _request.get()
    if request is None:
        return None
    try:
        ip: str | None = get_client_ip(request)
    except ImproperlyConfigured:  # fewer proxies than the setting says: allauth refuses a sign-in that comes this way
        return None
    return ip.partition("%")[0] if ip else None
