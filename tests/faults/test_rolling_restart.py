"""Web servers restart one after the other behind a load balancer that reads /readyz: no request is refused."""

import http.client
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import running_nginx, trust_anything
from tests.figures import print_line
from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

DRAIN_SECONDS = 2
POLL_SECONDS = 0.3


class Server:
    """A web server started with the command of the docs."""

    def __init__(self, drain_seconds: int = DRAIN_SECONDS, port: int | None = None) -> None:
        self.port = port or free_port()
        command = ["gunicorn", "-c", "python:portal.gunicorn_conf", "portal.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        env = worker_environment() | {"WEB_PROCESSES": "1", "WEB_DRAIN_SECONDS": str(drain_seconds)}
        self.process = subprocess.Popen([sys.executable, "-m", *command, "--log-level", "error"], cwd=ROOT, env=env)

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": "127.0.0.1"})
            return connection.getresponse().status
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz") == 200
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


class Balancer:
    """Sends each request to the next server that was ready at the last poll, without a retry."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers, self.ready = servers, list(servers)
        self.answers: list[int | str] = []
        self.turns = itertools.count()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.poll)]
        self.threads += [threading.Thread(target=self.send_requests) for _ in range(3)]

    def poll(self) -> None:
        while not self.stopping.wait(POLL_SECONDS):
            self.ready = [server for server in self.servers if server.is_ready()]

    def send_requests(self) -> None:
        while not self.stopping.wait(0.01):
            ready = self.ready
            server = ready[next(self.turns) % len(ready)]
            try:
                self.answers.append(server.get("/accounts/login/"))
            except OSError as error:
                self.answers.append(repr(error))

    def replace(self, old: Server, new: Server) -> None:
        self.servers[self.servers.index(old)] = new
        wait_for(lambda: new in self.ready)


@pytest.fixture
def start(local_aws_server: LocalAws) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server and waits until it is ready."""
    started: list[Server] = []

    def start_server(**options: int) -> Server:
        started.append(Server(**options))
        wait_for(started[-1].is_ready)
        return started[-1]

    yield start_server
    for server in started:
        server.process.kill()
        server.process.wait()


def test_a_rolling_restart_refuses_no_request(request: pytest.FixtureRequest, start: Callable[..., Server]) -> None:
    old = [start(), start()]
    balancer = Balancer(old)
    for thread in balancer.threads:
        thread.start()

    for server in old:
        assert server.stop() == 0
        balancer.replace(server, start())
    balancer.stopping.set()
    for thread in balancer.threads:
        thread.join()

    refused = [answer for answer in balancer.answers if answer != 200]
    print_line(request, f"rolling restart of 2 web servers: {len(balancer.answers)} requests, refused {len(refused)}")
    assert len(balancer.answers) > 100
    assert refused == []


class Client:
    """Reads a page and sends a form through the proxy, again and again, on three threads."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[int | str] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.send_requests) for _ in range(3)]

    def send_requests(self) -> None:
        tls = trust_anything()
        methods = itertools.cycle(["GET", "POST"])
        while not self.stopping.wait(0.01):
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=30)
            try:
                connection.request(next(methods), "/accounts/login/", headers={"Host": "127.0.0.1"})
                self.answers.append(connection.getresponse().status)
            except OSError as error:
                self.answers.append(repr(error))
            finally:
                connection.close()


def test_a_release_behind_nginx_refuses_no_page_and_no_form(
    request: pytest.FixtureRequest, start: Callable[..., Server], tmp_path: Path
) -> None:
    """nginx does not know that a web server drains: it asks the other one when the first does not listen any more."""
    servers = [start(), start()]
    with running_nginx(tmp_path, *(server.port for server in servers)) as port:
        client = Client(port)
        for thread in client.threads:
            thread.start()

        for server in servers:
            assert server.stop() == 0
            start(port=server.port)
        client.stopping.set()
        for thread in client.threads:
            thread.join()

    # 403: the form comes without its CSRF token.
    refused = [answer for answer in client.answers if answer not in (200, 403)]
    print_line(request, f"rolling restart behind nginx: {len(client.answers)} requests, refused {len(refused)}")
    assert len(client.answers) > 100
    assert set(client.answers) == {200, 403}, (tmp_path / "error.log").read_text()


def test_a_stopping_server_is_unready_and_still_serves(start: Callable[..., Server]) -> None:
    server = start()
    began = time.monotonic()

    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.get("/readyz") == 503, seconds=DRAIN_SECONDS)

    assert (server.get("/accounts/login/"), server.get("/livez")) == (200, 200)
    assert server.process.wait(timeout=30) == 0
    assert time.monotonic() - began >= DRAIN_SECONDS


def test_a_second_signal_stops_a_draining_server(start: Callable[..., Server]) -> None:
    server = start(drain_seconds=600)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.get("/readyz") == 503)

    assert server.stop() == 0
