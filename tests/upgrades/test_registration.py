"""A new revision loses nothing of the task definition that it is copied from."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from portal.aws.credentials import AwsTarget, client
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.states import Outcome, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry", "platform")]

Reply = Callable[[Any], None]


@pytest.fixture
def newer_ecs() -> Iterator[Reply]:
    """Return a function after whose call ECS describes containers with a member that the installed botocore lacks."""
    events = client(AwsTarget("eu-central-1"), "ecs").meta.events
    name = "before-parse.ecs.DescribeTaskDefinition"

    def answer_with(value: Any) -> None:
        def add(response_dict: dict[str, Any], **_: Any) -> None:
            body = json.loads(response_dict["body"])
            body["taskDefinition"]["containerDefinitions"][0]["gpuSharing"] = value
            response_dict["body"] = json.dumps(body).encode()

        events.register_first(name, add, unique_id="newer")

    yield answer_with
    events.unregister(name, unique_id="newer")


def test_an_unknown_member_is_refused_by_name(cast: Cast, engine: Engine, platform: LocalAws, newer_ecs: Reply) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    newer_ecs({"mode": "TIME_SLICED"})

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.attempts) == (Status.FAILED, Outcome.REFUSED, 0)
    assert "does not know taskDefinition.containerDefinitions.gpuSharing" in (rollout.error_message or "")
    assert "Update the portal." in (rollout.error_message or "")
    assert platform.ledger(action="RegisterTaskDefinition", effect=True) == []


@pytest.mark.parametrize("empty", [None, [], {}, ""])
def test_an_unknown_member_without_a_value_is_ignored(cast: Cast, engine: Engine, newer_ecs: Reply, empty: Any) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    newer_ecs(empty)

    assert engine.run(upgrade).status == Status.SUCCESS
