"""`manage.py doctor`: what it says about the role of the application and about a pooler in between."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

pytestmark = pytest.mark.django_db


def ask(capsys: pytest.CaptureFixture[str]) -> str:
    with suppress(CommandError):
        call_command("doctor")
    return capsys.readouterr().out


def test_a_good_site_has_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys) == "All 4 checks passed.\n"


@pytest.mark.parametrize(
    ("role", "finding"),
    [
        ("postgres", "The role postgres is a superuser, so row-level security does not apply."),
        ("portal_owner", "The role of DATABASE_URL owns"),
    ],
)
def test_a_role_that_is_not_limited_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, role: str, finding: str
) -> None:
    monkeypatch.setitem(connection.settings_dict, "USER", role)

    with pytest.raises(CommandError):
        call_command("doctor")
    assert finding in capsys.readouterr().out


class Pooler:
    """A pooler in transaction mode: one connection to PostgreSQL, which a client has until its transaction ends."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.server: socket.socket | None = None
        self.greeting = b""
        self.turn = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError), client:
            startup = read(client, int.from_bytes(read(client, 4)) - 4)
            while startup[:4] != b"\0\3\0\0":  # a request for encryption comes first
                client.sendall(b"N")
                startup = read(client, int.from_bytes(read(client, 4)) - 4)
            server = self.connect(startup)
            client.sendall(self.greeting)
            while True:
                asked = self.read_request(client)
                with self.turn:
                    is_idle = False
                    while not is_idle:
                        server.sendall(asked)
                        is_idle = relay_answer(server, client)
                        asked = b"" if is_idle else self.read_request(client)

    def connect(self, startup: bytes) -> socket.socket:
        with self.turn:
            if self.server is None:
                self.server = socket.socket(socket.AF_UNIX)
                self.server.connect(f"{self.place}/.s.PGSQL.5432")
                self.server.sendall((len(startup) + 4).to_bytes(4) + startup)
                kind = b""
                while kind != b"Z":
                    kind, message = read_message(self.server)
                    self.greeting += message
            return self.server

    def read_request(self, client: socket.socket) -> bytes:
        """Return the messages up to the one that PostgreSQL answers: a simple query, or the end of an extended one."""
        kind, asked = b"", b""
        while kind not in (b"Q", b"S"):
            kind, message = read_message(client)
            if kind == b"X":
                raise EOFError
            asked += message
        return asked


def relay_answer(server: socket.socket, client: socket.socket) -> bool:
    """Return whether no transaction is open after the answer."""
    while True:
        kind, message = read_message(server)
        client.sendall(message)
        if kind == b"Z":
            return message[5:] == b"I"


def read_message(source: socket.socket) -> tuple[bytes, bytes]:
    kind, size = read(source, 1), read(source, 4)
    return kind, kind + size + read(source, int.from_bytes(size) - 4)


def read(source: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        part = source.recv(size - len(got))
        if not part:
            raise EOFError
        got += part
    return got


@pytest.fixture
def pooler() -> Iterator[Pooler]:
    made = Pooler(connection.settings_dict["OPTIONS"]["host"])
    yield made
    made.listener.close()
    if made.server:
        made.server.close()


def test_a_pooler_in_transaction_mode_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pooler: Pooler
) -> None:
    named: dict[str, Any] = connection.settings_dict
    monkeypatch.setitem(named, "HOST", "127.0.0.1")
    monkeypatch.setitem(named, "PORT", str(pooler.port))
    monkeypatch.setitem(named, "OPTIONS", {name: each for name, each in named["OPTIONS"].items() if name != "host"})

    assert "a pooler in transaction mode is in between" in ask(capsys)
