"""Ringing a Celery task: best effort and bounded in time, because the sweep finds the work by itself."""

import logging

from kombu.exceptions import OperationalError

from portal.celery import app

MESSAGE_SECONDS = 60

logger = logging.getLogger(__name__)


def ring(task: str, *args: str | int) -> bool:
    """Publish a message for the task of this name; False when the broker did not take it (the sweep does the work)."""
    try:
        app.send_task(task, args=args, expires=MESSAGE_SECONDS)
    except (OperationalError, OSError) as error:
        logger.warning("doorbell %s not rung: %s", task, type(error).__name__)
        return False
    return True
