"""200 clients that never finish their request: others are answered, by gunicorn and through the proxy of the docs."""

import contextlib
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

SLOW_CLIENTS = 200
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: portal.example\r\n"
HALF_BODY = b"POST /accounts/login/ HTTP/1.1\r\nHost: portal.example\r\nContent-Length: 9\r\n\r\n"


@pytest.fixture(scope="module")
def gunicorn(django_db_setup: None, local_aws_server: LocalAws) -> Iterator[int]:
    """Start the web server with the command of the docs, and return its port."""
    port = free_port()
    env = worker_environment() | {"WEB_DRAIN_SECONDS": "0", "ALLOWED_HOSTS": "portal.example", "DEMO_EXPOSED": "1"}
    command = ["gunicorn", "-c", "python:portal.gunicorn_conf", "portal.wsgi", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([sys.executable, "-m", *command, "--log-level", "error"], cwd=ROOT, env=env)
    wait_for(lambda: listens(port))
    for _ in range(2):  # each process compiles its templates at the first requests
        longest_answer(http.client.HTTPConnection, port)
    yield port
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def nginx(gunicorn: int, tmp_path: Path) -> Iterator[int]:
    """Start nginx with the configuration of the docs, on a free port and with a certificate of its own."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("nginx or openssl is not installed")
    port, key, certificate = free_port(), tmp_path / "portal.key", tmp_path / "portal.crt"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=portal.example", "-days", "1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    text = (ROOT / "docs/deploy/nginx.conf").read_text()
    for here, there in {
        "127.0.0.1:8000": f"127.0.0.1:{gunicorn}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/portal.crt": str(certificate),
        "/etc/nginx/portal.key": str(key),
    }.items():
        assert text.count(here) == 1
        text = text.replace(here, there)
    (tmp_path / "nginx.conf").write_text(re.sub(r"http \{", f"http {{\n{write_paths(tmp_path)}", text))
    directives = f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;"
    process = subprocess.Popen(["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", directives])
    wait_for(lambda: listens(port))
    yield port
    process.terminate()
    process.wait(timeout=30)


def write_paths(directory: Path) -> str:
    """Return the directives that keep nginx's files in the folder."""
    names = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return "access_log off;\n" + "\n".join(f"{name}_temp_path {directory}/{name};" for name in names)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def slow_clients(port: int, *sent: bytes, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Open connections that send the beginning of a request and then wait."""
    with contextlib.ExitStack() as stack:
        for number in range(SLOW_CLIENTS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            if tls:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(sent[number % len(sent)])
        yield


def longest_answer(connect: type[http.client.HTTPConnection], port: int, **options: ssl.SSLContext) -> float:
    """Return the seconds of the slowest of twenty requests. All must be answered with 200."""
    seconds = []
    for path in ["/livez", "/accounts/login/"] * 10:
        began = time.monotonic()
        connection = connect("127.0.0.1", port, timeout=30, **options)
        connection.request("GET", path, headers={"Host": "portal.example"})
        assert connection.getresponse().status == 200
        connection.close()
        seconds.append(time.monotonic() - began)
    return max(seconds)


def test_silent_connections_hold_no_thread_of_gunicorn(gunicorn: int) -> None:
    with slow_clients(gunicorn, b""):
        assert longest_answer(http.client.HTTPConnection, gunicorn) < 3


def test_half_requests_do_not_pass_the_proxy(nginx: int) -> None:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with slow_clients(nginx, b"", HALF_HEAD, HALF_BODY, tls=tls):
        assert longest_answer(http.client.HTTPSConnection, nginx, context=tls) < 3
