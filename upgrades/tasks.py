"""Celery tasks and the periodic sweep.

Each task takes a row's id and calls one function. The sweep picks up work whose message was lost.
"""

from collections.abc import Callable
from datetime import timedelta

from celery import shared_task

from portal.leases import find_due
from portal.wakeup import dispatch_or_run
from upgrades.checks.draining import list_draining_due, refresh_draining
from upgrades.checks.validation import open_missing_matrices, send_reminders, validate
from upgrades.engine.reconciler import advance

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


@shared_task
def count_draining(rollout_id: int) -> None:
    """Count the old tasks that a completed rollout left."""
    refresh_draining(rollout_id)


def sweep() -> None:
    """Dispatch every due rollout."""
    sweep_rows("upgrades_due_rollouts", "upgrades.tasks.advance_rollout", advance)


def sweep_validations() -> None:
    """Dispatch every due validation run."""
    sweep_rows("upgrades_due_validations", "upgrades.tasks.validate_upgrade", validate)


def maintain_validations() -> None:
    """Open missing validation matrices, send reminders and count old tasks. No validation run does this."""
    open_missing_matrices()
    send_reminders()
    calls = (((pk,), False) for pk in list_draining_due(ROWS_PER_SWEEP))
    dispatch_or_run("upgrades.tasks.count_draining", calls, refresh_draining, seconds=SWEEP_SECONDS)


def sweep_rows(due: str, task: str, step: Callable[[int], bool]) -> None:
    """Dispatch a task for each due row, and run the step here for rows that are overdue.

    `due`: the function of the database that finds the rows. Each task then works inside its row's organization.
    Ends after SWEEP_SECONDS so that it does not delay the heartbeat.
    """
    found = find_due(due, OVERDUE, ROWS_PER_SWEEP)
    dispatch_or_run(task, (((pk,), overdue) for pk, overdue in found), step, seconds=SWEEP_SECONDS)
