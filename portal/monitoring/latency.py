"""Measures the requests, by the name of their route and the class of their status."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from portal.monitoring.counters import REQUEST_SECONDS, observe_seconds

# Requests that reach no route: static files, /livez and /readyz, unknown addresses.
UNMATCHED = "unmatched"


class LatencyMiddleware:
    """Count each request with the seconds until its response began.

    A streamed body is not part of them, nor the time that a client asked to wait for (upgrades/api/waiting.py).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        route = match.view_name if match else UNMATCHED
        status = f"{response.status_code // 100}xx"
        seconds = time.perf_counter() - began - getattr(request, "waited_seconds", 0.0)
        observe_seconds(REQUEST_SECONDS, route, status, seconds=seconds)
        return response
