"""One recorded deployment creates one ECS service, and one change one event, even if calls or messages are lost,
duplicated or late, or workers are killed. The local AWS's ledger is the oracle.
"""

import subprocess
import sys
import threading
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from deployments.commands import (
    create_deployment,
    kill_deployment,
    restart_deployment,
    scale_deployment,
    stop_deployment,
)
from deployments.engine.read_budget import claim_batch
from deployments.engine.reconciler import reconcile
from deployments.models import Agent, Deployment
from deployments.tasks import reconcile as reconcile_task
from deployments.tasks import sweep
from portal import tenancy
from portal.leases import LeaseLost
from tests.conftest import Cast
from tests.deployments.conftest import Runtime, agent, deployment, history, runtime, services_created
from tests.local_aws import ROOT, LocalAws
from tests.processes import wait_for, worker_environment

__all__ = ["agent", "deployment", "runtime"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)

# One reconciliation in its own process, so that it can be killed halfway.
TURN = "import django; django.setup(); from deployments.engine.reconciler import reconcile; reconcile('{}', '{}')"
LIFE = ["create", "deploy.running", "deploy.ready"]


def place(deployment: Deployment) -> tuple[str, str]:
    return str(deployment.organization_id), deployment.cluster


def events(deployment: Deployment) -> list[str]:
    return [event for event, _ in history(deployment)]


def rollouts(local_aws: LocalAws, deployment: Deployment) -> int:
    """Return the number of ECS deployments started for it, including the first one."""
    calls = local_aws.ledger(service=deployment.service_name, effect=True)
    return sum(1 for call in calls if call["deployment_id"])


def definitions(local_aws: LocalAws, deployment: Deployment) -> int:
    calls = local_aws.ledger(action="RegisterTaskDefinition", effect=True)
    return sum(1 for call in calls if call["parameters"]["family"] == deployment.service_name)


# --- lost replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["CreateService", "RegisterTaskDefinition"])
@pytest.mark.parametrize("fault", ["reply_lost", "server_error", "throttle"])
def test_a_create_whose_reply_is_lost_makes_one_service(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, action: str, fault: str
) -> None:
    platform.fault(fault, action=action, times=2)

    runtime.run(deployment, "ready")

    assert services_created(platform, deployment) == 1
    assert rollouts(platform, deployment) == 1
    assert definitions(platform, deployment) == 1
    assert events(deployment) == LIFE


def test_stale_reads_do_not_double_a_create(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, settings: Any
) -> None:
    settings.DEPLOYMENTS_LAG_SECONDS = 15
    platform.fault("stale_reads", seconds=30)
    platform.fault("reply_lost", action="CreateService", times=1)

    runtime.run(deployment, "ready", seconds=3)

    assert (services_created(platform, deployment), rollouts(platform, deployment)) == (1, 1)
    assert (events(deployment)[0], events(deployment).count("deploy.ready")) == ("create", 1)
    assert not deployment.events.filter(actor="outside the portal").exists()


@pytest.mark.parametrize("fault", ["reply_lost", "server_error", "throttle"])
def test_scale_stop_and_restart_whose_replies_are_lost(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, fault: str
) -> None:
    runtime.run(deployment, "ready")

    for command, status, options in (
        (scale_deployment, "ready", {"replicas": 3}),
        (stop_deployment, "stopped", {}),
        (restart_deployment, "ready", {}),
    ):
        platform.fault(fault, action="UpdateService", times=2)
        command(deployment, actor=cast.operator, **options)  # type: ignore[operator] # three signatures
        runtime.run(deployment, status)
        platform.clear_faults()

    assert rollouts(platform, deployment) == 1
    asked = [event for event in events(deployment) if "." not in event]
    assert asked == ["create", "scale", "stop", "restart"]
    assert deployment.running_replicas == 3
    assert not deployment.events.filter(actor="outside the portal").exists()


def test_restart_after_failure_with_a_lost_reply_is_one_rollout(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    fault = platform.fault("crash", cluster=cast.acme.cluster)
    runtime.run(deployment, "failed")
    platform.clear_faults(fault["id"])
    platform.fault("reply_lost", action="UpdateService", times=2)

    restart_deployment(deployment, actor=cast.operator)
    runtime.run(deployment, "ready")

    assert rollouts(platform, deployment) == 2
    assert definitions(platform, deployment) == 2
    assert events(deployment).count("restart") == 1


@pytest.mark.parametrize("action", ["UpdateService", "DeleteService"])
def test_a_kill_whose_reply_is_lost_ends_with_no_service(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, action: str
) -> None:
    runtime.run(deployment, "ready")
    platform.fault("reply_lost", action=action, times=2)

    kill_deployment(deployment, actor=cast.operator)
    runtime.settle(deployment)

    assert status_in_ecs(platform, deployment) == "INACTIVE"
    assert events(deployment) == [*LIFE, "kill"]


def status_in_ecs(local_aws: LocalAws, deployment: Deployment) -> str | None:
    reply = local_aws.client().describe_services(cluster=deployment.cluster, services=[deployment.service_name])
    return str(reply["services"][0]["status"]) if reply["services"] else None


# --- killed workers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after"])
def test_a_worker_killed_in_the_middle_of_the_create(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, fault: str
) -> None:
    killed_in(platform, deployment, fault, "CreateService")

    runtime.run(deployment, "ready")

    assert services_created(platform, deployment) == 1
    assert (rollouts(platform, deployment), events(deployment)) == (1, LIFE)


def test_a_worker_killed_in_the_middle_of_a_scale(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")
    scale_deployment(deployment, actor=cast.operator, replicas=3)

    killed_in(platform, deployment, "timeout_after", "UpdateService")
    runtime.run(deployment, "running")
    runtime.run(deployment, "ready")

    assert (deployment.running_replicas, rollouts(platform, deployment)) == (3, 1)
    assert events(deployment).count("scale") == 1


def killed_in(local_aws: LocalAws, deployment: Deployment, fault: str, action: str) -> None:
    """Start a worker and kill it while AWS delays its answer to this call."""
    local_aws.fault(fault, action=action, times=1, seconds=3)
    Deployment.objects.update(next_check_at=Now(), lease_until=None, has_read_slot=True)
    turn = [sys.executable, "-c", TURN.format(*place(deployment))]
    worker = subprocess.Popen(turn, cwd=ROOT, env=worker_environment())
    wait_for(lambda: not local_aws.faults())  # the call has arrived
    if fault == "timeout_after":
        wait_for(lambda: bool(local_aws.ledger(action=action, service=deployment.service_name, effect=True)))
    worker.kill()
    worker.wait()


@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after"])
def test_kill_while_the_create_is_in_flight_leaves_no_service(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, settings: Any, fault: str
) -> None:
    """AWS carries out the create late, after the kill and after a first read that found nothing."""
    platform.fault(fault, action="CreateService", times=1, seconds=2)
    turn = threading.Thread(target=in_thread, args=[lambda: reconcile(*place(deployment))])
    turn.start()
    wait_for(lambda: Deployment.objects.get(pk=deployment.pk).create_called_at is not None)

    kill_deployment(deployment, actor=cast.operator)
    settings.DEPLOYMENTS_LAG_SECONDS = 15
    Deployment.objects.update(lease_until=None)
    runtime.turn()
    deployment.refresh_from_db()
    assert deployment.next_check_at  # not finished, because the create may still take effect
    turn.join()
    settings.DEPLOYMENTS_LAG_SECONDS = -60
    runtime.settle(deployment)

    assert status_in_ecs(platform, deployment) in ("INACTIVE", None)
    assert events(deployment) == ["create", "kill"]


# --- duplicate, late and lost messages ------------------------------------------------------------------------------


def in_thread(act: Any) -> None:
    try:
        act()
    finally:
        connection.close()


def test_many_concurrent_workers_create_one_service(
    deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    gate = threading.Barrier(8)

    def work() -> None:
        gate.wait()
        reconcile(*place(deployment))

    workers = [threading.Thread(target=in_thread, args=[work]) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    runtime.run(deployment, "ready")

    assert services_created(platform, deployment) == 1
    assert (definitions(platform, deployment), events(deployment)) == (1, LIFE)


def test_doubled_messages_change_nothing(deployment: Deployment, runtime: Runtime, platform: LocalAws) -> None:
    for _ in range(5):
        reconcile_task(*place(deployment))
    runtime.run(deployment, "ready")
    for _ in range(5):
        reconcile_task(*place(deployment))

    assert (rollouts(platform, deployment), events(deployment)) == (1, LIFE)


def test_sweep_processes_what_the_broker_lost(deployment: Deployment, platform: LocalAws) -> None:
    """The message was published but never delivered, because there is no worker in this test."""
    sweep()
    assert platform.ledger(action="CreateService") == []  # dispatched; the sweep first gives a worker some seconds

    with connection.cursor() as cursor:
        cursor.execute("UPDATE deployments_deployment SET next_check_at = now() - interval '10 seconds'")
    sweep()

    assert services_created(platform, deployment) == 1


# --- leases, and commands during a step -----------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_writes_nothing(deployment: Deployment, platform: LocalAws) -> None:
    sleeper = claim_batch(deployment.organization, deployment.cluster)
    assert sleeper
    assert claim_batch(deployment.organization, deployment.cluster) == []  # leased
    Deployment.objects.update(lease_until=None)
    assert claim_batch(deployment.organization, deployment.cluster)

    with pytest.raises(LeaseLost):
        sleeper[0].write(status="failed")

    assert Deployment.objects.get().status == "deploying"


def test_command_during_a_step_voids_the_step(cast: Cast, deployment: Deployment, platform: LocalAws) -> None:
    batch = claim_batch(deployment.organization, deployment.cluster)
    assert batch
    kill_deployment(deployment, actor=cast.operator)

    with pytest.raises(LeaseLost):
        batch[0].reschedule(status="ready")
    batch[0].discard()

    row = Deployment.objects.get()
    assert (row.status, row.lease_until) == ("killed", None)


def test_twenty_simultaneous_clicks_are_one_event(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    deployment = create_deployment(agent, actor=cast.operator, replicas=2)
    Deployment.objects.update(status="ready", observed_generation=1)
    gate = threading.Barrier(10)

    def click() -> None:
        gate.wait()
        with tenancy.all_organizations("the test"):
            row = Deployment.objects.select_related("agent", "organization").get(pk=deployment.pk)
            scale_deployment(row, actor=cast.operator, replicas=3, idempotency_key="click")

    clicks = [threading.Thread(target=in_thread, args=[click]) for _ in range(10)]
    for each in clicks:
        each.start()
    for each in clicks:
        each.join()

    assert events(deployment) == ["create", "scale"]
    assert Deployment.objects.get().requested_generation == 2
