"""The scheduled jobs of settings.SCHEDULE, each at its own interval, without a broker.

The scheduler process runs them, or the workers while no scheduler does (portal/stand_in.py). Both may run at the same time.
"""

import logging
import time
from collections.abc import Callable

from django.db import close_old_connections
from django.utils.module_loading import import_string

from portal.monitoring.counters import JOB_FAILURES, JOB_SECONDS, count, observe_seconds
from portal.outages import is_database_outage, note_database_outage
from portal.tenancy import leave

logger = logging.getLogger(__name__)


class Schedule:
    """Jobs by name, with the interval of each in seconds."""

    def __init__(self, intervals: dict[str, float]) -> None:
        self.jobs: dict[str, Callable[[], object]] = {name: import_string(name) for name in intervals}
        self.intervals = intervals
        self.due_at = dict.fromkeys(intervals, 0.0)

    def run_due(self) -> float:
        """Run the jobs that are due, and return the seconds until the next one is."""
        for name, job in self.jobs.items():
            if time.monotonic() >= self.due_at[name]:
                self.due_at[name] = time.monotonic() + self.intervals[name]
                run_job(name, job)
        return max(0.05, min(self.due_at.values()) - time.monotonic())


def run_job(name: str, job: Callable[[], object]) -> None:
    """Call one job. Log any error and continue, because one bad row must not stop the other jobs.

    An outage of the database is logged in one line, however many jobs it fails.
    """
    began = time.monotonic()
    try:
        close_old_connections()
        job()
    except Exception as error:
        count(JOB_FAILURES, name)
        if is_database_outage(error):
            return note_database_outage(error)
        logger.exception("scheduled job %s failed; it runs again at its next interval", name)
    finally:
        leave()
        observe_seconds(JOB_SECONDS, name, seconds=time.monotonic() - began)
