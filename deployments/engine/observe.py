"""Records what ECS reports about a deployment: counts, status, why a task stopped, and which task.

Only reads from ECS. A failing read that only adds explanation must not change the status.
"""

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from deployments.engine.read_budget import DeploymentLease
from deployments.events import record_event
from deployments.models import Deployment
from deployments.notifications import notify_failed, notify_recovered
from deployments.states import ENDED, SYSTEM, Status, Verdict, event_type_for, explain_stop, judge
from portal.aws import ecs, ecs_runtime
from portal.aws.errors import AwsError

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 2000


def observe_service(lease: DeploymentLease, service: ecs.Service) -> None:
    """Write what ECS reports. A change of status also writes one event with ECS's reason and the task."""
    row = lease.row
    verdict = judge(service, is_overdue=is_overdue(lease))
    fields = build_observed_fields(lease, service)
    if verdict.status == Status.READY:
        fields |= build_live_fields(row, service)
    if verdict.status is None or verdict.status == row.status:
        return lease.reschedule(**fields, **read_newest_failure(lease, service))
    change_status(lease, service, verdict.status, verdict, fields)


def is_overdue(lease: DeploymentLease) -> bool:
    """Return whether no task started in time. A failed deployment stays overdue until a task runs."""
    row = lease.row
    if row.status == Status.FAILED:
        return True
    waits = lease.now - row.status_at
    return row.status == Status.DEPLOYING and waits > timedelta(seconds=settings.DEPLOYMENTS_START_SECONDS)


def build_observed_fields(lease: DeploymentLease, service: ecs.Service) -> dict[str, Any]:
    primary = service.primary
    return {
        "service_arn": service.arn,
        "desired_count": service.desired_count,
        "running_replicas": service.running_count,
        "pending_count": service.pending_count,
        "failed_tasks": primary.failed_tasks if primary else 0,
        "primary_id": primary.id if primary else lease.row.primary_id,
        "last_checked_at": lease.now,
        "check_error": None,
        "doubted_at": None,
    }


def build_live_fields(row: Deployment, service: ecs.Service) -> dict[str, Any]:
    """Return the revision that is rolled out completely, as a field to write; empty if the row has it already."""
    primary = service.primary
    is_row = row.task_generation == row.generation and primary and primary.task_definition == row.task_definition
    return (
        {"live_revision_id": row.target_revision_id}
        if is_row and row.live_revision_id != row.target_revision_id
        else {}
    )


def change_status(
    lease: DeploymentLease, service: ecs.Service, status: Status, verdict: Verdict, fields: dict[str, Any]
) -> None:
    """Write the new status and its event in one transaction. First reads the reason and the task from ECS."""
    row = lease.row
    node_id, why = find_affected_task(lease, service, status)
    fields |= {"status": status, "status_at": lease.now}
    if status == Status.FAILED:
        why = build_failure_message(why, verdict, lease)
        fields["error_message"] = why
    elif status in (Status.READY, Status.STOPPED):
        fields["error_message"] = None
    fields["ended_at"] = lease.now if status in ENDED else None
    fields["node_id"] = node_id or (None if status == Status.STOPPED else row.node_id)
    logger.info("deployment %s: %s -> %s", row.pk, row.status, status)
    with transaction.atomic():
        lease.reschedule(**fields)
        if status == Status.FAILED:
            notify_failed(row, str(why))
        elif status == Status.READY:
            notify_recovered(row)
        record_event(
            row, event_type_for(status), actor=SYSTEM, node_id=node_id, error_message=why, detail=verdict.reason or ""
        )


def find_affected_task(lease: DeploymentLease, service: ecs.Service, status: Status) -> tuple[str | None, str | None]:
    """Return the task concerned, and why it stopped if it did. *Costs* at most two AWS calls."""
    has_lost_some = service.running_count < lease.row.running_replicas
    if status == Status.FAILED or (has_lost_some and status in (Status.RUNNING, Status.DEPLOYING)):
        stopped = read_newest_stopped_task(lease, service)
        return (stopped.id, explain_stop(stopped.reason, stopped.exit_code)) if stopped else (None, None)
    if status in (Status.RUNNING, Status.READY):
        return read_oldest_running_task(lease), None
    return None, None


def read_newest_failure(lease: DeploymentLease, service: ecs.Service) -> dict[str, Any]:
    """Return why the newest task failed, as fields to write.

    Empty unless the deployment is still deploying and another task has failed since the last read.
    """
    row = lease.row
    primary = service.primary
    if row.status != Status.DEPLOYING or primary is None or primary.failed_tasks <= row.failed_tasks:
        return {}
    stopped = read_newest_stopped_task(lease, service)
    return {"error_message": explain_stop(stopped.reason, stopped.exit_code)} if stopped else {}


def build_failure_message(why: str | None, verdict: Verdict, lease: DeploymentLease) -> str:
    """Build the error message: the task's reason, then ECS's for the deployment, or our own if no task started in time."""
    minutes = settings.DEPLOYMENTS_START_SECONDS // 60
    ours = f"No task started within {minutes} minutes." if lease.row.status == Status.DEPLOYING else ""
    overall = verdict.reason if verdict.reason and "circuit breaker" in verdict.reason else ours or verdict.reason
    parts = [part.strip().rstrip(".") for part in (why, overall) if part]
    return (". ".join(parts) + ".")[:MAX_REASON_LENGTH] if parts else "ECS gave no reason."


def read_newest_stopped_task(lease: DeploymentLease, service: ecs.Service) -> ecs.StoppedTask | None:
    """Return the newest failed task of the PRIMARY deployment, or None if there is none or a call fails.

    *Costs* two AWS calls.
    """
    primary = service.primary
    if primary is None:
        return None
    row = lease.row
    lease.renew()
    try:
        stopped = ecs.stopped_tasks(row.aws_target, row.cluster, row.service_name, started_by=primary.id)
    except AwsError as error:
        logger.info("deployment %s: stopped tasks not read: %s", row.pk, error)
        return None
    # A task that the scheduler stopped while scaling in did not fail.
    return next((task for task in stopped if not task.reason.startswith("Scaling activity")), None)


def read_oldest_running_task(lease: DeploymentLease) -> str | None:
    """Return the task that has run longest, or None if none runs or a call fails. *Costs* two AWS calls."""
    row = lease.row
    lease.renew()
    try:
        running = ecs_runtime.running_tasks(row.aws_target, row.cluster, row.service_name)
    except AwsError as error:
        logger.info("deployment %s: running tasks not read: %s", row.pk, error)
        return None
    return running[0] if running else None
