"""/health and /readyz while PostgreSQL and Redis accept connections and never answer."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)


class Line:
    """Passes TCP connections on to a Unix socket, until it hangs."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.flows = threading.Event()
        self.flows.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.path)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pass_on, args=[source, target], daemon=True).start()

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    self.flows.wait()
                    target.sendall(data)
            except OSError:
                return


@pytest.fixture
def lines() -> Iterator[dict[str, Line]]:
    database = connection.settings_dict
    redis = os.environ["CELERY_BROKER_URL"].removeprefix("redis+socket://").partition("?")[0]
    lines = {
        "postgres": Line(f"{database['OPTIONS']['host']}/.s.PGSQL.{database['PORT'] or 5432}"),
        "redis": Line(redis),
    }
    yield lines
    for line in lines.values():
        line.flows.set()
        line.listener.close()


@pytest.fixture
def web(lines: dict[str, Line], local_aws_server: LocalAws) -> Iterator[int]:
    database, port = connection.settings_dict, free_port()
    redis = f"redis://127.0.0.1:{lines['redis'].port}/0"
    env = worker_environment() | {
        "DATABASE_URL": f"postgresql://{database['USER']}@127.0.0.1:{lines['postgres'].port}/{database['NAME']}",
        "CELERY_BROKER_URL": redis,
        "CACHE_URL": redis,
        "WEB_PROCESSES": "1",
        "WEB_DRAIN_SECONDS": "0",
    }
    command = ["gunicorn", "-c", "python:portal.gunicorn_conf", "portal.wsgi", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([sys.executable, "-m", *command, "--log-level", "error"], cwd=ROOT, env=env)
    wait_for(lambda: answers(port))
    yield port
    process.terminate()
    process.wait(timeout=30)


def answers(port: int) -> bool:
    try:
        return ask(port, "/health")[1]["checks"]["aws"] == "healthy"
    except OSError:
        return False


def ask(port: int, path: str) -> tuple[int, Any]:
    web = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        web.request("GET", path, headers={"Host": "127.0.0.1"})
        answer = web.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        web.close()


def test_health_answers_within_a_second_whatever_hangs(web: int, lines: dict[str, Line]) -> None:
    assert ask(web, "/readyz")[0] == 200
    for name in ("postgres", "redis"):
        lines[name].flows.clear()

    for path in ("/readyz", "/health", "/readyz", "/health"):
        began = time.monotonic()
        status, body = ask(web, path)

        assert (status, time.monotonic() - began < 1.5) == (503, True)
    assert (body["checks"]["database"], body["checks"]["broker"]) == ("unhealthy", "unhealthy")
    assert ask(web, "/livez")[0] == 200

    for name in ("postgres", "redis"):
        lines[name].flows.set()
    wait_for(lambda: ask(web, "/readyz")[0] == 200)
