"""For tests that start processes or threads: a port for one of them, and waiting for what it does."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from django.db import connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """What the condition returns once that is true; it is asked again and again, for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} seconds")


def worker_environment() -> dict[str, str]:
    """For a process that is to work on the test's database."""
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:@/{database['NAME']}?host={database['OPTIONS'].get('host', '')}"
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "portal.settings", "DATABASE_URL": url}
