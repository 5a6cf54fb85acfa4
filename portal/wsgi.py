"""The web process: `gunicorn portal.wsgi`."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def refusing_odd_charsets(portal: Application) -> Application:
    """Answer 400 to a charset that Python knows but that is none of text, such as zlib.

    Django takes it and fails below all middleware, where nobody gives the error a shape. One that Python does not know
    is ignored by Django.
    """

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_text(environ.get("CONTENT_TYPE", "")):
            return portal(environ, start_response)
        detail = "The charset in Content-Type is no encoding of text; use utf-8."
        body = json.dumps({"detail": detail, "code": "bad_request"}).encode()
        start_response("400 Bad Request", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def is_text(content_type: str) -> bool:
    _, parameters = parse_header_parameters(content_type)
    try:
        b"a".decode(parameters.get("charset", "utf-8"))
    except LookupError as error:
        return "not a text encoding" not in str(error)
    except UnicodeError:
        return True  # what cannot decode this one byte (utf-16, utf-32) may still decode a body
    except ValueError:
        return False  # it holds a NUL
    return True


application = refusing_odd_charsets(get_wsgi_application())
