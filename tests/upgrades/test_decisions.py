"""Decisions at a pause: first through both page and API, then the second person, then what reaches ECS."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from portal.errors import PortalError
from portal.models import Membership, Organization, Role, User
from tests.conftest import Cast, Engine, audited_changes
from tests.local_aws import LocalAws
from tests.processes import start_step, wait_for
from tests.upgrades.conftest import UPGRADE, Door, assert_refused, make_upgrade, post_json
from tests.upgrades.test_strategies import configure, decide, is_waiting, pause, run_until, trigger
from upgrades.commands.decide import decide_rollout
from upgrades.commands.stop import stop_upgrade
from upgrades.models import Decision, Rollout, Upgrade, UpgradeEvent
from upgrades.states import DecisionAction, EventKind, Outcome, Status

SignIn = Callable[[User], Client]

CONTINUE = {"service": "agent", "hook_id": "pause-1", "action": "continue"}
ROLL_BACK = CONTINUE | {"action": "rollback"}


def set_pause(upgrade: Upgrade, hook_id: str = "pause-1", **fields: Any) -> None:
    """Set the pause that the engine would have observed."""
    hook = {"id": hook_id, "type": "PAUSE", "stage": "POST_TEST_TRAFFIC_SHIFT", "status": "AWAITING_ACTION"}
    hook |= {"expires_at": "2030-05-06T07:08:00.000000Z", "timeout_action": "ROLLBACK", "target": None}
    waiting = {"outcome": Outcome.WAITING_FOR_DECISION, "hook": hook, "lifecycle_stage": hook["stage"]}
    upgrade.rollouts.filter(service="agent").update(**waiting | fields)


@pytest.fixture
def paused(cast: Cast) -> Upgrade:
    """Return an upgrade of acme's agent service, triggered by its operator, that waits for a decision."""
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    set_pause(upgrade)
    return upgrade


@pytest.fixture
def second_person(cast: Cast) -> Organization:
    """Let acme require a second person to continue."""
    cast.acme.requires_second_approver = True
    cast.acme.save()
    return cast.acme


def assert_undecided() -> None:
    assert not Decision.objects.exists()
    assert not audited_changes().exists()
    assert not UpgradeEvent.objects.filter(kind=EventKind.ROLLOUT_DECIDED).exists()


@pytest.mark.parametrize("person", ["operator", "admin", "consultant"])
@pytest.mark.parametrize("action", list(DecisionAction))
def test_a_decision_is_recorded_with_who_and_why(
    cast: Cast, paused: Upgrade, client_for: SignIn, door: Door, person: str, action: DecisionAction
) -> None:
    actor = getattr(cast, person)

    body = CONTINUE | {"action": action.value, "reason": "OPS-7"}
    response = door.decide(client_for(actor), cast.acme, paused.upgrade_id, **body)

    assert response.status_code == door.accepted
    decision = Decision.objects.get()
    assert (decision.rollout.upgrade, decision.hook_id, decision.action) == (paused, "pause-1", action)
    assert (decision.stage, decision.reason) == ("POST_TEST_TRAFFIC_SHIFT", "OPS-7")
    assert (decision.decided_by, decision.sent_at, decision.ended_at) == (actor, None, None)
    assert paused.rollouts.get().next_check_at is not None


def test_the_same_decision_again_is_harmless(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE)
    set_pause(paused, outcome=None, hook=None)

    again = door.decide(client_for(cast.admin), cast.acme, paused.upgrade_id, **CONTINUE)

    assert again.status_code == door.accepted
    assert Decision.objects.get().decided_by == cast.operator
    assert audited_changes().count() == 1


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door, person: str) -> None:
    response = door.decide(client_for(getattr(cast, person)), cast.acme, paused.upgrade_id, **CONTINUE)

    assert response.status_code == 404
    assert_undecided()


def test_viewer_gets_403(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    assert door.decide(client_for(cast.viewer), cast.acme, paused.upgrade_id, **ROLL_BACK).status_code == 403
    assert_undecided()


def test_anonymous_gets_401(cast: Cast, paused: Upgrade) -> None:
    assert_refused(post_json(Client(), f"{UPGRADE}/{paused.upgrade_id}/continue", CONTINUE), 401, "not_authenticated")
    assert Client().get(f"/o/acme/upgrades/{paused.upgrade_id}/decide").status_code == 302
    assert_undecided()


@pytest.mark.parametrize(("person", "status"), [("outsider", 404), ("stranger", 404), ("viewer", 403)])
def test_the_command_refuses_by_itself(cast: Cast, paused: Upgrade, person: str, status: int) -> None:
    body = CONTINUE | {"action": DecisionAction.CONTINUE}
    with pytest.raises(PortalError) as refused:
        decide_rollout(paused, actor=getattr(cast, person), **body)  # type: ignore[arg-type] # str and TextChoices

    assert refused.value.status == status
    assert_undecided()


# --- wrong state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CONTINUE, ROLL_BACK], ids=["continue", "rollback"])
def test_an_old_hook_is_refused_with_what_changed(
    cast: Cast, paused: Upgrade, client_for: SignIn, door: Door, body: dict[str, str]
) -> None:
    set_pause(paused, "pause-2")

    response = door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **body)

    text = door.get_text(response)
    assert response.status_code == 409
    assert "waits at another pause now at POST_TEST_TRAFFIC_SHIFT, with the hook_id pause-2" in text
    assert_undecided()


def test_a_rollout_that_went_on_is_refused(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    set_pause(paused, outcome=Outcome.BAKING, hook=None, lifecycle_stage="BAKE_TIME")

    response = door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE)

    assert response.status_code == 409
    assert "Its state is now: Serving and baking, at BAKE_TIME." in door.get_text(response)
    assert_undecided()


def test_a_running_lambda_hook_is_no_pause(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    set_pause(paused, outcome=Outcome.HOOK_RUNNING)

    assert door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE).status_code == 409
    assert_undecided()


def test_another_decision_at_the_same_pause_is_refused(
    cast: Cast, paused: Upgrade, client_for: SignIn, door: Door
) -> None:
    door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE)

    response = door.decide(client_for(cast.admin), cast.acme, paused.upgrade_id, **ROLL_BACK)

    assert response.status_code == 409
    assert f"{cast.operator.email} decided at this pause" in door.get_text(response)
    assert Decision.objects.get().action == DecisionAction.CONTINUE


def test_after_a_stop_nothing_is_decided(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    stop_upgrade(paused, actor=cast.admin)

    response = door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE)

    assert response.status_code == 409
    assert "A stop was already requested." in door.get_text(response)
    assert not Decision.objects.exists()


def test_an_ended_upgrade_is_refused(cast: Cast, client_for: SignIn, door: Door) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator)

    response = door.decide(client_for(cast.operator), cast.acme, ended.upgrade_id, **CONTINUE)

    assert response.status_code == 409
    assert f"{ended.upgrade_id} has ended SUCCESS" in door.get_text(response)
    assert_undecided()


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"action": "abort"}, {"service": "all"}, {"hook_id": ""}, {"reason": "x" * 5000}],
    ids=lambda each: str(*each),
)
def test_bad_input_is_refused(
    cast: Cast, paused: Upgrade, client_for: SignIn, door: Door, wrong: dict[str, str]
) -> None:
    response = door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE | wrong)

    assert response.status_code == door.bad_input
    assert_undecided()


def test_the_api_refuses_a_service_outside_the_upgrade(cast: Cast, paused: Upgrade, client_for: SignIn) -> None:
    body = CONTINUE | {"service": "orchestrator"}

    response = post_json(client_for(cast.operator), f"{UPGRADE}/{paused.upgrade_id}/continue", body)

    assert_refused(response, 400, "not_in_upgrade")
    assert_undecided()


# --- what is written -----------------------------------------------------------------------------------------------


def test_a_decision_is_audited_and_on_the_timeline(cast: Cast, paused: Upgrade, client_for: SignIn, door: Door) -> None:
    door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE, reason="Checked.")

    event, entry = audited_changes().get(), UpgradeEvent.objects.get()
    assert (event.kind, event.organization, event.actor) == ("upgrade.decided", cast.acme, cast.operator)
    assert event.subject == paused.upgrade_id
    written = {"stage": "POST_TEST_TRAFFIC_SHIFT", "reason": "Checked.", "second_person_required": False}
    assert event.data == CONTINUE | written
    assert (entry.kind, entry.actor) == (EventKind.ROLLOUT_DECIDED, cast.operator.email)
    assert entry.message == "Continue at POST_TEST_TRAFFIC_SHIFT. Checked."


def test_the_api_shows_the_decision(cast: Cast, paused: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    response = post_json(client, f"{UPGRADE}/{paused.upgrade_id}/continue", CONTINUE)

    assert response.status_code == 202
    decision = response.json()["services"][0]["decision"]
    assert (decision["hook_id"], decision["action"], decision["ended_at"]) == ("pause-1", "continue", None)
    assert (decision["decided_by"], decision["error"]) == (cast.operator.email, None)
    assert response.json() == client.get(f"{UPGRADE}/{paused.upgrade_id}").json()


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_pause_and_both_buttons(cast: Cast, paused: Upgrade, client_for: SignIn) -> None:
    text = client_for(cast.operator).get(f"/o/acme/upgrades/{paused.upgrade_id}/decide").content.decode()

    assert '<input type="hidden" name="hook_id" value="pause-1">' in text
    assert "POST_TEST_TRAFFIC_SHIFT" in text
    assert "Test traffic has moved" in text
    assert "If no one decides by 2030-05-06 07:08 UTC" in text
    assert 'name="action" value="continue"' in text
    assert 'name="action" value="rollback"' in text
    assert "/continue" in text  # the curl command
    assert_undecided()


def test_after_a_refusal_the_page_shows_the_new_pause(cast: Cast, paused: Upgrade, client_for: SignIn) -> None:
    set_pause(paused, "pause-2")

    url = f"/o/acme/upgrades/{paused.upgrade_id}/decide"
    text = client_for(cast.operator).post(url, CONTINUE | {"reason": "OPS-7"}).content.decode()

    assert "Nothing was decided." in text
    assert '<input type="hidden" name="hook_id" value="pause-2">' in text
    assert "OPS-7" in text


def test_viewer_sees_why_there_is_no_button(cast: Cast, paused: Upgrade, client_for: SignIn) -> None:
    text = client_for(cast.viewer).get(f"/o/acme/upgrades/{paused.upgrade_id}/decide").content.decode()

    assert "You cannot decide. Your role is viewer: this needs operator." in text
    assert 'name="action"' not in text


# --- a second person -----------------------------------------------------------------------------------------------


def test_who_triggered_may_not_continue(
    cast: Cast, paused: Upgrade, second_person: Organization, client_for: SignIn, door: Door
) -> None:
    response = door.decide(client_for(cast.operator), cast.acme, paused.upgrade_id, **CONTINUE)

    text = door.get_text(response)
    assert response.status_code == 403
    assert "requires a second person" in text
    assert f"{cast.admin.email}, {cast.consultant.email} may continue it." in text
    assert_undecided()


@pytest.mark.parametrize(("person", "body"), [("operator", ROLL_BACK), ("admin", CONTINUE), ("consultant", CONTINUE)])
def test_a_second_person_may_continue_and_each_may_roll_back(
    cast: Cast,
    paused: Upgrade,
    second_person: Organization,
    client_for: SignIn,
    door: Door,
    person: str,
    body: dict[str, str],
) -> None:
    response = door.decide(client_for(getattr(cast, person)), cast.acme, paused.upgrade_id, **body)

    assert response.status_code == door.accepted
    assert audited_changes().get().data["second_person_required"] is True


def test_a_stop_needs_no_second_person(
    cast: Cast, paused: Upgrade, second_person: Organization, client_for: SignIn, door: Door
) -> None:
    assert door.stop(client_for(cast.operator), cast.acme, paused.upgrade_id).status_code == door.accepted


def test_the_page_says_that_no_one_may_continue(
    cast: Cast, paused: Upgrade, second_person: Organization, client_for: SignIn
) -> None:
    Membership.objects.filter(organization=cast.acme).exclude(user__in=[cast.operator, cast.viewer]).delete()

    text = client_for(cast.viewer).get(f"/o/acme/upgrades/{paused.upgrade_id}/decide").content.decode()

    assert f"No one may continue it: except {cast.operator.email}, who triggered it" in " ".join(text.split())
    assert "allow one person again under Settings" in " ".join(text.split())


# --- what reaches ECS ----------------------------------------------------------------------------------------------


def wait_at_pause(cast: Cast, engine: Engine, platform: LocalAws, **options: Any) -> Rollout:
    """Run a BLUE_GREEN upgrade of the agent service until it waits at its pause."""
    hooks = [pause("POST_SCALE_UP", **options)]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    return run_until(engine, trigger(cast), is_waiting)


def decide_at(rollout: Rollout, actor: User, action: DecisionAction) -> Decision:
    assert rollout.hook is not None
    hook_id = rollout.hook["id"]
    decide_rollout(rollout.upgrade, actor=actor, service="agent", hook_id=hook_id, action=action)
    return rollout.decisions.get()


def calls(platform: LocalAws, cast: Cast, **filters: Any) -> list[dict[str, Any]]:
    return platform.ledger(action="ContinueServiceDeployment", **filters)


@pytest.mark.django_db(transaction=True)
def test_an_approved_rollout_goes_on_to_success(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    rollout = wait_at_pause(cast, engine, platform)

    decision = decide_at(rollout, cast.admin, DecisionAction.CONTINUE)
    ended = engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert (ended.status, decision.error) == (Status.SUCCESS, None)
    assert None not in (decision.sent_at, decision.ended_at)
    assert len(calls(platform, cast, effect=True)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_rollback_at_a_pause_names_the_person(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    rollout = wait_at_pause(cast, engine, platform)

    decide_at(rollout, cast.admin, DecisionAction.ROLLBACK)
    engine.run(rollout.upgrade)

    ended = rollout.upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.STOPPED_BY_USER)
    assert cast.admin.email in (ended.error_message or "")
    assert len(calls(platform, cast, effect=True)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_decision_has_no_effect_if_someone_was_faster(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """A person continues in the AWS console before the engine sends the rollback."""
    rollout = wait_at_pause(cast, engine, platform)
    decide(platform, rollout, "CONTINUE")

    decision = decide_at(rollout, cast.admin, DecisionAction.ROLLBACK)
    ended = engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert (ended.status, decision.sent_at) == (Status.SUCCESS, None)
    assert (decision.error or "").startswith("The pause ended before ECS took this decision.")
    entries = UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_DECIDED, actor_email="")
    assert [entry.message.partition(":")[0] for entry in entries] == ["No effect"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", list(DecisionAction))
@pytest.mark.parametrize("fault", ["reply_lost", "throttle", "server_error"])
def test_a_decision_that_aws_did_not_answer_is_sent_again(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str, action: DecisionAction
) -> None:
    rollout = wait_at_pause(cast, engine, platform)
    platform.fault(fault, action="ContinueServiceDeployment", times=1)

    decision = decide_at(rollout, cast.admin, action)
    engine.step()
    decision.refresh_from_db()
    assert (decision.error or "").startswith(
        "AWS has not answered yet. If no answer comes, the portal sends the decision again."
    )
    engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert (decision.error, decision.ended_at is None) == (None, False)
    expected = Outcome.COMPLETED if action == DecisionAction.CONTINUE else Outcome.STOPPED_BY_USER
    assert rollout.upgrade.rollouts.get().outcome == expected
    assert len(calls(platform, cast, effect=True)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_denied_decision_is_shown_and_retried(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    rollout = wait_at_pause(cast, engine, platform)
    platform.fault("access_denied", action="ContinueServiceDeployment")
    decide_at(rollout, cast.admin, DecisionAction.CONTINUE)

    engine.step()

    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{rollout.upgrade.upgrade_id}/decide").content.decode()
    assert "The permission ecs:ContinueServiceDeployment is missing." in page
    assert "The portal keeps trying." in page
    platform.clear_faults()
    assert engine.run(rollout.upgrade).status == Status.SUCCESS


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after"])
def test_a_worker_killed_while_deciding_is_recovered(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str
) -> None:
    rollout = wait_at_pause(cast, engine, platform)
    decision = decide_at(rollout, cast.admin, DecisionAction.CONTINUE)
    platform.fault(fault, action="ContinueServiceDeployment", times=1, seconds=3)
    Rollout.objects.filter(pk=rollout.pk).update(lease_until=None)
    worker = start_step(rollout.pk)
    wait_for(lambda: platform.faults() == [])  # the call is on its way
    worker.kill()
    worker.wait()
    decision.refresh_from_db()
    assert (decision.sent_at is None, decision.ended_at) == (False, None)

    ended = engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert (ended.status, decision.error, decision.ended_at is None) == (Status.SUCCESS, None, False)
    assert len(calls(platform, cast, effect=True)) == 1


@pytest.mark.django_db(transaction=True)
def test_after_a_stop_a_pending_decision_is_not_sent(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    rollout = wait_at_pause(cast, engine, platform)
    decision = decide_at(rollout, cast.admin, DecisionAction.CONTINUE)
    stop_upgrade(rollout.upgrade, actor=cast.operator)

    engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert rollout.upgrade.rollouts.get().outcome == Outcome.STOPPED_BY_USER
    # Which of the two it says depends on which read shows the end first.
    assert (decision.error or "").startswith(("The pause ended", "The rollout ended"))
    assert calls(platform, cast) == []


@pytest.mark.django_db(transaction=True)
def test_each_step_of_a_shift_needs_its_own_decision(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    linear = {"stepPercent": 50.0, "stepBakeTimeInMinutes": 1}
    hooks = [pause("PRE_PRODUCTION_TRAFFIC_SHIFT")]
    configure(platform, cast, strategy="LINEAR", bakeTimeInMinutes=0, linearConfiguration=linear, lifecycleHooks=hooks)
    first = run_until(engine, trigger(cast), is_waiting)
    decide_at(first, cast.admin, DecisionAction.CONTINUE)
    second = run_until(engine, first.upgrade, lambda each: is_waiting(each) and each.hook != first.hook)
    assert first.hook is not None
    assert second.hook is not None
    old = {"service": "agent", "hook_id": first.hook["id"], "action": "rollback"}

    refused = door.decide(client_for(cast.operator), cast.acme, first.upgrade.upgrade_id, **old)
    new = old | {"hook_id": second.hook["id"], "action": "continue"}
    accepted = door.decide(client_for(cast.operator), cast.acme, first.upgrade.upgrade_id, **new)

    assert (refused.status_code, accepted.status_code) == (409, door.accepted)
    assert engine.run(first.upgrade).status == Status.SUCCESS
    assert len(calls(platform, cast, effect=True)) == 2


@pytest.mark.django_db(transaction=True)
def test_a_read_from_before_the_pause_ends_no_decision(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any
) -> None:
    """The read lags: it shows the stage before the pause that an earlier read showed."""
    settings.UPGRADE_ADOPT_SECONDS = 15
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1)
    rollout = engine.start(trigger(cast))
    set_pause(rollout.upgrade, "pause-of-a-later-stage")
    rollout.refresh_from_db()
    decision = decide_at(rollout, cast.admin, DecisionAction.CONTINUE)

    engine.step()
    decision.refresh_from_db()
    assert (decision.ended_at, decision.error) == (None, None)
    Decision.objects.update(decided_at=Now() - timedelta(seconds=16))
    engine.step()

    decision.refresh_from_db()
    assert (decision.error or "").startswith("The pause ended before ECS took this decision.")


@pytest.mark.django_db(transaction=True)
def test_a_refused_decision_is_not_sent_more_often(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    rollout = wait_at_pause(cast, engine, platform)
    platform.fault("access_denied", action="ContinueServiceDeployment")
    decide_at(rollout, cast.admin, DecisionAction.CONTINUE)
    Rollout.objects.update(started_at=Now() - timedelta(hours=1))

    engine.step()

    rollout.refresh_from_db()
    assert rollout.next_check_at is not None
    assert rollout.last_checked_at is not None
    assert rollout.next_check_at - rollout.last_checked_at > timedelta(seconds=10)


@pytest.mark.django_db(transaction=True)
def test_the_end_of_a_rollout_ends_its_decision(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """AWS denies all reads until the deadline, so the portal never learns whether the pause still waits."""
    rollout = wait_at_pause(cast, engine, platform)
    decision = decide_at(rollout, cast.admin, DecisionAction.CONTINUE)
    platform.fault("access_denied", account="111111111111")
    Rollout.objects.update(deadline_at=Now() - timedelta(hours=1), waiting_since=None)

    ended = engine.run(rollout.upgrade)

    decision.refresh_from_db()
    assert (ended.status, rollout.upgrade.rollouts.get().outcome) == (Status.FAILED, Outcome.TIMED_OUT)
    assert decision.ended_at is not None
    assert decision.error == "The rollout ended before ECS took this decision."
    entries = UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_DECIDED, actor_email="")
    assert [entry.message.partition(":")[0] for entry in entries] == ["No effect"]


# --- members who may approve ----------------------------------------------------------------------------------------


def test_a_person_without_access_may_not_approve(cast: Cast, paused: Upgrade, second_person: Organization) -> None:
    Membership.objects.filter(user=cast.consultant).update(role=Role.VIEWER)
    User.objects.filter(pk=cast.admin.pk).update(is_active=False)

    with pytest.raises(PortalError, match="No one may continue it"):
        decide_rollout(paused, actor=cast.operator, service="agent", hook_id="pause-1", action=DecisionAction.CONTINUE)
