"""GET /metrics: closed without its token, and correct."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from deployments.models import Deployment
from portal.models import Heartbeat
from portal.models.notifications import NotificationDelivery
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.notifications.conftest import make_channel, send_notification
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Rollout
from upgrades.states import Status

TOKEN = "a-scrapers-token"
QUERIES = 14


@pytest.fixture
def scraped(settings: Any) -> Any:
    """Return the samples by name and label: `scraped()["portal_upgrades", "SUCCESS"]`."""
    settings.METRICS_TOKEN = TOKEN

    def scrape() -> dict[Any, float]:
        answer = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        families = text_string_to_metric_families(answer.content.decode())
        return {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }

    return scrape


def test_upgrades_are_counted_by_status(cast: Cast, scraped: Any) -> None:
    make_upgrade(cast.acme, by=cast.operator)
    make_upgrade(cast.globex, by=cast.outsider, target="orchestrator", statuses=[Status.FAILED])

    samples = scraped()

    counts = {status: samples["portal_upgrades", status] for status in ("SUCCESS", "FAILED", "PARTIAL")}
    assert counts == {"SUCCESS": 1, "FAILED": 1, "PARTIAL": 0}


def test_problems_that_need_an_operator_have_gauges(cast: Cast, scraped: Any) -> None:
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    Rollout.objects.update(
        is_stalled=True,
        deadline_at=Now() - timedelta(seconds=1),
        next_check_at=Now() - timedelta(seconds=90),
        last_checked_at=Now() - timedelta(seconds=120),
    )

    samples = scraped()

    assert samples["portal_rollouts_stalled",] == 1
    assert samples["portal_rollouts_beyond_deadline",] == 1
    assert samples["portal_rollout_due_seconds",] == pytest.approx(90, abs=10)
    assert samples["portal_rollout_unseen_seconds",] == pytest.approx(120, abs=10)


def test_a_pause_is_counted_and_stops_the_clock(cast: Cast, scraped: Any) -> None:
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    Rollout.objects.update(deadline_at=Now() - timedelta(hours=1), waiting_since=Now() - timedelta(hours=2))

    samples = scraped()

    assert samples["portal_rollouts_waiting_for_decision",] == 1
    assert samples["portal_rollouts_beyond_deadline",] == 0


def test_an_ended_upgrade_raises_no_alert(cast: Cast, scraped: Any) -> None:
    make_upgrade(cast.acme, by=cast.operator)
    Rollout.objects.update(deadline_at=Now() - timedelta(hours=1), last_checked_at=Now() - timedelta(hours=1))

    samples = scraped()

    assert samples["portal_rollouts_beyond_deadline",] == 0
    assert samples["portal_rollouts_waiting_for_decision",] == 0
    assert samples["portal_rollout_unseen_seconds",] == 0


def test_deployments_and_heartbeats_have_gauges(cast: Cast, scraped: Any) -> None:
    make_deployment(cast, make_agent(cast), "ready")
    Deployment.objects.update(next_check_at=Now() - timedelta(seconds=40))
    Heartbeat.objects.create(name="worker", beat_at=Now() - timedelta(seconds=20))

    samples = scraped()

    assert samples["portal_deployments", "ready"] == 1
    assert samples["portal_deployment_due_seconds",] == pytest.approx(40, abs=10)
    assert samples["portal_heartbeat_age_seconds", "worker"] == pytest.approx(20, abs=10)


def test_waiting_notifications_have_gauges(cast: Cast, scraped: Any) -> None:
    make_channel(cast.acme, by=cast.admin)
    send_notification(cast.acme)
    NotificationDelivery.objects.update(next_check_at=Now() - timedelta(seconds=40))

    samples = scraped()

    assert (samples["portal_notifications", "pending"], samples["portal_notifications", "failed"]) == (1, 0)
    assert samples["portal_notification_due_seconds",] == pytest.approx(40, abs=10)


def test_names_no_organization(cast: Cast, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    text = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()

    assert [word for word in ("acme", "Acme", upgrade.upgrade_id, "example.com") if word in text] == []


def test_costs_a_fixed_number_of_queries(cast: Cast, scraped: Any, django_assert_num_queries: Any) -> None:
    for _ in range(3):
        make_upgrade(cast.acme, by=cast.operator)

    with django_assert_num_queries(QUERIES):
        scraped()


@pytest.mark.parametrize("given", [None, "Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer \xe9"])
def test_requests_without_the_token_are_refused(db: None, settings: Any, given: str | None) -> None:
    settings.METRICS_TOKEN = TOKEN

    answer = Client().get("/metrics", headers={"Authorization": given} if given else {})

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_is_closed_where_no_token_is_set(db: None, settings: Any) -> None:
    settings.METRICS_TOKEN = ""

    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404
