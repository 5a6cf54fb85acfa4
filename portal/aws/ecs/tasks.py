"""Tasks of ECS and the task definitions that they run. Copies of task definitions: portal/aws/revisions.py."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portal.aws.credentials import AwsTarget
from portal.aws.ecs.calls import masked, read
from portal.aws.errors import complete, need

STOPPED_TASKS_READ = 20


@dataclass(frozen=True)
class TaskDefinition:
    """A task definition revision. `images` are by container name. An inactive (deregistered) one cannot be deployed.

    Only `is_active` ever changes.
    """

    arn: str
    family: str
    revision: int
    images: dict[str, str]
    is_active: bool = True


@dataclass(frozen=True)
class LogPlace:
    """Where a container logs. `group`: in CloudWatch Logs, or None. Its tasks' streams begin with `stream_prefix`."""

    container: str
    group: str | None
    stream_prefix: str


@dataclass(frozen=True)
class RunningTask:
    """A running task. `digests` maps each container's name to the digest (`sha256:..`) of its image.

    `started_by` is the `ecs-svc/..` id of its deployment.
    """

    task_definition: str | None
    started_by: str | None
    digests: dict[str, str]


@dataclass(frozen=True)
class StoppedTask:
    """A stopped task. `reason` joins ECS's reason and those of its failed containers."""

    id: str
    stopped_at: datetime | None
    reason: str
    exit_code: int | None


def describe_task_definition(target: AwsTarget, arn: str) -> TaskDefinition:
    """Read a task definition with one call. Raises AwsRefused (ClientException) if it does not exist."""
    action = "ecs:DescribeTaskDefinition"
    reply = read(target, action, "describe_task_definition", taskDefinition=arn)
    with complete(action):
        raw = reply["taskDefinition"]
        return TaskDefinition(
            arn=need(raw, "taskDefinitionArn"),
            family=need(raw, "family"),
            revision=raw["revision"],
            images={need(each, "name"): need(each, "image") for each in raw["containerDefinitions"]},
            is_active=raw.get("status", "ACTIVE") == "ACTIVE",
        )


def log_places(target: AwsTarget, arn: str) -> list[LogPlace]:
    """Return where the containers of the task definition log. Only the awslogs driver writes to CloudWatch Logs. One call.

    The name of a stream is `<prefix>/<container>/<task>`:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specify-log-config.html
    """
    action = "ecs:DescribeTaskDefinition"
    reply = read(target, action, "describe_task_definition", taskDefinition=arn)
    places = []
    with complete(action):
        for raw in reply["taskDefinition"]["containerDefinitions"]:
            logging = raw.get("logConfiguration") or {}
            options = logging.get("options") or {}
            name, prefix = need(raw, "name"), options.get("awslogs-stream-prefix")
            group = options.get("awslogs-group") if logging.get("logDriver") == "awslogs" and prefix else None
            places.append(LogPlace(name, group, f"{prefix}/{name}/"))
    return places


def stopped_tasks(target: AwsTarget, cluster: str, service: str, *, started_by: str) -> list[StoppedTask]:
    """List the stopped tasks of one `ecs-svc/..` deployment, newest first. Two calls. ECS drops them after an hour."""
    listed = read(
        target,
        "ecs:ListTasks",
        "list_tasks",
        cluster=cluster,
        serviceName=service,
        desiredStatus="STOPPED",
        maxResults=100,
    )
    arns = listed.get("taskArns", [])
    if not arns:
        return []
    reply = read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    tasks = [
        _stopped_task(raw)
        for raw in reply.get("tasks", [])
        if raw.get("startedBy") == started_by and raw.get("taskArn")
    ]
    tasks.sort(key=lambda task: (task.stopped_at or datetime.min.replace(tzinfo=UTC), task.id), reverse=True)
    return tasks[:STOPPED_TASKS_READ]


def running_tasks(target: AwsTarget, cluster: str, service: str) -> list[RunningTask]:
    """List the service's running tasks, at most 100. Two calls."""
    arns = list_tasks(target, cluster, service)
    if not arns:
        return []
    reply = read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    return [
        RunningTask(
            task_definition=raw.get("taskDefinitionArn"),
            started_by=raw.get("startedBy"),
            digests={
                each["name"]: each["imageDigest"]
                for each in raw.get("containers", [])
                if each.get("name") and each.get("imageDigest")
            },
        )
        for raw in reply.get("tasks", [])
        if raw.get("lastStatus") == "RUNNING"
    ]


def list_tasks(target: AwsTarget, cluster: str, service: str) -> list[str]:
    """List the ARNs of the service's running tasks, at most 100. One call."""
    reply = read(target, "ecs:ListTasks", "list_tasks", cluster=cluster, serviceName=service, maxResults=100)
    return list(reply.get("taskArns", []))


def describe_tasks(target: AwsTarget, cluster: str, arns: list[str]) -> dict[str, str]:
    """Return the last status of each task that ECS still keeps, by ARN. One call for at most 100 tasks."""
    reply = read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    tasks = [raw for raw in reply.get("tasks", []) if raw.get("taskArn") and raw.get("lastStatus")]
    return {raw["taskArn"]: raw["lastStatus"] for raw in tasks}


def _stopped_task(raw: dict[str, Any]) -> StoppedTask:
    containers = raw.get("containers", [])
    bad = [container for container in containers if container.get("exitCode") or container.get("reason")]
    reasons = [raw.get("stoppedReason", ""), *(container.get("reason", "") for container in bad)]
    return StoppedTask(
        id=raw["taskArn"].rpartition("/")[2],
        stopped_at=raw.get("stoppedAt"),
        reason=masked("; ".join(dict.fromkeys(reason for reason in reasons if reason))) or "ECS gave no reason.",
        exit_code=next((container["exitCode"] for container in bad if "exitCode" in container), None),
    )
