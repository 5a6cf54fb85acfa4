"""A database that is locked, read-only or away: reads answer, writes are 503, and the log has one line."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from portal.models import User
from portal.outages import forget_outages
from portal.schedule import Schedule
from tests.conftest import PASSWORD, Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import ROOT, LocalAws
from tests.portal.isolation_table import HTMX, TENANT, Place, ask, make_place, undone
from tests.processes import worker_environment

SignIn = Callable[[User], Client]

SHOW = """
from django.db import connection
with connection.cursor() as cursor:
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        cursor.execute(f"SHOW {name}")
        print(cursor.fetchone()[0], end=" ")
"""


@pytest.fixture
def place(cast: Cast, platform: LocalAws) -> Place:
    return make_place(cast, cast.acme)


def set_read_only() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")


@pytest.mark.parametrize(
    ("command", "limits"),
    [([], "5s 2s 10s"), (["manage.py", "shell"], "0 5s 0")],
    ids=["web", "command"],
)
def test_each_process_has_limits(db: None, command: list[str], limits: str) -> None:
    env = worker_environment()
    del env["DATABASE_STATEMENT_SECONDS"], env["DATABASE_IDLE_SECONDS"]
    code = SHOW if command else f"import django; django.setup(){SHOW}"

    shown = subprocess.run([sys.executable, *command, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)

    assert shown.stdout.strip().endswith(limits), shown.stderr


# --- a connection that was closed ------------------------------------------------------------------------------------


def close_from_outside() -> None:
    """Let the server end this thread's connection, as it does when it restarts."""
    pid = connection.connection.info.backend_pid
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    finally:
        other.close()


@pytest.mark.django_db(transaction=True)
def test_a_request_survives_a_closed_connection(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    close_from_outside()

    assert client.get("/o/acme/agents/").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_closed_is_made_again() -> None:
    connection.close()  # an older one may be past CONN_MAX_AGE, and is then closed for its age
    connection.ensure_connection()

    def is_kept() -> bool:
        connection.close_if_unusable_or_obsolete()
        connection.close_if_health_check_failed()
        return connection.connection is not None

    before = is_kept()
    close_from_outside()

    assert (before, is_kept()) == (True, False)


# --- locked ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hold(transactional_db: None) -> Iterator[Callable[[Any], None]]:
    """Lock rows of a query until the test ends. The portal waits for a lock for a moment only."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
    other = connection.copy("other")
    other.set_autocommit(False)

    def lock(row: Any) -> None:
        with other.cursor() as cursor:
            table = row._meta.db_table
            cursor.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [row.pk])  # noqa: S608 - a model's table

    yield lock
    other.close()
    connection.close()


def test_a_locked_deployment_can_be_read_and_not_changed(
    cast: Cast, platform: LocalAws, client_for: SignIn, hold: Callable[[Any], None]
) -> None:
    deployment = make_deployment(cast, make_agent(cast), "ready")
    page = f"/o/acme/deployments/{deployment.pk}/"
    api = f"/api/v1/deployments/{deployment.pk}"
    client = client_for(cast.operator)
    hold(deployment)

    reads = [client.get(path) for path in (page, "/o/acme/deployments/", api)]
    fragment = client.get(page, headers=HTMX | {"HX-Target": "state"})
    writes = [
        client.post(f"{api}/scale", json.dumps({"replicas": 3}), content_type="application/json"),
        client.post(f"{page}scale", {"replicas": "3", "idempotency_key": "k"}),
        client.post(f"{page}scale", {"replicas": "3", "idempotency_key": "k"}, headers=HTMX),
    ]

    assert [answer.status_code for answer in [*reads, fragment]] == [200] * 4
    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in writes] == [(503, "5")] * 3
    assert writes[0].json()["code"] == "locked"
    assert "Something else holds what this needs." in writes[1].content.decode()
    deployment.refresh_from_db()
    assert deployment.watched_until is None


def test_a_trigger_of_a_locked_organization_is_503(
    cast: Cast, platform: LocalAws, client_for: SignIn, hold: Callable[[Any], None]
) -> None:
    hold(cast.acme)

    answer = client_for(cast.operator).post(
        "/api/v1/deployments/upgrade", json.dumps({"service": "agent"}), content_type="application/json"
    )

    assert (answer.status_code, answer.json()["code"]) == (503, "locked")


# --- read-only -------------------------------------------------------------------------------------------------------


def test_every_get_works_on_a_read_only_database(cast: Cast, place: Place, client_for: SignIn) -> None:
    client = client_for(cast.admin)
    failed = []
    for row in (row for row in TENANT if row.get):
        with undone():
            set_read_only()
            status = ask(client, row, "get", place).status_code
        if status not in (200, 302):
            failed.append((row.route, status))
    for path in ("/", "/account/", "/readyz"):
        with undone():
            set_read_only()
            status = client.get(path).status_code
        if status not in (200, 302):
            failed.append((path, status))

    assert failed == []


def test_every_write_is_503_on_a_read_only_database(cast: Cast, place: Place, client_for: SignIn) -> None:
    client = client_for(cast.admin)
    wrong = []
    for row in TENANT:
        for method in row.sends:
            with undone():
                set_read_only()
                answer = ask(client, row, method, place)
            if answer.status_code != 503 or "Retry-After" not in answer.headers:
                wrong.append((method, row.route, answer.status_code))

    assert wrong == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("auth/reauthenticate", {"password": PASSWORD}), ("auth/logout", {}), ("auth/login", {"password": PASSWORD})],
)
def test_a_session_that_cannot_be_stored_is_503(
    cast: Cast, client_for: SignIn, path: str, body: dict[str, str]
) -> None:
    client = client_for(cast.viewer)
    if path == "auth/login":
        client, body = Client(), body | {"email": cast.viewer.email}
    client.raise_request_exception = False  # outside of the views

    with undone():
        set_read_only()
        answer = client.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json")

    assert (answer.status_code, answer.json()["code"]) == (503, "read_only")
    assert answer.headers["Retry-After"] == "5"


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def database_away(transactional_db: None) -> Iterator[None]:
    forget_outages()
    connection.close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(connection.settings_dict["OPTIONS"], "host", "/nowhere")
        yield


def test_an_outage_is_one_line_in_the_log(database_away: None, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "a" * 32

    answers = [client.get(path) for path in ("/", "/o/acme/", "/api/v1/upgrades", "/api/v1/deployments") * 2]
    Schedule(settings.SCHEDULE).run_due()

    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(503, "5")}
    assert "dependency_down" in answers[0].content.decode()
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (line.getMessage(), line.exc_info) == ("database does not serve: OperationalError", None)


def test_writes_to_a_read_only_database_are_one_line_in_the_log(
    cast: Cast, place: Place, client_for: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_for(cast.operator)
    forget_outages()
    url = f"/api/v1/deployments/{place.deployments['ready']}"
    for command, body in (("stop", "{}"), ("scale", '{"replicas": 3}')):
        with undone():
            set_read_only()
            answer = client.post(f"{url}/{command}", body, content_type="application/json")
            assert (answer.status_code, answer.json()["code"]) == (503, "read_only")

    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in lines] == ["database does not serve: ReadOnlySqlTransaction"]
