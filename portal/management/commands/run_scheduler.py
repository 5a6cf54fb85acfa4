"""The scheduler process."""

import logging
import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from portal.monitoring.counters import stop_counting
from portal.schedule import Schedule

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Run the scheduled jobs (heartbeat, sweeps) until stopped. Several schedulers may run at the same time."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        schedule = Schedule(settings.SCHEDULE)
        logger.info("scheduler runs %s", ", ".join(schedule.jobs))
        while not stopping.is_set():
            stopping.wait(schedule.run_due())
        stop_counting()
