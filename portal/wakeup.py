"""Best-effort Celery dispatch with a short timeout. A lost message is harmless: the sweep finds the work."""

import logging
from typing import Any

from django.conf import settings
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from portal.aws.errors import BOTO_ERRORS
from portal.celery import app

MESSAGE_SECONDS = 60
# Seconds: a broker that accepts and never answers must not hold up the request that rings. (The worker, which waits for
# messages on its connection, needs the longer time-out of the settings.)
SHORT_TIMEOUTS = {"socket_timeout": 1, "socket_connect_timeout": 1}
# kombu translates the transport's errors for some calls only.
BROKER_ERRORS = (KombuError, OSError, RedisError, *BOTO_ERRORS)

logger = logging.getLogger(__name__)


def dispatch(task: str, *args: str | int) -> bool:
    """Dispatch the task of this name. Return False if the broker did not accept the message."""
    try:
        with broker_connection() as broker:
            app.send_task(task, args=args, expires=MESSAGE_SECONDS, connection=broker)
    except BROKER_ERRORS as error:
        logger.warning("task %s not dispatched: %s", task, type(error).__name__)
        return False
    return True


def broker_connection() -> Any:
    """Return a connection for one message, to be used in a `with` statement.

    For SQS it comes from a pool, because making its client takes 90 ms of CPU time; then a message takes 5 ms.
    """
    if settings.CELERY_BROKER_URL.startswith("sqs"):
        return app.pool.acquire(block=True, timeout=1)
    if settings.CELERY_BROKER_URL.startswith("redis"):
        return app.connection_for_write(transport_options=SHORT_TIMEOUTS)
    return app.connection_for_write()
