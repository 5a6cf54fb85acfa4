"""Creates deployments of an agent, each of a revision of its settings."""

import re
import uuid

from django.db import transaction
from django.db.models.functions import Now

from deployments.commands.record import audit, dispatch_deployment, run_once
from deployments.commands.refusals import refuse_bad_replicas, refuse_invalid
from deployments.container_spec import (
    image_version,
    version_errors,
    with_version,
)
from deployments.events import create_with_event
from deployments.models import Agent, Deployment, Revision
from deployments.revisions import get_settings, lock_agent, new_revision
from portal.access import require
from portal.aws.ecr import parse_image
from portal.database.statements import insert
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User
from portal.request_id import request_id_var


def create_deployment(
    agent: Agent,
    *,
    actor: User,
    replicas: int = 1,
    version: str | None = None,
    idempotency_key: str | None = None,
) -> Deployment:
    """Create a deployment of the agent with status `deploying`. The reconciler then creates its ECS service.

    `version` is an image tag that replaces the agent's own.

    *Raises* PortalError: 403, 404, 400 `no_cluster`, 400 `invalid`, 422 `idempotency_mismatch`.
    """
    organization = agent.organization
    require(actor, organization, Role.OPERATOR)
    request = {"agent_id": str(agent.pk), "replicas": replicas, "version": version}
    key = KeyUse.for_request("create_deployment", request, organization=organization, user=actor, key=idempotency_key)

    def make() -> Deployment:
        refuse_bad_replicas(organization, replicas)
        refuse_invalid({"version": errors} if version and (errors := version_errors(version)) else {})
        find_cluster(organization)
        lock_agent(agent.pk)
        revision = new_current_revision(agent, version, actor)
        deployment = deploy_revision(revision, actor, replicas, is_version_pinned=bool(version))
        said = {"actor": actor.email, "detail": f"{replicas} of {deployment.image}"}
        create_with_event(deployment, key=key, revision=revision, **said)
        audit(AuditKind.DEPLOYMENT_CREATED, deployment, actor, request)
        dispatch_deployment(deployment)
        return deployment

    return run_once(key, make, lambda pk: Deployment.objects.get(pk=pk, organization=organization))


def new_deployment(agent: Agent, actor: User, replicas: int, version: str | None) -> Deployment:
    """Return a deployment of a new revision with the agent's settings. The revision is saved, the deployment is not yet."""
    find_cluster(agent.organization)  # before the revision
    with transaction.atomic():
        lock_agent(agent.pk)
        revision = new_current_revision(agent, version, actor)
        insert([revision])
    return deploy_revision(revision, actor, replicas, is_version_pinned=bool(version))


def new_current_revision(agent: Agent, version: str | None, actor: User) -> Revision:
    """Return a new revision with the agent's settings, not yet saved. `version` replaces the image's tag."""
    image = with_version(agent.image, version) if version else agent.image
    settings = {
        "image": image,
        "version": image_version(image),
        "cpu": agent.cpu,
        "memory": agent.memory,
        "environment": agent.environment,
    }
    return new_revision(agent, settings, actor=actor, digest=parse_image(image).digest)


def deploy_revision(revision: Revision, actor: User, replicas: int, *, is_version_pinned: bool = False) -> Deployment:
    """Return a deployment of the revision, not yet saved."""
    agent = revision.agent
    deployment_id = uuid.uuid4()
    return Deployment(
        id=deployment_id,
        organization=agent.organization,
        agent=agent,
        replicas=replicas,
        is_version_pinned=is_version_pinned,
        target_revision=revision,
        **get_settings(revision),
        cluster=find_cluster(agent.organization),
        service_name=service_name(agent, deployment_id),
        created_by=actor,
        requested_by=actor,
        request_id=request_id_var.get(),
        started_at=Now(),
        next_check_at=Now(),
    )


def find_cluster(organization: Organization) -> str:
    """Return the name of the organization's cluster. *Raises* PortalError 400 `no_cluster`."""
    if organization.cluster is None:
        raise PortalError(
            "no_cluster",
            f"{organization.name} has neither an ECS cluster nor a stack. Staff can set them in Django admin.",
            400,
        )
    return organization.cluster


def service_name(agent: Agent, deployment_id: uuid.UUID) -> str:
    """Return the ECS service name `<stack>-agent-<slug>-<short id>`.

    ECS allows letters, digits and hyphens, at most 255 characters.
    """
    organization = agent.organization
    slug = re.sub(r"[^a-z0-9]+", "-", agent.name.lower()).strip("-")[:60].strip("-")
    parts = [organization.deployment_stack or organization.slug, "agent", slug, str(deployment_id)[:8]]
    return "-".join(part for part in parts if part)
