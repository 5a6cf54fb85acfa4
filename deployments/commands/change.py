"""Commands that scale, stop, restart and kill a deployment."""

from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from deployments.commands.create import new_current_revision
from deployments.commands.record import Change, is_pending_of_another, run_command
from deployments.commands.refusals import refuse_bad_replicas
from deployments.models import Agent, Deployment, Revision
from deployments.revisions import get_settings, lock_agent
from deployments.states import Command, DesiredState, EventType, Status
from portal.access import require
from portal.database.statements import insert
from portal.models import AuditKind, Role, User


def scale_deployment(
    deployment: Deployment, *, actor: User, replicas: int, idempotency_key: str | None = None
) -> Deployment:
    """Set the desired replica count. Setting the current value is a no-op. The status changes only when ECS reports it.

    *Raises* PortalError: 403, 404, 400 `invalid` (bounds), 400 `not_running`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        refuse_bad_replicas(deployment.organization, replicas)
        if row.replicas == replicas and not is_pending_of_another(row, actor):
            return None
        data = {"before": row.replicas, "after": replicas}
        fields = {"replicas": replicas}
        return Change(
            EventType.SCALE, AuditKind.DEPLOYMENT_SCALED, fields, data, detail=f"from {row.replicas} to {replicas}"
        )

    return run_command(deployment, Command.SCALE, actor, idempotency_key, plan, replicas=replicas)


def stop_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Request that all tasks stop. Repeating it is a no-op.

    The deployment is `is_stopping` until ECS reports that no task runs; then its status becomes `stopped`.

    *Raises* PortalError: 403, 404, 400 `not_running`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        if row.wanted == DesiredState.STOPPED and not is_pending_of_another(row, actor):
            return None
        return Change(EventType.STOP, AuditKind.DEPLOYMENT_STOP_REQUESTED, {"wanted": DesiredState.STOPPED})

    return run_command(deployment, Command.STOP, actor, idempotency_key, plan)


def restart_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Start a stopped or failed deployment again, with status `deploying`.

    A stopped deployment runs the same tasks again. A failed one gets a new generation from the agent's current settings.

    *Raises* PortalError: 403, 404, 400 `not_restartable`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        fields = build_start()
        if row.status == Status.FAILED:
            pinned = row.version if row.is_version_pinned else None
            row.agent = Agent.objects.get(pk=row.agent_id)
            revision = new_current_revision(row.agent, pinned, actor)
            insert([revision])
            fields |= build_new_generation(row, revision)
        data = {"generation": fields.get("generation")}
        return Change(EventType.RESTART, AuditKind.DEPLOYMENT_RESTARTED, fields, data)

    require(actor, deployment.organization, Role.OPERATOR)
    with transaction.atomic():
        lock_agent(deployment.agent_id)  # a new generation has a new revision
        if deployment.status == Status.FAILED:  # its row cannot change then, so that `plan` makes one revision
            deployment.refresh_from_db(from_queryset=Deployment.objects.select_for_update(no_key=True))
        return run_command(deployment, Command.RESTART, actor, idempotency_key, plan)


def build_start() -> dict[str, Any]:
    """Return the fields of a deployment whose tasks start again."""
    return {
        "wanted": DesiredState.RUNNING,
        "status": Status.DEPLOYING,
        "status_at": Now(),
        "started_at": Now(),
        "ended_at": None,
        "error_message": None,
        "failed_tasks": 0,
    }


def build_new_generation(deployment: Deployment, revision: Revision) -> dict[str, Any]:
    """Return the fields of a new generation, which runs the revision."""
    return {"generation": deployment.generation + 1, "target_revision": revision.pk, **get_settings(revision)}


def kill_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Mark the deployment as `killed`, from any status. Repeating it is a no-op.

    The record is kept. The reconciler deletes the ECS service afterwards.

    *Raises* PortalError: 403, 404, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        if row.status == Status.KILLED and not is_pending_of_another(row, actor):
            return None
        fields = {"wanted": DesiredState.GONE, "status": Status.KILLED, "status_at": Now(), "ended_at": Now()}
        return Change(EventType.KILL, AuditKind.DEPLOYMENT_KILLED, fields)

    return run_command(deployment, Command.KILL, actor, idempotency_key, plan)
