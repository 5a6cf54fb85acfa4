"""Signing a check and probing again: first through both page and API, then what only one of them has."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from portal import tenancy
from portal.errors import PortalError
from portal.models import AuditEvent, Membership, User
from tests.conftest import Cast, audited_changes, sign_in
from tests.upgrades.conftest import SIGNED_IN_QUERIES, UPGRADE, Door, assert_refused, make_upgrade, matrix, post_json
from upgrades.checks.validation import open_missing_matrices
from upgrades.commands.sign import probe_again, sign_check
from upgrades.models import Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import CheckStatus, MatrixRow, Status, Validation

SignIn = Callable[[User], Client]


@pytest.fixture
def ended(cast: Cast) -> Upgrade:
    """Return a completed upgrade of acme's agent service, with no check made yet."""
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    open_missing_matrices()
    upgrade.refresh_from_db()
    return upgrade


def row(upgrade: Upgrade, name: str) -> UpgradeCheck:
    return UpgradeCheck.objects.get(upgrade=upgrade, stage="validation", name=name)


def probed(upgrade: Upgrade, name: str, status: str) -> None:
    """Record a probe's result."""
    UpgradeCheck.objects.filter(upgrade=upgrade, name=name).update(
        status=status, detail="A probe says so.", evidence={"probed": status}, checked_at=Now()
    )


def assert_unsigned(upgrade: Upgrade) -> None:
    assert not UpgradeCheck.objects.filter(upgrade=upgrade, checked_by__isnull=False).exists()
    assert not audited_changes().exists()


# --- signing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["operator", "admin", "consultant"])
def test_a_signature_has_name_time_and_note(
    cast: Cast, ended: Upgrade, client_for: SignIn, door: Door, person: str
) -> None:
    actor = getattr(cast, person)

    response = door.sign(
        client_for(actor), cast.acme, ended.upgrade_id, check="sign_in", status="pass", note="As demo@acme."
    )

    assert response.status_code == {"api": 200, "page": 302}[door.name]
    signed = row(ended, "sign_in")
    assert (signed.status, signed.checked_by, signed.checked_by_email, signed.note) == (
        CheckStatus.PASS,
        actor,
        actor.email,
        "As demo@acme.",
    )
    assert signed.checked_at


def test_a_signature_is_audited_and_in_the_timeline(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door) -> None:
    door.sign(client_for(cast.operator), cast.acme, ended.upgrade_id, check="sign_in", status="fail", note="500.")

    signed, validated = AuditEvent.objects.order_by("pk")
    assert (signed.kind, signed.organization, signed.actor, signed.subject) == (
        "upgrade.check_signed",
        cast.acme,
        cast.operator,
        ended.upgrade_id,
    )
    assert signed.data == {"check": "sign_in", "status": "fail", "note": "500.", "was": "unknown"}
    assert (validated.kind, validated.data["validation"]) == ("upgrade.validated", "failed")
    told = UpgradeEvent.objects.filter(upgrade=ended, actor_email=cast.operator.email).order_by("pk")
    assert [(event.kind, event.message) for event in told] == [
        ("check.recorded", "Sign-in works: fail. 500."),
        ("upgrade.validated", "Validation failed."),
    ]


def test_all_rows_signed_validate_the_upgrade(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)

    for name in MatrixRow.values:
        ended.refresh_from_db()
        assert ended.validation == Validation.NEEDED
        door.sign(client, cast.acme, ended.upgrade_id, check=name, status="pass")

    ended.refresh_from_db()
    assert ended.validation == Validation.PASSED


def test_the_last_signature_counts_and_each_is_audited(
    cast: Cast, ended: Upgrade, client_for: SignIn, door: Door
) -> None:
    door.sign(client_for(cast.operator), cast.acme, ended.upgrade_id, check="sign_in", status="fail", note="No page.")
    door.sign(client_for(cast.admin), cast.acme, ended.upgrade_id, check="sign_in", status="pass", note="DNS; works.")

    signed = row(ended, "sign_in")
    assert (signed.status, signed.checked_by, signed.note) == (CheckStatus.PASS, cast.admin, "DNS; works.")
    events = AuditEvent.objects.filter(kind="upgrade.check_signed").order_by("pk")
    assert [(event.actor, event.data["status"], event.data["was"]) for event in events] == [
        (cast.operator, "fail", "unknown"),
        (cast.admin, "pass", "fail"),
    ]
    ended.refresh_from_db()
    assert ended.validation == Validation.NEEDED


@pytest.mark.django_db(transaction=True)
def test_concurrent_signers_lose_nothing(cast: Cast, ended: Upgrade) -> None:
    gate = threading.Barrier(6)

    def sign(number: int) -> None:
        try:
            gate.wait()
            check = MatrixRow.values[number // 3]
            with tenancy.all_organizations("the test"):
                sign_check(ended, actor=cast.operator, check=check, status=CheckStatus.PASS, note=str(number))
        finally:
            connection.close()

    signers = [threading.Thread(target=sign, args=(number,)) for number in range(6)]
    for signer in signers:
        signer.start()
    for signer in signers:
        signer.join()

    events = AuditEvent.objects.filter(kind="upgrade.check_signed").order_by("pk")
    assert sorted(event.data["note"] for event in events) == list("012345")
    for name in MatrixRow.values[:2]:
        last = [event.data["note"] for event in events if event.data["check"] == name][-1]
        assert row(ended, name).note == last


def test_an_upgrade_older_than_the_matrix_can_be_signed(cast: Cast, client_for: SignIn, door: Door) -> None:
    old = make_upgrade(cast.acme, by=cast.operator, completed_at=Now() - timedelta(days=40))

    door.sign(client_for(cast.operator), cast.acme, old.upgrade_id, check="sign_in", status="pass")

    assert matrix(old) == dict.fromkeys(MatrixRow.values, "unknown") | {"sign_in": "pass"}
    old.refresh_from_db()
    assert old.validation == Validation.NEEDED


# --- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "probe", "status", "note", "accepted"),
    [
        ("sign_in", None, "fail", "", False),
        ("sign_in", None, "fail", "  ", False),
        ("sign_in", None, "fail", "It shows 500.", True),
        ("sign_in", None, "pass", "", True),
        ("sign_in_page", "fail", "pass", "", False),
        ("sign_in_page", "fail", "pass", "Behind the VPN.", True),
        ("sign_in_page", "pass", "pass", "", True),
        ("sign_in_page", "unknown", "pass", "", True),
        ("sign_in_page", "fail", "fail", "", False),
    ],
)
def test_failures_and_overruled_probes_need_a_note(
    cast: Cast,
    ended: Upgrade,
    client_for: SignIn,
    door: Door,
    check: str,
    probe: str | None,
    status: str,
    note: str,
    accepted: bool,
) -> None:
    if probe:
        probed(ended, check, probe)

    response = door.sign(client_for(cast.operator), cast.acme, ended.upgrade_id, check=check, status=status, note=note)

    if accepted:
        assert row(ended, check).is_signed
        return
    assert response.status_code == door.bad_input
    assert "note" in door.get_text(response)
    assert_unsigned(ended)


# --- who may not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
@pytest.mark.parametrize("action", ["sign", "probe"])
def test_outsider_gets_404(
    cast: Cast, ended: Upgrade, client_for: SignIn, door: Door, person: str, action: str
) -> None:
    assert act(door, client_for(getattr(cast, person)), cast, ended, action).status_code == 404
    assert_unsigned(ended)


@pytest.mark.parametrize("action", ["sign", "probe"])
def test_viewer_gets_403(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door, action: str) -> None:
    assert act(door, client_for(cast.viewer), cast, ended, action).status_code == 403
    assert_unsigned(ended)


@pytest.mark.parametrize("action", ["sign", "probe"])
def test_a_removed_member_gets_404(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door, action: str) -> None:
    client = client_for(cast.operator)
    Membership.objects.filter(user=cast.operator).delete()

    assert act(door, client, cast, ended, action).status_code == 404
    assert_unsigned(ended)


@pytest.mark.parametrize("action", ["sign", "probe"])
def test_anonymous_is_turned_away(cast: Cast, ended: Upgrade, door: Door, action: str) -> None:
    assert act(door, Client(), cast, ended, action).status_code == {"api": 401, "page": 302}[door.name]
    assert_unsigned(ended)


@pytest.mark.parametrize(("person", "status"), [("outsider", 404), ("stranger", 404), ("viewer", 403)])
def test_the_commands_refuse_by_themselves(cast: Cast, ended: Upgrade, person: str, status: int) -> None:
    actor = getattr(cast, person)

    with pytest.raises(PortalError) as signing:
        sign_check(ended, actor=actor, check="sign_in", status=CheckStatus.PASS)
    with pytest.raises(PortalError) as probing:
        probe_again(ended, actor=actor)

    assert [signing.value.status, probing.value.status] == [status, status]
    assert_unsigned(ended)


def act(door: Door, client: Client, cast: Cast, upgrade: Upgrade, action: str) -> Any:
    if action == "sign":
        return door.sign(client, cast.acme, upgrade.upgrade_id, check="sign_in", status="pass")
    return door.probe_again(client, cast.acme, upgrade.upgrade_id)


# --- wrong state -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.PENDING, Status.IN_PROGRESS])
@pytest.mark.parametrize("action", ["sign", "probe"])
def test_an_open_upgrade_cannot_be_validated(
    cast: Cast, client_for: SignIn, door: Door, action: str, status: Status
) -> None:
    running = make_upgrade(cast.acme, by=cast.operator, statuses=[status])

    response = act(door, client_for(cast.operator), cast, running, action)

    assert response.status_code == 409
    assert f"{running.upgrade_id} has not ended" in door.get_text(response)
    if door.name == "api":
        assert assert_refused(response, 409, "upgrade_in_progress")["upgrade_id"] == running.upgrade_id
    assert_unsigned(running)


@pytest.mark.parametrize("action", ["sign", "probe"])
def test_an_upgrade_that_advanced_nothing_is_not_validated(
    cast: Cast, client_for: SignIn, door: Door, action: str
) -> None:
    failed = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.FAILED])

    response = act(door, client_for(cast.operator), cast, failed, action)

    assert response.status_code == 409
    assert "advanced no service" in door.get_text(response)
    assert not ValidationRun.objects.exists()
    assert_unsigned(failed)


# --- probing again ---------------------------------------------------------------------------------------------------


def test_probing_again_arms_the_run_and_is_audited(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door) -> None:
    ValidationRun.objects.update(is_done=True, ends_at=Now() - timedelta(hours=1), next_check_at=None)
    probed(ended, "sign_in_page", "fail")
    Upgrade.objects.update(validation=Validation.FAILED)

    response = door.probe_again(client_for(cast.operator), cast.acme, ended.upgrade_id)

    assert response.status_code == door.accepted
    run = ValidationRun.objects.get()
    assert (run.is_done, run.next_check_at is not None, run.lease_epoch) == (False, True, 1)
    ended.refresh_from_db()
    assert ended.validation == Validation.NEEDED
    event = audited_changes().get()
    assert (event.kind, event.actor, event.subject) == ("upgrade.probed_again", cast.operator, ended.upgrade_id)


def test_probing_again_during_a_run_changes_nothing(cast: Cast, ended: Upgrade, client_for: SignIn, door: Door) -> None:
    before = ValidationRun.objects.values().get()

    response = door.probe_again(client_for(cast.operator), cast.acme, ended.upgrade_id)

    assert response.status_code == door.accepted
    assert ValidationRun.objects.values().get() == before
    assert_unsigned(ended)


# --- the API's own ---------------------------------------------------------------------------------------------------


def test_the_api_shows_the_whole_matrix(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    probed(ended, "sign_in_page", "pass")
    client = client_for(cast.operator)
    signed = post_json(
        client,
        f"{UPGRADE}/{ended.upgrade_id}/validation",
        {"check": "licence_usage", "status": "fail", "note": "Usage is empty."},
    ).json()

    body = client_for(cast.viewer).get(f"{UPGRADE}/{ended.upgrade_id}/validation").json()

    assert signed == body
    checks = body.pop("checks")
    utc = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(utc, body.pop("probes_until"))
    assert body == {
        "upgrade_id": ended.upgrade_id,
        "upgrade_status": "SUCCESS",
        "organization": "acme",
        "validation": "failed",
    }
    assert [check["check"] for check in checks] == MatrixRow.values
    assert [check["check"] for check in checks if not check["automatic"]] == ["sign_in", "licence_usage"]
    assert re.fullmatch(utc, checks[-1].pop("checked_at"))
    assert checks[-1] == {
        "check": "licence_usage",
        "title": "Licence and usage views open",
        "automatic": False,
        "status": "fail",
        "detail": "A person must check and sign this.",
        "evidence": {},
        "checked_by": cast.operator.email,
        "note": "Usage is empty.",
    }
    assert (checks[1]["checked_by"], checks[1]["note"], checks[1]["checked_at"]) == (None, None, None)


@pytest.mark.parametrize("statuses", [[Status.IN_PROGRESS], [Status.FAILED]])
def test_the_api_shows_a_matrix_at_any_time(cast: Cast, client_for: SignIn, statuses: list[Status]) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=statuses)

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/validation").json()

    assert (body["validation"], body["probes_until"]) == ("none", None)
    assert {check["status"] for check in body["checks"]} == {"unknown"}
    assert len(body["checks"]) == len(MatrixRow)


@pytest.mark.parametrize("target", ["agent", "all"])
def test_reading_the_matrix_costs_the_same_queries(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, target: str
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target=target)
    open_missing_matrices()
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    with django_assert_num_queries(SIGNED_IN_QUERIES + 4):  # upgrade, rollouts, checks, run
        client.get(f"{UPGRADE}/{upgrade.upgrade_id}/validation")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"status": "pass"}, "check"),
        ({"check": "sign_in"}, "status"),
        ({"check": "environment", "status": "pass"}, "check"),
        ({"check": "sign_in", "status": "unknown"}, "status"),
        ({"check": "sign_in", "status": True}, "status"),
        ({"check": "sign_in", "status": "pass", "note": 7}, "note"),
        ({"check": "sign_in", "status": "pass", "note": "x" * 2001}, "note"),
        ({"check": "sign_in", "status": "pass", "note": "a\x00"}, "note"),
        ({"check": "sign_in", "status": "pass", "checked_by": "me"}, "checked_by"),
    ],
)
def test_a_bad_body_is_400_and_names_the_field(
    cast: Cast, ended: Upgrade, client_for: SignIn, body: dict[str, Any], named: str
) -> None:
    response = post_json(client_for(cast.operator), f"{UPGRADE}/{ended.upgrade_id}/validation", body)

    assert list(assert_refused(response, 400, "invalid")["errors"]) == [named]
    assert_unsigned(ended)


def test_a_missing_note_is_named_as_a_field(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    body = {"check": "sign_in", "status": "fail"}

    response = post_json(client_for(cast.operator), f"{UPGRADE}/{ended.upgrade_id}/validation", body)

    assert list(assert_refused(response, 400, "note_required")["errors"]) == ["note"]


def test_without_csrf_token_nothing_is_signed(cast: Cast, ended: Upgrade, door: Door) -> None:
    client = sign_in(Client(enforce_csrf_checks=True), cast.operator)

    assert act(door, client, cast, ended, "sign").status_code == 403
    assert act(door, client, cast, ended, "probe").status_code == 403
    assert_unsigned(ended)


# --- the page's own --------------------------------------------------------------------------------------------------


def get_page(client: Client, upgrade: Upgrade, **headers: str) -> str:
    return client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/", headers=headers).content.decode()


def test_the_page_shows_the_matrix_with_a_link_per_row(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    probed(ended, "sign_in_page", "fail")
    sign_check(ended, actor=cast.admin, check="sign_in_page", status=CheckStatus.PASS, note="Behind <the> VPN.")

    text = get_page(client_for(cast.operator), ended)

    assert "Behind &lt;the&gt; VPN." in text
    assert "Differs from the portal&#x27;s own check." in text or "Differs from the portal's own check." in text
    assert f"Signed by {cast.admin.email}" in text
    for name in MatrixRow.values:
        assert f'href="/o/acme/upgrades/{ended.upgrade_id}/validation/{name}"' in text


def test_a_viewer_sees_why_nothing_can_be_signed(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    text = get_page(client_for(cast.viewer), ended)

    assert "Your role is viewer: signing a check needs operator." in text
    assert "/validation/" not in text
    assert "Check again" not in text


def test_the_page_polls_only_while_the_portal_probes(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    assert 'data-live="5"' in get_page(client, ended)
    assert "Check again" not in get_page(client, ended)

    ValidationRun.objects.update(is_done=True)

    assert 'data-live="5"' not in get_page(client, ended)
    assert "Check again" in get_page(client, ended)


def test_the_third_stage_shows_the_validation_status(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.viewer)

    def third_stage() -> str:
        text = get_page(client, ended)
        stages = text[text.index('class="stages"') :].partition("</ol>")[0]
        return stages[stages.rindex("<li") :]

    assert "Validating" in third_stage()
    ValidationRun.objects.update(is_done=True)
    assert "Needs validation" in third_stage()
    Upgrade.objects.update(validation=Validation.FAILED)
    assert "Validation failed" in third_stage()
    Upgrade.objects.update(validation=Validation.PASSED)
    assert 'class="chip success"' in third_stage()


@pytest.mark.parametrize("check", ["nothing", "environment", "%00", "SIGN_IN"])
def test_an_unknown_row_is_404(cast: Cast, ended: Upgrade, client_for: SignIn, check: str) -> None:
    response = client_for(cast.operator).get(f"/o/acme/upgrades/{ended.upgrade_id}/validation/{check}")

    assert response.status_code == 404


def test_the_form_says_what_is_missing(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.operator).post(f"/o/acme/upgrades/{ended.upgrade_id}/validation/sign_in", {})

    assert response.status_code == 422
    assert "Choose Pass or Fail." in response.content.decode()
    assert_unsigned(ended)


@pytest.mark.parametrize("person", ["viewer", "operator"])
def test_the_form_shows_the_result_and_who_may_sign(
    cast: Cast, ended: Upgrade, client_for: SignIn, person: str
) -> None:
    probed(ended, "sign_in_page", "fail")

    text = (
        client_for(getattr(cast, person))
        .get(f"/o/acme/upgrades/{ended.upgrade_id}/validation/sign_in_page")
        .content.decode()
    )

    assert "A probe says so." in text
    assert ('type="submit">Sign<' in text) is (person == "operator")
    assert ("Your role is viewer" in text) is (person == "viewer")


def test_after_signing_the_page_shows_the_matrix(cast: Cast, ended: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.operator).post(
        f"/o/acme/upgrades/{ended.upgrade_id}/validation/sign_in", {"status": "pass"}, follow=True
    )

    assert response.redirect_chain == [(f"/o/acme/upgrades/{ended.upgrade_id}/#validation", 302)]
    assert "Signed: sign-in works." in response.content.decode()
