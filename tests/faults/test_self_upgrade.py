"""The portal upgrades itself: `customer-portal` replaces the web, worker and scheduler that perform the upgrade.

The two releases are two sets of real processes on one database and one broker. As in ECS, they run side by side: the new
ones start before the old ones end. The new release takes over the rollout, and users keep their sessions.
"""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from portal.models import Heartbeat
from tests.conftest import Cast
from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for, worker_environment
from upgrades.models import Rollout, Upgrade

pytestmark = pytest.mark.django_db(transaction=True)

SPEED = 4
# ECS's delay from SIGTERM to SIGKILL: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html
STOP_TIMEOUT_SECONDS = 30


class Release:
    """One set of processes (web, worker, scheduler) on the test's database and the broker of the run."""

    def __init__(self, local_aws: LocalAws) -> None:
        self.port = free_port()
        env = worker_environment() | {
            "AWS_ENDPOINT_URL": local_aws.url,
            "UPGRADE_POLL_SECONDS": "0.5",
            "UPGRADE_ADOPT_SECONDS": "1",
        }
        commands = [
            ["gunicorn", "portal.wsgi", "--bind", f"127.0.0.1:{self.port}", "--threads", "2", "--log-level", "error"],
            [
                "celery",
                "--quiet",
                "-A",
                "portal",
                "worker",
                "--pool",
                "solo",
                "--loglevel",
                "ERROR",
                "--without-mingle",
            ],
            ["portal.scheduler"],
        ]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "manage.py", "run_scheduler"]
                if command == ["portal.scheduler"]
                else [sys.executable, "-m", *command],
                cwd=ROOT,
                env=env,
            )
            for command in commands
        ]

    def is_ready(self) -> bool:
        try:
            status, _ = self.get("/readyz")
        except OSError:
            return False
        return status == 200

    def get(self, path: str, *, cookie: str = "") -> tuple[int, bytes]:
        web = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            web.request("GET", path, headers={"Cookie": cookie, "Host": "127.0.0.1"})
            answer = web.getresponse()
            return answer.status, answer.read()
        finally:
            web.close()

    def end(self, number: signal.Signals) -> None:
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            process.wait(timeout=STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def release(platform: LocalAws) -> Iterator[Callable[[], Release]]:
    """Return a function that starts a release and waits until its web process answers. AWS's clock runs."""
    platform.freeze(False)
    platform.set_speed(SPEED)
    started: list[Release] = []

    def start() -> Release:
        started.append(Release(platform))
        wait_for(started[-1].is_ready)
        return started[-1]

    yield start
    for each in started:
        each.kill()
    platform.set_speed(1)


def trigger(client: Client, cast: Cast) -> Upgrade:
    """Trigger an upgrade through the API before the releases start. Any later release carries it out."""
    body = {"service": "customer-portal", "force_new_deployment": True}
    answer = client.post("/api/v1/deployments/upgrade", json.dumps(body), content_type="application/json")
    assert answer.status_code == 202, answer.content
    return Upgrade.objects.get(upgrade_id=answer.json()["upgrade_id"])


def is_half_done(upgrade: Upgrade) -> bool:
    """Return whether new tasks run while old ones still do."""
    rollout = upgrade.rollouts.get()
    return bool(rollout.target_running and rollout.source_running and not rollout.is_terminal)


def has_ended(upgrade: Upgrade) -> bool:
    upgrade.refresh_from_db()
    return not upgrade.is_open


def deployments(local_aws: LocalAws, cast: Cast) -> list[dict[str, Any]]:
    calls = local_aws.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)
    return [call for call in calls if call["deployment_id"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_new_processes_take_over_the_rollout(
    cast: Cast,
    platform: LocalAws,
    release: Callable[[], Release],
    client_for: Callable[..., Client],
    number: signal.Signals,
) -> None:
    client = client_for(cast.operator)
    platform.fault("slow", factor=2)  # leaves time to replace the processes while both kinds of task run
    upgrade = trigger(client, cast)
    old = release()
    session = f"sessionid={client.cookies['sessionid'].value}"
    wait_for(lambda: is_half_done(upgrade))

    platform.freeze()  # ECS must wait while the processes are replaced, even on a busy machine
    new = release()
    old.end(number)
    epoch = upgrade.rollouts.get().lease_epoch
    assert not has_ended(upgrade)
    platform.freeze(False)
    wait_for(lambda: has_ended(upgrade))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome) == ("SUCCESS", "completed")
    assert rollout.lease_epoch > epoch  # the new processes took over
    (deployment,) = deployments(platform, cast)
    assert deployment["deployment_id"] == rollout.deployment_id
    status, body = new.get(f"/api/v1/deployments/upgrade/{upgrade.upgrade_id}", cookie=session)
    assert (status, json.loads(body)["status"]) == (200, "SUCCESS")


def test_old_release_reports_that_the_new_one_crashed(
    cast: Cast, platform: LocalAws, release: Callable[[], Release], client_for: Callable[..., Client]
) -> None:
    platform.fault("crash")
    upgrade = trigger(client_for(cast.operator), cast)
    old = release()
    wait_for(lambda: upgrade.rollouts.get().failed_tasks)
    new = release()
    new.kill()  # ECS would report: Essential container in task exited

    wait_for(lambda: has_ended(upgrade))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome) == ("FAILED", "rolled_back")
    assert all(process.poll() is None for process in old.processes)
    assert len(deployments(platform, cast)) == 1


def test_no_lease_is_held_after_a_stop(
    cast: Cast, platform: LocalAws, release: Callable[[], Release], client_for: Callable[..., Client]
) -> None:
    """After SIGTERM the current step finishes, so the next process does not wait for a lease to expire."""
    upgrade = trigger(client_for(cast.operator), cast)
    platform.fault("stuck")
    old = release()
    wait_for(lambda: upgrade.rollouts.get().phase == "watching" and Heartbeat.objects.filter(name="worker").exists())

    old.end(signal.SIGTERM)

    assert [process.returncode for process in old.processes] == [0, 0, 0]
    assert not Rollout.objects.filter(upgrade=upgrade, lease_until__isnull=False).exists()
