"""200 clients that never finish their request: others are answered, by gunicorn and through the proxy of the docs."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import listens, running_nginx, trust_anything
from tests.figures import print_line
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
    """Start nginx with the configuration of the docs. Both its web servers are the same one."""
    with running_nginx(tmp_path, gunicorn, gunicorn) as port:
        yield port


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


def test_silent_connections_hold_no_thread_of_gunicorn(request: pytest.FixtureRequest, gunicorn: int) -> None:
    with slow_clients(gunicorn, b""):
        longest = longest_answer(http.client.HTTPConnection, gunicorn)
    print_line(
        request, f"{SLOW_CLIENTS} silent connections to gunicorn: slowest of 20 answers {longest:.2f} s (goal 3 s)"
    )
    assert longest < 3


def test_half_requests_do_not_pass_the_proxy(request: pytest.FixtureRequest, nginx: int) -> None:
    tls = trust_anything()
    with slow_clients(nginx, b"", HALF_HEAD, HALF_BODY, tls=tls):
        longest = longest_answer(http.client.HTTPSConnection, nginx, context=tls)
    print_line(request, f"{SLOW_CLIENTS} half-open sockets at nginx: slowest of 20 answers {longest:.2f} s (goal 3 s)")
    assert longest < 3
