"""Helpers for tests that start processes or threads: free ports, waiting, and a worker's environment and step."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from tests.local_aws import ROOT

STEP = "import django; django.setup(); from upgrades.engine.reconciler import advance; advance({pk})"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Poll the condition until it returns a true value, and return that. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} seconds")


def worker_environment() -> dict[str, str]:
    """Return the environment for a process that uses the test's database."""
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:@/{database['NAME']}?host={database['OPTIONS'].get('host', '')}"
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "portal.settings", "DATABASE_URL": url}


def start_step(rollout_id: int) -> subprocess.Popen[bytes]:
    """Start one step of the engine in its own process, so that it can be killed halfway."""
    command = [sys.executable, "-c", STEP.format(pk=rollout_id)]
    return subprocess.Popen(command, cwd=ROOT, env=worker_environment())
