"""Ringing a Celery task: best effort and bounded in time, because the sweep finds the work by itself."""

import logging
from typing import Any

from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def ring(task: Any, *args: str | int) -> bool:
    """Publish the message; False when the broker did not take it (the sweep will do the work)."""
    try:
        task.apply_async(args=args, expires=60)
    except (OperationalError, OSError) as error:
        logger.warning("doorbell %s not rung: %s", task.name, type(error).__name__)
        return False
    return True
