"""Creates clusters, services, roles and images for tests and the demo, as if they had already run for some time."""

from typing import Any

from portal.sandbox import moto_state, task_definitions
from portal.sandbox.errors import AwsError
from portal.sandbox.moto_state import ImageSeed
from portal.sandbox.partitions import partition, registry_host
from portal.sandbox.records import Service, ServiceKey
from portal.sandbox.server import Sandbox

Json = dict[str, Any]

DEFAULT_AGE_SECONDS = 3600.0

NETWORK = {
    "awsvpcConfiguration": {
        "subnets": ["subnet-0a1b2c3d4e5f60001", "subnet-0a1b2c3d4e5f60002"],
        "securityGroups": ["sg-0a1b2c3d4e5f60001"],
        "assignPublicIp": "DISABLED",
    }
}

# EXPRESS: not a deployment controller of ECS, but Express Mode, shown as `resourceManagementType` ECS.
CONTROLLERS = ("ECS", "CODE_DEPLOY", "EXTERNAL", "EXPRESS")
SCHEDULING = ("REPLICA", "DAEMON")

FIELDS: dict[str, type | tuple[type, ...]] = {"account": str, "region": str, "cluster": str}
SERVICE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "family": str,
    "image": str,
    "container": str,
    "containers": list,
    "desired_count": int,
    "breaker": bool,
    "rollback": bool,
    "controller": str,
    "scheduling": str,
    "minimum_percent": int,
    "maximum_percent": int,
    "deployment_configuration": dict,
    "load_balancers": list,
    "cpu": str,
    "memory": str,
    "environment": dict,
    "secrets": dict,
    "tags": dict,
    "age_seconds": (int, float),
}
CONTAINER_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "image": str,
    "essential": bool,
    "environment": dict,
    "secrets": dict,
}
IMAGE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "repository": str,
    "tags": list,
    "pushed_at": (int, float),
    "build": str,
    "artifact": str,
    "manifest": str,
    "artifact_type": str,
    "subject": str,
    "platforms": list,
    "attested": bool,
}


class SeedError(ValueError):
    """An invalid seed. The message names the field."""


def seed(sandbox: Sandbox, body: Json) -> Json:
    """Seed from a body of the control API, and return the created objects with the ids of the services."""
    check(body)
    for role in body.get("roles") or []:
        sandbox.identity.register(role["arn"], role.get("external_id"))
    account, region = body.get("account", "111111111111"), body.get("region", "eu-central-1")
    now = sandbox.clock.now()
    digests: dict[str, str] = {}
    for image in body.get("images") or []:
        put = image_seed(image, pushed_at=now - 86400)
        digests[f"{put.repository}:{put.tags[0]}"] = moto_state.put_image(account, region, put)
        digests |= {child.name: moto_state.manifest_digest(child) for child in moto_state.children(put)}
    cluster = body.get("cluster")
    if cluster:
        moto_state.create_cluster(account, region, cluster)
    services = [
        seed_service(sandbox, ServiceKey(account, region, str(cluster), each["name"]), each)
        for each in body.get("services") or []
    ]
    return {
        "account": account,
        "region": region,
        "cluster": cluster,
        "images": digests,
        "services": [describe(service) for service in services],
    }


def image_seed(body: Json, *, pushed_at: float) -> ImageSeed:
    names = ("build", "artifact", "manifest", "artifact_type", "subject")
    optional = {name: body[name] for name in names if body.get(name)}
    if body.get("platforms"):
        optional = {"manifest": moto_state.OCI_INDEX} | optional
        optional |= {"platforms": tuple(body["platforms"]), "attested": bool(body.get("attested"))}
    return ImageSeed(body["repository"], tuple(body["tags"]), float(body.get("pushed_at") or pushed_at), **optional)


def describe(service: Service) -> Json:
    return {
        "name": service.key.name,
        "service_arn": service.key.service_arn,
        "task_definition": service.task_definition,
        "service_deployment_arn": service.service_deployments[0].arn,
        "deployment_id": service.deployments[0].id,
    }


def seed_service(sandbox: Sandbox, key: ServiceKey, body: Json) -> Service:
    """Create a task definition and a service with it, which has one COMPLETED deployment and all its tasks running.

    With a `controller` other than ECS (EXTERNAL, CODE_DEPLOY) the tasks run as a task set. A service with the `scheduling`
    DAEMON has the desired count of the seed, because the local AWS has no container instances.
    """
    family = body.get("family") or key.name
    container = body.get("container") or "app"
    arn = moto_state.register_task_definition(
        key.account,
        key.region,
        family,
        container_definitions=[
            task_definitions.container(each, "awsvpc") for each in seeded_containers(key, body, family=family)
        ],
        network_mode="awsvpc",
        runtime_platform={"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        tags=[
            {"key": "aws:cloudformation:stack-name", "value": family.removesuffix(f"-{container}")},
            *({"key": name, "value": str(value)} for name, value in (body.get("tags") or {}).items()),
        ],
        requires_compatibilities=["FARGATE"],
        cpu=body.get("cpu") or "1024",
        memory=body.get("memory") or "2048",
        execution_role_arn=f"arn:{partition(key.region)}:iam::{key.account}:role/{family}-execution",
        task_role_arn=f"arn:{partition(key.region)}:iam::{key.account}:role/{family}-task",
    )
    request = {
        "desiredCount": body.get("desired_count", 2),
        "launchType": "FARGATE",
        "networkConfiguration": NETWORK,
        "deploymentController": {"type": body.get("controller") or "ECS"},
        "schedulingStrategy": body.get("scheduling") or "REPLICA",
        "deploymentConfiguration": seeded_configuration(body),
        "loadBalancers": body.get("load_balancers"),
        "tags": [{"key": name, "value": str(value)} for name, value in (body.get("tags") or {}).items()],
    }
    plan = moto_state.plan_revision(key.account, key.region, arn)
    age = float(body.get("age_seconds", DEFAULT_AGE_SECONDS))
    definition = moto_state.find_task_definition(key.account, key.region, arn)
    owner = f"arn:{partition(key.region)}:iam::{key.account}:root"
    moto_state.store_extra_fields(definition, {"registeredAt": sandbox.clock.now() - age, "registeredBy": owner})
    try:
        return sandbox.engine.put_steady(key, plan, request, age_seconds=age)
    except AwsError as error:
        raise SeedError(f"`deployment_configuration` of {key.name}: {error.message}") from error


def seeded_containers(key: ServiceKey, body: Json, *, family: str) -> list[Json]:
    """Return the container definitions: the service's own, and those of `containers` after it.

    Each of these has a `name`, and may have an `image` (the service's by default), `essential`, `environment`, `secrets`.
    """
    image = body.get("image") or f"{registry_host(key.account, key.region)}/{family}:v1"
    own = container_definition(key, body, family=family, container=body.get("container") or "app", image=image)
    others = []
    for each in body.get("containers") or []:
        made = container_definition(key, each, family=family, container=each["name"], image=each.get("image") or image)
        # In one awsvpc task, only one container can listen on a port.
        others.append(made | {"essential": each.get("essential", True), "portMappings": []})
    return [own, *others]


def seeded_configuration(body: Json) -> Json:
    """Return the deploymentConfiguration: `deployment_configuration` over the defaults of a seed.

    The circuit breaker is on by default where it exists, with the strategy ROLLING.
    """
    given = body.get("deployment_configuration") or {}
    has_breaker = given.get("strategy", "ROLLING") == "ROLLING"
    return {
        "maximumPercent": body.get("maximum_percent", 200),
        "minimumHealthyPercent": body.get("minimum_percent", 100),
        "deploymentCircuitBreaker": {
            "enable": has_breaker and body.get("breaker", True),
            "rollback": has_breaker and body.get("rollback", True),
        },
        **given,
    }


def container_definition(key: ServiceKey, body: Json, *, family: str, container: str, image: str) -> Json:
    """Return a container like those of the platform's task definitions. The log group is `/ecs/<stack>/<container>`."""
    stack = family.removesuffix(f"-{container}")
    return {
        "name": container,
        "image": image,
        "essential": True,
        "portMappings": [{"containerPort": 8080}],
        "healthCheck": {
            "command": ["CMD-SHELL", "curl -fs http://localhost:8080/health || exit 1"],
            "interval": 30,
            "timeout": 5,
            "retries": 10,
            "startPeriod": 180,
        },
        "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
        "environment": [{"name": name, "value": str(value)} for name, value in (body.get("environment") or {}).items()],
        "secrets": [{"name": name, "valueFrom": str(value)} for name, value in (body.get("secrets") or {}).items()],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": f"/ecs/{stack}/{container}",
                "awslogs-region": key.region,
                "awslogs-stream-prefix": container,
            },
        },
    }


def check(body: Json) -> None:
    """Raise SeedError if a field is unknown, missing or of the wrong type."""
    known = {*FIELDS, "services", "roles", "images"}
    for name in body:
        if name not in known:
            raise SeedError(f"`{name}` is not a field of a seed. Known fields: {', '.join(sorted(known))}.")
    for name in ("services", "roles", "images"):
        if not isinstance(body.get(name, []), list) or not all(isinstance(each, dict) for each in body.get(name, [])):
            raise SeedError(f"`{name}` must be a list of objects.")
    check_fields(body, FIELDS, where="")
    if body.get("services") and not body.get("cluster"):
        raise SeedError("`cluster` is missing. Services need one.")
    for number, service in enumerate(body.get("services") or []):
        where = f"services[{number}]."
        for name in service:
            if name not in SERVICE_FIELDS:
                raise SeedError(f"`{where}{name}` is not a known field. Known fields: {', '.join(SERVICE_FIELDS)}.")
        check_fields(service, SERVICE_FIELDS, where=where)
        if service.get("controller") not in (None, *CONTROLLERS):
            raise SeedError(f"`{where}controller` must be one of {', '.join(CONTROLLERS)}.")
        if service.get("scheduling") not in (None, *SCHEDULING):
            raise SeedError(f"`{where}scheduling` must be one of {', '.join(SCHEDULING)}.")
        if not service.get("name"):
            raise SeedError(f"`{where}name` is missing.")
        check_containers(service, where=where)
    for number, role in enumerate(body.get("roles") or []):
        if not str(role.get("arn", "")).startswith("arn:aws"):
            raise SeedError(f"`roles[{number}].arn` must be a role ARN, not {role.get('arn')!r}.")
    for number, image in enumerate(body.get("images") or []):
        if not isinstance(image.get("repository"), str) or not image.get("tags") or not isinstance(image["tags"], list):
            raise SeedError(f"`images[{number}]` needs `repository` and a list of `tags`.")
        for name in image:
            if name not in IMAGE_FIELDS:
                raise SeedError(
                    f"`images[{number}].{name}` is not a known field. Known fields: {', '.join(IMAGE_FIELDS)}."
                )
        check_fields(image, IMAGE_FIELDS, where=f"images[{number}].")


def check_containers(service: Json, *, where: str) -> None:
    for number, container in enumerate(service.get("containers") or []):
        place = f"{where}containers[{number}]"
        if not isinstance(container, dict) or not container.get("name") or not set(container) <= set(CONTAINER_FIELDS):
            raise SeedError(f"`{place}` must be an object with a name. Known fields: {', '.join(CONTAINER_FIELDS)}.")
        check_fields(container, CONTAINER_FIELDS, where=f"{place}.")


def check_fields(body: Json, fields: dict[str, type | tuple[type, ...]], *, where: str) -> None:
    for name, kind in fields.items():
        value = body.get(name)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong_bool or not isinstance(value, kind)):
            expected = getattr(kind, "__name__", "number")
            raise SeedError(f"`{where}{name}` must be of type {expected}, not {value!r}.")
