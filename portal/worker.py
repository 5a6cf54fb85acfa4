"""Changes Celery's worker: it reconnects to its broker soon, logs an outage in one line, and stands in for a scheduler."""

import logging
from functools import partial
from typing import Any

from celery.signals import task_failure, worker_process_init, worker_process_shutdown
from celery.worker import consumer
from django.db import DatabaseError, InterfaceError

from portal.outages import is_database_outage, note_database_outage

logger = logging.getLogger(__name__)

# Seconds between two attempts to reach a broker that is away. Celery's own pauses grow to 30 s.
RECONNECT_SECONDS = 2


class Consumer(consumer.Consumer):  # type: ignore[misc] # celery ships no types
    """The worker's consumer (settings.CELERY_WORKER_CONSUMER), which is back soon after its broker is."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=RECONNECT_SECONDS, interval_step=0, interval_max=RECONNECT_SECONDS
        )
        return super().ensure_connected(conn)


def log_database_error(*, exception: Exception, **_: Any) -> None:
    """Log an error of the database, which Celery does not log (settings.CELERY_TASK_ANNOTATIONS)."""
    if is_database_outage(exception):
        note_database_outage(exception)
    elif isinstance(exception, DatabaseError | InterfaceError):
        logger.error("task failed", exc_info=exception)


def start_stand_in(**_: Any) -> None:
    """Start the thread that stands in for a scheduler. Imported late: models are ready only in the child process."""
    from portal import stand_in

    stand_in.start()
    worker_process_shutdown.connect(stand_in.stop, dispatch_uid="portal.worker", weak=False)


worker_process_init.connect(start_stand_in, dispatch_uid="portal.worker", weak=False)
task_failure.connect(log_database_error, dispatch_uid="portal.worker", weak=False)
