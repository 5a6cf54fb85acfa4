"""Records the activity of sessions. Activity keeps a session from ending, and the list of devices shows it.

Every request counts, so an open page that refreshes itself and an API client stay signed in (static/portal.js refreshes
no hidden page). The writes happen after the response is sent, so that no one waits for them.
"""

from collections.abc import Callable
from typing import cast

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse

from portal.accounts.sessions import SessionStore
from portal.after_response import write_after_response


class DevicesMiddleware:
    """Store the activity of signed-in sessions, at most once in sessions.ACTIVITY_SECONDS for each.

    Replaces allauth's middleware, which writes at every request: three queries and a transaction for each poll.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated and get_store(request).is_activity_due:
            write_after_response(lambda: store_activity(request))
        return response


def store_activity(request: HttpRequest) -> None:
    """Store the activity, unless the request ended its session. If that fails, the next request tries again."""
    session = get_store(request)
    if not session.session_key or not request.user.is_authenticated:
        return
    if session.store_activity():
        UserSession.objects.create_from_request(request)


def get_store(request: HttpRequest) -> SessionStore:
    """Return the request's session, which SessionMiddleware has set."""
    return cast(SessionStore, request.session)
