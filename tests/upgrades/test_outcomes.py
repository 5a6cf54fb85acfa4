"""Every outcome of a rollout (states.Outcome), produced by the local AWS and judged by the engine."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from portal.models import Membership, Organization, Role, User
from tests.conftest import Cast, Engine, seed_platform
from tests.local_aws import LocalAws
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)


def trigger(cast: Cast, service: str = "agent", **options: Any) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, **{"force_new_deployment": True} | options)


def verdicts(upgrade: Upgrade) -> dict[str, tuple[str, str | None]]:
    return {rollout.service: (rollout.status, rollout.outcome) for rollout in upgrade.rollouts.all()}


def deployments_started(local_aws: LocalAws, organization: Organization) -> int:
    """Count the UpdateService calls in the organization's cluster that started a deployment, by the ledger."""
    calls = local_aws.ledger(action="UpdateService", cluster=organization.cluster, effect=True)
    return sum(1 for call in calls if call["deployment_id"])


def get_service_name(cast: Cast, service: str = "agent") -> str:
    return f"{cast.acme.deployment_stack}-{service}-service"


def deploy_from_outside(local_aws: LocalAws, cast: Cast) -> None:
    local_aws.client().update_service(
        cluster=cast.acme.cluster, service=get_service_name(cast), forceNewDeployment=True
    )


def configure(local_aws: LocalAws, cast: Cast, **configuration: Any) -> None:
    local_aws.client().update_service(
        cluster=cast.acme.cluster, service=get_service_name(cast), deploymentConfiguration=configuration
    )


def deny_service_deployments(local_aws: LocalAws) -> None:
    """Deny the newer API actions, as in a role or region without them. Only DescribeServices is left."""
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        local_aws.fault("access_denied", action=action, account="111111111111")


def wait_for_rollback(local_aws: LocalAws, cast: Cast, rollout: Rollout) -> None:
    """Let ECS's time pass until it rolls the rollout's deployment back. Reads may lag behind."""
    for _ in range(300):
        deployments = local_aws.deployments(str(cast.acme.cluster))[get_service_name(cast)]["deployments"]
        mine = next(each for each in deployments if each["arn"] == rollout.service_deployment_arn)
        if mine["status"] == "ROLLBACK_IN_PROGRESS":
            return
        local_aws.advance(1)
    raise AssertionError(f"never rolled back: {mine}")


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


def test_a_failed_rollback_has_its_own_outcome(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    platform.fault("rollback_fails", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLBACK_FAILED)}


def test_a_breaker_without_rollback_has_its_own_outcome(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=get_service_name(cast),
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": False}},
    )
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.CIRCUIT_BREAKER)}


def test_an_alarm_without_rollback_has_its_own_outcome(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=get_service_name(cast),
        deploymentConfiguration={
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "alarms": {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": False},
        },
    )
    platform.fault("alarm", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast, override_reason="the alarm guards it"))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ALARM)}


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


@pytest.mark.parametrize("fault", [None, "crash"])
def test_a_superseded_rollout_is_found_without_the_list(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str | None
) -> None:
    platform.fault("access_denied", action="ListServiceDeployments", account="111111111111")
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(5)
    if fault:
        platform.fault(fault, cluster=cast.acme.cluster)
    deploy_from_outside(platform, cast)
    theirs = platform.ledger(action="UpdateService", cluster=cast.acme.cluster)[-1]["deployment_id"]

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.SUPERSEDED)}
    assert theirs in (upgrade.rollouts.get().rollout_reason or "")


def test_a_later_deployment_does_not_change_a_success(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(300)  # it completes unobserved
    deploy_from_outside(platform, cast)
    platform.fault("crash", cluster=cast.acme.cluster)
    platform.advance(300)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.SUCCESS, Outcome.COMPLETED)}


def test_a_stop_rolls_back_and_names_the_person(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, "all")
    engine.start(upgrade)
    platform.advance(5)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)

    assert upgrade.status == Status.FAILED
    assert verdicts(upgrade) == {
        "agent": (Status.FAILED, Outcome.STOPPED_BY_USER),
        "orchestrator": (Status.FAILED, Outcome.NOT_ATTEMPTED),
        "customer-portal": (Status.FAILED, Outcome.NOT_ATTEMPTED),
    }
    assert cast.admin.email in (upgrade.rollouts.get(service="agent").rollout_reason or "")
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster, effect=True)) == 1


def test_a_stop_in_ecs_with_no_earlier_revision_is_stopped(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    client, name = platform.client(), get_service_name(cast)
    definition = client.describe_services(cluster=cast.acme.cluster, services=[name])["services"][0]["taskDefinition"]
    client.delete_service(cluster=cast.acme.cluster, service=name, force=True)
    platform.advance(600)
    platform.fault("stuck", cluster=cast.acme.cluster)
    client.create_service(cluster=cast.acme.cluster, serviceName=name, taskDefinition=definition, desiredCount=4)
    upgrade = trigger(cast, override_reason="it was created again just now")
    mine = engine.start(upgrade)
    client.stop_service_deployment(serviceDeploymentArn=mine.service_deployment_arn)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED)}
    assert "No earlier completed revision" in (upgrade.error_message or "")


def test_a_stop_before_the_start_changes_nothing_in_ecs(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    stop_upgrade(upgrade, actor=cast.operator)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.NOT_ATTEMPTED)}
    assert deployments_started(platform, cast.acme) == 0


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


def test_denied_access_names_the_missing_permission(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="UpdateService", account="111111111111")

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ACCESS_DENIED)}
    assert "ecs:UpdateService" in (upgrade.error_message or "")


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


def test_a_stop_after_ecs_rolled_back_is_not_the_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)
    for _ in range(120):
        engine.step()
        if upgrade.rollouts.get().outcome == Outcome.ROLLING_BACK:
            break
        platform.advance(1)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLED_BACK)}
    assert cast.admin.email not in (upgrade.error_message or "")


@pytest.mark.parametrize("denied", ["DescribeServiceDeployments", "ListServiceDeployments"])
@pytest.mark.parametrize("fault", [None, "crash"])
def test_describe_services_judges_without_service_deployments(
    cast: Cast, engine: Engine, platform: LocalAws, denied: str, fault: str | None
) -> None:
    platform.fault("access_denied", action=denied, account="111111111111")
    if fault:
        platform.fault(fault, cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast))

    expected = (Status.FAILED, Outcome.ROLLED_BACK) if fault else (Status.SUCCESS, Outcome.COMPLETED)
    assert verdicts(upgrade) == {"agent": expected}


@pytest.mark.parametrize(
    ("fault", "rolls_back", "expected"),
    [
        (None, True, (Status.SUCCESS, Outcome.COMPLETED)),
        ("crash", True, (Status.FAILED, Outcome.ROLLED_BACK)),
        ("crash", False, (Status.FAILED, Outcome.CIRCUIT_BREAKER)),
    ],
)
def test_without_service_deployments_events_say_how_it_ended(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str | None, rolls_back: bool, expected: tuple[str, str]
) -> None:
    """No service deployments. The rollout ends while the workers are down, and another deployment follows."""
    configure(platform, cast, deploymentCircuitBreaker={"enable": True, "rollback": rolls_back})
    deny_service_deployments(platform)
    if fault:
        platform.fault(fault, cluster=cast.acme.cluster, service=get_service_name(cast), times=1)
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(300)
    deploy_from_outside(platform, cast)
    platform.advance(300)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": expected}


def test_without_service_deployments_an_alarm_is_no_breaker(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    alarms = {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": False}
    configure(platform, cast, deploymentCircuitBreaker={"enable": False, "rollback": False}, alarms=alarms)
    deny_service_deployments(platform)
    platform.fault("alarm", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast, override_reason="the alarm guards it"))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ALARM)}


def test_without_service_deployments_a_rollback_may_fail(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    platform.fault("rollback_fails", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast), seconds=2)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLBACK_FAILED)}


def test_without_service_deployments_a_stop_uses_the_replys_arn(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(5)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade, seconds=2)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED_BY_USER)}
    assert cast.admin.email in (upgrade.rollouts.get().rollout_reason or "")
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster)) == 1


def test_without_service_deployments_a_late_stop_is_not_blamed(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """Reads lag, so the stop is sent after the circuit breaker has tripped. ECS accepts it and continues to roll back."""
    deny_service_deployments(platform)
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    platform.fault("stale_reads", seconds=60)
    upgrade = trigger(cast)
    wait_for_rollback(platform, cast, engine.start(upgrade))
    stop_upgrade(upgrade, actor=cast.admin)
    engine.step()
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster)) == 1

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLED_BACK)}
    assert cast.admin.email not in (upgrade.error_message or "")
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster)) == 1


def test_without_service_deployments_a_lost_stop_is_sent_again(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    upgrade = trigger(cast)
    engine.start(upgrade)
    stop_upgrade(upgrade, actor=cast.admin)
    platform.fault("timeout_before", action="StopServiceDeployment", times=1, seconds=0.01)
    engine.step()
    assert "AWS has not answered the stop request yet" in (upgrade.rollouts.get().stop_error or "")

    engine.run(upgrade, seconds=2)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED_BY_USER)}
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster, effect=True)) == 1


def test_without_service_deployments_a_stops_rollback_may_fail(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    platform.fault("rollback_fails", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(5)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLBACK_FAILED)}
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster)) == 1


def test_without_service_deployments_others_end_the_rollback(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast), times=1)
    upgrade = trigger(cast)
    wait_for_rollback(platform, cast, engine.start(upgrade))
    deploy_from_outside(platform, cast)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLBACK_FAILED)}


def test_a_throttled_stop_is_not_recorded_as_sent(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("throttle", action="StopServiceDeployment")
    upgrade = trigger(cast)
    engine.start(upgrade)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.step()

    assert upgrade.rollouts.get().stop_sent_at is None


def test_a_stop_names_the_person_even_if_its_repeat_is_refused(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """A stale read still shows the deployment in progress."""
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(20)
    stop_upgrade(upgrade, actor=cast.admin)
    platform.fault("stale_reads", seconds=10)
    engine.step()
    platform.fault("error", action="StopServiceDeployment", code="ConflictException", status=400)
    engine.step()

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED_BY_USER)}


def test_a_lost_call_is_adopted_without_service_deployments(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="ListServiceDeployments", account="111111111111")
    platform.fault("reply_lost", action="UpdateService", times=1)

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.SUCCESS, Outcome.COMPLETED)}
    assert deployments_started(platform, cast.acme) == 1


def test_a_stale_read_does_not_supersede_the_rollout(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deny_service_deployments(platform)
    platform.fault("stale_reads", seconds=20)

    upgrade = engine.run(trigger(cast))

    assert verdicts(upgrade) == {"agent": (Status.SUCCESS, Outcome.COMPLETED)}


def test_a_denied_stop_is_shown_and_does_not_stop_reads(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    platform.fault("access_denied", action="StopServiceDeployment", account="111111111111")
    upgrade = trigger(cast)
    engine.start(upgrade)
    engine.step()
    before = upgrade.rollouts.get().last_checked_at
    stop_upgrade(upgrade, actor=cast.admin)

    engine.step()

    rollout = upgrade.rollouts.get()
    refusal = "The stop was refused. ecs:StopServiceDeployment: AccessDeniedException (AWS request "
    assert (rollout.stop_error or "").startswith(refusal)
    assert rollout.check_error is None
    assert rollout.last_checked_at != before
    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert "The stop request has not succeeded yet" in page
    assert str(rollout.stop_error) in page
    assert "AWS has not answered" not in page
    assert engine.run(upgrade).status == Status.SUCCESS


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
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=get_service_name(cast),
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": False}},
    )
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(300)
    platform.client().describe_services(cluster=cast.acme.cluster, services=[get_service_name(cast)])
    deploy_from_outside(platform, cast)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.CIRCUIT_BREAKER)}


def test_an_error_shows_no_aws_principal(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="UpdateService", account="111111111111")

    upgrade = engine.run(trigger(cast))

    assert "arn:aws" not in (upgrade.error_message or "")


def test_a_list_of_deployments_does_not_hide_the_breaker(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """ListServiceDeployments reports no breaker. The service's own entry does."""
    configure(platform, cast, deploymentCircuitBreaker={"enable": True, "rollback": False})
    platform.fault("access_denied", action="DescribeServiceDeployments", account="111111111111")
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))

    upgrade = engine.run(trigger(cast, override_reason="no rollback here"))

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.CIRCUIT_BREAKER)}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(None, (Status.SUCCESS, Outcome.COMPLETED)), ("crash", (Status.FAILED, Outcome.ROLLED_BACK))],
)
def test_without_a_rollout_state_a_steady_service_has_ended(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str | None, expected: tuple[str, str]
) -> None:
    """ECS returns no rolloutState behind a Classic Load Balancer."""
    deny_service_deployments(platform)
    platform.fault("member_left_out", action="DescribeServices", member="services.deployments.rolloutState")
    if fault:
        platform.fault(fault, cluster=cast.acme.cluster, service=get_service_name(cast), times=1)

    upgrade = engine.run(trigger(cast), seconds=5)

    assert verdicts(upgrade) == {"agent": expected}


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
