"""The web process: `gunicorn portal.wsgi`."""

import io
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

from portal.local.exposure import DEMO_STAYS_HOME, is_loopback

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def refusing_odd_charsets(portal: Application) -> Application:
    """Answer 400 to a charset that Python knows but that is not a text encoding, such as zlib.

    Django accepts it and then fails below all middleware, where no error response is built. Django ignores a charset
    that Python does not know.
    """

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_text(environ.get("CONTENT_TYPE", "")):
            return portal(environ, start_response)
        detail = "The charset in Content-Type is not a text encoding. Use utf-8."
        return refuse("400 Bad Request", "bad_request", detail, start_response)

    return application


def reading_chunked_bodies(portal: Application) -> Application:
    """Read a chunked body and add the Content-Length that Django and REST framework rely on.

    Without it they treat the body as empty and skip its validation. Answer 413 to a body over the general size limit,
    and 411 if the web server does not decode chunks. A malformed chunk raises an error in the web server's reader,
    which gunicorn answers with 400.
    """

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.get("HTTP_TRANSFER_ENCODING"):
            return portal(environ, start_response)
        if not environ.get("wsgi.input_terminated"):
            return refuse("411 Length Required", "length_required", "Send a Content-Length.", start_response)
        body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            detail = "The request is larger than 1 MiB."
            return refuse("413 Content Too Large", "too_large", detail, start_response)
        counted = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return portal(environ | counted, start_response)

    return application


def refusing_other_machines(portal: Application) -> Application:
    """Answer 403 to requests from other machines with DEMO=1 or DEBUG=1, whatever the web server listens on."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")  # empty: a Unix socket
        if not settings.LOCAL or settings.DEMO_EXPOSED or not peer or is_loopback(peer):
            return portal(environ, start_response)
        return refuse("403 Forbidden", "demo_only_local", DEMO_STAYS_HOME, start_response)

    return application


def refuse(status: str, code: str, detail: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps({"detail": detail, "code": code}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def is_text(content_type: str) -> bool:
    _, parameters = parse_header_parameters(content_type)
    try:
        b"a".decode(parameters.get("charset", "utf-8"))
    except LookupError as error:
        return "not a text encoding" not in str(error)
    except UnicodeError:
        return True  # an encoding that cannot decode one byte (utf-16, utf-32) may still decode a body
    except ValueError:
        return False  # it contains a NUL
    return True


application = refusing_other_machines(refusing_odd_charsets(reading_chunked_bodies(get_wsgi_application())))
