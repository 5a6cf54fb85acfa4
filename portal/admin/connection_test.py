"""Test connection: can the portal reach and read an organization's AWS, and which permission is missing if not.

It only reads. What cannot be tried without doing it is "not known", never "ok".
"""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import models, transaction

from portal.audit import record
from portal.aws import ecr, ecs
from portal.aws.credentials import AwsTarget, forget
from portal.aws.deadline import Found, within_time
from portal.aws.errors import AwsDenied, AwsError, AwsMissing, AwsUnavailable, in_short, with_advice
from portal.aws.sts import caller_account
from portal.errors import PortalError
from portal.models import AuditKind, Organization, User

RECENT = timedelta(days=30)
PLATFORM_SERVICES = ("agent", "orchestrator", "customer-portal")
# Writes: nobody may try them only to see.
UNTRIED = {
    "ecs:UpdateService": "Roll a service",
    "ecs:RegisterTaskDefinition": "Register a task definition with another version",
    "iam:PassRole": "Hand the task's roles to ECS",
    "ecs:StopServiceDeployment": "Stop a rollout",
}
UNTRIED_DETAIL = "Cannot be tested without doing it; the first upgrade will show it."
NO_CLUSTER = "There is neither a cluster nor a stack. Fill in the stack; the cluster too, if it is not <stack>-cluster."
NO_IMAGES = "Not tried: the step before found no image."
NO_STACK = "The services are named after the stack (<stack>-agent-service), and the stack is empty. Fill it in."


class StepStatus(models.TextChoices):
    OK = "ok", "OK"
    FAILED = "failed", "Failed"
    UNKNOWN = "unknown", "Not known"


@dataclass(frozen=True)
class Step:
    """One thing that was tried. `permission` is the IAM action that it takes; where AWS denied it, the missing one."""

    name: str
    status: StepStatus
    detail: str
    permission: str | None = None


def test_connection(organization: Organization, *, actor: User) -> list[Step]:
    """Try each read that an upgrade makes, with a freshly assumed role; at most STEP_SECONDS for each step.

    Raises PortalError 403 for anybody but staff. Leaves an audit row; changes nothing else.
    """
    if not actor.is_staff:
        raise PortalError("forbidden", "Only staff test an organization's connection to AWS.", 403)
    steps = take_steps(organization)
    with transaction.atomic():
        record(
            AuditKind.CONNECTION_TESTED,
            organization=organization,
            actor=actor,
            subject=organization.slug,
            data={"steps": {step.name: step.status for step in steps}},
        )
    return steps


def take_steps(organization: Organization) -> list[Step]:
    """The steps in their order; one that cannot work after a failed one is not tried."""
    cluster, stack, target = organization.cluster, organization.deployment_stack, organization.aws_target
    if cluster is None:
        return [Step("Find the organization's place in AWS", StepStatus.FAILED, NO_CLUSTER)]
    forget(target)
    tries = Tries()
    sign_in(tries, target)
    tries.take("Find the cluster", "ecs:DescribeClusters", partial(ecs.describe_cluster, target, cluster), say_cluster)
    if stack:
        read_services(tries, target, cluster, stack)
    else:
        tries.add("Find the platform's services", StepStatus.FAILED, NO_STACK)
    for permission, name in UNTRIED.items():
        tries.add(name, StepStatus.UNKNOWN, UNTRIED_DETAIL, permission)
    return tries.steps


class Tries:
    """Takes steps one after the other. `blocked` says why AWS is not asked any more."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.blocked: str | None = None

    def add(self, name: str, status: StepStatus, detail: str, permission: str | None = None) -> None:
        self.steps.append(Step(name, status, detail, permission))

    def take(self, name: str, permission: str, call: Callable[[], Found], say: Callable[[Found], str]) -> Found | None:
        """One call to AWS as one step; returns what it found, None when it failed or was not tried."""
        if self.blocked:
            self.add(name, StepStatus.UNKNOWN, self.blocked, permission)
            return None
        try:
            found = within_time(call, permission)
        except AwsError as error:
            self._refused(name, permission, error)
            return None
        self.add(name, StepStatus.OK, say(found), permission)
        return found

    def _refused(self, name: str, permission: str, error: AwsError) -> None:
        if isinstance(error, AwsDenied):
            self.add(name, StepStatus.FAILED, with_advice(error), error.permission)
        elif isinstance(error, AwsUnavailable):
            detail = f"{in_short(error)} Check region and network, then try again."
            self.add(name, StepStatus.UNKNOWN, detail, permission)
            self.blocked = f"Not tried, because AWS did not answer at: {name}."
        else:
            self.add(name, StepStatus.FAILED, with_advice(error), permission)
            if isinstance(error, AwsMissing) and permission == "ecs:DescribeClusters":
                self.blocked = "Not tried, because the cluster was not found."


def sign_in(tries: Tries, target: AwsTarget) -> None:
    if target.role_arn:
        name, permission = f"Assume the role {target.role_arn}", "sts:AssumeRole"
    else:
        name, permission = "Sign in with the portal's own credentials", "sts:GetCallerIdentity"
    account = tries.take(name, permission, partial(caller_account, target), "This is AWS account {}.".format)
    if account is None and not tries.blocked:
        tries.blocked = "Not tried, because the portal could not sign in to this AWS account."


def say_cluster(cluster: ecs.Cluster) -> str:
    return f"{cluster.name} is {cluster.status}: {cluster.active_services} services, {cluster.running_tasks} tasks run."


def read_services(tries: Tries, target: AwsTarget, cluster: str, stack: str) -> None:
    """The services, and then each further read on the first of them that exists; without one, on the agent service."""
    names = [f"{stack}-{service}-service" for service in PLATFORM_SERVICES]
    reading = tries.take(
        "Read the services",
        "ecs:DescribeServices",
        partial(ecs.describe_services, target, cluster, names),
        lambda found: f"{len(found.services)} of {len(names)} were found.",
    )
    services = reading.services if reading else {}
    for name in names if reading else []:
        add_service(tries, name, services.get(name), cluster, left_out=reading.left_out.get(name) if reading else None)
    service = next(iter(services), names[0])
    definitions = [each.task_definition for each in services.values() if each.task_definition]
    name = definitions[0] if definitions else f"{stack}-agent"
    definition = tries.take(
        "Read a task definition",
        "ecs:DescribeTaskDefinition",
        partial(ecs.describe_task_definition, target, name),
        lambda found: f"{found.family}:{found.revision}.",
    )
    read_images(tries, target, list(definition.images.values()) if definition else [])
    read_rollouts(tries, target, cluster, service)
    read_tasks(tries, target, cluster, service)


def add_service(tries: Tries, name: str, service: ecs.Service | None, cluster: str, *, left_out: str | None) -> None:
    if left_out:
        detail = f"ECS's reply says too little of {name}: it has no {left_out}."
        tries.add(f"Find {name}", StepStatus.UNKNOWN, detail, "ecs:DescribeServices")
        return
    if service is None:
        detail = f"{name} is not in {cluster}. Check the stack's name, or create the service there."
        tries.add(f"Find {name}", StepStatus.FAILED, detail, "ecs:DescribeServices")
        return
    detail = f"{service.status}, {service.running_count} of {service.desired_count} tasks run."
    if service.is_foreign:
        detail += f" It is deployed by another controller ({service.controller}): the portal cannot upgrade it."
    tries.add(f"Find {name}", StepStatus.OK, detail, "ecs:DescribeServices")


def read_images(tries: Tries, target: AwsTarget, images: list[str]) -> None:
    """The repository of the first image that is in Amazon ECR; one that is not there is no missing permission."""
    name, permission = "List the versions of an image", "ecr:DescribeImages"
    found = (ecr.ecr_repository(ecr.parse_image(image)) for image in images)
    repository = next((each for each in found if each), None)
    if repository is None:
        why = "Not tried: no image of the service is in Amazon ECR, so no version can be chosen but latest."
        tries.add(name, StepStatus.UNKNOWN, tries.blocked or (why if images else NO_IMAGES), permission)
        return
    tries.take(
        name,
        permission,
        partial(ecr.list_images, target, repository),
        lambda reading: f"{len(reading.images)} images in {repository.name}, {repository.region}.",
    )


def read_rollouts(tries: Tries, target: AwsTarget, cluster: str, service: str) -> None:
    since = datetime.now(UTC) - RECENT
    briefs = tries.take(
        "List rollouts",
        "ecs:ListServiceDeployments",
        partial(ecs.list_service_deployments, target, cluster, service, created_after=since),
        lambda found: f"{len(found)} of {service} in the last {RECENT.days} days.",
    )
    newest = briefs[-1] if briefs else None
    read_rollout = partial(ecs.describe_service_deployments, target)
    read_revision = partial(ecs.revision_task_definitions, target)
    read_one(tries, "Read a rollout", "ecs:DescribeServiceDeployments", read_rollout, newest.arn if newest else None)
    read_one(
        tries,
        "Read a service revision",
        "ecs:DescribeServiceRevisions",
        read_revision,
        newest.target_revision if newest else None,
    )


def read_tasks(tries: Tries, target: AwsTarget, cluster: str, service: str) -> None:
    arns = tries.take(
        "List tasks",
        "ecs:ListTasks",
        partial(ecs.list_tasks, target, cluster, service),
        lambda found: f"{len(found)} of {service} run.",
    )
    read_task = partial(ecs.describe_tasks, target, cluster)
    read_one(tries, "Read a task", "ecs:DescribeTasks", read_task, arns[0] if arns else None)


def read_one(tries: Tries, name: str, permission: str, call: Callable[[list[str]], Sized], arn: str | None) -> None:
    """One of what the step before listed; without one the permission stays not known."""
    if arn is None:
        tries.add(name, StepStatus.UNKNOWN, tries.blocked or "Not tried: the step before listed none.", permission)
    else:
        tries.take(name, permission, partial(call, [arn]), lambda found: f"{len(found)} of 1 was read.")
