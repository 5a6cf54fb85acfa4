"""Amazon ECS for services that the portal creates: registers task definitions, and creates, scales and deletes services.

Each write may be repeated. Reads shared by pages and upgrades are in ecs/. Functions return frozen dataclasses and raise
AwsError.
"""

from dataclasses import dataclass, field
from typing import Any

from portal.aws.credentials import AwsTarget, client
from portal.aws.ecs.calls import is_named_in, read
from portal.aws.ecs.service import OWN_CONTROLLER, Service, find_controller, parse_service
from portal.aws.errors import AwsMissing, AwsRefused, complete, incomplete, need, translated
from portal.aws.permissions import Scope, Use, find_role_arns

GENERATION_LABEL = "portal.generation"
CONTAINER = "agent"
# The agent's container in the platform's own task definition, as its stacks name it.
PLATFORM_CONTAINERS = (CONTAINER, "axonflow-agent")


@dataclass(frozen=True)
class Template:
    """Settings that a new service copies from an existing one: network, placement, roles and logging.

    The dictionaries are ECS's own and are passed back unchanged.
    """

    network: dict[str, Any]
    placement: dict[str, Any]
    execution_role: str | None
    task_role: str | None
    log_options: dict[str, str]
    runtime_platform: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSpec:
    """The contents of one task definition revision. `secrets` maps names to ARNs."""

    family: str
    generation: int
    image: str
    cpu: int
    memory: int
    environment: dict[str, str]
    secrets: dict[str, str]


def read_template(target: AwsTarget, cluster: str, service: str) -> Template:
    """Read the settings of a service to copy. Two calls. Raises AwsMissing if it does not exist or is not active."""
    action = "ecs:DescribeServices"
    reply = read(target, action, "describe_services", cluster=cluster, services=[service])
    with complete(action):
        raw = next((found for found in reply["services"] if need(found, "status") == "ACTIVE"), None)
    if raw is None and not reply["services"] and not is_named_in(reply, service):
        raise incomplete("services", action)
    if raw is None:
        why = f"there is no active service {service} in {cluster}"
        raise AwsMissing("ServiceNotFoundException", action=action, why=why)
    if not raw.get("taskDefinition"):
        if find_controller(raw) == OWN_CONTROLLER:
            raise incomplete("taskDefinition", action)
        why = f"{service} names no task definition to take roles and logs from"
        raise AwsRefused("TaskDefinitionNotFoundException", action=action, why=why)
    definition = _describe(target, raw["taskDefinition"])
    logging = find_log_configuration(definition["containerDefinitions"])
    strategy = raw.get("capacityProviderStrategy")
    return Template(
        network=raw.get("networkConfiguration", {}),
        placement={"capacityProviderStrategy": strategy} if strategy else {"launchType": "FARGATE"},
        execution_role=definition.get("executionRoleArn"),
        task_role=definition.get("taskRoleArn"),
        log_options=logging.get("options", {}) if logging.get("logDriver") == "awslogs" else {},
        runtime_platform=definition.get("runtimePlatform", {}),
    )


def find_log_configuration(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the agent's container logs: by its name, else the first container that is not a log router."""
    own = next((each for each in containers if each.get("name") in PLATFORM_CONTAINERS), None)
    own = own or next((each for each in containers if not each.get("firelensConfiguration")), containers[0])
    return own.get("logConfiguration") or {}


def find_task_definition(target: AwsTarget, family: str, *, generation: int) -> str | None:
    """Return the ARN of the family's newest revision if it was registered for this generation, else None. One call."""
    try:
        raw = _describe(target, family)
    except AwsRefused:
        return None  # ClientException: the family does not exist yet
    labels = raw["containerDefinitions"][0].get("dockerLabels", {})
    with complete("ecs:DescribeTaskDefinition"):
        return str(need(raw, "taskDefinitionArn")) if labels.get(GENERATION_LABEL) == str(generation) else None


def register_task_definition(target: AwsTarget, spec: TaskSpec, template: Template) -> str:
    """Register a revision with one call and return its ARN. The names of its log streams begin with the family's name.

    If the reply is lost, find_task_definition finds the revision by its label.
    """
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "essential": True,
        "environment": [{"name": name, "value": value} for name, value in spec.environment.items()],
        "secrets": [{"name": name, "valueFrom": arn} for name, arn in spec.secrets.items()],
        "dockerLabels": {GENERATION_LABEL: str(spec.generation)},
    }
    if template.log_options:
        options = {**template.log_options, "awslogs-stream-prefix": spec.family}
        container["logConfiguration"] = {"logDriver": "awslogs", "options": options}
    optional = {
        "executionRoleArn": template.execution_role,
        "taskRoleArn": template.task_role,
        "runtimePlatform": template.runtime_platform,
    }
    action = "ecs:RegisterTaskDefinition"
    scope = Scope(Use.DEFINITION, roles=find_role_arns(target.role_arn, (template.execution_role, template.task_role)))
    with translated(action):
        reply = client(target, "ecs", writes=True, scope=scope).register_task_definition(
            family=spec.family,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu=str(spec.cpu),
            memory=str(spec.memory),
            containerDefinitions=[container],
            **{name: value for name, value in optional.items() if value},
        )
    with complete(action):
        return str(need(reply["taskDefinition"], "taskDefinitionArn"))


def create_service(
    target: AwsTarget,
    cluster: str,
    name: str,
    *,
    token: str,
    task_definition: str,
    desired_count: int,
    template: Template,
) -> Service:
    """Create a service. Safe to repeat: ECS returns the same service for the same `token`.

    The circuit breaker ends a deployment that cannot start, but does not roll back, so that it shows as failed.
    """
    with translated("ecs:CreateService"):
        reply = client(target, "ecs", writes=True, scope=Scope(Use.SERVICE, cluster, name)).create_service(
            cluster=cluster,
            serviceName=name,
            clientToken=token,
            taskDefinition=task_definition,
            desiredCount=desired_count,
            deploymentConfiguration={
                "maximumPercent": 200,
                "minimumHealthyPercent": 100,
                "deploymentCircuitBreaker": {"enable": True, "rollback": False},
            },
            **({"networkConfiguration": template.network} if template.network else {}),
            **template.placement,
        )
    with complete("ecs:CreateService"):
        return parse_service(reply["service"])


def set_service(
    target: AwsTarget, cluster: str, name: str, *, desired_count: int, task_definition: str | None = None
) -> Service:
    """Set the desired count and task definition with UpdateService. Idempotent, because no new deployment is forced."""
    definition = {"taskDefinition": task_definition} if task_definition else {}
    with translated("ecs:UpdateService"):
        reply = client(target, "ecs", writes=True, scope=Scope(Use.SERVICE, cluster, name)).update_service(
            cluster=cluster, service=name, desiredCount=desired_count, **definition
        )
    with complete("ecs:UpdateService"):
        return parse_service(reply["service"])


def delete_service(target: AwsTarget, cluster: str, name: str) -> None:
    """Delete a service with its tasks. It is DRAINING until they have stopped, then INACTIVE.

    Raises AwsMissing if it is already INACTIVE.
    """
    with translated("ecs:DeleteService"):
        client(target, "ecs", writes=True, scope=Scope(Use.SERVICE, cluster, name)).delete_service(
            cluster=cluster, service=name, force=True
        )


def running_tasks(target: AwsTarget, cluster: str, service: str) -> list[str]:
    """List the ids of the service's running tasks, oldest first, at most 100. Two calls."""
    listed = read(target, "ecs:ListTasks", "list_tasks", cluster=cluster, serviceName=service, maxResults=100)
    if not listed.get("taskArns"):
        return []
    reply = read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=listed["taskArns"])
    running = [raw for raw in reply.get("tasks", []) if raw.get("lastStatus") == "RUNNING"]
    tasks = [raw for raw in running if raw.get("startedAt") and raw.get("taskArn")]
    tasks.sort(key=lambda raw: (raw["startedAt"], raw["taskArn"]))
    return [raw["taskArn"].rpartition("/")[2] for raw in tasks]


def _describe(target: AwsTarget, name: str) -> dict[str, Any]:
    """Read a task definition. Raises AwsUnavailable if the reply has no container, because every revision has one."""
    action = "ecs:DescribeTaskDefinition"
    reply = read(target, action, "describe_task_definition", taskDefinition=name)
    with complete(action):
        raw: dict[str, Any] = reply["taskDefinition"]
    if not raw.get("containerDefinitions"):
        raise incomplete("containerDefinitions", action)
    return raw
