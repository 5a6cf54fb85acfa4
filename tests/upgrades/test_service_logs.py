"""Logs and metrics of a service that was upgraded, in the time of its rollout: why its new tasks stopped."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from portal.cloudwatch.last_error import build_key, read_known_errors
from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.inventory.logs import build_places_key, name_source
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]
LINE = '<p class="attention-line mono">'


def address(upgrade: Upgrade, part: str = "logs") -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/agent/{part}"


def region(client: Client, upgrade: Upgrade, name: str, query: str = "") -> Any:
    return client.get(f"{address(upgrade)}{query}", headers={"HX-Request": "true", "HX-Target": name})


@pytest.fixture
def failed(cast: Cast, engine: Engine, platform: LocalAws) -> Upgrade:
    """Upgrade the agent service to a version that crashes."""
    platform.fault("crash", service=f"{cast.acme.deployment_stack}-agent-service")
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.run(upgrade)
    cache.clear()
    return upgrade


def test_a_failed_rollout_shows_why_its_tasks_stopped(cast: Cast, client_for: SignIn, failed: Upgrade) -> None:
    client = client_for(cast.viewer)
    lane = client.get(f"/o/acme/upgrades/{failed.upgrade_id}/").content.decode()

    page = client.get(address(failed))
    everything = region(client, failed, "logs").context["logs"]
    errors = region(client, failed, "logs", "?level=ERROR").context["logs"]
    metrics = region(client, failed, "metrics").content.decode()

    assert failed.status == Status.FAILED
    assert f'href="{address(failed)}?level=ERROR"' in lane
    assert "Reading CloudWatch Logs." in page.content.decode()
    assert (everything.error, everything.note) == (None, None)
    assert len({record.node_id for record in everything.records}) > 1  # stopped tasks as well
    assert errors.records
    assert {record.level for record in errors.records} <= {"ERROR", "CRITICAL"}
    assert "Rollout started" in metrics


def poll(client: Client, tag: str = "") -> Any:
    headers = {"HX-Request": "true", "HX-Target": "platform-services", "If-None-Match": tag}
    return client.get("/o/acme/services/", headers=headers)


def poll_until(client: Client, is_done: Callable[[str], bool]) -> str:
    """Poll the live block of the overview, which does not wait for AWS, and return it."""
    deadline, block = time.monotonic() + 10, ""
    while not is_done(block) and time.monotonic() < deadline:
        block = poll(client).content.decode()
    return block


def test_the_overview_names_the_last_error_of_a_failed_upgrade(
    cast: Cast, client_for: SignIn, failed: Upgrade, django_assert_max_num_queries: Any
) -> None:
    client = client_for(cast.viewer)

    block = poll_until(client, lambda block: LINE in block)
    with django_assert_max_num_queries(5):
        known = poll(client)

    assert f"{LINE}settings.SettingsError: no model is configured: set MODEL_ID</p>" in block
    with django_assert_max_num_queries(2):
        assert poll(client, known["ETag"]).status_code == 304


@pytest.mark.parametrize("fault", [{"kind": "access_denied"}, {"kind": "delay", "seconds": 3}], ids=str)
def test_the_overview_does_not_wait_for_a_task_definition(
    cast: Cast, client_for: SignIn, failed: Upgrade, platform: LocalAws, fault: dict[str, Any]
) -> None:
    client, rollout = client_for(cast.viewer), failed.rollouts.get()
    tag = poll_until(client, lambda block: LINE in block) and poll(client)["ETag"]
    cache.delete(build_places_key(rollout, str(rollout.task_definition)))
    cache.delete(build_key(name_source(rollout.pk), rollout.completed_at or failed.created_at))
    platform.fault(**fault, action="DescribeTaskDefinition")

    began = time.monotonic()
    unknown = poll(client, tag)

    assert time.monotonic() - began < 2
    assert unknown.status_code == 200
    assert "Agent service: the upgrade" in unknown.content.decode()
    assert LINE not in unknown.content.decode()


def test_a_refused_task_definition_is_read_once(
    cast: Cast, client_for: SignIn, failed: Upgrade, platform: LocalAws
) -> None:
    client, rollout = client_for(cast.viewer), failed.rollouts.get()
    poll_until(client, lambda block: LINE in block)
    failure = (name_source(rollout.pk), rollout.completed_at or failed.created_at)
    cache.delete(build_places_key(rollout, str(rollout.task_definition)))
    cache.delete(build_key(*failure))
    platform.fault("access_denied", action="DescribeTaskDefinition")

    poll_until(client, lambda _: read_known_errors([failure]) is not None)

    assert read_known_errors([failure]) == [""]
    assert poll(client, poll(client)["ETag"]).status_code == 304


def test_the_window_is_that_of_the_rollout(cast: Cast, client_for: SignIn, failed: Upgrade) -> None:
    rollout = failed.rollouts.get()
    client = client_for(cast.viewer)

    window = client.get(address(failed)).context["window"]
    chosen = client.get(f"{address(failed)}?range=6h").context["window"]

    assert window.since < rollout.started_at
    assert window.until >= rollout.completed_at
    assert chosen.range == "6h"


def test_its_log_can_be_downloaded_and_followed(cast: Cast, client_for: SignIn, failed: Upgrade) -> None:
    client = client_for(cast.viewer)
    following = region(client, failed, "logs", "?range=1h&follow=1").context["logs"]

    text = client.get(address(failed, "logs.txt"))
    polled = region(client, failed, "log-poll", f"?range=1h&follow=1&after={following.after}")

    assert f'filename="agent-{failed.upgrade_id}-' in text["Content-Disposition"]
    assert following.is_following
    assert "after=" in polled.content.decode()


def test_without_a_log_driver_it_says_so(cast: Cast, client_for: SignIn, platform: LocalAws) -> None:
    client = platform.client()
    containers = [
        {"name": "agent", "image": "agent:v1", "memory": 512},
        {"name": "proxy", "image": "p:1", "memory": 64},
    ]
    containers[1]["logConfiguration"] = {
        "logDriver": "awslogs",
        "options": {"awslogs-group": "/proxy", "awslogs-region": "eu-central-1", "awslogs-stream-prefix": "ecs"},
    }
    made = client.register_task_definition(family="unlogged", containerDefinitions=containers)["taskDefinition"]
    place = {"cluster": cast.acme.cluster, "region": cast.acme.deployment_region}
    upgrade = make_upgrade(cast.acme, by=cast.operator, **place)
    upgrade.rollouts.update(task_definition=made["taskDefinitionArn"])

    logs = region(client_for(cast.viewer), upgrade, "logs")

    assert "does not write to CloudWatch Logs" in logs.content.decode()


def test_only_services_of_the_upgrade_have_logs(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)

    assert client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/orchestrator/logs").status_code == 404
    assert client.get(address(upgrade, "logs.exe")).status_code == 404
    assert client_for(cast.outsider).get(address(upgrade)).status_code == 404
