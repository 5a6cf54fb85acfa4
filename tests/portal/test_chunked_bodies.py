"""Bodies without a Content-Length, through a real gunicorn: they are read like any other body, never as empty."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.test import Client

from deployments.models import Agent, Deployment
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent
from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "t" * 32
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
EMPTY = b"0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    cookies: tuple[str, ...]

    @property
    def code(self) -> str:
        return str(json.loads(self.text)["code"])


@dataclass
class Web:
    """A gunicorn started as by `make up`, with one person's session."""

    port: int
    cookie: str = f"csrftoken={TOKEN}"

    def sign_in(self, client: Client) -> None:
        self.cookie += f"; sessionid={client.cookies['sessionid'].value}"

    def head(self, method: str, path: str, *headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Cookie: {self.cookie}", f"X-CSRFToken: {TOKEN}"]
        return "\r\n".join([*lines, *headers, "", ""]).encode()

    def send(self, *requests: bytes) -> list[Answer]:
        """Send requests over one connection, and read each response before the next request."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            return [answer_to(connection, request) for request in requests]

    def chunked(self, method: str, path: str, body: str, content_type: str = JSON) -> bytes:
        """Return a request whose body is in chunks of seven bytes."""
        data = body.encode()
        pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = self.head(method, path, "Transfer-Encoding: chunked", f"Content-Type: {content_type}")
        return head + chunks + EMPTY

    def counted(self, method: str, path: str, body: str, content_type: str = JSON) -> bytes:
        """Return the same request with a Content-Length."""
        head = self.head(method, path, f"Content-Length: {len(body.encode())}", f"Content-Type: {content_type}")
        return head + body.encode()


def answer_to(connection: socket.socket, request: bytes) -> Answer:
    connection.sendall(request)
    response = http.client.HTTPResponse(connection, method=request.split()[0].decode())
    response.begin()
    cookies = tuple(sorted(cookie.partition("=")[0] for cookie in response.headers.get_all("Set-Cookie", [])))
    return Answer(response.status, response.read().decode(), cookies)


@pytest.fixture(scope="module")
def gunicorn(django_db_setup: None, local_aws_server: LocalAws) -> Iterator[int]:
    port = free_port()
    command = ["gunicorn", "portal.wsgi", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--log-level", "error"], cwd=ROOT, env=worker_environment()
    )
    wait_for(lambda: answers(port))
    yield port
    process.terminate()
    process.wait(timeout=30)


def answers(port: int) -> bool:
    try:
        return Web(port).send(Web(port).head("GET", "/livez"))[0].status == 200
    except OSError:
        return False


@pytest.fixture
def web(gunicorn: int, platform: LocalAws, cast: Cast, client_for: Callable[[User], Client]) -> Web:
    """Return a gunicorn with the session of acme's operator."""
    web = Web(gunicorn)
    web.sign_in(client_for(cast.operator))
    return web


@pytest.fixture
def agent(cast: Cast) -> Agent:
    return make_agent(cast)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/agents/{agent}/deploy", '{"replicas": 50}'),
        ("POST", "/api/v1/deployments", '{"agent_id": "{agent}", "replicas": 50}'),
        ("PATCH", "/api/v1/agents/{agent}", '{"cpu": 7}'),
        ("POST", "/api/v1/deployments/upgrade", '{"service": "agent", "replicas": 50}'),
        ("POST", "/api/v1/auth/login", '{"email": "operator@example.com"}'),
        ("POST", "/api/v1/auth/logout", '{"everywhere": true}'),
        ("POST", "/agents/{agent}/deploy", "{"),
    ],
)
def test_a_forbidden_chunked_body_is_refused(web: Web, agent: Agent, method: str, path: str, body: str) -> None:
    path, body = (text.replace("{agent}", str(agent.pk)) for text in (path, body))

    chunked, counted = web.send(web.chunked(method, path, body), web.counted(method, path, body))

    assert (chunked.status, chunked.text) == (400, counted.text)
    assert not Deployment.objects.exists()


@pytest.fixture
def with_real_password(cast: Cast) -> None:
    """Use the product's password hasher. A gunicorn with the product's settings does not know the tests' hasher."""
    cast.operator.password = PBKDF2PasswordHasher().encode(cast.password, "salt", 1)
    cast.operator.save(update_fields=["password"])


@pytest.mark.usefixtures("with_real_password")
def test_a_chunked_body_signs_in(web: Web, cast: Cast) -> None:
    body = json.dumps({"email": cast.operator.email, "password": cast.password})

    [answer] = web.send(web.chunked("POST", "/api/v1/auth/login", body))

    assert (answer.status, answer.cookies) == (200, ("csrftoken", "sessionid"))


@pytest.mark.usefixtures("with_real_password")
@pytest.mark.parametrize("kind", ["chunked", "counted"])
def test_a_chunked_form_signs_in(gunicorn: int, platform: LocalAws, cast: Cast, kind: str) -> None:
    web = Web(gunicorn)
    form = f"login={cast.operator.email}&password={cast.password}"

    [answer] = web.send(getattr(web, kind)("POST", "/accounts/login/", form, FORM))

    assert (answer.status, "sessionid" in answer.cookies) == (302, True)


@pytest.mark.parametrize("kind", ["chunked", "counted"])
@pytest.mark.parametrize("media_type", [FORM, "text/plain", ""])
def test_a_body_of_another_media_type_is_415(web: Web, agent: Agent, kind: str, media_type: str) -> None:
    [answer] = web.send(getattr(web, kind)("POST", f"/agents/{agent.pk}/deploy", "replicas=50", media_type))

    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_chunks_without_a_body_are_no_body(web: Web, agent: Agent) -> None:
    read, deployed = web.send(
        web.chunked("GET", "/api/v1/deployments", ""), web.chunked("POST", f"/agents/{agent.pk}/deploy", "")
    )

    assert (read.status, deployed.status) == (200, 201)


def test_chunks_over_one_mebibyte_are_413(web: Web, agent: Agent) -> None:
    size = 1024 * 1024 + 1
    body = b'{"a": "' + b"x" * size + b'"}'
    head = web.head("POST", f"/agents/{agent.pk}/deploy", "Transfer-Encoding: chunked", f"Content-Type: {JSON}")

    [answer] = web.send(head + b"%x\r\n%s\r\n" % (len(body), body) + EMPTY)

    assert (answer.status, answer.code) == (413, "too_large")
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Transfer-Encoding: chunked", "Content-Length: 0"], EMPTY, 400),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"2\r\n{}\r\n" + EMPTY, 400),
        (["Transfer-Encoding: identity"], b"{}", 400),
        (["Transfer-Encoding: gzip"], b"{}", 400),
        (["Transfer-Encoding: chunked"], b"nonsense\r\n{}\r\n" + EMPTY, 400),
        (["Transfer-Encoding: chunked"], b"2\r\n{}x\r\n" + EMPTY, 400),
    ],
)
def test_a_body_of_unclear_length_deploys_nothing(
    web: Web, agent: Agent, headers: list[str], body: bytes, status: int
) -> None:
    [answer] = web.send(web.head("POST", f"/agents/{agent.pk}/deploy", *headers, f"Content-Type: {JSON}") + body)

    assert answer.status == status
    assert not Deployment.objects.exists()


def test_truncated_chunks_deploy_nothing(web: Web, agent: Agent) -> None:
    head = web.head("POST", f"/agents/{agent.pk}/deploy", "Transfer-Encoding: chunked", f"Content-Type: {JSON}")
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        connection.sendall(head + b"2\r\n{}\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    assert not Deployment.objects.exists()
