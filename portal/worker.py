"""What is our own in the worker process: how soon it reaches its broker again."""

from functools import partial
from typing import Any

from celery.worker import consumer

# Seconds between two attempts to reach a broker that is away. Celery's own pauses grow to 30 s.
RECONNECT_SECONDS = 2


class Consumer(consumer.Consumer):  # type: ignore[misc] # celery ships no types
    """The worker's consumer (settings.CELERY_WORKER_CONSUMER), which is back soon after its broker is."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=RECONNECT_SECONDS, interval_step=0, interval_max=RECONNECT_SECONDS
        )
        return super().ensure_connected(conn)
