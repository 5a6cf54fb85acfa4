"""The evidence of an upgrade: one document, as JSON and as a printable page."""

import hashlib
import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from portal.audit import record
from portal.models import AuditEvent, AuditKind, User
from tests.conftest import Cast, Engine, audited_changes
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, UPGRADE, Validator, assert_refused, make_upgrade
from upgrades.api.evidence import audit_rows
from upgrades.checks.validation import open_missing_matrices
from upgrades.commands.sign import sign_check
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade, UpgradeCheck, UpgradeEvent
from upgrades.states import CheckStatus, EventKind, MatrixRow, Status

SignIn = Callable[[User], Client]
transactional = pytest.mark.django_db(transaction=True)
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def take(client: Client, upgrade: Upgrade) -> dict[str, Any]:
    response = client.get(f"{UPGRADE}/{upgrade.upgrade_id}/evidence")
    assert response.status_code == 200, response.content
    return dict(response.json())


def page(client: Client, upgrade: Upgrade) -> str:
    response = client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/evidence")
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def compute_sum(document: dict[str, Any]) -> str:
    """Compute the checksum as an auditor does, from the document itself."""
    facts = {name: value for name, value in document.items() if name not in ("sha256", "generated_at")}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def times(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [time for key, each in value.items() for time in times(each, key)]
    if isinstance(value, list):
        return [time for each in value for time in times(each, name)]
    return [value] if name.endswith("_at") and value is not None else []


@transactional
def test_it_holds_the_whole_upgrade(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws, client_for: SignIn
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-orchestrator-service")
    upgrade = engine.run(
        trigger_upgrade(cast.acme, actor=cast.operator, service="all", force_new_deployment=True, reason="Ünit OPS-1")
    )
    validator.step()
    sign_check(upgrade, actor=cast.admin, check="sign_in", status=CheckStatus.PASS, note="Signed in.")

    document = take(client_for(cast.viewer), upgrade)

    assert (document["upgrade_id"], document["actor"], document["status"]) == (
        upgrade.upgrade_id,
        cast.operator.email,
        "PARTIAL",
    )
    assert document["organization"] == {"slug": "acme", "name": "Acme Robotics", "environment": cast.acme.environment}
    asked = {name: document["request"][name] for name in ("service", "version", "force_new_deployment", "reason")}
    assert asked == {"service": "all", "version": "latest", "force_new_deployment": True, "reason": "Ünit OPS-1"}
    agent, orchestrator, portal = document["services"]
    assert [each["outcome"] for each in document["services"]] == ["completed", "rolled_back", "not_attempted"]
    assert agent["from_version"] == "v9.9.0"
    assert agent["service_deployment_arn"].startswith("arn:aws:ecs:")
    assert orchestrator["stopped_tasks"][0]["exit_code"] == 1
    assert portal["deployment_id"] is None
    kinds = [event["kind"] for event in document["timeline"] if event["kind"] != "ecs"]
    assert (kinds[0], kinds[-1]) == ("upgrade.triggered", "check.recorded")
    assert any(event["kind"] == "ecs" for event in document["timeline"])
    assert [check["check"] for check in document["checks"]] == MatrixRow.values
    (signed,) = (check for check in document["checks"] if check["checked_by"])
    assert (signed["check"], signed["checked_by"], signed["note"]) == ("sign_in", cast.admin.email, "Signed in.")
    audited = AuditEvent.objects.filter(subject=upgrade.upgrade_id).order_by("pk")
    assert [(row["id"], row["kind"]) for row in document["audit"]] == [(event.pk, event.kind) for event in audited]
    assert {row["kind"] for row in document["audit"]} == {
        *("upgrade.triggered", "upgrade.ended", "upgrade.check_signed"),
    }
    assert document["audit"][0]["data"] == audited[0].data != {}
    assert orchestrator["stopped_tasks"][0]["stopped_at"]
    assert document["preflight"]
    assert [time for time in times(document) if not UTC.fullmatch(time)] == []
    assert document["sha256"] == compute_sum(document)


@transactional
def test_the_checksum_changes_only_with_the_facts(
    cast: Cast, engine: Engine, validator: Validator, client_for: SignIn
) -> None:
    upgrade = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True))
    client = client_for(cast.viewer)
    first, second = take(client, upgrade), take(client, upgrade)
    assert first["generated_at"] != second["generated_at"]
    assert first["sha256"] == second["sha256"]
    assert first["sha256"] in page(client, upgrade)

    sign_check(upgrade, actor=cast.admin, check="sign_in", status=CheckStatus.PASS)

    third = take(client, upgrade)
    assert third["sha256"] == compute_sum(third) != first["sha256"]


def test_an_open_upgrade_has_evidence_that_says_so(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    stop_upgrade(upgrade, actor=cast.admin)
    client = client_for(cast.viewer)

    document = take(client, upgrade)

    assert (document["status"], document["checks"], document["request"]["completed_at"]) == ("IN_PROGRESS", [], None)
    assert document["stop"]["requested_by"] == cast.admin.email
    assert "has not ended, so this evidence is incomplete" in page(client, upgrade)


def test_it_holds_preflight_and_override(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, override_reason="The probe is behind the VPN.")
    UpgradeCheck.objects.create(
        organization=cast.acme,
        upgrade=upgrade,
        stage="preflight",
        name="agent_health",
        position=6,
        status="fail",
        detail="The agent service did not answer.",
        evidence={"url": "https://agent.example.com/health"},
        checked_at=upgrade.created_at,
    )
    client = client_for(cast.viewer)

    document = take(client, upgrade)

    assert document["override_reason"] == "The probe is behind the VPN."
    assert [(check["check"], check["status"]) for check in document["preflight"]] == [("agent_health", "fail")]
    text = page(client, upgrade)
    assert "The probe is behind the VPN." in text
    assert "The agent service did not answer." in text


def test_the_environment_is_the_one_at_the_trigger(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)
    assert take(client, upgrade)["organization"]["environment"] == cast.acme.environment

    UpgradeCheck.objects.create(
        organization=cast.acme,
        upgrade=upgrade,
        stage="preflight",
        name="environment",
        position=0,
        status="pass",
        evidence={"environment": "staging-then"},
        checked_at=upgrade.created_at,
    )

    assert take(client, upgrade)["organization"]["environment"] == "staging-then"
    assert "Acme Robotics, staging-then. Generated" in page(client, upgrade)


def test_times_of_the_previous_release_end_in_z(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    stopped = {"id": "1", "reason": "Gone.", "exit_code": 1}
    at = "2026-11-01T10:00:00.500000+00:00"
    upgrade.rollouts.update(stopped_tasks=[stopped | {"stopped_at": at}, stopped | {"stopped_at": None}])

    first, second = take(client_for(cast.viewer), upgrade)["services"][0]["stopped_tasks"]

    assert first == stopped | {"stopped_at": "2026-11-01T10:00:00.500000Z"}
    assert second["stopped_at"] is None


def test_it_holds_what_a_rollback_returns_to(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    arn = "arn:aws:ecs:eu-central-1:111111111111:task-definition/acme-agent:7"
    upgrade.rollouts.update(wanted_task_definition=arn)
    client = client_for(cast.viewer)

    assert take(client, upgrade)["services"][0]["wanted_task_definition"] == arn
    assert arn in page(client, upgrade)


def test_the_page_uses_the_words_of_the_other_pages(cast: Cast, client_for: SignIn) -> None:
    """An auditor does not know the codes of the API, and prints the page without its footer."""
    upgrade = make_upgrade(
        cast.acme, by=cast.operator, target="all", statuses=[Status.SUCCESS, Status.FAILED, Status.SKIPPED]
    )
    upgrade.rollouts.get(service="orchestrator").delete()
    open_missing_matrices()
    for kind in (EventKind.REVISION_REGISTERED, EventKind.ENDED):
        UpgradeEvent.objects.create(organization=cast.acme, upgrade=upgrade, kind=kind, message="Said.")
    record(
        AuditKind.UPGRADE_ROLLBACK_TRIGGERED,
        organization=cast.acme,
        actor=cast.operator,
        subject=upgrade.upgrade_id,
        data={"rolls_back": "upgrade-before"},
    )

    text = re.sub(r"<[^>]+>|\s+", " ", page(client_for(cast.viewer), upgrade))
    text = re.sub(r"\s+", " ", text)

    for said in (
        "agent service and customer portal to",
        "Success : Completed",
        "Revision registered : Said.",
        "Rollback triggered rolls back: upgrade-before",
        "UTC. All times are in UTC.",
    ):
        assert said in text.replace("Success: Completed", "Success : Completed"), (said, text)
    for code in ("IN_PROGRESS", "SUCCESS", "rollout.revision_registered", "upgrade.rollback_triggered", " unknown "):
        assert code not in text, code


def test_it_holds_no_facts_of_other_upgrades(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    other = make_upgrade(cast.acme, by=cast.operator, target="orchestrator", reason="another")
    open_missing_matrices()
    UpgradeEvent.objects.create(organization=cast.acme, upgrade=other, kind=EventKind.ENDED, message="another ended")

    assert "another" not in json.dumps(take(client_for(cast.viewer), upgrade))


def test_the_page_links_to_the_json_and_escapes_text(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, reason="<script>alert(1)</script>")

    response = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/evidence")

    text = response.content.decode()
    assert f'href="{UPGRADE}/{upgrade.upgrade_id}/evidence" download="evidence-{upgrade.upgrade_id}.json"' in text
    assert "<script>alert" not in text


def test_reading_evidence_writes_nothing(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)

    take(client, upgrade)
    page(client, upgrade)

    assert not audited_changes().exists()
    assert not UpgradeEvent.objects.exists()


@pytest.mark.parametrize(("target", "lines"), [("agent", 1), ("all", 40)])
def test_its_queries_do_not_grow_with_its_content(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, target: str, lines: int
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target=target)
    open_missing_matrices()
    for number in range(lines):
        sign_check(upgrade, actor=cast.operator, check="sign_in", status=CheckStatus.PASS, note=str(number))
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    # Upgrade, rollouts, checks, rollbacks, timeline, audit; then the export's own row, in a transaction of its own.
    with django_assert_num_queries(SIGNED_IN_QUERIES + 6 + 4):
        take(client, upgrade)


def test_its_audit_rows_are_found_by_an_index(cast: Cast) -> None:
    """The audit trail is the longest table and never shrinks."""
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    row = {"organization": cast.acme, "kind": AuditKind.UPGRADE_ENDED, "actor_email": "system", "request_id": ""}
    AuditEvent.objects.bulk_create(AuditEvent(subject=f"upgrade-{number}", **row) for number in range(2000))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE portal_auditevent")

    assert "audit_of_subject" in audit_rows(upgrade).explain()


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404_as_for_a_random_id(cast: Cast, client_for: SignIn, person: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(getattr(cast, person))

    foreign = client.get(f"{UPGRADE}/{upgrade.upgrade_id}/evidence")

    assert_refused(foreign, 404, "not_found")
    assert foreign.content == client.get(f"{UPGRADE}/upgrade-2026-0101-000000-abcdef/evidence").content
    assert client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/evidence").status_code == 404


def test_anonymous_gets_401_or_the_sign_in_page(cast: Cast) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    assert_refused(Client().get(f"{UPGRADE}/{upgrade.upgrade_id}/evidence"), 401, "not_authenticated")
    assert Client().get(f"/o/acme/upgrades/{upgrade.upgrade_id}/evidence").status_code == 302


def test_an_unknown_query_key_is_400(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/evidence?format=pdf")

    assert list(assert_refused(response, 400, "invalid")["errors"]) == ["format"]
