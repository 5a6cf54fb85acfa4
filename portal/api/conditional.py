"""ETag and 304 of JSON reads (RFC 9110): a client that has the present answer gets it confirmed without its body.

The tag of most reads is made of the body. That of a record which clients poll is made of the revisions of its rows
(`make_tag`), so that its 304 costs no more than reading those.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.cache import patch_vary_headers
from django.utils.http import parse_etags
from rest_framework.request import Request

from portal import __version__
from portal.api_token import get_present_token

# What a read depends on besides its address.
VARY = ("Cookie", "Authorization", "X-Organization")
# A browser keeps nothing of a session. Other clients may keep an answer, and ask before each use of it.
REVALIDATE = "private, no-cache"
# The form of records may differ between releases.
RELEASE = hashlib.sha256(__version__.encode()).hexdigest()[:8]
ABOUT_THE_BODY = ("content-type", "content-length")


def answer_conditionally(view: Callable[..., Any]) -> Callable[..., Any]:
    """Add an ETag to the view's 200 answers of GET and HEAD, and answer 304 if `If-None-Match` names it."""

    @wraps(view)
    def answer(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if request.method not in ("GET", "HEAD") or response.status_code != 200:
            return response  # type: ignore[no-any-return] # views have no common type
        if not getattr(response, "is_rendered", True):
            response.add_post_render_callback(lambda rendered: confirm(request, rendered))
            return response  # type: ignore[no-any-return] # the same
        return confirm(request, response)

    return answer


def confirm(request: Request, response: HttpResponse) -> HttpResponse:
    """Return the response with its ETag, or a 304 with the same headers.

    The tag is weak, because a proxy may compress the body. If the view has not made one, it follows from the body:
    everything that decides the body, such as the person's role, decides the tag.
    """
    tag = response.get("ETag") or f'W/"{hashlib.sha256(response.content).hexdigest()[:32]}"'
    response["ETag"] = tag
    patch_vary_headers(response, VARY)
    if get_present_token():
        response["Cache-Control"] = REVALIDATE
    if not is_named(tag, request.headers.get("If-None-Match")):
        return response
    unchanged = HttpResponseNotModified()
    for name, value in response.items():
        if name.lower() not in ABOUT_THE_BODY:
            unchanged[name] = value
    return unchanged


def make_tag(revisions: str) -> str:
    """Return the ETag of a record of this release, from the revisions of its rows, as text without quotes."""
    return f'W/"{RELEASE}-{revisions}"'


def find_known(request: Request) -> list[str]:
    """Return the revisions of which the client has a record of this release: those in the tags of `If-None-Match`."""
    named = (each.removeprefix("W/").strip('"') for each in parse_etags(request.headers.get("If-None-Match", "")))
    return [each.removeprefix(f"{RELEASE}-") for each in named if each.startswith(f"{RELEASE}-")]


def is_named(tag: str, condition: str | None) -> bool:
    """Return whether the `If-None-Match` names the tag, compared as RFC 9110 asks: weak tags equal strong ones."""
    if condition is None:
        return False
    known = parse_etags(condition)
    return "*" in known or tag.removeprefix("W/") in {each.removeprefix("W/") for each in known}
