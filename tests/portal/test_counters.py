"""The counters of /metrics: what is counted, under which labels, and that no process loses or doubles a count."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.test import Client

from portal import soft_cache
from portal.aws import ecs
from portal.aws.errors import AwsError
from portal.models import MetricCount, User
from portal.monitoring import counters
from portal.monitoring.counters import DEPENDENCY_FAILURES, Counters, write_counts
from portal.schedule import run_job
from portal.tasks import delete_old_metrics
from portal.wakeup import dispatch
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.test_prometheus import scraped

__all__ = ["scraped"]

Samples = Callable[[], dict[Any, float]]
CACHE = ("portal_dependency_failures_total", "cache")


@pytest.fixture(autouse=True)
def from_zero() -> None:
    """Forget what earlier tests have counted."""
    counters.begin_again()


@pytest.fixture
def counted(db: None, scraped: Samples) -> Samples:
    def read() -> dict[Any, float]:
        write_counts()
        return scraped()

    return read


def test_requests_are_counted_by_route_not_by_path(
    cast: Cast, client_for: Callable[[User], Client], counted: Samples
) -> None:
    client_for(cast.consultant).get("/o/acme/activity/")
    client_for(cast.consultant).get("/o/globex/activity/")
    client_for(cast.viewer).get("/o/globex/activity/")
    Client().get("/what-nobody-has/1")

    samples = counted()

    counts = {key[1:]: count for key, count in samples.items() if key[0] == "portal_request_seconds_count"}
    assert counts == {("activity", "2xx"): 2, ("activity", "4xx"): 1, ("unmatched", "4xx"): 1}
    assert samples["portal_request_seconds_bucket", "+Inf", "activity", "2xx"] == 2
    assert 0 < samples["portal_request_seconds_sum", "activity", "2xx"] < 60


def test_calls_are_counted_by_account_region_and_result(platform: LocalAws, cast: Cast, counted: Samples) -> None:
    for kind in ("throttle", "access_denied", "server_error", "reply_lost"):
        platform.fault(kind, action="UpdateService", times=1)
        with pytest.raises(AwsError):
            update(cast)
    update(cast)

    samples = counted()

    place = ("portal_aws_calls_total", "222222222222", "us-east-1")
    counts = {key[-1]: count for key, count in samples.items() if key[:3] == place}
    assert counts == {"ok": 1, "throttled": 1, "refused": 1, "failed": 1, "no_answer": 1}
    assert samples["portal_aws_calls_total", "own", "us-east-1", "ok"] == 1  # the role is assumed with the portal's own


def update(cast: Cast) -> None:
    stack = str(cast.globex.deployment_stack)
    target, cluster = cast.globex.aws_target, str(cast.globex.cluster)
    revision = f"{stack}-agent"
    ecs.update_service(target, cluster, f"{stack}-agent-service", task_definition=revision, force_new_deployment=True)


def test_failures_of_cache_and_broker_are_counted(cache_down: None, broker_down: None, counted: Samples) -> None:
    soft_cache.read("any")
    dispatch("portal.tasks.worker_beat")

    samples = counted()

    assert samples["portal_dependency_failures_total", "cache"] >= 1
    assert samples["portal_dependency_failures_total", "broker"] == 1


def test_the_schedulers_jobs_are_timed_and_failures_counted(transactional_db: None, counted: Samples) -> None:
    def fail() -> None:
        raise ValueError("a bad row")

    run_job("portal.tasks.record_heartbeats", lambda: None)
    run_job("upgrades.tasks.sweep", fail)

    samples = counted()

    assert samples["portal_scheduled_job_failures_total", "upgrades.tasks.sweep"] == 1
    assert samples["portal_scheduled_job_seconds_count", "upgrades.tasks.sweep"] == 1
    assert ("portal_scheduled_job_failures_total", "portal.tasks.record_heartbeats") not in samples


def test_the_counts_of_all_processes_add_up(counted: Samples) -> None:
    for _ in range(2):
        process = Counters(writes=False)
        process.add("dependency_failures", ("cache",), 3)
        process.write()
        process.write()

    assert counted()[CACHE] == 6


def test_counts_are_kept_while_the_database_refuses_them(transactional_db: None, counted: Samples) -> None:
    counters.count(DEPENDENCY_FAILURES, "cache")
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseError):
            write_counts()
        cursor.execute("SET default_transaction_read_only = off")
    counters.count(DEPENDENCY_FAILURES, "cache")

    assert counted()[CACHE] == 2


def test_a_process_writes_by_itself_and_when_it_stops(transactional_db: None, scraped: Samples) -> None:
    process = Counters(writes=True, seconds=0.01)
    process.add("dependency_failures", ("cache",), 1)
    deadline = time.monotonic() + 20
    while CACHE not in scraped() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scraped()[CACHE] == 1

    process.seconds = 3600
    process.add("dependency_failures", ("cache",), 1)
    process.stop()

    assert scraped()[CACHE] == 2


def test_the_number_of_counts_is_bounded(counted: Samples) -> None:
    process = Counters(writes=False)
    for number in range(counters.MAX_COUNTS + 100):
        process.add("dependency_failures", (f"name-{number}",), 1)

    process.write()

    assert MetricCount.objects.count() == counters.MAX_COUNTS + 1
    assert counted()["portal_dependency_failures_total", "other"] == 100


def test_series_that_no_longer_grow_are_deleted(db: None) -> None:
    for days in (29, 31):
        MetricCount.objects.create(name="aws_calls", labels=f'["{days}"]', counted_at=Now() - timedelta(days=days))

    delete_old_metrics()

    assert [row.labels for row in MetricCount.objects.all()] == ['["29"]']
