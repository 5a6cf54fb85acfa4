"""A deployment's metrics through the API, read from the local AWS: one cached call, with gaps instead of zeros."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from deployments.models import Agent, Deployment
from portal.cloudwatch import metrics
from portal.cloudwatch.metrics import read_metrics
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, assert_refused, make_deployment
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


@pytest.fixture
def deployment(cast: Cast, agent: Agent, local_aws: LocalAws) -> Deployment:
    """Return a deployment whose service has run for two hours, so that CloudWatch has points."""
    made = make_deployment(cast, agent)
    service = {"name": made.service_name, "desired_count": 2, "age_seconds": 7200}
    local_aws.seed(account="111111111111", region="eu-central-1", cluster=made.cluster, services=[service])
    return Deployment.objects.select_related("organization").get(pk=made.pk)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    original = metrics.metrics.service_metrics

    def counted(*args: Any, **options: Any) -> Any:
        made.append(options)
        return original(*args, **options)

    monkeypatch.setattr(metrics.metrics, "service_metrics", counted)
    return made


def test_the_answer_has_its_shape(cast: Cast, client_for: SignIn, deployment: Deployment) -> None:
    answer = client_for(cast.viewer).get(f"/deployments/{deployment.pk}/metrics", {"limit": 5}).json()

    assert len(answer["items"]) == 5
    times = [item["timestamp"] for item in answer["items"]]
    assert times == sorted(times, reverse=True)
    assert set(answer["items"][0]) == {"timestamp", "agent_id", "cpu_usage", "memory_usage", "running_replicas"}
    assert all(0 <= item["cpu_usage"] <= 100 and 0 <= item["memory_usage"] <= 100 for item in answer["items"])
    assert answer["items"][0]["running_replicas"] == 2
    assert {**answer, "items": []} == {
        "deployment_id": str(deployment.pk),
        "deployment_status": "ready",
        "items": [],
        "skip": 0,
        "limit": 5,
        "has_more": True,
        "period_seconds": 60,
        "since": answer["since"],
        "until": answer["until"],
        "read_at": answer["read_at"],
        "error": None,
    }


def test_skip_is_an_offset_within_the_reading(cast: Cast, client_for: SignIn, deployment: Deployment) -> None:
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployment.pk}/metrics"
    whole = client.get(path).json()["items"]

    answer = client.get(path, {"skip": 2, "limit": 3}).json()
    beyond = client.get(path, {"skip": len(whole)}).json()

    assert (answer["items"], answer["skip"], answer["has_more"]) == (whole[2:5], 2, True)
    assert (beyond["items"], beyond["has_more"]) == ([], False)


def test_points_are_oldest_first_and_there_is_none_without_tasks(deployment: Deployment) -> None:
    series = read_metrics(deployment.cloudwatch, since=timezone.now() - timedelta(hours=5))

    times = [point.timestamp for point in series.points]
    assert times == sorted(times)
    with_cpu = [point.timestamp for point in series.points if point.cpu_usage is not None]
    assert with_cpu[0] > timezone.now() - timedelta(hours=2, minutes=3)  # no zeros before it ran


@pytest.mark.parametrize(
    ("span", "period"),
    [
        (timedelta(minutes=10), 60),
        (timedelta(hours=8), 60),
        (timedelta(hours=9), 300),
        (timedelta(days=2), 900),
        (timedelta(days=14), 3600),
        (timedelta(days=100), 21600),
    ],
)
def test_the_period_follows_from_the_range(deployment: Deployment, span: timedelta, period: int) -> None:
    series = read_metrics(deployment.cloudwatch, since=timezone.now() - span)

    assert series.period_seconds == period
    assert span.total_seconds() / period <= 500


def test_old_points_use_the_period_that_cloudwatch_keeps(deployment: Deployment) -> None:
    until = timezone.now() - timedelta(days=30)

    assert read_metrics(deployment.cloudwatch, since=until - timedelta(hours=1), until=until).period_seconds == 300


def test_many_viewers_share_one_call_a_minute(deployment: Deployment, calls: list[Any]) -> None:
    first = read_metrics(deployment.cloudwatch)
    for _ in range(5):
        assert read_metrics(deployment.cloudwatch) == first

    assert len(calls) == 1


@pytest.mark.parametrize("fault", ["throttle", "server_error"])
def test_failing_cloudwatch_keeps_the_last_points(
    cast: Cast, client_for: SignIn, deployment: Deployment, local_aws: LocalAws, fault: str
) -> None:
    kept = read_metrics(deployment.cloudwatch)
    for key in [key for key in cache._cache if "fresh" in key]:  # type: ignore[attr-defined] # of locmem
        cache.delete(key.removeprefix(":1:"))
    local_aws.fault(fault, action="GetMetricData")

    answer = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/metrics", {"limit": 500}).json()

    assert len(answer["items"]) == len(kept.points)
    assert "cloudwatch:GetMetricData" in answer["error"]
    assert kept.read_at
    assert datetime.fromisoformat(answer["read_at"]) == kept.read_at


def test_without_any_read_it_is_502(
    cast: Cast, client_for: SignIn, deployment: Deployment, local_aws: LocalAws, calls: list[Any]
) -> None:
    local_aws.fault("access_denied", action="GetMetricData")
    client = client_for(cast.viewer)

    for _ in range(3):
        assert_refused(client.get(f"{DEPLOYMENTS}/{deployment.pk}/metrics"), 502, "aws_unavailable")

    assert len(calls) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("period=59", "period"),
        ("period=61", "period"),
        ("period=86401", "period"),
        ("period=60&since=2026-11-01T00:00:00Z&until=2026-11-20T00:00:00Z", "period"),
        ("since=x", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2020-01-01T00:00:00Z", "since"),
        ("since=2300-01-01T00:00:00Z", "since"),
        ("level=ERROR", "level"),
    ],
)
def test_bad_input_is_named(cast: Cast, client_for: SignIn, deployment: Deployment, query: str, field: str) -> None:
    response = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/metrics?{query}")

    assert set(assert_refused(response, 400, "invalid")["errors"]) == {field}


def test_times_are_aligned_to_the_period(deployment: Deployment) -> None:
    at = datetime(2026, 11, 20, 10, 7, 33, tzinfo=UTC)

    series = read_metrics(deployment.cloudwatch, since=at, until=at + timedelta(hours=1), period=300)

    assert (series.since.minute, series.since.second, series.until.minute) == (5, 0, 10)


def test_one_person_reads_chosen_times_thirty_times_a_minute(
    cast: Cast, client_for: SignIn, deployment: Deployment, calls: list[Any]
) -> None:
    path, page = f"{DEPLOYMENTS}/{deployment.pk}/metrics", f"/o/acme/deployments/{deployment.pk}/"
    viewer, other = client_for(cast.viewer), client_for(cast.operator)
    now = timezone.now().replace(second=30)
    # Half of them end now, and the others do not.
    chosen = [{"since": f"{now - timedelta(minutes=90 + number):%Y-%m-%dT%H:%M:%SZ}"} for number in range(74)]
    for query in chosen[::2]:
        query["until"] = f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}"
    answers = [viewer.get(path, query) for query in chosen]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert 14 <= len(refused) <= 44  # the minute may end meanwhile
    assert len(calls) == len(answers) - len(refused)
    assert refused[0].json()["code"] == "too_many_metric_reads"
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert viewer.get(path).status_code == other.get(path, chosen[-1]).status_code == 200
    region = viewer.get(
        page, chosen[0] | {"since": "2026-11-01T00:00:00Z"}, headers={"HX-Request": "true", "HX-Target": "metrics"}
    )
    assert region.status_code == 200
