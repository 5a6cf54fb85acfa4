"""Tests whether the portal can reach and read an organization's AWS account, and finds missing permissions.

It only reads. A permission that cannot be tested without a write is "not known", never "ok".
"""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import models, transaction

from portal.audit import record
from portal.aws import ecr, ecs
from portal.aws.credentials import AwsTarget, drop_session
from portal.aws.deadline import Found, call_with_deadline
from portal.aws.errors import AwsDenied, AwsError, AwsMissing, AwsUnavailable, summarize_error, with_advice
from portal.aws.sts import caller_account
from portal.errors import PortalError
from portal.models import AuditKind, Organization, User

RECENT = timedelta(days=30)
PLATFORM_SERVICES = ("agent", "orchestrator", "customer-portal")
# Writes, which are not tested.
UNTRIED = {
    "ecs:UpdateService": "Update a service",
    "ecs:RegisterTaskDefinition": "Register a task definition",
    "iam:PassRole": "Pass the task's roles to ECS",
    "ecs:StopServiceDeployment": "Stop a rollout",
    "ecs:ContinueServiceDeployment": "Decide at a pause",
}
UNTRIED_DETAIL = "Cannot be tested without a write. The first upgrade will show it."
NO_CLUSTER = "Neither cluster nor stack is set. Fill in the stack, and the cluster if it is not <stack>-cluster."
NO_IMAGES = "Not tested: the previous step found no image."
NO_STACK = "The stack is empty. Fill it in: the services are named after it (<stack>-agent-service)."


class StepStatus(models.TextChoices):
    OK = "ok", "OK"
    FAILED = "failed", "Failed"
    UNKNOWN = "unknown", "Not known"


@dataclass(frozen=True)
class Step:
    """One tested step. `permission` is the IAM action it needs, or the missing one if AWS denied it."""

    name: str
    status: StepStatus
    detail: str
    permission: str | None = None


def test_connection(organization: Organization, *, actor: User) -> list[Step]:
    """Test each read that an upgrade makes, with a newly assumed role. Each step takes at most STEP_SECONDS.

    Writes an audit row and changes nothing else. *Raises* PortalError 403 for everyone but staff.
    """
    if not actor.is_staff:
        raise PortalError("forbidden", "Only staff can test an organization's connection to AWS.", 403)
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
    """Return the steps in order. A step that cannot succeed after a failed one is not run."""
    cluster, stack, target = organization.cluster, organization.deployment_stack, organization.aws_target
    if cluster is None:
        return [Step("Find the organization's cluster settings", StepStatus.FAILED, NO_CLUSTER)]
    drop_session(target)
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
    """Runs steps one after the other. `blocked` says why no further AWS call is made."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.blocked: str | None = None

    def add(self, name: str, status: StepStatus, detail: str, permission: str | None = None) -> None:
        self.steps.append(Step(name, status, detail, permission))

    def take(self, name: str, permission: str, call: Callable[[], Found], say: Callable[[Found], str]) -> Found | None:
        """Make one AWS call as one step. Return its result; None if it failed or was not made."""
        if self.blocked:
            self.add(name, StepStatus.UNKNOWN, self.blocked, permission)
            return None
        try:
            found = call_with_deadline(call, permission)
        except AwsError as error:
            self._refused(name, permission, error)
            return None
        self.add(name, StepStatus.OK, say(found), permission)
        return found

    def _refused(self, name: str, permission: str, error: AwsError) -> None:
        if isinstance(error, AwsDenied):
            self.add(name, StepStatus.FAILED, with_advice(error), error.permission)
        elif isinstance(error, AwsUnavailable):
            detail = f"{summarize_error(error)} Check region and network, then try again."
            self.add(name, StepStatus.UNKNOWN, detail, permission)
            self.blocked = f"Not tested, because AWS did not answer this step: {name}."
        else:
            self.add(name, StepStatus.FAILED, with_advice(error), permission)
            if isinstance(error, AwsMissing) and permission == "ecs:DescribeClusters":
                self.blocked = "Not tested, because the cluster was not found."


def sign_in(tries: Tries, target: AwsTarget) -> None:
    if target.role_arn:
        name, permission = f"Assume the role {target.role_arn}", "sts:AssumeRole"
    else:
        name, permission = "Sign in with the portal's own credentials", "sts:GetCallerIdentity"
    account = tries.take(name, permission, partial(caller_account, target), "This is AWS account {}.".format)
    if account is None and not tries.blocked:
        tries.blocked = "Not tested, because the portal could not sign in to this AWS account."


def say_cluster(cluster: ecs.Cluster) -> str:
    return f"{cluster.name} is {cluster.status}: {cluster.active_services} services, {cluster.running_tasks} tasks."


def read_services(tries: Tries, target: AwsTarget, cluster: str, stack: str) -> None:
    """Read the services, then make each further read on the first one that exists, else on the agent service."""
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
        detail = f"ECS's reply for {name} is incomplete: it has no {left_out}."
        tries.add(f"Find {name}", StepStatus.UNKNOWN, detail, "ecs:DescribeServices")
        return
    if service is None:
        detail = f"{name} is not in {cluster}. Check the stack's name, or create the service there."
        tries.add(f"Find {name}", StepStatus.FAILED, detail, "ecs:DescribeServices")
        return
    detail = f"{service.status}, {service.running_count} of {service.desired_count} tasks running."
    if service.is_foreign:
        detail += f" The portal cannot upgrade it, because another controller deploys it ({service.controller})."
    tries.add(f"Find {name}", StepStatus.OK, detail, "ecs:DescribeServices")


def read_images(tries: Tries, target: AwsTarget, images: list[str]) -> None:
    """List the repository of the first image in Amazon ECR. An image elsewhere does not mean a missing permission."""
    name, permission = "List the versions of an image", "ecr:DescribeImages"
    found = (ecr.ecr_repository(ecr.parse_image(image)) for image in images)
    repository = next((each for each in found if each), None)
    if repository is None:
        why = "Not tested: no image of the service is in Amazon ECR, so only the version latest can be chosen."
        tries.add(name, StepStatus.UNKNOWN, tries.blocked or (why if images else NO_IMAGES), permission)
        return
    reading = tries.take(
        name,
        permission,
        partial(ecr.list_images, target, repository),
        lambda reading: f"{len(reading.images)} images in {repository.name}, {repository.region}.",
    )
    newest = reading.images[0].digest if reading and reading.images else None
    read_manifests = partial(ecr.read_manifests, target, repository)
    read_one(tries, "Read what an image consists of", "ecr:BatchGetImage", read_manifests, newest)


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
        lambda found: f"{len(found)} of {service} are running.",
    )
    read_task = partial(ecs.describe_tasks, target, cluster)
    read_one(tries, "Read a task", "ecs:DescribeTasks", read_task, arns[0] if arns else None)


def read_one(tries: Tries, name: str, permission: str, call: Callable[[list[str]], Sized], arn: str | None) -> None:
    """Read one item that the previous step listed. Without one the permission stays not known."""
    if arn is None:
        tries.add(name, StepStatus.UNKNOWN, tries.blocked or "Not tested: the previous step listed none.", permission)
    else:
        tries.take(name, permission, partial(call, [arn]), lambda found: f"{len(found)} of 1 read.")
