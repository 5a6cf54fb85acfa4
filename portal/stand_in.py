"""Runs the scheduled jobs in a worker while no scheduler is alive, so that rollouts move on.

Each child process of a worker watches the scheduler's heartbeat on a thread. One of them, which holds an advisory lock in
the database, runs the jobs until a scheduler is back.
"""

import logging
import threading
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from portal.models import Heartbeat
from portal.outages import is_database_outage, note_database_outage
from portal.schedule import Schedule

logger = logging.getLogger(__name__)

# A number of our own, for pg_try_advisory_lock.
LOCK = 7_105_001
STOP_SECONDS = 5
HEARTBEATS = "portal.tasks.record_heartbeats"
WORKER_BEAT = "portal.tasks.worker_beat"

stopping = threading.Event()
_watcher: threading.Thread | None = None


def start(**_: Any) -> None:
    """Start to watch, in a new child process of a worker."""
    global _watcher
    stopping.clear()
    _watcher = threading.Thread(target=watch, name="stand-in", daemon=True)
    _watcher.start()


def stop(**_: Any) -> None:
    stopping.set()
    if _watcher:
        _watcher.join(STOP_SECONDS)


def watch() -> None:
    """Check the scheduler's heartbeat every few seconds, and stand in when it is missing."""
    while not stopping.wait(settings.STAND_IN_SECONDS / 3):
        try:
            if is_needed():
                stand_in()
        except Exception as error:
            if is_database_outage(error):
                note_database_outage(error)
            else:
                logger.exception("the worker could not stand in for the scheduler")
        finally:
            connection.close()  # releases the lock


def stand_in() -> None:
    """Run the scheduled jobs until a scheduler is back. The scheduler's heartbeat stays silent, so that people see it."""
    logger.warning("no scheduler is alive: this worker runs the scheduled jobs")
    intervals = {name: seconds for name, seconds in settings.SCHEDULE.items() if name != HEARTBEATS}
    schedule = Schedule(intervals | {WORKER_BEAT: settings.SCHEDULE[HEARTBEATS]})
    while not stopping.wait(schedule.run_due()) and is_needed():
        pass
    logger.warning("this worker no longer runs the scheduled jobs")


def is_needed() -> bool:
    """Return whether no scheduler is alive and no other process stands in. *Costs* two queries."""
    newest = Now() - timedelta(seconds=settings.STAND_IN_SECONDS)
    if Heartbeat.objects.filter(name="scheduler", beat_at__gt=newest).exists():
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        return bool(cursor.fetchone()[0])
