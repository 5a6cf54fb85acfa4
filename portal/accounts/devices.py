"""Records when and from where each session was last used, for the list of devices."""

import hashlib
from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse

from portal import soft_cache
from portal.after_response import write_after_response

NOTED_SECONDS = 60


class DevicesMiddleware:
    """Record each session's use at most once a minute. Sign-in records it as well.

    Replaces allauth's middleware, which writes at every request: three queries and a transaction for each poll.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        key = request.session.session_key
        if key and request.user.is_authenticated and soft_cache.add(noted(key), seconds=NOTED_SECONDS):
            write_after_response(lambda: record_use(request))
        return self.get_response(request)


def record_use(request: HttpRequest) -> None:
    """Record the session's use, unless the request has ended it."""
    if request.user.is_authenticated:
        UserSession.objects.create_from_request(request)


def noted(session_key: str) -> str:
    """Return the cache key of a session, hashed so that the cache does not reveal session keys."""
    return f"device:{hashlib.sha256(session_key.encode()).hexdigest()}"
