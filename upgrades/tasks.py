"""The doorbell's other end, and the sweep that needs no doorbell. Bodies are fetch and call; messages carry ids alone."""

import logging
import time
from datetime import timedelta

from celery import shared_task
from django.db.models import BooleanField, Case, Value, When
from django.db.models.functions import Now

from portal.doorbell import ring
from upgrades.models import Rollout
from upgrades.rollouts import advance

logger = logging.getLogger(__name__)

# A due rollout that no worker took within this time is carried out by the sweep itself, broker or no broker.
OVERDUE = timedelta(seconds=5)
ROWS_A_SWEEP = 200
SWEEP_SECONDS = 5.0


@shared_task
def advance_rollout(rollout_id: int) -> None:
    """One step of one rollout. A message that comes late, twice or for nothing changes nothing."""
    advance(rollout_id)


def sweep() -> None:
    """Find every due rollout: ring for it, and carry out by ourselves what has been due for too long.

    After one message that the broker did not take, no more are tried in this sweep: each would cost its time-out. A sweep
    ends after SWEEP_SECONDS, so that the heartbeat gets its turn; what is left stays due.
    """
    ends_at = time.monotonic() + SWEEP_SECONDS
    is_overdue = Case(
        When(next_check_at__lt=Now() - OVERDUE, then=True), default=Value(False), output_field=BooleanField()
    )
    due = Rollout.objects.due().values_list("pk", is_overdue)[:ROWS_A_SWEEP]
    broker_takes = True
    for pk, overdue in due:
        if time.monotonic() > ends_at:
            return
        broker_takes = broker_takes and (overdue or ring("upgrades.tasks.advance_rollout", pk))
        if overdue or not broker_takes:
            logger.warning("sweep carries out rollout %s itself", pk)
            advance(pk)
