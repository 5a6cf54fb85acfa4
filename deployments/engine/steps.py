"""Reconciles one deployment: applies pending changes to ECS and adopts changes made outside the portal.

    a change is not yet applied to ECS   -> apply it with one write           (create, update, remove)
    all applied, but ECS differs         -> it was changed outside the portal (follow)
    all applied, and ECS agrees          -> ECS's report is the status        (observe.see)

Every write is safe to repeat. CreateService carries the deployment's id as token. UpdateService sets a state and never
forces a deployment. An existing task definition is searched for before one is registered. DeleteService of a missing
service is not an error. So a lost reply, a killed worker or a second worker costs a call, but never a second service.
"""

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from deployments.container_spec import image_version, is_secret_reference
from deployments.engine.observe import build_observed_fields, observe_service
from deployments.engine.read_budget import DeploymentLease
from deployments.engine.rights import WriteRefused, renew_to_write
from deployments.events import record_event
from deployments.models import Deployment, Revision
from deployments.notifications import notify_failed
from deployments.states import OUTSIDE, SYSTEM, DesiredState, EventType, Status
from portal import soft_cache
from portal.audit import record
from portal.aws import ecr, ecs, ecs_runtime
from portal.aws.credentials import drop_session
from portal.aws.errors import EXPIRED, AwsError, AwsMissing, AwsUnavailable, summarize_error, with_advice
from portal.leases import get_lease_duration
from portal.models import AuditKind
from portal.templatetags.formatting import last_part

logger = logging.getLogger(__name__)

TEMPLATE_CACHE_SECONDS = 60
DEFAULT_TAG = "latest"
DRAINING_SECONDS = 5.0
# A write that the person may not make is considered again after this long.
REFUSED_SECONDS = 60.0
DELETED_OUTSIDE = "The ECS service was deleted outside the portal."


def step(lease: DeploymentLease, service: ecs.Service | None) -> None:
    """Take the next step for one deployment.

    `service` is what ECS has just reported, or None if there is no such service.

    *Raises* AwsError.
    """
    try:
        take(lease, service)
    except WriteRefused as refused:
        logger.info("deployment %s: %s", lease.row.pk, refused)
        observed = build_observed_fields(lease, service) if service else {}
        lease.release(seconds=REFUSED_SECONDS, **observed | {"check_error": str(refused)})


def take(lease: DeploymentLease, service: ecs.Service | None) -> None:
    row = lease.row
    if row.wanted == DesiredState.GONE:
        remove(lease, service)
    elif row.observed_generation < row.requested_generation:
        apply_desired_state(lease, service)
    elif service is None or service.status != "ACTIVE":
        handle_missing_service(lease)
    elif change := find_outside_change(row, service):
        adopt_outside_change(lease, service, change)
    else:
        observe_service(lease, service)


# --- applying changes to ECS ------------------------------------------------------------------------------------------


def apply_desired_state(lease: DeploymentLease, service: ecs.Service | None) -> None:
    row = lease.row
    if service is not None and service.status == "ACTIVE":
        update(lease)
    elif row.service_arn is not None:
        handle_missing_service(lease)
    else:
        create(lease)


def create(lease: DeploymentLease) -> None:
    """Create the ECS service.

    1. Read the settings of the platform's agent service.
    2. Find or register the task definition.
    3. Record that CreateService is about to be called.
    4. Call CreateService.
    """
    row = lease.row
    target = row.aws_target
    try:
        template = get_task_template(lease)
        task_definition = ensure_task_definition(lease, template)
        renew_to_write(lease)
        lease.write(create_called_at=lease.now, log_group=template.log_options.get("awslogs-group"))
        service = ecs_runtime.create_service(
            target,
            row.cluster,
            row.service_name,
            token=str(row.pk),
            task_definition=task_definition,
            desired_count=desired_count_for(row),
            template=template,
        )
    except AwsUnavailable:
        raise
    except AwsError as error:
        return record_refusal(lease, error)
    mark_applied(lease, service, generation=row.generation)


def update(lease: DeploymentLease) -> None:
    """Set the desired count, and the task definition if there is a new generation."""
    row = lease.row
    task_definition = None
    if row.wanted == DesiredState.RUNNING and row.applied_generation < row.generation:
        try:
            task_definition = ensure_task_definition(lease, get_task_template(lease))
        except AwsUnavailable:
            raise
        except AwsError as error:
            return record_refusal(lease, error)
    renew_to_write(lease)
    service = ecs_runtime.set_service(
        row.aws_target,
        row.cluster,
        row.service_name,
        desired_count=desired_count_for(row),
        task_definition=task_definition,
    )
    mark_applied(lease, service, generation=row.generation if task_definition else row.applied_generation)


def desired_count_for(row: Deployment) -> int:
    return row.replicas if row.wanted == DesiredState.RUNNING else 0


def mark_applied(lease: DeploymentLease, service: ecs.Service, *, generation: int) -> None:
    """Record that ECS accepted the newest change. Reads in the next seconds may be older than this reply.

    If the reply does not name the deployment of a new generation, the next read does. It is then no change from outside.
    """
    row = lease.row
    fields = build_observed_fields(lease, service)
    primary = service.primary
    if generation != row.applied_generation and (primary is None or primary.task_definition != row.task_definition):
        fields["primary_id"] = None
    fields |= {
        "observed_generation": row.requested_generation,
        "applied_generation": generation,
        "applied_at": lease.now,
    }
    logger.info("deployment %s: ECS accepted change %s", row.pk, row.requested_generation)
    lease.reschedule(**fields)


def record_refusal(lease: DeploymentLease, error: AwsError) -> None:
    """Mark the deployment as failed with ECS's reason. It stays failed until it is restarted."""
    row = lease.row
    why = with_advice(error)
    fields: dict[str, Any] = {
        "status": Status.FAILED,
        "status_at": lease.now,
        "ended_at": lease.now,
        "error_message": why,
        "observed_generation": row.requested_generation,
        "check_error": None,
        "last_checked_at": lease.now,
    }
    with transaction.atomic():
        if row.service_arn:
            lease.reschedule(**fields)
        else:
            lease.finish(**fields)  # there is no service to read
        notify_failed(row, why)
        record_event(row, EventType.FAILED, actor=SYSTEM, error_message=why)


def get_task_template(lease: DeploymentLease) -> ecs_runtime.Template:
    """Return network, roles and log settings for the service.

    They are those of the platform's own agent service, cached for a minute. The organization's own settings override them.
    """
    organization = lease.row.organization
    name = f"{organization.deployment_stack}-agent-service"
    key = f"template:{organization.pk}:{organization.deployment_region}:{lease.row.cluster}:{name}"
    template = soft_cache.read_as(key, lambda kept: ecs_runtime.Template(**kept))
    if template is None:
        lease.renew()
        template = ecs_runtime.read_template(lease.row.aws_target, lease.row.cluster, name)
        soft_cache.write(key, vars(template), seconds=TEMPLATE_CACHE_SECONDS)
    return with_own_settings(template, lease.row)


def with_own_settings(template: ecs_runtime.Template, row: Deployment) -> ecs_runtime.Template:
    organization = row.organization
    vpc = dict(template.network.get("awsvpcConfiguration", {}))
    if organization.deployment_subnets:
        vpc["subnets"] = [each.strip() for each in organization.deployment_subnets.split(",")]
    if organization.deployment_security_groups:
        vpc["securityGroups"] = [each.strip() for each in organization.deployment_security_groups.split(",")]
    return ecs_runtime.Template(
        **vars(template)
        | {
            "network": {**template.network, "awsvpcConfiguration": vpc} if vpc else template.network,
            "execution_role": organization.deployment_execution_role_arn or template.execution_role,
            "task_role": organization.deployment_task_role_arn or template.task_role,
        }
    )


def ensure_task_definition(lease: DeploymentLease, template: ecs_runtime.Template) -> str:
    """Return the ARN for the row's generation: the stored one, else one found by family, else a newly registered one."""
    row = lease.row
    if row.task_definition and row.task_generation == row.generation:
        return row.task_definition
    target = row.aws_target
    lease.renew()
    arn = ecs_runtime.find_task_definition(target, row.service_name, generation=row.generation)
    if arn is None:
        spec = ecs_runtime.TaskSpec(
            family=row.service_name,
            generation=row.generation,
            image=choose_image(lease),
            cpu=row.cpu,
            memory=row.memory,
            environment={name: value for name, value in row.environment.items() if not is_secret_reference(value)},
            secrets={name: value for name, value in row.environment.items() if is_secret_reference(value)},
        )
        renew_to_write(lease)
        arn = ecs_runtime.register_task_definition(target, spec, template)
    lease.write(task_definition=arn, task_generation=row.generation)
    return arn


def choose_image(lease: DeploymentLease) -> str:
    """Return the image to run: by the digest of the row's revision, else as the row names it.

    A digest that is not known yet is read from the registry and kept. A deploy does not fail because it cannot be read.
    *Costs* at most one AWS call.
    """
    row, revision = lease.row, lease.row.target_revision
    # The release before revisions gives a row new settings without one.
    if revision is None or revision.image != row.image:
        return row.image
    reference = ecr.parse_image(row.image)
    if revision.digest is None and (digest := read_digest(lease, reference)):
        Revision.objects.filter(pk=revision.pk, digest=None).update(digest=digest)
        revision.refresh_from_db(fields=["digest"])
    return reference.pinned_to(revision.digest) if revision.digest else row.image


def read_digest(lease: DeploymentLease, reference: ecr.ImageReference) -> str | None:
    """Return the digest of a tag in Amazon ECR; None for another registry, a missing tag or a failed read."""
    repository = ecr.ecr_repository(reference)
    if repository is None:
        return None
    lease.renew()
    try:
        found = ecr.find_image(lease.row.aws_target, repository, reference.tag or DEFAULT_TAG)
    except AwsError as error:
        logger.info("deployment %s: digest of %s not read: %s", lease.row.pk, reference.tag, error)
        return None
    return found.digest if found else None


# --- removing a service -----------------------------------------------------------------------------------------------


def remove(lease: DeploymentLease, service: ecs.Service | None) -> None:
    """Remove the service of a killed deployment: first its tasks, then the service.

    Finishes once ECS no longer reports it and no CreateService call can still take effect.
    """
    row = lease.row
    if service is None:
        if may_still_appear(lease):
            return lease.release(seconds=DRAINING_SECONDS, last_checked_at=lease.now)
        gone = {
            "running_replicas": 0,
            "pending_count": 0,
            "desired_count": 0,
            "observed_generation": row.requested_generation,
        }
        return lease.finish(**gone, node_id=None, last_checked_at=lease.now, check_error=None)
    fields = build_observed_fields(lease, service)
    if service.status == "ACTIVE":
        target = row.aws_target
        try:
            if service.desired_count:
                renew_to_write(lease)
                ecs_runtime.set_service(target, row.cluster, row.service_name, desired_count=0)
            renew_to_write(lease)
            ecs_runtime.delete_service(target, row.cluster, row.service_name)
        except AwsMissing:
            logger.info("deployment %s: already deleted", row.pk)
        fields["applied_at"] = lease.now
    lease.release(seconds=DRAINING_SECONDS, **fields)


def may_still_appear(lease: DeploymentLease) -> bool:
    """Return whether a recent CreateService call may still take effect or become visible."""
    called_at = lease.row.create_called_at
    patience = get_lease_duration() + timedelta(seconds=settings.DEPLOYMENTS_LAG_SECONDS)
    return called_at is not None and lease.now - called_at < patience


# --- changes made outside the portal ----------------------------------------------------------------------------------


def find_outside_change(row: Deployment, service: ecs.Service) -> str | None:
    """Return the kind of change made outside the portal: `scaled`, `redeployed` or None.

    A rollback by ECS itself does not count.
    """
    if service.desired_count != desired_count_for(row):
        return "scaled"
    primary = service.primary
    if primary and row.primary_id and primary.id != row.primary_id and not primary.is_rollback:
        return "redeployed"
    return None


def is_confirmed(lease: DeploymentLease) -> bool:
    """Return whether a difference between ECS and the row is confirmed.

    It must be seen twice, and long enough after our newest write that the read cannot be stale.
    """
    row = lease.row
    if row.doubted_at is None or row.doubted_at >= lease.now:
        return False
    lag = timedelta(seconds=settings.DEPLOYMENTS_LAG_SECONDS)
    return row.applied_at is None or lease.now - row.applied_at >= lag


def mark_doubted(lease: DeploymentLease) -> None:
    lease.reschedule(doubted_at=lease.row.doubted_at or lease.now, last_checked_at=lease.now, check_error=None)


def adopt_outside_change(lease: DeploymentLease, service: ecs.Service, change: str) -> None:
    """Adopt a change made in ECS, with an event that says it was made outside. The next read sets the status."""
    if not is_confirmed(lease):
        return mark_doubted(lease)
    row = lease.row
    fields = build_observed_fields(lease, service)
    desired = service.desired_count
    if change == "redeployed":
        event, detail = (
            EventType.RESTART,
            f"deployed {last_part(service.task_definition) or 'an unknown task definition'}",
        )
        fields |= {"task_definition": service.task_definition, "target_revision_id": None, "live_revision_id": None}
        fields |= read_image_fields(lease, service)
    elif desired == 0:
        event, detail = EventType.STOP, f"from {row.replicas} to 0"
        fields["wanted"] = DesiredState.STOPPED
    elif row.wanted == DesiredState.STOPPED:
        event, detail = EventType.RESTART, f"from 0 to {desired}"
        fields |= {"wanted": DesiredState.RUNNING, "replicas": desired, "status": Status.DEPLOYING, "ended_at": None}
        fields |= {"status_at": lease.now, "started_at": lease.now, "error_message": None}
    else:
        event, detail = EventType.SCALE, f"from {row.replicas} to {desired}"
        fields["replicas"] = desired
    with transaction.atomic():
        lease.release(seconds=0, **fields)
        record_outside_change(row, event, detail)


def read_image_fields(lease: DeploymentLease, service: ecs.Service) -> dict[str, Any]:
    """Return image and version of a task definition deployed outside. The version is None if it cannot be read."""
    if service.task_definition is None:
        return {"version": None}
    lease.renew()
    try:
        found = ecs.describe_task_definition(lease.row.aws_target, service.task_definition)
    except AwsError:
        return {"version": None}
    image = found.images.get(ecs_runtime.CONTAINER) or next(iter(found.images.values()), "")
    return {"image": image, "version": image_version(image)}


def handle_missing_service(lease: DeploymentLease) -> None:
    """Handle a missing service that the portal did not delete: mark the deployment as killed outside the portal."""
    row = lease.row
    if row.service_arn is None:
        return lease.finish(last_checked_at=lease.now)
    if not is_same_location(row):
        why = f"The service is {row.service_arn}, but the organization is now set to another region or account."
        return lease.release(seconds=settings.DEPLOYMENTS_STEADY_SECONDS, check_error=why)
    if not is_confirmed(lease):
        return mark_doubted(lease)
    with transaction.atomic():
        lease.finish(
            status=Status.KILLED,
            status_at=lease.now,
            ended_at=lease.now,
            wanted=DesiredState.GONE,
            observed_generation=row.requested_generation,
            error_message=DELETED_OUTSIDE,
            running_replicas=0,
            pending_count=0,
            desired_count=0,
            node_id=None,
            doubted_at=None,
            last_checked_at=lease.now,
            check_error=None,
        )
        record_outside_change(row, EventType.KILL, DELETED_OUTSIDE, error_message=DELETED_OUTSIDE)


def is_same_location(row: Deployment) -> bool:
    """Return whether the organization still uses the region and account that the service was created in."""
    _, _, _, region, account, *_ = str(row.service_arn).split(":")
    role = row.organization.deployment_role_arn
    return row.organization.deployment_region == region and (not role or role.split(":")[4] == account)


def record_outside_change(row: Deployment, event: EventType, detail: str, *, error_message: str | None = None) -> None:
    logger.info("deployment %s changed outside: %s %s", row.pk, event, detail)
    record_event(row, event, actor=OUTSIDE, detail=detail, error_message=error_message)
    record(
        AuditKind.DEPLOYMENT_CHANGED_OUTSIDE,
        organization=row.organization,
        actor=None,
        subject=str(row.pk),
        data={"name": row.agent.name, "event": event.value, "detail": detail},
    )


def record_failure(lease: DeploymentLease, error: AwsError) -> None:
    """Record that ECS was throttled, denied or unreachable. The status stays, and the read is retried later."""
    row = lease.row
    logger.info("deployment %s: %s", row.pk, error)
    if error.code in EXPIRED:
        drop_session(row.aws_target)
    seconds = settings.DEPLOYMENTS_POLL_SECONDS * (2 if isinstance(error, AwsUnavailable) else 10)
    lease.release(seconds=seconds, check_error=summarize_error(error))
