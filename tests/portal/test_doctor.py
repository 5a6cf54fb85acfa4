"""`manage.py doctor`: what it says about a site that is set up wrongly, and that nothing that hangs holds it up."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from redis import Redis

from portal.celery import app
from portal.doctor.database import connect
from portal.doctor.parts import SMTP
from portal.doctor.run import CHECKS
from tests.conftest import Cast
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def good_site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the site the time-outs of production, and the heartbeats of its processes."""
    limits = {"DATABASE_STATEMENT_SECONDS": 5.0, "DATABASE_LOCK_SECONDS": 2.0, "DATABASE_IDLE_SECONDS": 10.0}
    for name, seconds in limits.items():
        setattr(settings, name, seconds)
    set_options(
        monkeypatch, "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000"
    )


@pytest.fixture
def beating() -> Iterator[None]:
    """Let a scheduler and a worker be alive. `doctor` reads past the transaction of the test."""
    with connect() as raw:
        raw.execute("INSERT INTO portal_heartbeat SELECT unnest(ARRAY['scheduler', 'worker']), now()")
        yield
        raw.execute("DELETE FROM portal_heartbeat")


def set_options(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", options)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """Return the lines of `doctor` that are not `ok`, by the name of their check."""
    with suppress(CommandError):
        call_command("doctor", *arguments)
    found: dict[str, str] = {}
    for line in capsys.readouterr().out.splitlines():
        level, _, rest = line.partition(" ")
        if level in ("warning", "problem"):
            name = rest.strip().partition(":")[0]
            found[name] = f"{found.get(name, '')}{line}\n"
    return found


@pytest.mark.usefixtures("beating")
def test_a_good_site_has_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("doctor")

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [
        "warning  settings: DEMO=1: the people's passwords and the key are published. "
        "Remove DEMO on a site with real data.",
        "0 problems, 1 warnings.",
    ]
    assert len(lines) == len(CHECKS) + 1


@pytest.mark.parametrize(
    ("role", "findings"),
    [
        ("postgres", {"role": "a superuser", "permissions": "TRUNCATE in"}),
        ("portal_owner", {"owner": "The role of DATABASE_URL owns", "permissions": "TRUNCATE in"}),
        ("portal_maintenance", {"permissions": "call portal_audit_prune", "processes": "permission denied"}),
    ],
)
def test_a_role_that_is_not_limited_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, role: str, findings: dict[str, str]
) -> None:
    monkeypatch.setitem(connection.settings_dict, "USER", role)

    found = ask(capsys)
    for name, text in findings.items():
        assert text in found[name]
        assert found[name].startswith("problem")


def test_a_problem_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError):  # no process is alive
        call_command("doctor")
    assert "problem  processes: The worker was never heard of." in capsys.readouterr().out


def test_time_outs_that_do_not_arrive_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    set_options(monkeypatch, "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=10000")

    assert "PostgreSQL's lock_timeout is 0 s, and DATABASE_LOCK_SECONDS is 2 s." in ask(capsys)["time-outs"]

    settings.DATABASE_LOCK_SECONDS = 0
    assert "DATABASE_LOCK_SECONDS is 0, so PostgreSQL never ends" in ask(capsys)["time-outs"]


def test_missing_migrations_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    named = ("portal", "0001_initial")
    with connect() as raw:
        raw.execute("DELETE FROM django_migrations WHERE (app, name) = (%s, %s)", named)
        raw.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('portal', '9999_newer', now())")
        try:
            with suppress(CommandError):
                call_command("doctor")
        finally:
            raw.execute("DELETE FROM django_migrations WHERE name = '9999_newer'")
            raw.execute("INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, now())", named)

    out = capsys.readouterr().out
    assert "problem  migrations: Not applied: portal.0001_initial." in out
    assert "warning  migrations: The tables are newer than this release: portal.9999_newer." in out


@pytest.fixture
def silent_address() -> Iterator[tuple[str, int]]:
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def test_what_hangs_does_not_hang_doctor(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    silent_address: tuple[str, int],
) -> None:
    host, port = silent_address
    set_place(monkeypatch, host, port)
    for name in ("broker_url", "broker_read_url", "broker_write_url"):
        monkeypatch.setitem(app.conf, name, f"redis://{host}:{port}/0")
    settings.CACHES = {"default": {"BACKEND": "portal.cache.RedisCache", "LOCATION": f"redis://{host}:{port}"}}
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = SMTP, host, port

    found = ask(capsys, "--seconds=0.5")

    assert found.keys() == {"database", "broker", "cache", "e-mail", "settings"}
    assert all("There is no answer within 0.5 s." in found[name] for name in ("database", "e-mail"))


def test_a_redis_that_refuses_writes_when_full_is_named(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    path = os.environ["CELERY_BROKER_URL"].removeprefix("redis+socket://").partition("?")[0]
    settings.CACHES = {"default": {"BACKEND": "portal.cache.RedisCache", "LOCATION": f"unix://{path}?db=1"}}
    with Redis(unix_socket_path=path) as redis:
        assert "cache" not in ask(capsys)

        redis.config_set("maxmemory", "4gb")
        try:
            assert "Redis refuses writes when its memory is full" in ask(capsys)["cache"]
        finally:
            redis.config_set("maxmemory", "0")


PRODUCTION = {
    "DEMO": False,
    "LOCAL": False,
    "SECRET_KEY": "x" * 60,
    "ALLOWED_HOSTS": ["*"],
    "PORTAL_URL": "http://portal.example",
    "DEFAULT_FROM_EMAIL": "portal@localhost",
    "METRICS_TOKEN": "short",
    "EMAIL_HOST_PASSWORD": "unsaid-1",
    "CELERY_BROKER_URL": "redis://redis.example/0",
}


def test_settings_that_are_not_safe_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    for name, value in PRODUCTION.items():
        setattr(settings, name, value)
    set_place(monkeypatch, "192.0.2.1", 5432)  # an address that no one has

    with suppress(CommandError):
        call_command("doctor")

    out = capsys.readouterr().out
    for text in (
        "problem  settings: Your SECRET_KEY has less than 50 characters",
        "problem  settings: ALLOWED_HOSTS accepts every name.",
        "warning  settings: PORTAL_URL is not https.",
        "warning  settings: DEFAULT_FROM_EMAIL is portal@localhost",
        "warning  settings: METRICS_TOKEN can be guessed.",
        "warning  settings: The password of the mail server is sent unencrypted.",
        "warning  settings: The connection of CELERY_BROKER_URL is not encrypted.",
        "warning  settings: The connection to PostgreSQL is not surely encrypted",
        "warning  settings: TRUSTED_PROXY_COUNT is 0",
    ):
        assert text in out
    assert "unsaid-1" not in out


@pytest.mark.usefixtures("registry")
def test_aws_is_asked_only_on_request(capsys: pytest.CaptureFixture[str], platform: LocalAws, cast: Cast) -> None:
    assert not ask(capsys).keys() & {"AWS", "AWS clock"}

    call = f"{cast.acme.slug}: the portal may read what it needs."
    with suppress(CommandError):
        call_command("doctor", "--aws")
    assert call in capsys.readouterr().out


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
                    self.relay(server, client, asked)

    def relay(self, server: socket.socket, client: socket.socket, asked: bytes) -> None:
        """Relay messages and answers until PostgreSQL is idle."""
        server.sendall(asked)
        while not relay_answer(server, client):
            server.sendall(self.read_request(client))

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
    set_place(monkeypatch, "127.0.0.1", pooler.port)

    assert "a pooler in transaction mode is in between" in ask(capsys)["pooler"]


def set_place(monkeypatch: pytest.MonkeyPatch, host: str, port: int) -> None:
    """Connect the next connections to this address."""
    named: dict[str, Any] = connection.settings_dict
    monkeypatch.setitem(named, "HOST", host)
    monkeypatch.setitem(named, "PORT", str(port))
    monkeypatch.setitem(named, "OPTIONS", {name: each for name, each in named["OPTIONS"].items() if name != "host"})
