"""Enforces the session policy of an assumed role, as IAM does for the calls that the local AWS answers.

Evaluates Allow statements with Resource, and the conditions ArnEquals and StringLike. A role's own policies allow
everything here, so the session policy alone decides.
https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from portal.sandbox.errors import AwsError
from portal.sandbox.partitions import partition
from portal.sandbox.protocol import ApiRequest, short_name

MAX_CHARACTERS = 2048
SERVICES = {"monitoring": "cloudwatch"}


@dataclass(frozen=True)
class Asked:
    """One action on one resource that a call needs, with the values of IAM's condition keys."""

    action: str
    resource: str
    context: dict[str, str] = field(default_factory=dict)


def check_policy(text: str) -> None:
    """Raise AWS's error for a session policy that is too long or not JSON."""
    if len(text) > MAX_CHARACTERS:
        message = (
            f"1 validation error detected: Value at 'policy' failed to satisfy constraint: at most {MAX_CHARACTERS}"
        )
        raise AwsError("ValidationError", message)
    try:
        json.loads(text)
    except ValueError as error:
        raise AwsError("MalformedPolicyDocument", "The policy is not valid JSON.") from error


def find_denied(policy: str, request: ApiRequest) -> Asked | None:
    """Return the first action that the call needs and the policy does not allow."""
    statements = json.loads(policy)["Statement"]
    return next((asked for asked in list_asked(request) if not any(allows(each, asked) for each in statements)), None)


def allows(statement: dict[str, Any], asked: Asked) -> bool:
    conditions = [
        (key, value) for operator in statement.get("Condition", {}).values() for key, value in operator.items()
    ]
    return (
        any(matches(form, asked.action) for form in statement["Action"])
        and any(matches(form, asked.resource) for form in statement["Resource"])
        and all(matches(value, asked.context.get(key, "")) for key, value in conditions)
    )


def matches(form: str, value: str) -> bool:
    """Match with IAM's wildcards: `*` is any text, `?` any character."""
    pattern = re.escape(form).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, value, re.S) is not None


def list_asked(request: ApiRequest) -> Iterator[Asked]:
    """Yield the actions that a call needs, each with each of its resources."""
    name = SERVICES.get(request.service, request.service)
    action = f"{name}:{request.action}"
    prefix = f"arn:{partition(request.region)}:{name}:{request.region}:{request.account}"
    params = request.params
    if request.service == "ecr":
        owner = params.get("registryId") or request.account
        place = f"arn:{partition(request.region)}:ecr:{request.region}:{owner}"
        yield Asked(action, f"{place}:repository/{params.get('repositoryName')}")
    elif request.service == "logs":
        yield Asked(action, f"{prefix}:log-group:{params.get('logGroupName')}:*")
    elif request.service == "ecs":
        yield from list_asked_of_ecs(request, action, prefix)
    else:
        yield Asked(action, "*")


def list_asked_of_ecs(request: ApiRequest, action: str, prefix: str) -> Iterator[Asked]:
    params = request.params
    cluster = short_name(params.get("cluster")) or "default"
    context = {"ecs:cluster": f"{prefix}:cluster/{cluster}"}
    one = params.get("serviceDeploymentArn")
    arns = [*([one] if one else []), *params.get("serviceDeploymentArns", []), *params.get("serviceRevisionArns", [])]
    services = [params.get("service") or params.get("serviceName"), *params.get("services", [])]
    resources = [
        *arns,
        *(f"{prefix}:cluster/{short_name(name)}" for name in params.get("clusters", [])),
        *(f"{prefix}:service/{cluster}/{short_name(name)}" for name in services if name),
        *(f"{prefix}:task/{cluster}/{short_name(name)}" for name in params.get("tasks", [])),
    ]
    if request.action == "ListTasks":
        resources = ["*"]
    for resource in resources or ["*"]:
        yield Asked(action, resource, context)
    if request.action == "RegisterTaskDefinition":
        for role in (params.get("executionRoleArn"), params.get("taskRoleArn")):
            if role:
                arn = (
                    role
                    if role.startswith("arn:")
                    else f"arn:{partition(request.region)}:iam::{request.account}:role/{role}"
                )
                yield Asked("iam:PassRole", arn, {"iam:PassedToService": "ecs-tasks.amazonaws.com"})
        if params.get("tags"):
            yield Asked("ecs:TagResource", f"{prefix}:task-definition/{params.get('family')}:1", context)
