"""Deploys an earlier revision of an agent again."""

from django.db.models import F
from django.db.models.functions import Now

from deployments.commands.change import build_new_generation, build_start
from deployments.commands.create import deploy_revision
from deployments.commands.record import audit, dispatch_deployment, run_once
from deployments.commands.refusals import refuse_invalid
from deployments.events import change_with_event, create_with_event, make_change
from deployments.models import Agent, Deployment, Revision
from deployments.revisions import add_revision, get_settings, lock_agent, must_roll
from deployments.secret_references import reference_errors
from deployments.states import EventType, Status
from portal.access import require
from portal.errors import PortalError, shortened
from portal.idempotency import KeyUse
from portal.models import AuditKind, Role, User
from portal.request_id import request_id_var


def restore_revision(
    revision: Revision, *, actor: User, newest: int | None = None, idempotency_key: str | None = None
) -> Revision:
    """Deploy an earlier revision again, as a new one. Return the new one.

    The agent gets its settings. The agent's live deployments with other settings, and the newest one if it failed, roll to
    it in place; without any live or failed one, a deployment with one task is created. A stopped one stays stopped.

    `newest`: the number of the newest revision that the person saw. None is not compared.

    *Raises* PortalError: 403, 404, 409 `revision_changed`, 400 `invalid` (its secrets), 400 `no_cluster`, 422
    `idempotency_mismatch`.
    """
    agent, organization = revision.agent, revision.organization
    require(actor, organization, Role.OPERATOR)
    request = {"agent_id": str(agent.pk), "number": revision.number, "newest": newest}
    key = KeyUse.for_request("restore_revision", request, organization=organization, user=actor, key=idempotency_key)
    refuse_secrets(revision)

    def make() -> Revision:
        lock_agent(agent.pk)
        current_rows = Deployment.objects.current(agent).select_related("organization", "target_revision")
        locked = current_rows.select_for_update(of=("self",), no_key=True).order_by("pk")
        current = [each for each in locked if not each.is_stopping]
        made = add_revision(agent, get_settings(revision), actor=actor, digest=revision.digest, restored_from=revision)
        if newest is not None and newest != made.number - 1:
            sentence = f"{agent.name} was deployed meanwhile: its newest revision is {made.number - 1}. Compare again."
            raise PortalError("revision_changed", sentence, 409)
        fields = take_settings(agent, made)
        moved = [each for each in current if must_roll(each, made)]
        for deployment in moved:
            roll(deployment, made, actor)
        created = None if current else deploy_again(made, actor)
        key.store(str(made.pk))
        # All audit rows come last, because the first one holds the end of the organization's chain.
        of_revision = {"revision": made.number}
        for deployment in moved:
            audit(AuditKind.DEPLOYMENT_RESTARTED, deployment, actor, of_revision)
        if created:
            audit(AuditKind.DEPLOYMENT_CREATED, created, actor, of_revision | {"replicas": created.replicas})
        audit(AuditKind.AGENT_CHANGED, agent, actor, of_revision | {"fields": fields, "restored_from": revision.number})
        return made

    return run_once(key, make, lambda pk: Revision.objects.get(pk=pk, organization=organization))


def refuse_secrets(revision: Revision) -> None:
    """Refuse references that the organization may no longer use. The agent keeps those that it has."""
    kept = Agent.objects.values_list("environment", flat=True).get(pk=revision.agent_id)
    errors = reference_errors(revision.organization, revision.environment, kept)
    refuse_invalid({"environment": shortened(errors)} if errors else {})


def take_settings(agent: Agent, revision: Revision) -> list[str]:
    """Give the agent the settings of the revision. Return the names of the fields that changed."""
    taken = ("image", "cpu", "memory", "environment")
    current = Agent.objects.get(pk=agent.pk)
    changed = {name: getattr(revision, name) for name in taken if getattr(current, name) != getattr(revision, name)}
    if changed:
        Agent.objects.filter(pk=agent.pk).update(**changed)
    return sorted(changed)


def roll(deployment: Deployment, revision: Revision, actor: User) -> None:
    """Let a locked deployment replace its tasks by those of the revision. ECS reports the status of a live one."""
    is_failed = deployment.status == Status.FAILED
    fields = build_new_generation(deployment, revision) | (build_start() if is_failed else {})
    fields |= {
        "is_version_pinned": False,
        "requested_generation": F("requested_generation") + 1,
        "requested_by": actor.pk,
        "next_check_at": Now(),
        "doubted_at": None,
        "request_id": request_id_var.get(),
    }
    statement = make_change(Deployment.objects.filter(pk=deployment.pk), fields)
    status = fields.get("status", deployment.status)
    said = {"actor": actor.email, "detail": f"to revision {revision.number}"}
    change_with_event(statement, {}, EventType.RESTART, status=status, key=None, **said)
    dispatch_deployment(deployment)


def deploy_again(revision: Revision, actor: User) -> Deployment:
    deployment = deploy_revision(revision, actor, replicas=1)
    create_with_event(deployment, key=None, actor=actor.email, detail=f"1 of {deployment.image}")
    dispatch_deployment(deployment)
    return deployment
