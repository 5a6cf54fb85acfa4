"""Verdicts by strategy: BLUE_GREEN, LINEAR, CANARY and ROLLING, with bakes, hooks and pauses, judged by the engine."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.notifications.conftest import deliveries, make_channel
from tests.notifications.documented import assert_documented
from tests.upgrades.conftest import UPGRADE
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import EventKind, Outcome, Status, Validation

pytestmark = pytest.mark.django_db(transaction=True)

FUNCTION = "arn:aws:lambda:eu-central-1:111111111111:function:validate"
ROLE = "arn:aws:iam::111111111111:role/hooks"
DESCRIBES = ("DescribeServiceDeployments",)
STRATEGIES = {
    "BLUE_GREEN": {"bakeTimeInMinutes": 1},
    "LINEAR": {"bakeTimeInMinutes": 1, "linearConfiguration": {"stepPercent": 50.0, "stepBakeTimeInMinutes": 1}},
    "CANARY": {"bakeTimeInMinutes": 1, "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 1}},
}


def pause(stage: str, **timeout: Any) -> dict[str, Any]:
    hook: dict[str, Any] = {"targetType": "PAUSE", "lifecycleStages": [stage]}
    return hook | ({"timeoutConfiguration": timeout} if timeout else {})


def function(stage: str) -> dict[str, Any]:
    return {"targetType": "AWS_LAMBDA", "hookTargetArn": FUNCTION, "roleArn": ROLE, "lifecycleStages": [stage]}


def configure(platform: LocalAws, cast: Cast, **configuration: Any) -> None:
    """Set how ECS deploys the agent service. ECS starts no deployment for it."""
    platform.client().update_service(
        cluster=cast.acme.cluster, service=service_name(cast), deploymentConfiguration=configuration
    )


def service_name(cast: Cast) -> str:
    return f"{cast.acme.deployment_stack}-agent-service"


def trigger(cast: Cast, **options: Any) -> Upgrade:
    """Trigger a forced upgrade. Pre-flight fails where neither alarms nor hooks are configured."""
    asked = {"force_new_deployment": True, "override_reason": "no failure detection"} | options
    return trigger_upgrade(cast.acme, actor=cast.operator, service="agent", **asked)


def run_until(
    engine: Engine, upgrade: Upgrade, condition: Callable[[Rollout], bool], *, seconds: float = 15, steps: int = 200
) -> Rollout:
    """Step and advance AWS's clock until the rollout fulfils the condition, and return it."""
    for _ in range(steps):
        engine.step()
        rollout = upgrade.rollouts.get()
        if condition(rollout):
            return rollout
        engine.local_aws.advance(seconds)
    raise AssertionError(f"never: {Rollout.objects.filter(pk=rollout.pk).values()}")


def is_waiting(rollout: Rollout) -> bool:
    return rollout.outcome == Outcome.WAITING_FOR_DECISION


def is_baking(rollout: Rollout) -> bool:
    return rollout.outcome == Outcome.BAKING


def is_rolling_back(rollout: Rollout) -> bool:
    return rollout.outcome == Outcome.ROLLING_BACK


def decide(platform: LocalAws, rollout: Rollout, action: str) -> None:
    assert rollout.hook is not None
    platform.client().continue_service_deployment(
        serviceDeploymentArn=rollout.service_deployment_arn, hookId=rollout.hook["id"], action=action
    )


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_each_strategy_succeeds_after_its_bake(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, strategy: str
) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    configure(platform, cast, strategy=strategy, **STRATEGIES[strategy])
    upgrade = trigger(cast)

    seen: dict[str | None, tuple[str, str | None, float | None, bool]] = {}
    for _ in range(600):
        engine.step()
        rollout = upgrade.rollouts.get()
        if rollout.is_terminal:
            break
        state = (rollout.status, rollout.outcome, rollout.production_weight, rollout.is_stalled)
        seen[rollout.lifecycle_stage] = state
        platform.advance(20 if rollout.outcome == Outcome.BAKING else 4)

    assert (rollout.status, rollout.outcome, rollout.strategy) == (Status.SUCCESS, Outcome.COMPLETED, strategy)
    assert seen["BAKE_TIME"] == (Status.IN_PROGRESS, Outcome.BAKING, 100.0, False)
    assert seen["PRODUCTION_TRAFFIC_SHIFT"][1:] == (None, 100.0, False)
    assert rollout.traffic_shifted_at is not None
    assert UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_BAKING).count() == 1


def test_a_bake_names_its_end(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=30)
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, is_baking, seconds=5)

    assert rollout.bake_ends_at is not None
    assert abs(rollout.bake_ends_at.timestamp() - platform.now() - 1800) < 30
    assert "may still roll it back" in (rollout.rollout_reason or "")
    entry = client_for(cast.operator).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["services"][0]
    assert (entry["outcome"], entry["lifecycle_stage"], entry["production_weight"]) == ("baking", "BAKE_TIME", 100.0)
    assert entry["bake_ends_at"].endswith("Z")


def test_a_pause_waits_for_a_decision_and_goes_on(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, client_for: Callable[[User], Client]
) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    channel = make_channel(cast.acme, by=cast.admin, events=["upgrade.waiting"])
    hooks = [pause("POST_TEST_TRAFFIC_SHIFT", timeoutInMinutes=600, action="CONTINUE")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, is_waiting)

    assert (rollout.status, rollout.is_stalled) == (Status.IN_PROGRESS, False)
    assert "Paused at POST_TEST_TRAFFIC_SHIFT until " in (rollout.rollout_reason or "")
    assert "Then ECS continues." in (rollout.rollout_reason or "")
    entry = client_for(cast.operator).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["services"][0]
    assert (entry["hook"]["status"], entry["hook"]["timeout_action"]) == ("AWAITING_ACTION", "CONTINUE")
    engine.step()
    (message,) = deliveries(channel)
    assert message.title == "Acme Robotics (production): rollout of agent service waits for a decision"
    assert "waits at POST_TEST_TRAFFIC_SHIFT for a decision. Without one by " in message.text
    assert message.path == f"/o/acme/upgrades/{upgrade.upgrade_id}/decide"
    assert message.data["hook"] == {"service": "agent", **entry["hook"]}
    assert_documented(message)
    decide(platform, rollout, "CONTINUE")
    assert engine.run(upgrade).status == Status.SUCCESS
    ended = upgrade.rollouts.get()
    assert (ended.outcome, ended.hook, ended.waiting_since) == (Outcome.COMPLETED, None, None)
    assert UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_WAITING).count() == 1


def test_each_step_of_a_linear_shift_waits_again(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    linear = {"stepPercent": 50.0, "stepBakeTimeInMinutes": 1}
    hooks = [pause("PRE_PRODUCTION_TRAFFIC_SHIFT")]
    configure(platform, cast, strategy="LINEAR", bakeTimeInMinutes=0, linearConfiguration=linear, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    first = run_until(engine, upgrade, is_waiting)
    decide(platform, first, "CONTINUE")
    second = run_until(engine, upgrade, lambda each: is_waiting(each) and each.hook != first.hook)

    assert (first.production_weight, second.production_weight) == (0.0, 50.0)
    assert UpgradeEvent.objects.filter(rollout=second, kind=EventKind.ROLLOUT_WAITING).count() == 2
    decide(platform, second, "CONTINUE")
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_rollback_at_a_pause_is_a_failure(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    hooks = [pause("POST_PRODUCTION_TRAFFIC_SHIFT")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, is_waiting)
    decide(platform, rollout, "ROLLBACK")
    engine.step()
    rolling_back = upgrade.rollouts.get()
    engine.run(upgrade)

    assert (rolling_back.outcome, rolling_back.lifecycle_stage) == (Outcome.ROLLING_BACK, None)
    ended = upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.ROLLED_BACK)
    assert "after the traffic shift" in (ended.error_message or "")


def test_an_expired_pause_takes_its_action(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    hooks = [pause("POST_SCALE_UP", timeoutInMinutes=60, action="ROLLBACK")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    run_until(engine, upgrade, is_waiting)
    platform.advance(3600)
    engine.run(upgrade)

    ended = upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.ROLLED_BACK)
    assert "timed out" in (ended.error_message or "")


def test_a_running_hook_is_named(cast: Cast, engine: Engine, platform: LocalAws, settings: Any) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    platform.fault("hook_hangs", cluster=cast.acme.cluster, times=1)
    configure(platform, cast, strategy="CANARY", bakeTimeInMinutes=1, lifecycleHooks=[function("POST_SCALE_UP")])
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, lambda each: each.outcome == Outcome.HOOK_RUNNING)

    assert "ECS waits for the hook validate at POST_SCALE_UP" in (rollout.rollout_reason or "")
    platform.advance(300)
    engine.step()
    assert upgrade.rollouts.get().is_stalled is False


def test_a_failed_hook_is_the_cause_of_the_rollback(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("hook_fails", cluster=cast.acme.cluster, times=1)
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=[function("PRE_SCALE_UP")])
    upgrade = trigger(cast)

    engine.run(upgrade)

    ended = upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.ROLLED_BACK)
    assert "hook" in (ended.error_message or "")


def test_an_alarm_in_the_bake_rolls_back_with_its_time(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    alarms = {"alarmNames": ["errors-high"], "enable": True, "rollback": True}
    platform.fault("alarm", cluster=cast.acme.cluster, times=1, stage="BAKE_TIME", alarm_names=["errors-high"])
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=10, alarms=alarms)
    upgrade = trigger(cast)

    engine.run(upgrade, seconds=10)

    ended = upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.ROLLED_BACK)
    assert "errors-high" in (ended.error_message or "")
    assert "min after the traffic shift: the new version had served all traffic." in (ended.error_message or "")


def test_a_stop_in_the_bake_names_the_person(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=60)
    upgrade = trigger(cast)
    run_until(engine, upgrade, is_baking)

    stop_upgrade(upgrade, actor=cast.operator)
    back = run_until(engine, upgrade, is_rolling_back, seconds=0)
    assert "bakes" not in (back.rollout_reason or "")
    engine.run(upgrade)

    ended = upgrade.rollouts.get()
    assert (ended.status, ended.outcome) == (Status.FAILED, Outcome.STOPPED_BY_USER)
    assert "That was less than 1 min after the traffic shift" in (ended.error_message or "")


@pytest.mark.parametrize("stage", ["PRE_SCALE_UP", "POST_SCALE_UP"])
def test_rolling_deployments_may_pause_too(cast: Cast, engine: Engine, platform: LocalAws, stage: str) -> None:
    configure(platform, cast, strategy="ROLLING", lifecycleHooks=[pause(stage)])
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, is_waiting)

    assert (rollout.lifecycle_stage, rollout.production_weight) == (None, None)
    decide(platform, rollout, "CONTINUE")
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_watch_over_alarms_is_no_stall(cast: Cast, engine: Engine, platform: LocalAws, settings: Any) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    configure(platform, cast, alarms={"alarmNames": ["errors-high"], "enable": True, "rollback": True})
    upgrade = trigger(cast)

    rollout = run_until(
        engine, upgrade, lambda each: "ECS watches the alarms" in (each.rollout_reason or ""), seconds=2
    )

    assert (rollout.status, rollout.is_stalled) == (Status.IN_PROGRESS, False)
    assert "errors-high" in (rollout.rollout_reason or "")
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_later_configuration_does_not_count(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """The deployment is judged by its own copy of the configuration."""
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=30)
    upgrade = trigger(cast)
    engine.start(upgrade)
    engine.step()
    configure(platform, cast, strategy="ROLLING", bakeTimeInMinutes=0)

    rollout = run_until(engine, upgrade, is_baking)

    assert (rollout.strategy, (rollout.configuration or {})["bake_minutes"]) == ("BLUE_GREEN", 30)
    assert engine.run(upgrade, seconds=300).status == Status.SUCCESS


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param({"strategy": "ROLLING"}, id="rolling"),
        pytest.param({"strategy": "CANARY", "bakeTimeInMinutes": 1}, id="canary"),
    ],
)
def test_a_service_created_again_ends_the_rollout(
    cast: Cast, engine: Engine, platform: LocalAws, configuration: dict[str, Any]
) -> None:
    """ECS drops the deployments of a deleted service, and the new one of the same name says nothing about them."""
    configure(platform, cast, **configuration)
    upgrade = trigger(cast)
    engine.start(upgrade)
    create_again(platform, cast)

    rollout = engine.run(upgrade, steps=5).rollouts.get()

    assert (rollout.status, rollout.outcome) == (Status.FAILED, Outcome.SERVICE_MISSING)
    assert "deleted and created again" in (rollout.error_message or "")


@pytest.mark.parametrize("fault", ["reply_lost", "server_error"])
def test_the_first_deployment_of_a_service_is_nobodys_call(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str
) -> None:
    """Without a reply, the deployment that came with the new service looks like the one that the call started."""
    platform.fault(fault, action="UpdateService", times=1)
    upgrade = trigger(cast)
    engine.step()
    create_again(platform, cast)

    rollout = engine.run(upgrade, steps=5, seconds=60).rollouts.get()

    assert (rollout.status, rollout.outcome) == (Status.FAILED, Outcome.SERVICE_MISSING)
    assert rollout.deployment_id is None
    assert "deleted and created again" in (rollout.error_message or "")


def create_again(platform: LocalAws, cast: Cast) -> None:
    """Delete the agent service and create it again, with the task definition of the rollout if it has one."""
    client, place = platform.client(), {"cluster": cast.acme.cluster}
    definition = client.describe_services(**place, services=[service_name(cast)])["services"][0]["taskDefinition"]
    client.delete_service(**place, service=service_name(cast), force=True)
    platform.advance(120)
    client.create_service(
        **place,
        serviceName=service_name(cast),
        taskDefinition=Rollout.objects.get().task_definition or definition,
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-0a1b2c3d4e5f60001"]}},
    )


def test_other_strategies_end_only_by_their_own_record(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """Without DescribeServiceDeployments, DescribeServices says nothing certain about them."""
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1)
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        platform.fault("access_denied", action=action, account="111111111111")
    upgrade = trigger(cast)

    for _ in range(20):
        engine.step()
        platform.advance(60)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.is_stalled) == (Status.IN_PROGRESS, None, False)
    assert "ecs:DescribeServiceDeployments" in (rollout.rollout_reason or "")
    platform.clear_faults()
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_list_of_deployments_is_enough_for_a_verdict(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1)
    platform.fault("access_denied", action="DescribeServiceDeployments", account="111111111111")

    assert engine.run(trigger(cast)).status == Status.SUCCESS


@pytest.mark.parametrize("read", ["described", "no_requested_count", "listed_only", "neither"])
def test_no_task_of_the_new_version_has_run(cast: Cast, engine: Engine, platform: LocalAws, read: str) -> None:
    """A person sets the desired count to 0 just after the start. ECS may not report the deployment's requested count."""
    denied = {"listed_only": DESCRIBES, "neither": (*DESCRIBES, "ListServiceDeployments")}
    for action in denied.get(read, ()):
        platform.fault("access_denied", action=action, account="111111111111")
    if read == "no_requested_count":
        member = "serviceDeployments.targetServiceRevision.requestedTaskCount"
        platform.fault("member_left_out", action=DESCRIBES[0], member=member)
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.client().update_service(cluster=cast.acme.cluster, service=service_name(cast), desiredCount=0)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert "No task of the new version has run" in (rollout.rollout_reason or "")


def test_tasks_that_ran_and_ended_are_not_said_to_never_have_run(
    cast: Cast, engine: Engine, platform: LocalAws
) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)

    def has_started() -> bool:
        engine.step()
        return upgrade.rollouts.get().target_running > 0

    platform.wait_until(has_started)
    platform.client().update_service(cluster=cast.acme.cluster, service=service_name(cast), desiredCount=0)

    engine.run(upgrade, seconds=2)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.target_running) == (Status.SUCCESS, 0)
    assert "No task of the new version runs: the desired count was 0" in (rollout.rollout_reason or "")


def test_a_success_without_a_task_is_named_everywhere(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    """API, history, page, timeline and notification say it. PostgreSQL and Python make the same sentence."""
    channel = make_channel(cast.acme, by=cast.admin, events=["upgrade.ended"])
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.client().update_service(cluster=cast.acme.cluster, service=service_name(cast), desiredCount=0)
    engine.run(upgrade)

    client = client_for(cast.operator)
    said = "Rolled out: agent service. No task of the new version has run: agent service."
    ended = UpgradeEvent.objects.get(upgrade=upgrade, kind=EventKind.ENDED, rollout=None)

    assert Upgrade.objects.get(pk=upgrade.pk).message == ended.message == said
    assert client.get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["message"] == said
    assert client.get(f"{UPGRADE}s").json()["items"][0]["message"] == said
    text = deliveries(channel)[0].text
    assert said in text
    assert "Completed. No task of the new version has run: the desired count was 0" in text
    page = client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert "Rolled out. No task of the new version has run: the desired count was 0" in page


@pytest.mark.parametrize(("cleanup", "said"), [("DEFERRED", "Old tasks may drain"), ("BLOCKING", "Others may start")])
def test_early_success_has_its_own_outcome(
    cast: Cast, engine: Engine, platform: LocalAws, cleanup: str, said: str
) -> None:
    criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": cleanup}
    configure(platform, cast, minimumHealthyPercent=50, earlySuccessCriteria=criteria)
    upgrade = trigger(cast)

    engine.run(upgrade, seconds=2)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome) == (Status.SUCCESS, Outcome.COMPLETED_EARLY)
    assert said in (rollout.rollout_reason or "")
    assert upgrade.status == Status.SUCCESS
    assert upgrade.has_advanced
    assert upgrade.validation == Validation.NEEDED


@pytest.mark.parametrize(
    "denied",
    [("DescribeServiceDeployments",), ("DescribeServiceDeployments", "ListServiceDeployments")],
    ids=["listed only", "neither listed nor described"],
)
def test_early_success_is_known_without_its_record(
    cast: Cast, engine: Engine, platform: LocalAws, denied: tuple[str, ...]
) -> None:
    """ECS copies the service's configuration into the deployment at the call."""
    criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "DEFERRED"}
    configure(platform, cast, minimumHealthyPercent=50, earlySuccessCriteria=criteria)
    for action in denied:
        platform.fault("access_denied", action=action, account="111111111111")
    upgrade = trigger(cast)

    engine.run(upgrade, seconds=2)

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.is_draining) == (Outcome.COMPLETED_EARLY, True)
    assert "Old tasks may drain" in (rollout.rollout_reason or "")


@pytest.mark.parametrize("read", ["described", "no_stage", "listed_only"])
def test_a_bake_without_a_stage_is_no_stall(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, read: str
) -> None:
    """The configuration says that ECS shifts traffic in stages, so a standstill proves nothing."""
    settings.UPGRADE_STALL_SECONDS = 0
    if read == "listed_only":
        platform.fault("access_denied", action=DESCRIBES[0], account="111111111111")
    if read == "no_stage":
        platform.fault("member_left_out", action=DESCRIBES[0], member="serviceDeployments.lifecycleStage")
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=30)
    upgrade = trigger(cast)
    engine.start(upgrade)
    for _ in range(20):
        engine.step()
        platform.advance(60)

    rollout = upgrade.rollouts.get()

    assert (rollout.status, rollout.is_stalled) == (Status.IN_PROGRESS, False)
    platform.clear_faults()
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_list_of_deployments_hides_no_progress(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    """ListServiceDeployments reports no counts. Those of the service's entry are kept."""
    platform.fault("access_denied", action=DESCRIBES[0], account="111111111111")
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, lambda rollout: rollout.target_running == rollout.desired_count, seconds=2)

    assert (rollout.status, rollout.is_stalled) == (Status.IN_PROGRESS, False)
    page = client_for(cast.operator).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert f"{rollout.desired_count} of {rollout.desired_count} new tasks running" in page
