"""The address of the client that sent the current request, for the audit trail."""

from collections.abc import Callable
from contextvars import ContextVar

from allauth.core.internal.httpkit import get_client_ip
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

client_ip_var: ContextVar[str | None] = ContextVar("client_ip", default=None)


class ClientIpMiddleware:
    """Keep the client's address while the request is answered."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = client_ip_var.set(read_client_ip(request))
        try:
            return self.get_response(request)
        finally:
            client_ip_var.reset(token)


def read_client_ip(request: HttpRequest) -> str | None:
    """Return the client's address as the proxies of TRUSTED_PROXY_COUNT give it; None if that is not an address."""
    try:
        ip: str | None = get_client_ip(request)
    except ImproperlyConfigured:  # fewer proxies than the setting says: allauth refuses a sign-in that comes this way
        return None
    return ip.partition("%")[0] if ip else None
