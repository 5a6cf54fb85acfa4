"""The session policy of assumed roles: the calls that portal/aws makes, and no others."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.loaders import create_loader

from portal.aws import credentials
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, translated
from portal.aws.permissions import MAX_POLICY_CHARACTERS, PERMISSIONS, Scope, Use, build_session_policy
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade

AWS = Path(__file__).resolve().parent.parent.parent / "portal" / "aws"
IAM_NAMES = {"cloudwatch": "cloudwatch", "ecr": "ecr", "ecs": "ecs", "logs": "logs", "sts": "sts"}
ROLE = "arn:aws-us-gov:iam::222222222222:role/" + "p" * 511 + "/"
REGION = "us-gov-west-1"
WIDE = "x" * 255


def snake_case(operation: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()


def operations() -> dict[str, set[str]]:
    """Return the IAM actions by the name of boto3's method, of the services that the portal calls."""
    found: dict[str, set[str]] = {}
    loader = create_loader()
    for service, prefix in IAM_NAMES.items():
        for operation in loader.load_service_model(service, "service-2")["operations"]:
            found.setdefault(snake_case(operation), set()).add(f"{prefix}:{operation}")
    return found


def names_used(path: Path) -> Iterator[str]:
    """Yield the names of methods that are called, and the texts, one of which may name a method."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_table_is_exactly_the_calls_that_are_made() -> None:
    known = operations()
    files = [path for path in AWS.rglob("*.py") if path.name not in ("permissions.py", "__init__.py")]
    used = {action for path in files for name in names_used(path) for action in known.get(name, set())}

    assert used == {each.action for each in PERMISSIONS if each.part_of is None}
    assert {each.part_of for each in PERMISSIONS if each.part_of} <= used


@pytest.mark.parametrize(
    "scope",
    [
        Scope(cluster=WIDE),
        Scope(Use.SERVICE, WIDE, WIDE),
        Scope(Use.LOGS, log_group="g" * 512),
        Scope(Use.IMAGES, registry="1" * 12, repository="r" * 256),
        Scope(Use.DEFINITION, roles=(ROLE + "a" * 64, ROLE + "b" * 64)),
    ],
)
def test_the_longest_names_fit_into_a_policy(scope: Scope) -> None:
    policy = build_session_policy(ROLE + "portal", REGION, scope)

    assert len(policy) < MAX_POLICY_CHARACTERS
    for statement in json.loads(policy)["Statement"]:
        actions = [each for each in PERMISSIONS if each.action in statement["Action"]]
        limited = statement["Resource"] != ["*"] or "Condition" in statement
        assert limited or all(each.resources == ("*",) for each in actions)


def session_of(local_aws: LocalAws, cast: Cast, scope: Scope) -> dict[str, Any]:
    """Return the keys of a session as the portal makes it for globex."""
    keys = credentials.assume_role(credentials.find_session(cast.globex.aws_target, scope))
    names = {"access_key": "aws_access_key_id", "secret_key": "aws_secret_access_key", "token": "aws_session_token"}
    return {names[name]: value for name, value in keys.items() if name in names}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("update_service", {"service": "{name}", "desiredCount": 0}),
        ("delete_service", {"service": "{name}", "force": True}),
        ("list_services", {}),
        ("describe_services", {"services": ["{name}"], "cluster": "another"}),
        ("list_tasks", {"cluster": "another"}),
        ("register_task_definition", {"family": "f", "containerDefinitions": [{"name": "c", "image": "i"}]}),
    ],
)
def test_a_session_of_reads_cannot_do_more(
    platform: LocalAws, cast: Cast, method: str, parameters: dict[str, Any]
) -> None:
    keys = session_of(platform, cast, Scope(cluster=cast.globex.cluster))
    ecs_client = platform._new_client("ecs", cast.globex.deployment_region, keys, 30)
    name = f"{cast.globex.deployment_stack}-agent-service"
    place = {} if method == "register_task_definition" else {"cluster": str(cast.globex.cluster)}
    given = json.loads(json.dumps(place | parameters).replace("{name}", name))

    assert ecs_client.describe_services(cluster=str(cast.globex.cluster), services=[name])["services"]
    with pytest.raises(ClientError, match="no session policy allows"):
        getattr(ecs_client, method)(**given)


def test_a_session_of_writes_reaches_one_service(platform: LocalAws, cast: Cast) -> None:
    cluster, stack = str(cast.globex.cluster), cast.globex.deployment_stack
    keys = session_of(platform, cast, Scope(Use.SERVICE, cluster, f"{stack}-agent-service"))
    ecs_client = platform._new_client("ecs", cast.globex.deployment_region, keys, 30)

    ecs_client.update_service(cluster=cluster, service=f"{stack}-agent-service", forceNewDeployment=True)
    with pytest.raises(ClientError, match="no session policy allows"):
        ecs_client.update_service(cluster=cluster, service=f"{stack}-orchestrator-service", forceNewDeployment=True)


def test_writes_carry_the_upgrade_and_reads_the_organization(platform: LocalAws, cast: Cast, engine: Engine) -> None:
    upgrade = trigger_upgrade(cast.globex, actor=cast.outsider, service="agent", force_new_deployment=True)
    engine.run(upgrade)

    (write,) = platform.ledger(action="UpdateService")
    assert write["principal"].endswith(f"/{upgrade.upgrade_id}")
    readers = {session.name for session in credentials._target_sessions if "DescribeServices" in (session.policy or "")}
    assert readers == {"portal-globex"}


def test_a_denied_read_names_the_missing_permission(platform: LocalAws, cast: Cast) -> None:
    """Reads of a cluster that staff did not set are stopped by the session policy, not by the role."""
    target = AwsTarget(
        cast.globex.deployment_region, cast.globex.deployment_role_arn, cast.globex.deployment_external_id, "elsewhere"
    )
    scope = Scope(cluster="elsewhere")
    with pytest.raises(AwsDenied) as denied, translated("ecs:DescribeServices"):
        credentials.client(target, "ecs", scope=scope).describe_services(cluster=cast.globex.cluster, services=["any"])

    assert denied.value.permission == "ecs:DescribeServices"
