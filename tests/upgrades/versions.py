"""Versions of acme's services on the local AWS: images, task definitions, and what runs."""

from typing import Any

from tests.conftest import Cast
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade

REGISTRY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"


def trigger(cast: Cast, service: str = "agent", version: str = "v9.9.1", **options: Any) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, version=version, **options)


def registrations(local_aws: LocalAws) -> list[dict[str, Any]]:
    return local_aws.ledger(action="RegisterTaskDefinition", effect=True)


def get_place(cast: Cast, service: str = "agent") -> dict[str, str]:
    return {"cluster": str(cast.acme.cluster), "service": f"{cast.acme.deployment_stack}-{service}-service"}


def service_now(local_aws: LocalAws, cast: Cast, service: str = "agent") -> dict[str, Any]:
    place = get_place(cast, service)
    (found,) = local_aws.client().describe_services(cluster=place["cluster"], services=[place["service"]])["services"]
    return dict(found)


def definition_now(local_aws: LocalAws, cast: Cast, service: str = "agent") -> dict[str, Any]:
    """Return the service's task definition with its tags."""
    arn = service_now(local_aws, cast, service)["taskDefinition"]
    reply = local_aws.client().describe_task_definition(taskDefinition=arn, include=["TAGS"])
    return {**reply["taskDefinition"], "tags": reply.get("tags", [])}


def running_digests(local_aws: LocalAws, cast: Cast, service: str = "agent") -> set[str]:
    place = get_place(cast, service)
    arns = local_aws.client().list_tasks(cluster=place["cluster"], serviceName=place["service"])["taskArns"]
    tasks = local_aws.client().describe_tasks(cluster=place["cluster"], tasks=arns)["tasks"]
    return {container["imageDigest"] for task in tasks for container in task["containers"]}


def deploy(local_aws: LocalAws, cast: Cast, definition: dict[str, Any], service: str = "agent") -> str:
    """Register a task definition and roll the service to it outside the portal. Return its ARN."""
    arn = local_aws.client().register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    local_aws.client().update_service(**get_place(cast, service), taskDefinition=arn)
    local_aws.advance(300)
    return str(arn)


def plain_definition(cast: Cast, image: str, service: str = "agent", **fields: Any) -> dict[str, Any]:
    container = {"name": service, "image": image, "essential": True, "memory": 512}
    family = f"{cast.acme.deployment_stack}-{service}"
    return {"family": family, "containerDefinitions": [container], **fields}


def put_image(local_aws: LocalAws, tags: list[str], *, repository: str = "axonflow-agent") -> str:
    """Push an image now and return its digest. Its tags move from other images."""
    seeded = local_aws.seed(images=[{"repository": repository, "tags": tags, "pushed_at": local_aws.now()}])
    return str(seeded["images"][f"{repository}:{tags[0]}"])
