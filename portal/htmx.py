"""PAGE OR FRAGMENT, decided in one place.

One URL, one query, one context; only the template differs. A live fragment whose content has not changed costs a 304.
"""

import hashlib
import re
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers

# What tells the time and nothing else: the words in <time> and how fresh a block is. portal.js keeps them true.
CLOCKS = re.compile(r"(?<=>)[^<>]*(?=</time>)|(?<=<p data-freshness-text>)[^<]*|(?<= data-at=\")[^\"]*")
AS_OF = re.compile(r" data-at=\"([^\"]*)\"")


def wants_fragment(request: HttpRequest) -> bool:
    """An htmx request for a part of the page: not one that is boosted or restores history."""
    headers = request.headers
    return (
        headers.get("HX-Request") == "true"
        and headers.get("HX-Boosted") != "true"
        and headers.get("HX-History-Restore-Request") != "true"
    )


def render_page(
    request: HttpRequest, page: str, fragment: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """Render `page`, or only `fragment` for an htmx request, with the same context.

    A fragment carries an ETag over its content without its clocks; the same content again is answered 304, and the
    browser gives htmx what it has kept. How fresh that is stands in X-As-Of, which a 304 renews.
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
        response["Cache-Control"] = "private, no-cache"
    patch_vary_headers(response, ["HX-Request"])
    return response
