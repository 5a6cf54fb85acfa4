"""What changed in the time window of a deployment's charts: rollouts of agents and upgrades of the platform, as bands."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.events import record_event
from deployments.models import Deployment
from deployments.states import EventType
from portal.models import User
from portal.web.observe.changes import find_changes
from tests.conftest import Cast
from tests.deployments.test_detail_page import region
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def bands_of(cast: Cast, now: datetime) -> list[tuple[str, str]]:
    """Return title and result of what changed for acme in the last hour, oldest first."""
    changes = find_changes(cast.acme, now - timedelta(hours=1), timezone.now())
    return [(change.title, change.result.label) for change in sorted(changes, key=lambda change: change.began)]


def test_a_rollout_is_a_band_from_the_action_to_its_end(cast: Cast, deployment: Deployment, now: datetime) -> None:
    def later(kind: EventType, minutes: int, **fields: Any) -> None:
        record_event(deployment, kind, actor="system", created_at=now + timedelta(minutes=minutes), **fields)

    later(EventType.READY, 1)
    later(EventType.RESTART, 2)
    later(EventType.FAILED, 3)
    later(EventType.RESTART, 4)
    later(EventType.STOP, 5)
    later(EventType.RESTART, 6)

    changes = find_changes(cast.acme, now - timedelta(hours=1), now + timedelta(hours=1))

    assert [(change.title, change.result.label) for change in sorted(changes, key=lambda change: change.began)] == [
        ("Support agent deployed, revision 1", "Success"),
        ("Support agent restarted", "Failed"),
        ("Support agent restarted", "Stopped"),
        ("Support agent restarted", "Running"),
    ]


@pytest.mark.parametrize(
    ("outcome", "result"),
    [("rolled_back", "Rolled back"), ("stopped_by_user", "Stopped"), ("circuit_breaker", "Failed")],
)
def test_a_failed_upgrade_is_named_by_how_it_ended(cast: Cast, now: datetime, outcome: str, result: str) -> None:
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.FAILED]).rollouts.update(outcome=outcome)

    assert bands_of(cast, now) == [("Agent service to latest", result)]


def test_only_what_lies_in_the_window_and_organization_counts(cast: Cast, now: datetime) -> None:
    early = make_upgrade(cast.acme, by=cast.operator, version="v1")
    across = make_upgrade(cast.acme, by=cast.operator, version="v2")
    make_upgrade(cast.globex, by=cast.outsider, version="v3")
    make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.IN_PROGRESS], version="v4")
    for upgrade, ended in ((early, 61), (across, 59)):
        times = {"created_at": now - timedelta(minutes=70), "completed_at": now - timedelta(minutes=ended)}
        Upgrade.objects.filter(pk=upgrade.pk).update(**times)

    assert bands_of(cast, now) == [("Agent service to v2", "Success"), ("Orchestrator to v4", "Running")]


def test_many_changes_cost_three_queries(cast: Cast, deployment: Deployment, now: datetime) -> None:
    for number in range(30):
        make_upgrade(cast.acme, by=cast.operator, version=f"v{number}")
        record_event(deployment, EventType.RESTART, actor="system")

    with CaptureQueriesContext(connection) as queries:
        changes = find_changes(cast.acme, now - timedelta(hours=1), timezone.now())

    assert len(queries) == 3
    assert len(changes) == 40


def test_every_chart_has_the_bands_and_the_clicked_event(
    cast: Cast, client_for: SignIn, deployment: Deployment, platform: LocalAws
) -> None:
    service = {"name": deployment.service_name, "desired_count": 2, "age_seconds": 7200}
    platform.seed(account="111111111111", region="eu-central-1", cluster=deployment.cluster, services=[service])
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.FAILED])
    record_event(deployment, EventType.RUNNING, actor="system", status="running")
    clicked = deployment.events.get(event_type=EventType.RUNNING)

    text = region(client_for(cast.viewer), deployment, "metrics", f"?range=1h&at={clicked.pk}").content.decode()

    assert text.count('<g class="band rolled_back">') == 3
    assert text.count('<g class="mark-line here">') == 3
    assert "<title>Agent service to latest: Rolled back</title>" in text
    assert f'href="/o/acme/upgrades/{upgrade.upgrade_id}/"' in text
    assert f'href="/o/acme/agents/{deployment.agent_id}/revisions/1/"' in text


def test_a_log_record_marks_its_time_on_the_charts(
    cast: Cast, client_for: SignIn, deployment: Deployment, platform: LocalAws, now: datetime
) -> None:
    service = {"name": deployment.service_name, "desired_count": 2, "age_seconds": 7200}
    platform.seed(account="111111111111", region="eu-central-1", cluster=deployment.cluster, services=[service])
    at = (now - timedelta(minutes=5)).isoformat().replace("+", "%2B")

    text = region(client_for(cast.viewer), deployment, "metrics", f"?range=1h&at={at}").content.decode()

    assert text.count('<g class="mark-line here">') == 3
    assert "The log line" in text
