"""Sends a request that needs re-authentication to allauth's page for it, and afterwards carries out the request as sent."""

import json
from collections.abc import Callable

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.reauthentication import STATE_SESSION_KEY
from allauth.core.exceptions import ReauthenticationRequired
from allauth.core.internal.httpkit import serialize_request
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode

from portal.web.htmx import wants_fragment

# The parts of META that a view may need. Cookies and other headers are not stored: they have the session's key.
KEPT_META = (
    "CONTENT_TYPE",
    "CSRF_COOKIE",
    "HTTP_HOST",
    "HTTP_USER_AGENT",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
)


class ReauthenticationMiddleware:
    """Answer ReauthenticationRequired of a page, in place of allauth's middleware.

    allauth would store all headers with the suspended request, cookies included, and would lose a POST to an address
    with a query.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, ReauthenticationRequired):
            return None
        methods = get_adapter(request).get_reauthentication_methods(request.user)
        if not methods:
            return None
        then = request.get_full_path()
        if request.method == "POST":
            then = request.path  # allauth carries out the suspended request, with its query, if `next` is its path
            request.session[STATE_SESSION_KEY] = {"request": suspend(request)}
        address = f"{methods[0]['url']}?{urlencode({'next': then})}"
        if wants_fragment(request):
            return HttpResponse(status=403, headers={"HX-Redirect": address})
        return HttpResponseRedirect(address)


def suspend(request: HttpRequest) -> str:
    """Return the request as allauth stores it, without its cookies and most other headers."""
    state = json.loads(serialize_request(request))
    state["META"] = {name: value for name, value in state["META"].items() if name in KEPT_META}
    return json.dumps(state)
