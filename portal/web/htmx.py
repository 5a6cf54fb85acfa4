"""Renders a page, or only a fragment of it for htmx.

Both share one URL, one query and one context; only the template differs. An unchanged live fragment is answered 304:

- with a tag made of revisions (`make_tag`), before anything else is read (`answer_unchanged`)
- otherwise by the content of the fragment, which is rendered first
"""

import hashlib
import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.middleware import HtmxDetails

from portal import __version__
from portal.times import chosen_times

# The parts that only depend on the time: the text of <time> and the age of a block. portal.js keeps them current.
CLOCKS = re.compile(
    r"(?<=>)[^<>]*(?=</time>)|(?<=<p data-freshness-text>)[^<]*|(?<= data-at=\")[^\"]*"
    r"|(?<=name=\"csrfmiddlewaretoken\" value=\")[^\"]*"
)
AS_OF = re.compile(r" data-at=\"([^\"]*)\"")


def wants_fragment(request: HttpRequest) -> bool:
    """Return whether htmx requests a fragment. Boosted requests and history restores need the whole page."""
    headers = request.headers
    return (
        headers.get("HX-Request") == "true"
        and headers.get("HX-Boosted") != "true"
        and headers.get("HX-History-Restore-Request") != "true"
    )


def get_page_path(request: HttpRequest) -> str | None:
    """Return path and query of the page that sent an htmx request; None if it is not one of this origin.

    htmx names the page in HX-Current-URL. Other clients can forge this header, so the result is safe to redirect to.
    """
    return get_own_path(request, HtmxDetails(request).current_url)


def get_referring_path(request: HttpRequest) -> str | None:
    """Return path and query of the page whose form sent the request; None if it is not one of this origin."""
    return get_own_path(request, request.headers.get("Referer"))


def get_own_path(request: HttpRequest, address: str | None) -> str | None:
    """Return path and query of an address of this origin, safe to redirect to; None for any other."""
    try:
        url = urlsplit(address or "")
    except ValueError:
        return None
    if (url.scheme, url.netloc) != (request.scheme, request.get_host()):
        return None
    page = f"{url.path}?{url.query}" if url.query else url.path
    # A browser reads a path like //evil.example/ as another host.
    return page if url_has_allowed_host_and_scheme(page, allowed_hosts=None) else None


def make_tag(request: HttpRequest, fragment: str, *shown: object) -> str:
    """Return the ETag of a live fragment, from everything that decides its content.

    `fragment` names it among those of the address. `shown`: the revisions of the rows that it shows, the person's role, and
    so on. The address, the person and the release are always part of it. What only depends on the time is not:
    static/portal.js keeps it current.
    """
    whole = (__version__, request.get_full_path(), request.user.pk, chosen_times(), fragment, *shown)
    return f'W/"{hashlib.sha256(repr(whole).encode()).hexdigest()[:32]}"'


def answer_unchanged(
    request: HttpRequest, tag: str, *, times: str = "", as_of: datetime | None = None
) -> HttpResponse | None:
    """Return a 304 if the client has the fragment with this tag; None if it must be rendered.

    `times`: `name=time` pairs, separated by spaces, of the `<time data-name>` elements whose time has moved on. `as_of`:
    the time of the data, if it is not that of now.
    """
    if not wants_fragment(request) or request.headers.get("If-None-Match") != tag:
        return None
    response = HttpResponseNotModified()
    response["ETag"] = tag
    response["X-As-Of"] = (as_of or timezone.now()).isoformat()
    if times:
        response["X-Times"] = times
    return as_fragment(response)


def as_fragment(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["HX-Request", "HX-Target"])
    return response


def render_page(
    request: HttpRequest,
    page: str,
    fragment: str,
    context: dict[str, Any],
    *,
    status: int = 200,
    tag: str | None = None,
) -> HttpResponse:
    """Render `page`, or only `fragment` for an htmx request, with the same context.

    A fragment has an ETag: `tag`, or that of its content without its clocks. static/portal.js sends it back, and keeps the
    block as it is when it is answered 304: the browser itself may keep nothing. `tag` is also part of the context, so that
    the page says the tag of the fragment in it. The header X-As-Of has the time of the data, also on a 304.
    """
    context = context | {"tag": tag}
    if not wants_fragment(request):
        response = HttpResponse(render_to_string(page, context, request), status=status)
        patch_vary_headers(response, ["HX-Request"])
        return response
    body = render_to_string(fragment, context, request)
    etag = tag or f'W/"{hashlib.sha256(CLOCKS.sub("", body).encode()).hexdigest()[:32]}"'
    if status == 200 and request.headers.get("If-None-Match") == etag:
        response = HttpResponseNotModified()
    else:
        response = HttpResponse(body, status=status)
    response["ETag"] = etag
    as_of = AS_OF.search(body)
    if as_of:
        response["X-As-Of"] = as_of[1]
    return as_fragment(response)
