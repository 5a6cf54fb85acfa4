"""What has served its time is deleted: sessions, idempotency keys, and audit rows once they are exported."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from portal import tasks
from portal.audit import record
from portal.audit_chain import verify
from portal.models import ApiToken, AuditCheckpoint, AuditEvent, AuditKind, IdempotencyKey, TokenKind, User
from tests.conftest import Cast
from tests.embedded import MAINTENANCE
from tests.portal.conftest import acting_as, without_triggers

SignIn = Callable[[User], Client]


def let_sessions_age(**age: int) -> None:
    for session in Session.objects.all():
        session.expire_date -= timedelta(**age)
        session.save()


def test_expired_sessions_are_deleted_with_their_devices(cast: Cast, client: Client) -> None:
    client.post("/accounts/login/", {"login": cast.operator.email, "password": cast.password})
    devices = cast.operator.usersession_set.count()
    let_sessions_age(hours=13)

    tasks.delete_expired_sessions()

    assert (devices, cast.operator.usersession_set.count(), Session.objects.count()) == (1, 0, 0)


def test_idempotency_keys_are_deleted_after_their_days(cast: Cast) -> None:
    for days in (89, 91):
        key = {"organization": cast.acme, "user": cast.operator, "key": str(days), "subject": "u-1"}
        IdempotencyKey.objects.create(fingerprint="", created_at=timezone.now() - timedelta(days=days), **key)

    tasks.delete_old_idempotency_keys()

    assert IdempotencyKey.objects.get().key == "89"


def test_tokens_are_deleted_ninety_days_after_their_end(cast: Cast) -> None:
    ends = {"long expired": (-91, None), "revoked": (1, -89), "old": (1, -91), "expired": (-89, None)}
    for name, (expires, revoked) in ends.items():
        ApiToken.objects.create(
            organization=cast.acme,
            user=cast.operator,
            kind=TokenKind.PERSONAL,
            name=name,
            secret_hash=name,
            scopes=[],
            expires_at=timezone.now() + timedelta(days=expires),
            revoked_at=timezone.now() + timedelta(days=revoked) if revoked else None,
        )

    tasks.delete_ended_tokens()

    assert set(ApiToken.objects.values_list("name", flat=True)) == {"revoked", "expired"}


# --- audit ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def old_and_new(cast: Cast) -> None:
    """Write six rows of acme and two of the site, of which the older half is 500 days old."""
    for age in (500, 500, 500, 1, 1, 1):
        row = {"kind": AuditKind.AGENT_CREATED, "actor_email": "system", "request_id": "", "subject": "ünïcode"}
        AuditEvent.objects.create(organization=cast.acme, created_at=timezone.now() - timedelta(days=age), **row)
    for age in (500, 1):
        row = {"kind": AuditKind.SIGNED_IN, "actor_email": "a@example.com", "request_id": "", "subject": "a"}
        AuditEvent.objects.create(created_at=timezone.now() - timedelta(days=age), **row)


def prune(file: Path, *arguments: str) -> None:
    with acting_as(MAINTENANCE):
        call_command("prune_audit", "--export", str(file), *arguments)


@pytest.mark.usefixtures("old_and_new")
def test_old_audit_rows_are_exported_and_deleted(cast: Cast, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "audit.ndjson"
    hashes = list(AuditEvent.objects.filter(position__lte=3, organization=cast.acme).values_list("hash", flat=True))

    prune(file)

    lines = file.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert sorted((event[1], event[2]) for event in events) == [
        *((str(cast.acme.pk), position) for position in (1, 2, 3)),
        ("site", 1),
    ]
    for line in lines:  # an auditor checks a line as it is
        begin, _, text = line.partition(', "event": ')
        assert hashlib.sha256(text.removesuffix("}").encode()).hexdigest() == json.loads(f"{begin}}}")["hash"]
    kept = cast.acme.audit_events.order_by("position")
    assert list(kept.values_list("position", "kind")) == [(n, "agent.created") for n in (4, 5, 6)] + [
        (7, "audit.pruned")
    ]
    checkpoint = AuditCheckpoint.objects.get(chain=cast.acme.pk)
    assert (checkpoint.position, checkpoint.hash in hashes, checkpoint.rows) == (3, True, 3)
    assert checkpoint.export_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600
    assert verify().findings == []
    assert "4 rows exported" in capsys.readouterr().out


@pytest.mark.usefixtures("old_and_new")
def test_verification_begins_at_the_checkpoint(cast: Cast, tmp_path: Path) -> None:
    prune(tmp_path / "first.ndjson")
    prune(tmp_path / "second.ndjson")  # nothing more is that old
    with acting_as("postgres"):
        with pytest.raises(DatabaseError, match="never changed or deleted"), transaction.atomic():
            AuditEvent.objects.filter(position=4).delete()
        with pytest.raises(DatabaseError, match="never changed or deleted"), transaction.atomic():
            AuditCheckpoint.objects.all().delete()

    assert not (tmp_path / "second.ndjson").exists()
    assert (verify().rows, verify().findings) == (6, [])


@pytest.mark.usefixtures("old_and_new")
@pytest.mark.parametrize("why", ["the file exists", "a chain is broken", "the rows are too young"])
def test_nothing_is_deleted_unless_all_is_well(cast: Cast, tmp_path: Path, why: str) -> None:
    file, arguments = tmp_path / "audit.ndjson", []
    if why == "the file exists":
        file.write_text("an earlier export")
    elif why == "a chain is broken":
        with without_triggers():
            AuditEvent.objects.filter(position=5).update(subject="else")
    else:
        arguments = ["--before", f"{timezone.now():%Y-%m-%d}"]

    with pytest.raises(CommandError):
        prune(file, *arguments)

    assert AuditEvent.objects.count() == 8
    assert not AuditCheckpoint.objects.exists()


@pytest.mark.usefixtures("old_and_new")
def test_the_function_deletes_only_what_was_exported(cast: Cast) -> None:
    last = cast.acme.audit_events.get(position=3)
    sha = "a" * 64
    for up_to, its_hash, rows, checksum in ((3, last.hash, 2, sha), (4, last.hash, 4, sha), (3, last.hash, 3, "")):
        arguments = [str(cast.acme.pk), up_to, its_hash, rows, checksum]
        with (
            acting_as(MAINTENANCE),
            pytest.raises(DatabaseError, match="the export does not hold"),
            transaction.atomic(),
        ):
            connection.cursor().execute("SELECT portal_audit_prune(%s, %s, %s, %s, %s)", arguments)

    assert cast.acme.audit_events.count() == 6


# --- the application's role -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE portal_auditevent SET subject = ''",
        "DELETE FROM portal_auditevent",
        "TRUNCATE portal_auditevent",
        "ALTER TABLE portal_auditevent DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "UPDATE portal_auditchain SET position = 0",
        "INSERT INTO portal_auditcheckpoint (chain, position, hash, rows, export_sha256) VALUES ('site', 9, '', 0, '')",
        "SELECT portal_audit_prune('site', 1, '', 1, '')",
    ],
)
def test_the_application_may_not_rewrite(cast: Cast, statement: str) -> None:
    record(AuditKind.AGENT_CREATED, organization=cast.acme, actor=None, subject="a-0")

    with pytest.raises(DatabaseError, match=r"permission denied|must be owner"), transaction.atomic():
        connection.cursor().execute(statement)
