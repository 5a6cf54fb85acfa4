"""Renders a page, or only a fragment of it for htmx.

Both share one URL, one query and one context; only the template differs. An unchanged live fragment is answered 304.
"""

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.middleware import HtmxDetails

# The parts that only depend on the time: the text of <time> and the age of a block. portal.js keeps them current.
CLOCKS = re.compile(r"(?<=>)[^<>]*(?=</time>)|(?<=<p data-freshness-text>)[^<]*|(?<= data-at=\")[^\"]*")
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


def render_page(
    request: HttpRequest, page: str, fragment: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """Render `page`, or only `fragment` for an htmx request, with the same context.

    A fragment has an ETag of its content without its clocks. static/portal.js sends it back, and keeps the block as it is
    when unchanged content is answered 304: the browser itself may keep nothing. The header X-As-Of has the time of the
    data, also on a 304.
    """
    if not wants_fragment(request):
        response = HttpResponse(render_to_string(page, context, request), status=status)
    else:
        body = render_to_string(fragment, context, request)
        etag = f'W/"{hashlib.sha256(CLOCKS.sub("", body).encode()).hexdigest()[:32]}"'
        if status == 200 and request.headers.get("If-None-Match") == etag:
            response = HttpResponseNotModified()
        else:
            response = HttpResponse(body, status=status)
        response["ETag"] = etag
        as_of = AS_OF.search(body)
        if as_of:
            response["X-As-Of"] = as_of[1]
        response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["HX-Request"])
    return response
