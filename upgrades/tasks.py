"""The doorbell's other end, and the sweep that needs no doorbell. Bodies are fetch and call; messages carry ids alone."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from celery import shared_task
from django.db.models import BooleanField, Case, QuerySet, Value, When
from django.db.models.functions import Now

from portal.leases import due
from portal.wakeup import ring
from upgrades.checks.validation import open_missing, remind, validate
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, ValidationRun

logger = logging.getLogger(__name__)

# What is due and no worker took within this time is carried out by the sweep itself, broker or no broker.
OVERDUE = timedelta(seconds=5)
ROWS_A_SWEEP = 200
SWEEP_SECONDS = 5.0


@shared_task
def advance_rollout(rollout_id: int) -> None:
    """One step of one rollout. A message that comes late, twice or for nothing changes nothing."""
    advance(rollout_id)


@shared_task
def validate_upgrade(run_id: int) -> None:
    """One step of one validation run."""
    validate(run_id)


def sweep() -> None:
    """Every due rollout."""
    carry_out(Rollout.objects.due(), "upgrades.tasks.advance_rollout", advance)


def sweep_validations() -> None:
    """Every due validation run."""
    due_runs = ValidationRun.unfinished().filter(due()).order_by("next_check_at", "id")
    carry_out(due_runs, "upgrades.tasks.validate_upgrade", validate)


def look_after_validations() -> None:
    """What no run does: matrices that were not opened, reminders."""
    open_missing()
    remind()


def carry_out(rows: "QuerySet[Rollout] | QuerySet[ValidationRun]", task: str, work: Callable[[int], bool]) -> None:
    """Ring for each of these due rows, and carry out by ourselves what has been due for too long.

    After one message that the broker did not take, no more are tried in this sweep: each would cost its time-out. A sweep
    ends after SWEEP_SECONDS, so that the heartbeat gets its turn; what is left stays due.
    """
    ends_at = time.monotonic() + SWEEP_SECONDS
    is_overdue = Case(
        When(next_check_at__lt=Now() - OVERDUE, then=True), default=Value(False), output_field=BooleanField()
    )
    broker_takes = True
    for pk, overdue in rows.values_list("pk", is_overdue)[:ROWS_A_SWEEP]:
        if time.monotonic() > ends_at:
            return
        broker_takes = broker_takes and (overdue or ring(task, pk))
        if overdue or not broker_takes:
            logger.warning("sweep carries out %s of %s itself", task, pk)
            work(pk)
