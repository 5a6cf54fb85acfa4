"""The audit trail cannot be rewritten: the database refuses it, and the chain shows what was done past the triggers."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client

from portal import tasks, tenancy
from portal.audit import record
from portal.audit_chain import claim_verification
from portal.models import AuditEvent, AuditKind, AuditVerification, Organization
from tests.conftest import Cast
from tests.portal.conftest import acting_as, without_triggers

ALTER = "UPDATE portal_auditevent SET {column} = {value} WHERE id = {id}"
DELETE = "DELETE FROM portal_auditevent WHERE id = {id}"
# Alter a row and compute its hash again.
FORGE = """
    UPDATE portal_auditevent SET subject = 'forged' WHERE id = {id};
    UPDATE portal_auditevent event SET hash = portal_audit_hash(event) WHERE id = {id}"""
# What a superuser can do past the triggers, by the sentence that names it. Row 3 of acme's chain is {id}.
TAMPERING = {
    "row 3 (audit id {id}) was altered": ALTER,
    "row 3 is missing": DELETE,
    "row 5 is missing": "DELETE FROM portal_auditevent WHERE position = 5 AND organization_id IS NOT NULL",
    "row 6 (audit id 999999) was inserted": """
        INSERT INTO portal_auditevent (id, organization_id, kind, actor_email, subject, data, request_id, position,
            previous_hash, hash)
        SELECT 999999, organization_id, kind, actor_email, subject, data, request_id, 6, hash, hash
        FROM portal_auditevent WHERE position = 5 AND organization_id IS NOT NULL""",
    "row 4 (audit id {next_id}) was inserted or replaced": FORGE,
}
ALTERED = {
    "organization_id": None,  # it is then missing in its chain
    "kind": "'upgrade.ended'",
    "actor_id": "NULL",
    "actor_email": "'else@example.com'",
    "subject": "'u-else'",
    "data": """'{"reason": "else"}'""",
    "request_id": "'else'",
    "client_ip": "'192.0.2.9'",
    "created_at": "created_at + interval '1 microsecond'",
    "hash": "repeat('0', 64)",
}


@pytest.fixture
def rows(cast: Cast) -> list[AuditEvent]:
    """Return five rows of acme, between rows of the site."""
    kind, data = AuditKind.UPGRADE_TRIGGERED, {"reason": "OPS-1 — ünïcode", "n": 1}
    made = []
    for number in range(5):
        record(AuditKind.SIGNED_IN, organization=None, actor=cast.admin, subject=cast.admin.email)
        made.append(record(kind, organization=cast.acme, actor=cast.operator, subject=f"u-{number}", data=data))
    return made


def tamper(sql: str, row: AuditEvent, **names: Any) -> None:
    with without_triggers():
        connection.cursor().execute(sql.format(id=row.pk, **names))


def verify(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `manage.py verify_audit` prints."""
    try:
        call_command("verify_audit")
    except CommandError:
        return capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE portal_auditevent SET subject = 'else' WHERE position = 1",
        "DELETE FROM portal_auditevent WHERE position = 1",
        "TRUNCATE portal_auditevent",
        "TRUNCATE portal_organization CASCADE",
    ],
)
def test_the_database_refuses_to_change_a_row(rows: list[AuditEvent], statement: str) -> None:
    before = list(AuditEvent.objects.order_by("pk").values())

    with (
        acting_as("postgres"),
        pytest.raises(DatabaseError, match="never changed or deleted"),
        transaction.atomic(),
    ):
        connection.cursor().execute(statement)

    assert list(AuditEvent.objects.order_by("pk").values()) == before


def test_the_database_makes_the_link_whatever_is_given(cast: Cast, rows: list[AuditEvent]) -> None:
    forged = {"position": 1, "previous_hash": "a" * 64, "hash": "b" * 64}
    given = {"kind": "agent.created", "actor_email": "system", "subject": "a-1", "request_id": "", **forged}

    made = AuditEvent.objects.create(organization=cast.acme, **given)

    made.refresh_from_db()
    assert (made.position, made.previous_hash) == (6, rows[4].hash)
    assert len({made.hash, "b" * 64, *(row.hash for row in rows)}) == 7


def test_each_organization_has_its_own_chain(cast: Cast, rows: list[AuditEvent]) -> None:
    other = record(AuditKind.AGENT_CREATED, organization=cast.globex, actor=None, subject="a-1")

    of_the_site = AuditEvent.objects.filter(organization=None).order_by("position")
    assert [row.position for row in rows] == [1, 2, 3, 4, 5]
    assert [row.position for row in of_the_site] == [1, 2, 3, 4, 5]
    assert [row.previous_hash for row in rows] == ["", *(row.hash for row in rows[:4])]
    assert (other.position, other.previous_hash) == (1, "")


def test_a_hash_can_be_computed_outside_of_the_database(rows: list[AuditEvent]) -> None:
    row = rows[2]
    with connection.cursor() as cursor:
        cursor.execute("SELECT portal_audit_text(event) FROM portal_auditevent event WHERE id = %s", [row.pk])
        (text,) = cursor.fetchone()

    assert hashlib.sha256(text.encode()).hexdigest() == row.hash
    assert json.loads(text)[:4] == ["audit/1", str(row.organization_id), 3, rows[1].hash]


def test_an_untouched_trail_is_verified(cast: Cast, rows: list[AuditEvent], capsys: Any) -> None:
    said = verify(capsys)

    assert f"acme: 5 {rows[4].hash}" in said
    assert "10 rows in 4 chains: nothing altered, missing or inserted." in said
    stored = AuditVerification.objects.get()
    assert (stored.rows, stored.chains, stored.findings) == (10, 4, [])


@pytest.mark.django_db(transaction=True)
def test_concurrent_writers_make_one_chain(cast: Cast, capsys: Any) -> None:
    def write(organization: Organization) -> None:
        for number in range(20):
            with tenancy.organizations(organization.pk), transaction.atomic():
                record(AuditKind.AGENT_CREATED, organization=organization, actor=None, subject=f"a-{number}")
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [cast.acme, cast.acme, cast.globex, cast.acme]))

    assert "80 rows in 4 chains: nothing altered, missing or inserted." in verify(capsys)


@pytest.mark.parametrize(("sentence", "sql"), TAMPERING.items())
def test_verify_audit_names_the_first_broken_row(rows: list[AuditEvent], capsys: Any, sentence: str, sql: str) -> None:
    tamper(sql, rows[2], column="subject", value="'u-else'")

    assert f"acme: {sentence.format(id=rows[2].pk, next_id=rows[3].pk)}" in verify(capsys)


@pytest.mark.parametrize("column", sorted({f.column for f in AuditEvent._meta.fields} - {"id", "position"}))
def test_every_column_is_part_of_the_hash(rows: list[AuditEvent], capsys: Any, column: str) -> None:
    values = {"previous_hash": "repeat('0', 64)", **ALTERED}
    tamper(ALTER, rows[2], column=column, value=values[column] or "NULL, position = 99")

    broken = "is missing" if column == "organization_id" else f"(audit id {rows[2].pk}) was altered"
    assert f"acme: row 3 {broken}" in verify(capsys)


def test_a_forged_end_of_a_chain_is_found(rows: list[AuditEvent], capsys: Any) -> None:
    tamper(FORGE, rows[4])

    assert "acme: row 5 is not the one that was written last" in verify(capsys)


def test_the_scheduler_verifies_once_a_day(rows: list[AuditEvent], client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = "token"
    tamper(DELETE, rows[2])

    first, again = claim_verification(), claim_verification()
    tasks.verify_audit()
    tomorrow = "UPDATE portal_auditverification SET {0} = {0} - interval '25 hours'"
    connection.cursor().execute(tomorrow.format("started_at"))
    done = claim_verification()
    connection.cursor().execute(tomorrow.format("finished_at"))

    assert (first, again, done, claim_verification()) == (True, False, False, True)
    metrics = client.get("/metrics", headers={"Authorization": "Bearer token"}).content.decode()
    assert "portal_audit_broken_chains 1.0" in metrics
    assert AuditVerification.objects.get().findings[0]["sentence"] == "acme: row 3 is missing"
