"""Celery tasks and the periodic sweep.

Each task takes a row's id and calls one function. The sweep picks up work whose message was lost.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from celery import shared_task
from django.db.models import BooleanField, Case, QuerySet, Value, When
from django.db.models.functions import Now

from portal.leases import due
from portal.wakeup import dispatch
from upgrades.checks.validation import open_missing_matrices, send_reminders, validate
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, ValidationRun

logger = logging.getLogger(__name__)

# The sweep runs a step itself if no worker has claimed the due row within this time, even without a broker.
OVERDUE = timedelta(seconds=5)
ROWS_PER_SWEEP = 200
SWEEP_SECONDS = 5.0


@shared_task
def advance_rollout(rollout_id: int) -> None:
    """Run one step of one rollout. A late, duplicate or unnecessary message has no effect."""
    advance(rollout_id)


@shared_task
def validate_upgrade(run_id: int) -> None:
    """Run one step of one validation run."""
    validate(run_id)


def sweep() -> None:
    """Dispatch every due rollout."""
    sweep_rows(Rollout.objects.due(), "upgrades.tasks.advance_rollout", advance)


def sweep_validations() -> None:
    """Dispatch every due validation run."""
    due_runs = ValidationRun.unfinished().filter(due()).order_by("next_check_at", "id")
    sweep_rows(due_runs, "upgrades.tasks.validate_upgrade", validate)


def maintain_validations() -> None:
    """Open missing validation matrices and send reminders. No validation run does this."""
    open_missing_matrices()
    send_reminders()


def sweep_rows(rows: "QuerySet[Rollout] | QuerySet[ValidationRun]", task: str, step: Callable[[int], bool]) -> None:
    """Dispatch a task for each due row, and run the step here for rows that are overdue.

    After the first message that the broker does not accept, this sweep sends no more: each would cost a timeout. The
    sweep ends after SWEEP_SECONDS so that it does not delay the heartbeat. The remaining rows stay due.
    """
    ends_at = time.monotonic() + SWEEP_SECONDS
    is_overdue = Case(
        When(next_check_at__lt=Now() - OVERDUE, then=True), default=Value(False), output_field=BooleanField()
    )
    broker_accepts = True
    for pk, overdue in rows.values_list("pk", is_overdue)[:ROWS_PER_SWEEP]:
        if time.monotonic() > ends_at:
            return
        broker_accepts = broker_accepts and (overdue or dispatch(task, pk))
        if overdue or not broker_accepts:
            logger.warning("sweep runs %s of %s itself", task, pk)
            step(pk)
