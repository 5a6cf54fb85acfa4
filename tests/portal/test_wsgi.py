"""The WSGI application, with requests that make Django itself fail."""

import io
import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from portal.wsgi import application

pytestmark = pytest.mark.django_db


def call(path: str, content_type: str) -> tuple[str, dict[str, str], bytes]:
    """Return status, headers and body of a GET."""
    answered: list[Any] = []
    environ: dict[str, Any] = {"PATH_INFO": path, "CONTENT_TYPE": content_type, "wsgi.input": io.BytesIO()}
    environ |= {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "testserver"}
    setup_testing_defaults(environ)
    body = application(environ, lambda *answer: answered.extend(answer))
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return answered[0], dict(answered[1]), content


@pytest.mark.parametrize("charset", ["zlib", '"ZLIB"', "rot13", "base64", "hex", "utf-8\x00"])
@pytest.mark.parametrize("path", ["/livez", "/api/v1/auth/session"])
def test_a_charset_that_is_not_text_is_400(path: str, charset: str) -> None:
    status, headers, body = call(path, f"text/html; charset={charset}")

    assert (status, headers["Content-Type"]) == ("400 Bad Request", "application/json")
    assert json.loads(body)["code"] == "bad_request"


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "undefined", "idna", "no-such", "", "é"])
def test_any_other_charset_is_answered(charset: str) -> None:
    status, _, _ = call("/livez", f"text/html; charset={charset}")

    assert status == "200 OK"
