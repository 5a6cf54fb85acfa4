"""The live block of the overview: what changes it changes its ETag, and else it costs a 304."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from deployments.models import Agent, Deployment
from portal.models import Membership, User
from portal.tasks import record_heartbeat
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.checks.matrix import open_matrix
from upgrades.inventory.running import FRESH_SECONDS
from upgrades.models import Rollout, Upgrade, UpgradeCheck, UpgradeEvent
from upgrades.states import Status, Validation

pytestmark = pytest.mark.django_db(transaction=True)

SignIn = Callable[[User], Client]
NOW = datetime.fromisoformat("2026-05-01T12:00:00+00:00")


@pytest.fixture
def client(cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any) -> Client:
    """Return a person's client where an upgrade runs, one has ended without its validation, and a deployment failed."""
    time_machine.move_to(NOW, tick=False)
    ended = make_upgrade(cast.acme, by=cast.operator)
    open_matrix(ended)
    ended.rollouts.update(completed_at=NOW - timedelta(hours=1))
    Upgrade.objects.update(validation=Validation.NEEDED, completed_at=NOW - timedelta(hours=1))
    make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.IN_PROGRESS])
    Upgrade.objects.update(created_at=NOW)
    failed = make_deployment(cast, make_agent(cast, "Triage agent"))
    # Without a log group, no log must be read first.
    Deployment.objects.filter(pk=failed.pk).update(status="failed", status_at=NOW, log_group=None)
    return client_for(cast.operator)


def poll(client: Client, tag: str = "") -> Any:
    headers = {"HX-Request": "true", "HX-Target": "platform-services", "If-None-Match": tag}
    return client.get("/o/acme/services/", headers=headers)


def read_again(client: Client) -> str:
    """Return the tag of the block once it knows what it shows."""
    poll(client)
    return str(poll(client)["ETag"])


def add_ecs_event(cast: Cast) -> None:
    rollout = Rollout.objects.get(completed_at=None)
    UpgradeEvent.objects.create(
        organization=cast.acme, rollout=rollout, kind="ecs", ecs_event_id="1", message="has started 1 tasks"
    )


CHANGES: dict[str, Callable[[Cast], object]] = {
    "open upgrade": lambda _: Upgrade.objects.filter(completed_at=None).update(stop_requested_at=NOW),
    "counts": lambda _: Rollout.objects.filter(completed_at=None).update(target_running=2),
    "event of ECS": add_ecs_event,
    "new upgrade": lambda cast: make_upgrade(
        cast.acme, by=cast.admin, target="customer-portal", statuses=[Status.PENDING]
    ),
    "ended rollout": lambda _: Rollout.objects.exclude(completed_at=None).update(error_message="Other."),
    "validation": lambda _: Upgrade.objects.exclude(completed_at=None).update(validation=Validation.FAILED),
    "check": lambda _: UpgradeCheck.objects.update(status="fail", note="Slow"),
    "failed deployment": lambda _: Deployment.objects.update(error_message="Other."),
    "new agent's name": lambda _: Agent.objects.update(name="Sorting agent"),
    "deployment that failed no more": lambda _: Deployment.objects.update(status="killed"),
    "role": lambda _: Membership.objects.filter(user__email="operator@example.com").update(role="viewer"),
    "silent runner": lambda _: record_heartbeat("worker"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_a_row_is_sent(cast: Cast, client: Client, change: str) -> None:
    tag = read_again(client)

    assert poll(client, tag).status_code == 304
    CHANGES[change](cast)

    assert poll(client, tag).status_code == 200


def test_what_ecs_runs_now_is_sent(cast: Cast, platform: LocalAws, client: Client, time_machine: Any) -> None:
    tag = read_again(client)
    time_machine.shift(FRESH_SECONDS + 1)
    same = poll(client, tag)
    place = {"cluster": cast.acme.cluster, "service": f"{cast.acme.deployment_stack}-customer-portal-service"}
    platform.client().update_service(**place, desiredCount=0)
    time_machine.shift(FRESH_SECONDS + 1)

    changed = poll(client, tag)

    assert (same.status_code, changed.status_code) == (304, 200)
    assert datetime.fromisoformat(same["X-As-Of"]) == NOW + timedelta(seconds=FRESH_SECONDS + 1)


SOON: dict[str, Callable[[], object]] = {
    "time left": lambda: Upgrade.objects.filter(completed_at=None).update(created_at=NOW - timedelta(seconds=29)),
    "link of an older failure": lambda: Deployment.objects.update(status_at=NOW - timedelta(minutes=50)),
    "missing validation": lambda: Upgrade.objects.exclude(completed_at=None).update(
        completed_at=NOW - timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)
    ),
}


@pytest.mark.parametrize("soon", SOON)
def test_what_changes_with_the_time_is_sent(client: Client, time_machine: Any, soon: str) -> None:
    SOON[soon]()
    tag = read_again(client)
    same = poll(client, tag)
    time_machine.shift(2)

    changed = poll(client, tag)

    assert (same.status_code, changed.status_code) == (304, 200)


def test_an_unchanged_block_costs_one_statement(client: Client, django_assert_num_queries: Any) -> None:
    tag = read_again(client)

    with django_assert_num_queries(2):  # the session with its person; the organization with what the block shows
        assert poll(client, tag).status_code == 304


def test_a_line_of_a_log_that_is_not_known_is_read(client: Client) -> None:
    tag = read_again(client)
    cache.clear()

    poll(client)

    assert read_again(client) == tag
