"""Best-effort Celery dispatch with a short timeout. A lost message is harmless: the sweep finds the work."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from portal.aws.errors import BOTO_ERRORS
from portal.celery import app
from portal.outages import CircuitOpen, get_circuit

MESSAGE_SECONDS = 60
# Seconds: a broker that accepts and never answers must not delay the request that dispatches. (The worker, which waits for
# messages on its connection, needs the longer time-out of the settings.)
SHORT_TIMEOUTS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "max_retries": 0}
# kombu translates the transport's errors for some calls only.
BROKER_ERRORS = (KombuError, OSError, RedisError, *BOTO_ERRORS)

logger = logging.getLogger(__name__)


def dispatch(task: str, *args: str | int) -> bool:
    """Dispatch the task of this name. Return False if the broker did not accept the message.

    A broker that just failed is not called again for some seconds (portal/outages.py).
    """
    try:
        with get_circuit("broker", app.conf.broker_url).guard(*BROKER_ERRORS), broker_producer() as producer:
            app.send_task(task, args=args, expires=MESSAGE_SECONDS, producer=producer)
    except (CircuitOpen, *BROKER_ERRORS) as error:
        logger.info("task %s not dispatched: %s", task, type(error).__name__)
        return False
    return True


def dispatch_or_run(
    task: str,
    calls: Iterable[tuple[tuple[str | int, ...], bool]],
    run: Callable[..., object],
    *,
    seconds: float = math.inf,
) -> None:
    """Dispatch a task for each of the sweep's due `calls` (arguments, is overdue), and run the overdue ones here.

    After the first message that the broker does not accept, no more are sent: each would cost a timeout. Their calls run
    here too. After `seconds`, no further call is made. The rest stays due.
    """
    ends_at = time.monotonic() + seconds
    broker_accepts = True
    for args, is_overdue in calls:
        if time.monotonic() > ends_at:
            return
        broker_accepts = broker_accepts and (is_overdue or dispatch(task, *args))
        if is_overdue or not broker_accepts:
            logger.warning("sweep runs %s%s itself", task, args)
            run(*args)


class KeptProducer(threading.local):
    """This thread's producer and its connection, for the process and address in `key`."""

    key: tuple[int, str] | None = None
    producer: Any = None


_kept = KeptProducer()


@contextmanager
def broker_producer() -> Iterator[Any]:
    """Yield a producer whose connection is kept. A new connection costs six times as much CPU time as a message.

    redis-py connects again if the broker has closed the connection. After another failure, and after a fork, the next
    caller makes a new connection. For SQS, producers come from a pool: a new client takes 90 ms of CPU time.
    """
    if app.conf.broker_url.startswith("sqs"):
        with app.producer_pool.acquire(block=True, timeout=1) as producer:
            yield producer
        return
    key = (os.getpid(), app.conf.broker_write_url)
    if _kept.key != key:
        _kept.producer = app.amqp.Producer(broker_connection(), auto_declare=False)
        _kept.key = key
    try:
        yield _kept.producer
    except BROKER_ERRORS:
        _kept.key = None
        raise


def broker_connection() -> Any:
    """Return a new connection, to be used in a `with` statement.

    For SQS it comes from a pool.
    """
    if settings.CELERY_BROKER_URL.startswith("sqs"):
        return app.pool.acquire(block=True, timeout=1)
    if settings.CELERY_BROKER_URL.startswith("redis"):
        return app.connection_for_write(transport_options=SHORT_TIMEOUTS)
    return app.connection_for_write()
