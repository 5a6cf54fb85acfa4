"""The CloudFormation template: cfn-lint accepts it, and what its tasks run, set and may do is what the portal needs."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.aws.policies import build_portal_policy
from tests.deploy.commands import find_mistakes, find_unknown_settings
from tests.deploy.production import run_python
from tests.local_aws import ROOT

TEMPLATE = ROOT / "docs" / "deploy" / "cloudformation.yml"
TASKS = {"WebTask", "WorkerTask", "SchedulerTask", "CreateRolesTask", "MigrateTask"}


class Loader(yaml.SafeLoader):
    """Reads a short form of an intrinsic function, such as `!Ref Image`, as a dict: {"Ref": "Image"}."""


def read_function(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    raise TypeError(f"{name} of a mapping")


Loader.add_multi_constructor("!", read_function)


def read_resources() -> dict[str, Any]:
    resources: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]  # noqa: S506 - based on SafeLoader
    return resources


RESOURCES = read_resources()


def get_containers(task: str) -> dict[str, dict[str, Any]]:
    return {each["Name"]: each for each in RESOURCES[task]["Properties"]["ContainerDefinitions"]}


def get_portal(task: str) -> dict[str, Any]:
    """Return the task's container of the portal, which is its first."""
    container: dict[str, Any] = RESOURCES[task]["Properties"]["ContainerDefinitions"][0]
    return container


def read_environment(task: str) -> dict[str, str]:
    """Return the settings of a task, with examples for what the stack fills in."""
    container, examples = get_portal(task), {"HostName": "portal.example", "EmailFrom": "portal@portal.example"}
    examples |= {"AWS::Region": "eu-central-1", "Queue": "https://sqs.eu-central-1.amazonaws.com/111111111111/portal"}
    examples |= {"Address": "database.example"}
    filled = {}
    for each in container["Environment"]:
        value = each["Value"]
        if isinstance(value, dict) and "Ref" in value:
            value = examples[value["Ref"]]
        elif isinstance(value, dict):
            text = value["Sub"][0] if isinstance(value["Sub"], list) else value["Sub"]
            value = re.sub(r"\$\{([\w.:]+)\}", lambda found: examples[found[1]], text)
        filled[each["Name"]] = value
    secrets = {"CACHE_URL": "rediss://:secret@cache.example:6379/0", "EMAIL_URL": "submission://a:b@mail.example:587"}
    secrets |= {"SECRET_KEY_FALLBACKS": "", "SECRET_KEY": "0123456789abcdef" * 4}
    return filled | {each["Name"]: secrets.get(each["Name"], "secret") for each in container["Secrets"]}


def test_cfn_lint_accepts_the_template() -> None:
    from cfnlint.api import lint_file  # takes half a second, in each process that collects the tests

    assert lint_file(TEMPLATE) == []


@pytest.mark.parametrize("task", sorted(TASKS))
def test_each_task_runs_a_command_of_the_portal_with_its_settings(task: str) -> None:
    container = get_portal(task)

    assert {name for name, each in RESOURCES.items() if each["Type"] == "AWS::ECS::TaskDefinition"} == TASKS
    assert find_mistakes(container["Command"]) == []
    assert find_unknown_settings(read_environment(task)) == set()
    assert container["ReadonlyRootFilesystem"] is True
    assert ("DATABASE_OWNER_URL" in read_environment(task)) == (task == "MigrateTask")


def test_web_worker_and_scheduler_have_the_same_settings() -> None:
    web = get_portal("WebTask")

    for task in ("WorkerTask", "SchedulerTask"):
        assert [get_portal(task)[part] for part in ("Environment", "Secrets")] == [web["Environment"], web["Secrets"]]


def test_production_starts_with_the_settings() -> None:
    ran = run_python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **read_environment("WebTask"))

    assert ran.returncode == 0, ran.stderr


def test_every_secret_of_a_task_may_be_read_by_its_execution_role() -> None:
    for task in TASKS:
        role = RESOURCES[task]["Properties"]["ExecutionRoleArn"]["GetAtt"].removesuffix(".Arn")
        (statement,) = RESOURCES[role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        readable = str(statement["Resource"])
        for secret in get_portal(task)["Secrets"]:
            source = secret["ValueFrom"]
            name = source["Ref"] if "Ref" in source else re.findall(r"\$\{([\w.]+)\}", source["Sub"])[0]
            assert f"'{name}'" in readable, (task, secret["Name"])


def test_the_task_role_has_the_portals_policy() -> None:
    policy = RESOURCES["TaskRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    conditional, queue = policy["Statement"]
    statements = [conditional["If"][1], queue]

    built = build_portal_policy(roles=["roles"], queue="queue")["Statement"]
    assert statements == [
        built[0] | {"Resource": {"Ref": "OrganizationRoleArns"}},
        built[1] | {"Resource": [{"GetAtt": "Queue.Arn"}]},
    ]


def test_the_load_balancer_sees_a_web_process_stop_in_time() -> None:
    target = RESOURCES["TargetGroup"]["Properties"]

    assert target["HealthCheckPath"] == "/readyz"
    # WEB_DRAIN_SECONDS is 10.
    assert target["HealthCheckIntervalSeconds"] * target["UnhealthyThresholdCount"] <= 10
    assert min(get_containers("WebTask")[name]["StopTimeout"] for name in ("web", "proxy")) >= 30


def test_nginx_accepts_the_proxys_configuration(tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    (entry,) = get_containers("WebTask")["proxy"]["Environment"]
    text = re.sub(r"/tmp|/dev(?=/stdout)", str(tmp_path), entry["Value"])  # noqa: S108 - the container's own
    (tmp_path / "nginx.conf").write_text(text)

    ran = subprocess.run(
        ["nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )

    assert ran.returncode == 0, ran.stderr
