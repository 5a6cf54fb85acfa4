"""The WSGI application, with requests that make Django itself fail."""

import io
import json
import sys
from types import SimpleNamespace
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from portal import gunicorn_conf
from portal.local.exposure import on_starting
from portal.wsgi import application

pytestmark = pytest.mark.django_db


def call(
    path: str, content_type: str = "", *, peer: str = "127.0.0.1", method: str = "GET"
) -> tuple[str, dict[str, str], bytes]:
    """Return status, headers and body of a request."""
    answered: list[Any] = []
    environ: dict[str, Any] = {"PATH_INFO": path, "CONTENT_TYPE": content_type, "wsgi.input": io.BytesIO()}
    environ |= {"REMOTE_ADDR": peer, "HTTP_HOST": "testserver", "REQUEST_METHOD": method}
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


@pytest.mark.parametrize("path", ["/livez", "/accounts/login/", "/nothing", "/api/v1/auth/session"])
def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    status, headers, body = call(path, method="HEAD")
    same = call(path)

    assert (status, body) == (same[0], b"")
    assert abs(int(headers["Content-Length"]) - len(same[2])) < 100  # the time and the token of a page differ


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "2001:db8::1"])
def test_a_demo_refuses_other_machines(peer: str, settings: Any) -> None:
    status, _, body = call("/livez", peer=peer)
    assert (status, json.loads(body)["code"]) == ("403 Forbidden", "demo_only_local")

    settings.DEMO_EXPOSED = True
    assert call("/livez", peer=peer)[0] == "200 OK"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
def test_a_demo_answers_this_machine(peer: str) -> None:
    assert call("/livez", peer=peer)[0] == "200 OK"


@pytest.mark.parametrize("address", [("0.0.0.0", 8000), ("10.0.0.7", 8000), ("::", 8000), ("portal.example", 80)])  # noqa: S104 - refused
def test_a_demo_does_not_listen_on_other_addresses(address: tuple[str, int], settings: Any) -> None:
    loopback = [("127.0.0.1", 8000), ("localhost", 8000), ("::1", 8000), "/run/portal.sock"]
    on_starting(SimpleNamespace(address=loopback))

    with pytest.raises(SystemExit, match="DEMO_EXPOSED=1"):
        on_starting(SimpleNamespace(address=[*loopback, address]))

    settings.DEMO_EXPOSED = True
    on_starting(SimpleNamespace(address=[address]))


def test_a_worker_lets_short_requests_run_between_long_ones() -> None:
    before = sys.getswitchinterval()
    try:
        gunicorn_conf.post_worker_init(None)
        assert sys.getswitchinterval() <= 0.001
    finally:
        sys.setswitchinterval(before)
