"""Rollouts in a role or region without ECS's newer API: DescribeServices and events alone decide how they ended."""

import pytest

from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.rollouts import (
    configure,
    deploy_from_outside,
    deployments_started,
    get_service_name,
    trigger,
    verdicts,
)
from upgrades.commands.stop import stop_upgrade
from upgrades.models import Rollout
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)


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
