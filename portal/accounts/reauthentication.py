"""Sends a request that needs re-authentication to allauth's page for it, and afterwards carries out the request as sent."""

import json
from collections.abc import Callable

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.reauthentication import STATE_SESSION_KEY
from allauth.account.utils import get_next_redirect_url
from allauth.core.exceptions import ReauthenticationRequired
from allauth.core.internal.httpkit import deserialize_request, serialize_request
from allauth.core.internal.urlkit import script_aware_resolve
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode

from portal.access import refuse
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

    allauth would store all headers with the suspended request, cookies included, would lose a POST to an address with a
    query, and would carry it out without what AccessMiddleware does.
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
            then = request.path  # `resume` carries out the suspended request, with its query, if `next` is its path
            request.session[STATE_SESSION_KEY] = {"callback": f"{__name__}.resume", "state": suspend(request)}
        address = f"{methods[0]['url']}?{urlencode({'next': then})}"
        if wants_fragment(request):
            return HttpResponse(status=403, headers={"HX-Redirect": address})
        return HttpResponseRedirect(address)


def suspend(request: HttpRequest) -> str:
    """Return the request as allauth stores it, without passwords, its cookies and most other headers.

    Staff may set a password for a person whom they add together with a membership. They type it again.
    """
    state = json.loads(serialize_request(request))
    posted = request.POST.copy()
    for name in [each for each in posted if "password" in each]:
        del posted[name]
    state["POST"] = posted.urlencode()
    state["META"] = {name: value for name, value in state["META"].items() if name in KEPT_META}
    return json.dumps(state)


def resume(request: HttpRequest, suspended: str) -> HttpResponse | None:
    """Carry out the suspended request if the page led back to it. allauth calls this once the person is confirmed."""
    then = get_next_redirect_url(request)
    if not then:
        return None
    again = deserialize_request(suspended, request)
    if again.path != then:
        return HttpResponseRedirect(then)
    found = script_aware_resolve(again.path)
    return refuse(again, found.func) or found.func(again, *found.args, **found.kwargs)
