"""Rollbacks carried out by the engine on the local AWS."""

import pytest

from portal.models import Membership
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import deploy, register, running
from tests.upgrades.rollbacks import roll_back
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Upgrade
from upgrades.states import Outcome, Status


@pytest.mark.django_db(transaction=True)
def test_the_services_run_the_earlier_revisions_again(
    cast: Cast, engine: Engine, platform: LocalAws, done_all: Upgrade
) -> None:
    rollback = engine.run(roll_back(cast, done_all))

    assert rollback.status == Status.SUCCESS
    assert rollback.message == "Rolled back: agent service, orchestrator, customer portal."
    for rollout in rollback.rollouts.all():
        original = done_all.rollouts.get(service=rollout.service)
        assert rollout.outcome == Outcome.COMPLETED
        assert (rollout.from_version, rollout.to_version) == ("v9.9.1", "v9.9.0")
        assert rollout.previous_task_definition == original.task_definition
        assert running(platform, cast.acme, rollout.service) == original.previous_task_definition


@pytest.mark.django_db(transaction=True)
def test_a_rollback_is_rolled_back_by_the_same_rules(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = engine.run(roll_back(cast, done))

    again = engine.run(roll_back(cast, rollback))

    assert (again.status, again.version, again.rolls_back) == (Status.SUCCESS, "v9.9.1", rollback)
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_what_others_deployed_since_the_trigger_is_not_touched(
    cast: Cast, engine: Engine, platform: LocalAws, done_all: Upgrade
) -> None:
    rollback = roll_back(cast, done_all)
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    before = len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster))

    engine.run(rollback)

    assert [(rollout.status, rollout.outcome) for rollout in rollback.rollouts.all()] == [
        (Status.FAILED, Outcome.CHANGED_SINCE),
        (Status.FAILED, Outcome.NOT_ATTEMPTED),
        (Status.FAILED, Outcome.NOT_ATTEMPTED),
    ]
    assert "(v9.9.2), which is not what the upgrade left. Nothing was changed." in (rollback.error_message or "")
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster)) == before


@pytest.mark.django_db(transaction=True)
def test_a_service_that_went_back_meanwhile_is_no_change(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    deploy(platform, cast.acme, "agent", str(done.rollouts.get().previous_task_definition))
    platform.advance(300)

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.NO_CHANGE


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_failed", [False, True])
def test_an_unproven_earlier_deployment_is_rolled_again(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade, has_failed: bool
) -> None:
    """Covers an earlier revision that others deployed meanwhile, which has not completed or has failed."""
    earlier, rollback = str(done.rollouts.get().previous_task_definition), roll_back(cast, done)
    place = {"cluster": cast.acme.cluster, "service": service_name(cast.acme, "agent")}
    if has_failed:
        breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
        platform.client().update_service(**place, deploymentConfiguration=breaker)
        platform.fault("crash", **place, times=1)
    deploy(platform, cast.acme, "agent", earlier)
    platform.advance(300 if has_failed else 0)

    engine.run(rollback)

    rollout = rollback.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.attempts) == (Status.SUCCESS, Outcome.COMPLETED, 1)
    assert running(platform, cast.acme, "agent") == earlier


@pytest.mark.django_db(transaction=True)
def test_ecs_refuses_a_revision_deregistered_meanwhile(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    platform.client().deregister_task_definition(taskDefinition=done.rollouts.get().previous_task_definition)

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.REFUSED
    assert "it may be deregistered" in (rollback.error_message or "")
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_a_lost_reply_starts_no_second_rollback(cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade) -> None:
    before = len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True))
    platform.fault("reply_lost", action="UpdateService", times=1)

    rollback = engine.run(roll_back(cast, done))

    assert rollback.rollouts.get().outcome == Outcome.COMPLETED
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)) == before + 1


@pytest.mark.django_db(transaction=True)
def test_the_engine_reads_ecs_again_if_the_plan_could_not(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    fault = platform.fault("server_error", action="*", account="111111111111")
    rollback = roll_back(cast, done)
    platform.clear_faults(fault["id"])

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.CHANGED_SINCE


@pytest.mark.django_db(transaction=True)
def test_a_rollback_that_crashes_is_rolled_back_by_ecs(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=service_name(cast.acme, "agent"))

    rollback = engine.run(roll_back(cast, done))

    assert rollback.rollouts.get().outcome == Outcome.ROLLED_BACK
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_a_rollback_of_a_removed_member_is_not_attempted(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    Membership.objects.filter(user=cast.operator).delete()

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.NOT_ATTEMPTED
