"""One recorded upgrade starts one deployment, even if calls or messages are lost, duplicated or late, or workers killed.

The local AWS's ledger is the oracle.
"""

import signal
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from portal.aws import credentials
from portal.leases import LEASE_DURATION
from portal.models import Organization
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.processes import start_step, wait_for
from upgrades.commands.trigger import trigger_upgrade
from upgrades.engine.lease import LeaseLost, claim_rollout
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, Phase, Status
from upgrades.tasks import advance_rollout, sweep

pytestmark = pytest.mark.django_db(transaction=True)


def trigger(cast: Cast, service: str = "agent") -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, force_new_deployment=True)


def get_service(cast: Cast) -> dict[str, str]:
    return {"cluster": str(cast.acme.cluster), "service": f"{cast.acme.deployment_stack}-agent-service"}


def deployments(local_aws: LocalAws, organization: Organization) -> list[dict[str, Any]]:
    calls = local_aws.ledger(action="UpdateService", cluster=organization.cluster, effect=True)
    return [call for call in calls if call["deployment_id"]]


def assert_one_own_deployment(local_aws: LocalAws, cast: Cast, upgrade: Upgrade) -> None:
    (call,) = deployments(local_aws, cast.acme)
    rollout = upgrade.rollouts.get()
    assert (rollout.deployment_id, rollout.service_deployment_arn) == (
        call["deployment_id"],
        call["service_deployment_arn"],
    )


@pytest.mark.parametrize("stale_seconds", [0, 12])
def test_a_lost_reply_is_adopted(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, stale_seconds: int
) -> None:
    settings.UPGRADE_ADOPT_SECONDS = 15
    platform.fault("reply_lost", action="UpdateService", times=1)
    if stale_seconds:
        platform.fault("stale_reads", seconds=stale_seconds)

    upgrade = engine.run(trigger(cast), seconds=3)

    assert upgrade.status == Status.SUCCESS
    assert_one_own_deployment(platform, cast, upgrade)


def test_call_that_failed_without_effect_is_repeated(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("server_error", action="UpdateService", times=1)

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    assert upgrade.rollouts.get().attempts == 2
    assert_one_own_deployment(platform, cast, upgrade)


def test_a_throttled_call_waits_for_its_turn(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("throttle", action="UpdateService", times=3)

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    assert upgrade.rollouts.get().attempts == 1
    assert_one_own_deployment(platform, cast, upgrade)


def test_a_call_that_never_takes_effect_ends_refused(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("server_error", action="UpdateService")

    upgrade = engine.run(trigger(cast))

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.attempts) == (Status.FAILED, Outcome.REFUSED, 3)
    assert deployments(platform, cast.acme) == []


@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after"])
def test_a_worker_killed_in_the_middle_of_the_call(cast: Cast, engine: Engine, platform: LocalAws, fault: str) -> None:
    upgrade = trigger(cast)
    pk = upgrade.rollouts.get().pk
    platform.fault(fault, action="UpdateService", times=1, seconds=3)
    worker = start_step(pk)
    wait_for(lambda: Rollout.objects.get(pk=pk).phase == Phase.CALLING)
    if fault == "timeout_after":
        wait_for(lambda: bool(deployments(platform, cast.acme)))
    worker.send_signal(signal.SIGKILL)
    worker.wait()

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert_one_own_deployment(platform, cast, upgrade)


def foreign_definition(local_aws: LocalAws) -> str:
    reply = local_aws.client().register_task_definition(
        family="somebody-elses", containerDefinitions=[{"name": "agent", "image": "agent:other", "memory": 512}]
    )
    return str(reply["taskDefinition"]["taskDefinitionArn"])


def test_deployment_from_outside_is_not_adopted(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    other = foreign_definition(platform)
    upgrade = trigger(cast)
    platform.fault("reply_lost", action="UpdateService", times=1)
    engine.step()
    platform.client().update_service(**get_service(cast), taskDefinition=other)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert rollout.outcome == Outcome.SUPERSEDED
    mine, theirs = deployments(platform, cast.acme)
    assert rollout.service_deployment_arn == mine["service_deployment_arn"]
    assert theirs["service_deployment_arn"] in (rollout.rollout_reason or "")


def test_call_is_not_repeated_over_an_outside_deployment(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    other = foreign_definition(platform)
    upgrade = trigger(cast)
    platform.fault("server_error", action="UpdateService", times=1)
    engine.step()
    platform.client().update_service(**get_service(cast), taskDefinition=other)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.attempts) == (Outcome.SUPERSEDED, 1)
    assert "somebody-elses:1 was deployed outside this upgrade since" in (rollout.rollout_reason or "")
    assert len(deployments(platform, cast.acme)) == 1


def test_lost_call_is_adopted_even_after_its_deadline(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """No worker ran until after the deadline."""
    upgrade = trigger(cast)
    platform.fault("reply_lost", action="UpdateService", times=1)
    engine.step()
    platform.advance(600)
    Rollout.objects.filter(upgrade=upgrade).update(deadline_at=Now())

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert_one_own_deployment(platform, cast, upgrade)


def test_twenty_concurrent_workers_start_one_deployment(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    pk = upgrade.rollouts.get().pk
    gate = threading.Barrier(20)

    def work() -> None:
        try:
            gate.wait()
            advance(pk)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert_one_own_deployment(platform, cast, upgrade)


def test_doubled_messages_change_nothing(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    pk = upgrade.rollouts.get().pk

    for _ in range(10):
        advance_rollout(pk)
    engine.run(upgrade)
    for _ in range(10):
        advance_rollout(pk)

    assert_one_own_deployment(platform, cast, upgrade)


def test_a_worker_that_lost_its_lease_writes_nothing(cast: Cast, platform: LocalAws) -> None:
    pk = trigger(cast).rollouts.get().pk
    sleeper = claim_rollout(pk)
    assert sleeper
    Rollout.objects.filter(pk=pk).update(lease_until=None)
    assert claim_rollout(pk)

    with pytest.raises(LeaseLost):
        sleeper.write(status=Status.FAILED)

    assert Rollout.objects.get(pk=pk).status == Status.PENDING


def test_leased_rollout_cannot_be_claimed(cast: Cast, platform: LocalAws) -> None:
    pk = trigger(cast).rollouts.get().pk

    assert claim_rollout(pk)
    assert claim_rollout(pk) is None


def test_sweep_starts_what_the_broker_lost(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """The message was published but never delivered, because there is no worker in this test."""
    upgrade = trigger(cast)
    Rollout.objects.filter(upgrade=upgrade).update(next_check_at=Now())

    sweep()
    assert upgrade.rollouts.get().phase == Phase.DUE  # dispatched; the sweep first gives a worker five seconds
    make_overdue(upgrade)
    sweep()

    assert upgrade.rollouts.get().phase == Phase.WATCHING
    assert_one_own_deployment(platform, cast, upgrade)


def make_overdue(upgrade: Upgrade) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deployment_upgrade_services SET next_check_at = now() - interval '10 seconds' WHERE upgrade_id = %s",
            [upgrade.pk],
        )


def test_a_row_that_no_step_can_handle_becomes_overdue(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    Rollout.objects.filter(upgrade=upgrade).update(baseline={"answered_at": "not a time"})

    engine.step()
    assert "See the worker's log for the error" in (upgrade.rollouts.get().check_error or "")
    Rollout.objects.filter(upgrade=upgrade).update(deadline_at=Now())
    engine.step()

    rollout = upgrade.rollouts.get()
    assert (rollout.phase, rollout.is_overdue) == (Phase.WATCHING, True)
    Rollout.objects.filter(upgrade=upgrade).update(started_at=Now() - timedelta(days=30))
    engine.run(upgrade)
    assert upgrade.rollouts.get().outcome == Outcome.TIMED_OUT


def test_adoption_wait_starts_after_the_call(cast: Cast, engine: Engine, platform: LocalAws, settings: Any) -> None:
    """The wait for a lost deployment counts from the first read after the call, not from before it."""
    settings.UPGRADE_ADOPT_SECONDS = 0
    platform.fault("reply_lost", action="UpdateService", times=1)
    platform.fault("stale_reads", seconds=5)
    upgrade = trigger(cast)
    for _ in range(3):
        engine.step()  # the call and two reads that find nothing are not enough to repeat the call
    assert upgrade.rollouts.get().phase == Phase.CALLING
    platform.advance(6)

    engine.run(upgrade)

    assert upgrade.rollouts.get().attempts == 1
    assert_one_own_deployment(platform, cast, upgrade)


def test_the_second_attempt_keeps_the_first_ones_baseline(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("server_error", action="UpdateService", times=2)
    upgrade = trigger(cast)
    engine.step()
    first = upgrade.rollouts.get().baseline["deployment_ids"]
    for _ in range(4):
        engine.step()

    assert upgrade.rollouts.get().attempts == 2
    assert upgrade.rollouts.get().baseline["deployment_ids"] == first


def test_a_lost_reply_says_what_was_lost(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("reply_lost", action="UpdateService", times=1)
    upgrade = trigger(cast)

    engine.step()

    assert upgrade.rollouts.get().check_error == "ecs:UpdateService: ConnectionClosedError."


def test_several_candidates_are_listed_with_the_verdict(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("reply_lost", action="UpdateService", times=1)
    platform.fault("stale_reads", seconds=3)
    upgrade = trigger(cast)
    engine.step()
    platform.advance(1)
    platform.client().update_service(**get_service(cast), forceNewDeployment=True)
    platform.advance(4)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    mine, _ = deployments(platform, cast.acme)
    assert (rollout.deployment_id, rollout.service_deployment_arn) == (
        mine["deployment_id"],
        mine["service_deployment_arn"],
    )
    assert "Several deployments started" in (rollout.error_message or "")


def test_a_lease_outlives_the_longest_write() -> None:
    assume_role = credentials.SHORT_CONNECT_SECONDS + credentials.PAGE_READ_SECONDS
    write = credentials.CONNECT_TIMEOUT_SECONDS + credentials.WRITE_TIMEOUT_SECONDS

    assert LEASE_DURATION.total_seconds() > assume_role + write
