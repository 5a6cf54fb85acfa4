"""Ringing a Celery task: best effort and bounded in time, because the sweep finds the work by itself."""

import logging

from django.conf import settings
from kombu.exceptions import OperationalError

from portal.celery import app

MESSAGE_SECONDS = 60
# Seconds: a broker that accepts and never answers must not hold up the request that rings. (The worker, which waits for
# messages on its connection, needs the longer time-out of the settings.)
IMPATIENT = {"socket_timeout": 1, "socket_connect_timeout": 1} if settings.CELERY_BROKER_TRANSPORT_OPTIONS else {}

logger = logging.getLogger(__name__)


def ring(task: str, *args: str | int) -> bool:
    """Publish a message for the task of this name; False when the broker did not take it (the sweep does the work)."""
    try:
        with app.connection_for_write(transport_options=IMPATIENT) as broker:
            app.send_task(task, args=args, expires=MESSAGE_SECONDS, connection=broker)
    except (OperationalError, OSError) as error:
        logger.warning("doorbell %s not rung: %s", task, type(error).__name__)
        return False
    return True
