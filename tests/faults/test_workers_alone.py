"""Workers without a scheduler, and leases of slow steps."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from tests.conftest import Cast, Engine
from tests.local_aws import ROOT, LocalAws
from tests.processes import wait_for, worker_environment
from upgrades.commands.trigger import trigger_upgrade
from upgrades.engine.reconciler import advance
from upgrades.states import Phase, Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_worker_runs_the_sweep_while_no_scheduler_does(cast: Cast, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    command = [sys.executable, "-W", "ignore", "-m", "celery", "--quiet", "-A", "portal", "worker"]
    worker = subprocess.Popen(
        [*command, "--concurrency", "2", "--loglevel", "WARNING", "--without-mingle"],
        cwd=ROOT,
        # Without a broker, no message starts a step either.
        env=worker_environment() | {"STAND_IN_SECONDS": "0.3", "UPGRADE_POLL_SECONDS": "0.3"},
        start_new_session=True,
    )
    try:
        wait_for(lambda: upgrade.rollouts.filter(phase=Phase.WATCHING).exists())
        platform.advance(600)
        wait_for(lambda: upgrade.rollouts.filter(status=Status.SUCCESS).exists())
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster)) == 1


def test_a_slow_step_keeps_its_lease(cast: Cast, engine: Engine, platform: LocalAws, settings: Any) -> None:
    settings.LEASE_SECONDS = 0.3
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    platform.fault("delay", action="DescribeServices", seconds=1.2, times=1)
    pk = upgrade.rollouts.get().pk

    def advance_slowly() -> None:
        advance(pk)
        connection.close()

    step = threading.Thread(target=advance_slowly)
    step.start()
    while step.is_alive():
        assert not upgrade.rollouts.filter(phase=Phase.DUE, lease_until__lt=Now()).exists()
        step.join(0.05)

    assert upgrade.rollouts.get().phase == Phase.WATCHING
