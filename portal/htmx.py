"""PAGE OR FRAGMENT, decided in one place.

One URL, one query, one context; only the template differs. A live fragment whose content has not changed costs a 304.
"""

import hashlib
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers


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

    A fragment carries an ETag over its content; the same content again is answered 304 and htmx leaves the page alone.
    """
    if not wants_fragment(request):
        response = HttpResponse(render_to_string(page, context, request), status=status)
    else:
        body = render_to_string(fragment, context, request)
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        if status == 200 and request.headers.get("If-None-Match") == etag:
            response = HttpResponseNotModified()
        else:
            response = HttpResponse(body, status=status)
        response["ETag"] = etag
        response["Cache-Control"] = "private, no-cache"
    patch_vary_headers(response, ["HX-Request"])
    return response
