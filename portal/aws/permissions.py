"""The AWS calls that the portal makes, and the session policy that limits an assumed role to them.

An assumed role may do what both its own policies and the session policy allow:
https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session.
The resources are those of the Service Authorization Reference; `*` is used if IAM has no resource for an action:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html: Policy
MAX_POLICY_CHARACTERS = 2048
VERSION = "2012-10-17"
ANY = "*"
CLUSTER = "ecs:{region}:{account}:cluster/{cluster}"
# The services of a cluster, their deployments and revisions, and its tasks. Which of them is meant follows from the action.
IN_CLUSTER = "ecs:{region}:{account}:*/{cluster}/*"
SERVICE = "ecs:{region}:{account}:service/{cluster}/{service}"
SERVICE_DEPLOYMENT = "ecs:{region}:{account}:service-deployment/{cluster}/{service}/*"
DEFINITION = "ecs:{region}:{account}:task-definition/*"
LOG_GROUP = ("logs:{region}:{account}:log-group:{log_group}", "logs:{region}:{account}:log-group:{log_group}:*")
REPOSITORY = "ecr:{region}:{registry}:repository/{repository}"
ROLES = "{roles}"


class Use(Enum):
    """What a session is for. It decides which actions the session may make."""

    READS = auto()
    LOGS = auto()
    IMAGES = auto()
    SERVICE = auto()
    DEFINITION = auto()


@dataclass(frozen=True)
class Scope:
    """What a session is for and what it may touch. None means any of the account's.

    `cluster` and `service` are names; `registry` is the account of `repository`; `roles` are the ARNs that ECS is given.
    """

    use: Use = Use.READS
    cluster: str | None = None
    service: str | None = None
    log_group: str | None = None
    registry: str | None = None
    repository: str | None = None
    roles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Permission:
    """An IAM action, the uses that need it and the resources it is limited to.

    `part_of`: AWS checks it as a part of this call. None: the portal makes the call itself. `condition`: as in a policy.
    """

    action: str
    uses: tuple[Use, ...]
    resources: tuple[str, ...] = (ANY,)
    part_of: str | None = None
    condition: tuple[str, str, str] | None = None


OF_CLUSTER = ("ArnEquals", "ecs:cluster", CLUSTER)
TO_ECS = ("StringLike", "iam:PassedToService", "ecs*.amazonaws.com*")
PERMISSIONS = [
    Permission("ecs:DescribeClusters", (Use.READS,), (CLUSTER,)),
    Permission("ecs:DescribeServices", (Use.READS,), (IN_CLUSTER,)),
    Permission("ecs:DescribeServiceDeployments", (Use.READS,), (IN_CLUSTER,)),
    Permission("ecs:DescribeServiceRevisions", (Use.READS,), (IN_CLUSTER,)),
    Permission("ecs:ListServiceDeployments", (Use.READS,), (IN_CLUSTER,)),
    Permission("ecs:DescribeTasks", (Use.READS,), (IN_CLUSTER,)),
    Permission("ecs:ListTasks", (Use.READS,), condition=OF_CLUSTER),
    Permission("ecs:DescribeTaskDefinition", (Use.READS,)),
    Permission("cloudwatch:GetMetricData", (Use.READS,)),
    Permission("logs:FilterLogEvents", (Use.LOGS,), LOG_GROUP),
    Permission("ecr:DescribeImages", (Use.IMAGES,), (REPOSITORY,)),
    Permission("ecr:BatchGetImage", (Use.IMAGES,), (REPOSITORY,)),
    Permission("ecs:CreateService", (Use.SERVICE,), (SERVICE,)),
    Permission("ecs:UpdateService", (Use.SERVICE,), (SERVICE,)),
    Permission("ecs:DeleteService", (Use.SERVICE,), (SERVICE,)),
    Permission("ecs:StopServiceDeployment", (Use.SERVICE,), (SERVICE_DEPLOYMENT,)),
    Permission("ecs:ContinueServiceDeployment", (Use.SERVICE,), (SERVICE_DEPLOYMENT,)),
    Permission("ecs:RegisterTaskDefinition", (Use.DEFINITION,)),
    Permission("ecs:TagResource", (Use.DEFINITION,), (DEFINITION,), part_of="ecs:RegisterTaskDefinition"),
    # Which roles a service's present task definition names is not known when only its count changes.
    Permission("iam:PassRole", (Use.DEFINITION, Use.SERVICE), (ROLES,), "ecs:RegisterTaskDefinition", TO_ECS),
    # Every session may make these; no policy needs to allow them.
    Permission("sts:GetCallerIdentity", ()),
    Permission("sts:AssumeRole", ()),
]


def find_role_arns(assumed: str | None, roles: Iterable[str | None]) -> tuple[str, ...]:
    """Return the ARNs of the roles of a task definition, which names them by ARN or by name in the own account.

    >>> find_role_arns("arn:aws:iam::222222222222:role/portal", ["ecs/tasks", None])
    ('arn:aws:iam::222222222222:role/ecs/tasks',)
    """
    own = (assumed or "").partition(":role/")[0]
    return tuple(sorted(role if role.startswith("arn:") else f"{own}:role/{role}" for role in roles if role))


@lru_cache(maxsize=1024)
def build_session_policy(role_arn: str, region: str, scope: Scope) -> str:
    """Return the policy, as JSON, of a session of this role: the calls of the scope's use, limited to its resources.

    Raises ValueError if it is longer than AWS allows. The longest names that AWS allows fit.
    """
    _, partition, _, _, account, _ = role_arn.split(":", 5)
    names = {
        "region": region,
        "account": account,
        "cluster": scope.cluster or ANY,
        "service": scope.service or ANY,
        "log_group": scope.log_group or ANY,
        "registry": scope.registry or account,
        "repository": scope.repository or ANY,
    }
    roles = [f"arn:{partition}:iam::{account}:role/*"] if scope.roles is None else list(scope.roles)
    allowed = [permission for permission in PERMISSIONS if scope.use in permission.uses]
    statements = build_statements(allowed, partition, names, roles)
    policy = json.dumps({"Version": VERSION, "Statement": statements}, separators=(",", ":"))
    if len(policy) > MAX_POLICY_CHARACTERS:
        raise ValueError(f"A session policy has {len(policy)} characters; AWS allows {MAX_POLICY_CHARACTERS}.")
    return policy


def build_statements(
    permissions: Iterable[Permission], partition: str, names: dict[str, str], roles: list[str]
) -> list[dict[str, Any]]:
    """Return the statements that allow these permissions; those with the same limits share one.

    `names` fills in the resources. `roles` are the ARNs that may be passed to ECS; without any, none may be.
    """

    def expand(form: str) -> list[str]:
        if form == ROLES:
            return roles
        return [form if form == ANY else f"arn:{partition}:{form.format(**names)}"]

    statements: dict[str, dict[str, Any]] = {}
    for permission in permissions:
        limits: dict[str, Any] = {"Resource": [arn for form in permission.resources for arn in expand(form)]}
        if not limits["Resource"]:
            continue
        if permission.condition:
            operator, key, value = permission.condition
            limits["Condition"] = {operator: {key: value if operator == "StringLike" else expand(value)[0]}}
        statement = statements.setdefault(json.dumps(limits), {"Effect": "Allow", "Action": [], **limits})
        statement["Action"].append(permission.action)
    return list(statements.values())
