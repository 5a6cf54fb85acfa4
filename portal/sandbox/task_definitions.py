"""ECS's checks and defaults for task definitions that moto lacks, and the fields that moto drops.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html and API_TaskDefinition.html
"""

import json
import re
from typing import Any

from portal.sandbox.errors import AwsError, invalid_parameter

Json = dict[str, Any]

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html: "Task definition size limit: 64 KB"
MOST_BYTES = 65536
FAMILY = re.compile(r"[A-Za-z0-9_-]{1,255}")
# Fields that moto does not keep. They are stored beside its record.
DROPPED_FIELDS = ("enableFaultInjection", "trustedExecutionConfiguration")
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html: MiB by CPU units
FARGATE_MEMORY: dict[int, range | tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4097, 1024),
    1024: range(2048, 8193, 1024),
    2048: range(4096, 16385, 1024),
    4096: range(8192, 30721, 1024),
    8192: range(16384, 61441, 4096),
    16384: range(32768, 122881, 8192),
}


def registered(params: Json) -> Json:
    """Return the parameters of RegisterTaskDefinition as ECS stores them. Raises AwsError for those it refuses."""
    family = str(params.get("family", ""))
    if not FAMILY.fullmatch(family):
        raise client_error("Family contains invalid characters or has a wrong length.")
    size = len(json.dumps(params, separators=(",", ":"), ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise client_error(f"Actual length: '{size}'. Max allowed length is '{MOST_BYTES}' bytes.")
    containers = params.get("containerDefinitions") or []
    if not containers:
        raise client_error("Container list cannot be empty.")
    names = [each.get("name") for each in containers]
    if len(set(names)) < len(names):
        raise client_error("Container names must be unique within a task definition.")
    if any(str(tag.get("key", "")).lower().startswith("aws:") for tag in params.get("tags") or []):
        raise invalid_parameter("aws: prefixed tag key names are not allowed for external use.")
    kept = dict(params)
    if kept.get("cpu"):
        kept["cpu"] = units(kept["cpu"], r"vcpu", "cpu")
    if kept.get("memory"):
        kept["memory"] = units(kept["memory"], r"gb", "memory")
    if "FARGATE" in (kept.get("requiresCompatibilities") or []):
        check_fargate(kept)
    kept["containerDefinitions"] = [container(each, kept.get("networkMode")) for each in containers]
    return kept


def check_fargate(params: Json) -> None:
    if params.get("networkMode") != "awsvpc":
        raise client_error("Fargate only supports network mode 'awsvpc'.")
    cpu, memory = int(params.get("cpu") or 0), int(params.get("memory") or 0)
    if not cpu or not memory:
        raise client_error("Fargate requires that 'cpu' and 'memory' be defined at the task level.")
    if memory not in FARGATE_MEMORY.get(cpu, ()):
        raise client_error("No Fargate configuration exists for given values.")


def units(value: Any, unit: str, field: str) -> str:
    """Convert values such as `1 vCPU` and `2GB` to the integers that ECS returns."""
    text = str(value).strip()
    match = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?{unit}", text, re.IGNORECASE)
    if match:
        return str(round(float(match[1]) * 1024))
    if not text.isdigit():
        raise invalid_parameter(f"Invalid setting for '{field}': {text}.")
    return text


def container(definition: Json, network_mode: str | None) -> Json:
    """Return a container with ECS's defaults. As in ECS, the order of environment and secrets is not kept.

    Terraform therefore sorts both before comparing (internal/service/ecs/container_definition_equivalency.go).
    """
    kept = {"systemControls": [], **definition}
    kept["portMappings"] = [port_mapping(each, network_mode) for each in definition.get("portMappings") or []]
    for field in ("environment", "secrets"):
        if field in kept:
            kept[field] = sorted(kept[field] or [], key=lambda each: str(each.get("name")))
    return kept


def port_mapping(mapping: Json, network_mode: str | None) -> Json:
    kept = {"protocol": "tcp", **mapping}
    if network_mode in ("awsvpc", "host") and "containerPort" in mapping:
        kept.setdefault("hostPort", mapping["containerPort"])
    return kept


def requires_attributes(definition: Json) -> list[Json]:
    """Return the capabilities an instance needs. ECS derives them and refuses them in a registration."""
    names = {"com.amazonaws.ecs.capability.docker-remote-api.1.18"}
    if definition.get("networkMode") == "awsvpc":
        names.add("ecs.capability.task-eni")
    if definition.get("taskRoleArn"):
        names.add("com.amazonaws.ecs.capability.task-iam-role")
    for each in definition.get("containerDefinitions", []):
        driver = (each.get("logConfiguration") or {}).get("logDriver")
        if driver:
            names.add(f"com.amazonaws.ecs.capability.logging-driver.{driver}")
        if each.get("secrets"):
            names.add("ecs.capability.secrets.asm.environment-variables")
        if ".dkr.ecr." in str(each.get("image")):
            names.add("com.amazonaws.ecs.capability.ecr-auth")
    return [{"name": name} for name in sorted(names)]


def client_error(message: str) -> AwsError:
    return AwsError("ClientException", message)
