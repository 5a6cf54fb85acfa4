"""Every outcome of a rollout (states.Outcome), produced by the local AWS and judged by the engine."""

from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from portal.models import Membership, Organization, Role
from tests.conftest import Cast, Engine, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.rollouts import (
    configure,
    deploy_from_outside,
    deployments_started,
    get_service_name,
    trigger,
    verdicts,
)
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, UpgradeEvent
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_forced_upgrade_rolls_out_and_succeeds(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    rollout = upgrade.rollouts.get()
    assert rollout.outcome == Outcome.COMPLETED
    assert (rollout.desired_count, rollout.running_count, rollout.target_running) == (4, 4, 4)
    assert (rollout.from_version, rollout.to_version) == ("v9.9.0", "v9.9.0")
    assert rollout.previous_task_definition == rollout.task_definition
    assert UpgradeEvent.objects.filter(rollout=rollout, message__contains="has started").exists()
    assert upgrade.started_at
    assert upgrade.completed_at
    assert (upgrade.success_count, upgrade.failed_count) == (1, 0)
    assert deployments_started(platform, cast.acme) == 1


def test_tasks_count_up_while_it_is_in_progress(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)

    engine.start(upgrade)
    seen = []
    for _ in range(60):
        engine.step()
        rollout = upgrade.rollouts.get()
        seen.append((rollout.status, rollout.target_running))
        if rollout.is_terminal:
            break
        platform.advance(2)

    counts = [count for status, count in seen if status == Status.IN_PROGRESS]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert seen[-1] == (Status.SUCCESS, 4)


def test_all_rolls_one_service_after_the_other(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.SUCCESS
    ended = list(upgrade.rollouts.order_by("position").values_list("service", "started_at", "completed_at"))
    assert [service for service, _, _ in ended] == ["agent", "orchestrator", "customer-portal"]
    assert ended[0][2] <= ended[1][1]
    assert ended[1][2] <= ended[2][1]
    assert deployments_started(platform, cast.acme) == 3


def test_nothing_to_change_makes_no_aws_write(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(trigger(cast, force_new_deployment=False))

    assert verdicts(upgrade) == {"agent": (Status.SUCCESS, Outcome.NO_CHANGE)}
    assert "nothing to change" in (upgrade.rollouts.get().rollout_reason or "")
    assert deployments_started(platform, cast.acme) == 0


def test_a_crash_is_rolled_back_and_ends_all_partial(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast, "orchestrator"))

    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.PARTIAL
    assert verdicts(upgrade) == {
        "agent": (Status.SUCCESS, Outcome.COMPLETED),
        "orchestrator": (Status.FAILED, Outcome.ROLLED_BACK),
        "customer-portal": (Status.FAILED, Outcome.NOT_ATTEMPTED),
    }
    broken = upgrade.rollouts.get(service="orchestrator")
    assert "circuit breaker" in (broken.rollout_reason or "")
    assert "Essential container in task exited" in (broken.error_message or "")
    assert broken.stopped_tasks[0]["exit_code"] == 1
    assert broken.breaker_failures >= broken.breaker_threshold > 0
    assert broken.running_count == broken.desired_count  # the old tasks run again, but it is FAILED
    assert deployments_started(platform, cast.acme) == 2


def test_why_tasks_stopped_is_not_read_again_while_nothing_happens(
    cast: Cast, engine: Engine, platform: LocalAws, caplog: pytest.LogCaptureFixture
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)

    def has_details() -> bool:
        engine.step()
        stopped = upgrade.rollouts.get().stopped_tasks
        return bool(stopped) and all(task["stopped_at"] for task in stopped)

    platform.wait_until(has_details)
    details = upgrade.rollouts.get().stopped_tasks
    engine.step()
    platform.fault("access_denied", action="ListTasks")
    caplog.set_level("INFO")

    engine.step()

    assert upgrade.rollouts.get().stopped_tasks == details
    assert "stopped tasks not read" not in caplog.text
    platform.advance(60)  # more tasks crash
    engine.step()
    assert "stopped tasks not read" in caplog.text


def test_rolling_back_is_in_progress_with_its_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)

    engine.start(upgrade)
    outcomes = []
    for _ in range(120):
        engine.step()
        rollout = upgrade.rollouts.get()
        outcomes.append((rollout.status, rollout.outcome))
        if rollout.is_terminal:
            break
        platform.advance(1)

    assert (Status.IN_PROGRESS, Outcome.ROLLING_BACK) in outcomes
    assert outcomes[-1] == (Status.FAILED, Outcome.ROLLED_BACK)


def test_an_image_that_cannot_be_pulled_names_the_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("image_pull", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast))

    assert "CannotPullContainerError" in (upgrade.error_message or "")


NO_BREAKER = {"enable": False, "rollback": False}
ALARMS = {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": False}


@pytest.mark.parametrize(
    ("configuration", "faults", "outcome"),
    [
        ({}, ["crash", "rollback_fails"], Outcome.ROLLBACK_FAILED),
        ({"deploymentCircuitBreaker": {"enable": True, "rollback": False}}, ["crash"], Outcome.CIRCUIT_BREAKER),
        ({"deploymentCircuitBreaker": NO_BREAKER, "alarms": ALARMS}, ["alarm"], Outcome.ALARM),
    ],
    ids=["failed rollback", "breaker without rollback", "alarm without rollback"],
)
def test_each_failure_has_an_outcome_of_its_own(
    cast: Cast, engine: Engine, platform: LocalAws, configuration: dict[str, Any], faults: list[str], outcome: Outcome
) -> None:
    if configuration:
        configure(platform, cast, **configuration)
    for fault in faults:
        platform.fault(fault, cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast, override_reason="the alarm guards it" if "alarms" in configuration else ""))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, outcome)}


def test_a_deployment_from_outside_supersedes_the_rollout(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    mine = engine.start(upgrade)
    platform.advance(5)
    deploy_from_outside(platform, cast)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.SUPERSEDED)}
    reason = upgrade.rollouts.get().rollout_reason or ""
    assert "service-deployment" in reason
    assert str(mine.service_deployment_arn) not in reason


def test_a_later_deployment_does_not_change_a_success(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(300)  # it completes unobserved
    deploy_from_outside(platform, cast)
    platform.fault("crash", cluster=cast.acme.cluster)
    platform.advance(300)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.SUCCESS, Outcome.COMPLETED)}


def test_a_disabled_service_is_skipped_under_all(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().update_service(
        cluster=cast.acme.cluster, service=get_service_name(cast, "customer-portal"), desiredCount=0
    )

    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.SUCCESS
    assert verdicts(upgrade)["customer-portal"] == (Status.SKIPPED, Outcome.DISABLED)
    assert (upgrade.success_count, upgrade.failed_count) == (2, 0)


def test_a_missing_service_fails_and_the_others_continue(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().delete_service(
        cluster=cast.acme.cluster, service=get_service_name(cast, "orchestrator"), force=True
    )
    platform.advance(600)

    upgrade = engine.run(trigger(cast, "all", override_reason="created again later"))

    assert upgrade.status == Status.PARTIAL
    assert verdicts(upgrade) == {
        "agent": (Status.SUCCESS, Outcome.COMPLETED),
        "orchestrator": (Status.FAILED, Outcome.SERVICE_MISSING),
        "customer-portal": (Status.SUCCESS, Outcome.COMPLETED),
    }


def test_a_missing_cluster_is_named(cast: Cast, engine: Engine) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_cluster="gone")
    cast.acme.refresh_from_db()

    upgrade = engine.run(trigger(cast, override_reason="to see the error of ECS"))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.SERVICE_MISSING)}
    assert "gone" in (upgrade.error_message or "")


def test_a_service_deleted_during_its_rollout_is_missing(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.client().delete_service(cluster=cast.acme.cluster, service=get_service_name(cast), force=True)
    platform.advance(600)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.SERVICE_MISSING)}


def test_a_service_deleted_while_rolling_ends_the_others(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """ECS does not list the deployments of a deleted service either."""
    upgrade = trigger(cast, "all")
    engine.start(upgrade)
    platform.client().delete_service(cluster=cast.acme.cluster, service=get_service_name(cast), force=True)
    platform.fault("error", action="ListServiceDeployments", code="ServiceNotFoundException", status=400)
    platform.advance(600)

    engine.run(upgrade)

    assert verdicts(upgrade) == {
        "agent": (Status.FAILED, Outcome.SERVICE_MISSING),
        "orchestrator": (Status.FAILED, Outcome.NOT_ATTEMPTED),
        "customer-portal": (Status.FAILED, Outcome.NOT_ATTEMPTED),
    }


def test_denied_access_names_the_permission_but_no_principal(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="UpdateService", account="111111111111")

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ACCESS_DENIED)}
    assert "ecs:UpdateService" in (upgrade.error_message or "")
    assert "arn:aws" not in (upgrade.error_message or "")


def test_a_role_that_cannot_be_assumed_is_denied_access(cast: Cast, engine: Engine) -> None:
    Organization.objects.filter(pk=cast.globex.pk).update(deployment_external_id="not-the-one")
    cast.globex.refresh_from_db()

    upgrade = engine.run(
        trigger_upgrade(
            cast.globex,
            actor=cast.outsider,
            service="agent",
            force_new_deployment=True,
            override_reason="to see the error of AWS",
        )
    )

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ACCESS_DENIED)}
    assert "sts:AssumeRole" in (upgrade.error_message or "")


def test_another_account_is_reached_by_its_role(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(trigger_upgrade(cast.globex, actor=cast.outsider, service="agent", force_new_deployment=True))

    assert upgrade.status == Status.SUCCESS
    (call,) = platform.ledger(action="UpdateService", account="222222222222")
    assert call["region"] == "us-east-1"


def test_a_refusal_by_ecs_says_what_to_do(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("error", action="UpdateService", code="InvalidParameterException", message="Bad subnet.")

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.REFUSED)}
    assert "ecs:UpdateService: InvalidParameterException (AWS request " in (upgrade.error_message or "")
    assert "Check in ECS that task definition and service match" in (upgrade.error_message or "")
    assert "Bad subnet." not in (upgrade.error_message or "")


def test_a_rollout_without_progress_is_flagged_stalled(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any
) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    platform.fault("no_capacity", cluster=cast.acme.cluster)
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(30)
    engine.step()
    platform.advance(30)
    engine.step()

    rollout = upgrade.rollouts.get()

    assert rollout.status == Status.IN_PROGRESS
    assert rollout.is_stalled
    assert UpgradeEvent.objects.filter(rollout=rollout, message__contains="unable to place").exists()


@pytest.mark.parametrize("fault", ["throttle", "access_denied", "server_error"])
def test_a_failed_read_changes_no_state(cast: Cast, engine: Engine, platform: LocalAws, fault: str) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    engine.step()
    before = upgrade.rollouts.get()
    platform.fault(fault, action="*", account="111111111111")

    engine.step()

    after = upgrade.rollouts.get()
    assert (after.status, after.outcome, after.last_checked_at) == (
        before.status,
        before.outcome,
        before.last_checked_at,
    )
    assert after.check_error
    platform.clear_faults()
    assert engine.run(upgrade).status == Status.SUCCESS
    assert upgrade.rollouts.get().check_error is None


def test_expired_credentials_are_renewed_during_a_rollout(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.globex, actor=cast.outsider, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    platform.fault("expired_token", action="DescribeServices", times=1)

    engine.step()

    assert upgrade.rollouts.get().check_error is None
    assert engine.run(upgrade).status == Status.SUCCESS


def test_stale_reads_never_fake_an_end(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("stale_reads", seconds=20)

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    assert deployments_started(platform, cast.acme) == 1


def test_an_ended_upgrade_is_audited_and_never_reopened(cast: Cast, engine: Engine) -> None:
    upgrade = engine.run(trigger(cast))
    completed_at = upgrade.completed_at

    Rollout.objects.filter(upgrade=upgrade).update(next_check_at=Now())
    engine.step()
    upgrade.refresh_from_db()

    assert (upgrade.status, upgrade.completed_at) == (Status.SUCCESS, completed_at)
    kinds = list(cast.acme.audit_events.order_by("id").values_list("kind", flat=True))
    assert kinds == ["upgrade.triggered", "upgrade.ended"]
    assert upgrade.completed_at
    assert upgrade.completed_at <= timezone.now()


def test_two_organizations_roll_side_by_side(cast: Cast, engine: Engine, local_aws: LocalAws) -> None:
    seed_platform(local_aws, cast.acme)
    mine = trigger(cast)
    theirs = trigger_upgrade(cast.globex, actor=cast.outsider, service="agent", force_new_deployment=True)

    engine.run(mine)
    engine.run(theirs)

    assert (mine.status, theirs.status) == (Status.SUCCESS, Status.SUCCESS)


def test_a_changed_organization_does_not_move_a_rollout(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, "all")
    engine.start(upgrade)
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_region="us-west-2", deployment_cluster="elsewhere")

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert deployments_started(platform, cast.acme) == 3


@pytest.mark.parametrize("change", ["suspended", "demoted"])
def test_no_service_starts_after_suspension_or_demotion(
    cast: Cast, engine: Engine, platform: LocalAws, change: str
) -> None:
    upgrade = trigger(cast, "all")
    engine.start(upgrade)
    if change == "suspended":
        Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    else:
        Membership.objects.filter(user=cast.operator).update(role=Role.VIEWER)

    engine.run(upgrade)

    assert verdicts(upgrade) == {
        "agent": (Status.SUCCESS, Outcome.COMPLETED),  # already rolling, so it is watched to its end
        "orchestrator": (Status.FAILED, Outcome.NOT_ATTEMPTED),
        "customer-portal": (Status.FAILED, Outcome.NOT_ATTEMPTED),
    }
    assert deployments_started(platform, cast.acme) == 1


def test_a_fix_deployed_after_the_breaker_does_not_hide_it(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, deploymentCircuitBreaker={"enable": True, "rollback": False})
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(300)
    platform.client().describe_services(cluster=cast.acme.cluster, services=[get_service_name(cast)])
    deploy_from_outside(platform, cast)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.CIRCUIT_BREAKER)}


def test_a_deployment_from_before_the_call_is_not_adopted(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """Another person deployed just before the call, and the reads show it late. The portal's own call is lost."""
    platform.fault("stale_reads", seconds=20)
    deploy_from_outside(platform, cast)
    platform.advance(10)
    platform.fault("timeout_before", action="UpdateService", times=1, seconds=0.01)
    upgrade = trigger(cast)

    engine.run(upgrade, seconds=5)

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.attempts) == (Outcome.COMPLETED, 2)
    own = platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)[-1]
    assert rollout.service_deployment_arn == own["service_deployment_arn"]


def test_a_named_deployment_of_another_person_is_dropped(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """UpdateService's reply named the service's current deployment while reads lagged. It was not the portal's."""
    upgrade = trigger(cast)
    rollout = engine.start(upgrade)
    own, baseline = rollout.service_deployment_arn, rollout.baseline
    Rollout.objects.filter(pk=rollout.pk).update(service_deployment_arn=baseline["service_deployment"])

    engine.step()

    assert upgrade.rollouts.get().service_deployment_arn == own
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_deployment_during_the_preparation_is_read_first(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """Another person deploys between the decision and the call: the portal decides again, and rolls on top of it."""
    platform.fault("stale_reads", seconds=5)
    deploy_from_outside(platform, cast)
    upgrade = trigger(cast)

    engine.run(upgrade)

    own = upgrade.rollouts.get()
    assert (own.outcome, own.attempts) == (Outcome.COMPLETED, 1)
