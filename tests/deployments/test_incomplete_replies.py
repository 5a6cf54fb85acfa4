"""Replies to agents' writes without a member that AWS's model does not require: nothing fails, nothing is concluded.

A write is made once. Its reply is then answered from memory, each time with another member left out or empty, for the same
row. What ECS reports afterwards must give the same deployment, with nothing that seems to come from outside the portal.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import QuerySet

from deployments.commands import (
    create_deployment,
    kill_deployment,
    restore_revision,
    scale_deployment,
    stop_deployment,
    update_agent,
)
from deployments.models import Agent, Deployment
from portal.aws import ecs_runtime
from portal.aws.ecs.service import parse_service
from tests.conftest import Cast
from tests.deployments.conftest import Runtime, history
from tests.local_aws import LocalAws
from tests.replay import Change, Replay, replaying

pytestmark = pytest.mark.django_db

KNOWN = frozenset(
    {
        *("status", "wanted", "replicas", "image", "observed_generation", "applied_generation", "task_definition"),
        *("service_arn", "primary_id", "desired_count", "error_message", "check_error", "target_revision_id"),
    }
)
# How the portal reads a write's reply (portal/aws/ecs_runtime.py). Replies that it reads alike are alike to it.
READ_BY: dict[str, Callable[[Any], Any]] = {
    "RegisterTaskDefinition": lambda reply: reply["taskDefinition"]["taskDefinitionArn"],
    "CreateService": lambda reply: parse_service(reply["service"]),
    "UpdateService": lambda reply: parse_service(reply["service"]),
}
NEW_IMAGE = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/support-agent:v1.5.0"


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying() as started:
        yield started


def test_no_write_fails_over_an_absent_member(
    cast: Cast, deployment: Deployment, platform: LocalAws, replay: Replay, runtime: Runtime
) -> None:
    acme, name = cast.acme, deployment.service_name
    place = (acme.aws_target, str(acme.cluster))
    template = ecs_runtime.read_template(*place, f"{acme.deployment_stack}-agent-service")
    spec = ecs_runtime.TaskSpec(name, 1, deployment.image, 256, 512, {}, {})
    arn = ecs_runtime.register_task_definition(acme.aws_target, spec, template)
    created = {"token": "1", "task_definition": arn, "desired_count": 1, "template": template}
    writes = {
        "RegisterTaskDefinition": lambda: ecs_runtime.register_task_definition(acme.aws_target, spec, template),
        "CreateService": lambda: ecs_runtime.create_service(*place, name, **created),
        "UpdateService": lambda: ecs_runtime.set_service(*place, name, desired_count=2),
        "DeleteService": lambda: ecs_runtime.delete_service(*place, name),
    }
    for write in writes.values():
        write()

    wrong = {action: replay.wrong_errors(action, [write]) for action, write in writes.items()}

    assert all(replay.changes(action) for action in writes)
    assert {action: errors for action, errors in wrong.items() if errors} == {}


@pytest.mark.fuzz
@pytest.mark.parametrize("action", ["RegisterTaskDefinition", "CreateService"])
def test_an_incomplete_reply_to_a_create_ends_nothing(
    deployment: Deployment, platform: LocalAws, replay: Replay, runtime: Runtime, action: str
) -> None:
    changes = try_changes(deployment, replay, runtime, action)

    assert changes
    runtime.run(deployment, "ready")
    assert len(platform.ledger(action=action, effect=True)) == 1


@pytest.mark.parametrize(
    ("how", "ends"),
    [
        ("deploy", "ready"),
        pytest.param("scale", "ready", marks=pytest.mark.fuzz),
        pytest.param("stop", "stopped", marks=pytest.mark.fuzz),
        pytest.param("kill", "killed", marks=pytest.mark.fuzz),
    ],
)
def test_an_incomplete_reply_to_an_update_ends_nothing(
    cast: Cast, agent: Agent, deployment: Deployment, replay: Replay, runtime: Runtime, how: str, ends: str
) -> None:
    if how == "deploy":
        first = agent.revisions.get()
        update_agent(agent, actor=cast.operator, image=NEW_IMAGE)
        deployment = create_deployment(agent, actor=cast.operator, replicas=2)
    runtime.run(deployment, "ready")
    if how == "deploy":
        restore_revision(first, actor=cast.operator)
    elif how == "scale":
        scale_deployment(deployment, actor=cast.operator, replicas=3)
    else:
        {"stop": stop_deployment, "kill": kill_deployment}[how](deployment, actor=cast.operator)

    changes = try_changes(deployment, replay, runtime, "UpdateService")

    assert changes
    runtime.run(deployment, ends)


def try_changes(deployment: Deployment, replay: Replay, runtime: Runtime, action: str) -> list[Change]:
    """Let a turn get each incomplete reply of the action, and compare what follows with what a complete one gives."""
    rows = Deployment.objects.filter(pk=deployment.pk)
    row = rows.values().get()
    added = rows.get().events.filter(sequence__gt=row["events_count"])
    with replay.recording():
        runtime.turn()
    changes = list(replay.distinct(action, READ_BY[action]))
    expected = settle(runtime, rows)
    differences: dict[str, Any] = {}
    for change in changes:
        added.delete()
        rows.update(**row)
        replay.change = change
        runtime.turn()
        replay.change = None
        found = settle(runtime, rows)
        differences |= {
            f"{change}: {name}": (found[name], expected[name]) for name in expected if found[name] != expected[name]
        }
    assert differences == {}
    return changes


def settle(runtime: Runtime, rows: QuerySet[Deployment]) -> dict[str, Any]:
    """Take enough turns to adopt what is outside, and return what is known then, with all events."""
    for _ in range(3):
        runtime.turn()
    known = {name: value for name, value in rows.values().get().items() if name in KNOWN}
    return known | {"events": history(rows.get())}
