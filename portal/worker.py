"""What is our own in the worker process: how soon it reaches its broker again, and how it logs an outage."""

import logging
from functools import partial
from typing import Any

from celery.signals import task_failure
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


task_failure.connect(log_database_error, dispatch_uid="portal.worker", weak=False)
