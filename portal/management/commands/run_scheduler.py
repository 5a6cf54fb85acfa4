"""The scheduler process. Calls each job of settings.SCHEDULE at its own interval, without a broker."""

import logging
import signal
import threading
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections
from django.utils.module_loading import import_string

from portal.monitoring.counters import JOB_FAILURES, JOB_SECONDS, count, observe_seconds, stop_counting

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Run the scheduled jobs (heartbeat, sweeps) until stopped. Several schedulers may run at the same time."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        jobs = {name: (import_string(name), seconds) for name, seconds in settings.SCHEDULE.items()}
        due = dict.fromkeys(jobs, 0.0)
        logger.info("scheduler runs %s", ", ".join(jobs))
        while not stopping.is_set():
            for name, (job, seconds) in jobs.items():
                if time.monotonic() >= due[name]:
                    due[name] = time.monotonic() + seconds
                    run_job(name, job)
            stopping.wait(max(0.05, min(due.values()) - time.monotonic()))
        stop_counting()


def run_job(name: str, job: Any) -> None:
    """Call one job. Log any error and continue, because one bad row must not stop the other jobs."""
    began = time.monotonic()
    try:
        close_old_connections()
        job()
    except Exception:
        count(JOB_FAILURES, name)
        logger.exception("scheduled job %s failed; it runs again at its next interval", name)
    observe_seconds(JOB_SECONDS, name, seconds=time.monotonic() - began)
