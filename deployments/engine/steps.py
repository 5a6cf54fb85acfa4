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
from django.core.cache import cache
from django.db import transaction

from deployments.container_spec import image_version, is_secret_reference
from deployments.engine.observe import see, seen_of
from deployments.engine.read_budget import Work
from deployments.events import record_event
from deployments.models import Deployment
from deployments.states import OUTSIDE, SYSTEM, EventType, Status, Wanted
from portal.audit import record
from portal.aws import ecs, ecs_runtime
from portal.aws.credentials import forget
from portal.aws.errors import EXPIRED, AwsError, AwsMissing, AwsUnavailable, in_short, with_advice
from portal.leases import LEASE
from portal.models import AuditKind
from portal.templatetags.words import last_part

logger = logging.getLogger(__name__)

TEMPLATE_KEPT_SECONDS = 60
DRAINING_SECONDS = 5.0
DELETED_OUTSIDE = "The ECS service was deleted outside the portal."


def step(work: Work, service: ecs.Service | None) -> None:
    """Take the next step for one deployment.

    `service` is what ECS has just reported, or None if there is no such service.

    *Raises* AwsError.
    """
    row = work.row
    if row.wanted == Wanted.GONE:
        remove(work, service)
    elif row.carried_out < row.wish:
        carry_out(work, service)
    elif service is None or service.status != "ACTIVE":
        vanished(work)
    elif change := outside_change(row, service):
        follow(work, service, change)
    else:
        see(work, service)


# --- applying changes to ECS ------------------------------------------------------------------------------------------


def carry_out(work: Work, service: ecs.Service | None) -> None:
    row = work.row
    if service is not None and service.status == "ACTIVE":
        update(work)
    elif row.service_arn is not None:
        vanished(work)
    else:
        create(work)


def create(work: Work) -> None:
    """Create the ECS service.

    1. Read the settings of the platform's agent service.
    2. Find or register the task definition.
    3. Record that CreateService is about to be called.
    4. Call CreateService.
    """
    row = work.row
    target = row.organization.aws_target
    try:
        template = template_of(work)
        task_definition = task_definition_of(work, template)
        work.write(create_called_at=work.now, log_group=template.log_options.get("awslogs-group"))
        work.renew()
        service = ecs_runtime.create_service(
            target,
            row.cluster,
            row.service_name,
            token=str(row.pk),
            task_definition=task_definition,
            desired_count=wanted_count(row),
            template=template,
        )
    except AwsUnavailable:
        raise
    except AwsError as error:
        return refused(work, error)
    told(work, service, generation=row.generation)


def update(work: Work) -> None:
    """Set the desired count, and the task definition if there is a new generation."""
    row = work.row
    task_definition = None
    if row.wanted == Wanted.RUNNING and row.applied_generation < row.generation:
        try:
            task_definition = task_definition_of(work, template_of(work))
        except AwsUnavailable:
            raise
        except AwsError as error:
            return refused(work, error)
    work.renew()
    service = ecs_runtime.set_service(
        row.organization.aws_target,
        row.cluster,
        row.service_name,
        desired_count=wanted_count(row),
        task_definition=task_definition,
    )
    told(work, service, generation=row.generation if task_definition else row.applied_generation)


def wanted_count(row: Deployment) -> int:
    return row.replicas if row.wanted == Wanted.RUNNING else 0


def told(work: Work, service: ecs.Service, *, generation: int) -> None:
    """Record that ECS accepted the newest change. Reads in the next seconds may be older than this reply."""
    row = work.row
    fields = seen_of(work, service) | {
        "carried_out": row.wish,
        "applied_generation": generation,
        "applied_at": work.now,
    }
    logger.info("deployment %s: ECS accepted change %s", row.pk, row.wish)
    work.rest(**fields)


def refused(work: Work, error: AwsError) -> None:
    """Mark the deployment as failed with ECS's reason. It stays failed until it is restarted."""
    row = work.row
    why = with_advice(error)
    fields: dict[str, Any] = {
        "status": Status.FAILED,
        "status_at": work.now,
        "ended_at": work.now,
        "error_message": why,
        "carried_out": row.wish,
        "check_error": None,
        "last_checked_at": work.now,
    }
    with transaction.atomic():
        if row.service_arn:
            work.rest(**fields)
        else:
            work.finish(**fields)  # there is no service to read
        record_event(row, EventType.FAILED, actor=SYSTEM, error_message=why)


def template_of(work: Work) -> ecs_runtime.Template:
    """Return network, roles and log settings for the service.

    They are those of the platform's own agent service, cached for a minute. The organization's own settings override them.
    """
    organization = work.row.organization
    name = f"{organization.deployment_stack}-agent-service"
    key = f"template:{organization.pk}:{organization.deployment_region}:{work.row.cluster}:{name}"
    template: ecs_runtime.Template | None = None
    kept = cache.get(key)
    if kept is not None:
        template = ecs_runtime.Template(**kept)
    else:
        work.renew()
        template = ecs_runtime.read_template(organization.aws_target, work.row.cluster, name)
        cache.set(key, vars(template), TEMPLATE_KEPT_SECONDS)
    return with_own_settings(template, work.row)


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


def task_definition_of(work: Work, template: ecs_runtime.Template) -> str:
    """Return the ARN for the row's generation: the stored one, else one found by family, else a newly registered one."""
    row = work.row
    if row.task_definition and row.task_generation == row.generation:
        return row.task_definition
    target = row.organization.aws_target
    work.renew()
    arn = ecs_runtime.find_task_definition(target, row.service_name, generation=row.generation)
    if arn is None:
        spec = ecs_runtime.TaskSpec(
            family=row.service_name,
            generation=row.generation,
            image=row.image,
            cpu=row.cpu,
            memory=row.memory,
            environment={name: value for name, value in row.environment.items() if not is_secret_reference(value)},
            secrets={name: value for name, value in row.environment.items() if is_secret_reference(value)},
        )
        work.renew()
        arn = ecs_runtime.register_task_definition(target, spec, template)
    work.write(task_definition=arn, task_generation=row.generation)
    return arn


# --- removing a service -----------------------------------------------------------------------------------------------


def remove(work: Work, service: ecs.Service | None) -> None:
    """Remove the service of a killed deployment: first its tasks, then the service.

    Finishes once ECS no longer reports it and no CreateService call can still take effect.
    """
    row = work.row
    if service is None:
        if may_be_on_its_way(work):
            return work.release(seconds=DRAINING_SECONDS, last_checked_at=work.now)
        gone = {"running_replicas": 0, "pending_count": 0, "desired_count": 0, "carried_out": row.wish}
        return work.finish(**gone, node_id=None, last_checked_at=work.now, check_error=None)
    fields = seen_of(work, service)
    if service.status == "ACTIVE":
        target = row.organization.aws_target
        try:
            if service.desired_count:
                work.renew()
                ecs_runtime.set_service(target, row.cluster, row.service_name, desired_count=0)
            work.renew()
            ecs_runtime.delete_service(target, row.cluster, row.service_name)
        except AwsMissing:
            logger.info("deployment %s: already deleted", row.pk)
        fields["applied_at"] = work.now
    work.release(seconds=DRAINING_SECONDS, **fields)


def may_be_on_its_way(work: Work) -> bool:
    """Return whether a recent CreateService call may still take effect or become visible."""
    called_at = work.row.create_called_at
    patience = LEASE + timedelta(seconds=settings.DEPLOYMENTS_LAG_SECONDS)
    return called_at is not None and work.now - called_at < patience


# --- changes made outside the portal ----------------------------------------------------------------------------------


def outside_change(row: Deployment, service: ecs.Service) -> str | None:
    """Return the kind of change made outside the portal: `scaled`, `redeployed` or None.

    A rollback by ECS itself does not count.
    """
    if service.desired_count != wanted_count(row):
        return "scaled"
    primary = service.primary
    if primary and row.primary_id and primary.id != row.primary_id and not primary.is_rollback:
        return "redeployed"
    return None


def is_believed(work: Work) -> bool:
    """Return whether a difference between ECS and the row is confirmed.

    It must be seen twice, and long enough after our newest write that the read cannot be stale.
    """
    row = work.row
    if row.doubted_at is None or row.doubted_at >= work.now:
        return False
    lag = timedelta(seconds=settings.DEPLOYMENTS_LAG_SECONDS)
    return row.applied_at is None or work.now - row.applied_at >= lag


def doubt(work: Work) -> None:
    work.rest(doubted_at=work.row.doubted_at or work.now, last_checked_at=work.now, check_error=None)


def follow(work: Work, service: ecs.Service, change: str) -> None:
    """Adopt a change made in ECS, with an event that says it was made outside. The next read sets the status."""
    if not is_believed(work):
        return doubt(work)
    row = work.row
    fields = seen_of(work, service)
    desired = service.desired_count
    if change == "redeployed":
        event, detail = (
            EventType.RESTART,
            f"deployed {last_part(service.task_definition) or 'an unknown task definition'}",
        )
        fields |= {"task_definition": service.task_definition, **image_of(work, service)}
    elif desired == 0:
        event, detail = EventType.STOP, f"from {row.replicas} to 0"
        fields["wanted"] = Wanted.STOPPED
    elif row.wanted == Wanted.STOPPED:
        event, detail = EventType.RESTART, f"from 0 to {desired}"
        fields |= {"wanted": Wanted.RUNNING, "replicas": desired, "status": Status.DEPLOYING, "ended_at": None}
        fields |= {"status_at": work.now, "started_at": work.now, "error_message": None}
    else:
        event, detail = EventType.SCALE, f"from {row.replicas} to {desired}"
        fields["replicas"] = desired
    with transaction.atomic():
        work.release(seconds=0, **fields)
        tell_outside(row, event, detail)


def image_of(work: Work, service: ecs.Service) -> dict[str, Any]:
    """Return image and version of a task definition deployed outside. The version is None if it cannot be read."""
    if service.task_definition is None:
        return {"version": None}
    work.renew()
    try:
        found = ecs.describe_task_definition(work.row.organization.aws_target, service.task_definition)
    except AwsError:
        return {"version": None}
    image = found.images.get(ecs_runtime.CONTAINER) or next(iter(found.images.values()), "")
    return {"image": image, "version": image_version(image)}


def vanished(work: Work) -> None:
    """Handle a missing service that the portal did not delete: mark the deployment as killed outside the portal."""
    row = work.row
    if row.service_arn is None:
        return work.finish(last_checked_at=work.now)
    if not is_its_place(row):
        why = f"The service is {row.service_arn}, but the organization is now set to another region or account."
        return work.release(seconds=settings.DEPLOYMENTS_STEADY_SECONDS, check_error=why)
    if not is_believed(work):
        return doubt(work)
    with transaction.atomic():
        work.finish(
            status=Status.KILLED,
            status_at=work.now,
            ended_at=work.now,
            wanted=Wanted.GONE,
            carried_out=row.wish,
            error_message=DELETED_OUTSIDE,
            running_replicas=0,
            pending_count=0,
            desired_count=0,
            node_id=None,
            doubted_at=None,
            last_checked_at=work.now,
            check_error=None,
        )
        tell_outside(row, EventType.KILL, DELETED_OUTSIDE, error_message=DELETED_OUTSIDE)


def is_its_place(row: Deployment) -> bool:
    """Return whether the organization still uses the region and account that the service was created in."""
    _, _, _, region, account, *_ = str(row.service_arn).split(":")
    role = row.organization.deployment_role_arn
    return row.organization.deployment_region == region and (not role or role.split(":")[4] == account)


def tell_outside(row: Deployment, event: EventType, detail: str, *, error_message: str | None = None) -> None:
    logger.info("deployment %s changed outside: %s %s", row.pk, event, detail)
    record_event(row, event, actor=OUTSIDE, detail=detail, error_message=error_message)
    record(
        AuditKind.DEPLOYMENT_CHANGED_OUTSIDE,
        organization=row.organization,
        actor=None,
        subject=str(row.pk),
        data={"event": event.value, "detail": detail},
    )


def note_failure(work: Work, error: AwsError) -> None:
    """Record that ECS was throttled, denied or unreachable. The status stays, and the read is retried later."""
    row = work.row
    logger.info("deployment %s: %s", row.pk, error)
    if error.code in EXPIRED:
        forget(row.organization.aws_target)
    seconds = settings.DEPLOYMENTS_POLL_SECONDS * (2 if isinstance(error, AwsUnavailable) else 10)
    work.release(seconds=seconds, check_error=in_short(error))
