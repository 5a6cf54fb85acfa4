"""The page of one deployment: its state, the time window over timeline, metrics and logs, and the htmx regions."""

import html
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from deployments.events import record_event
from deployments.models import Deployment
from deployments.states import EventType
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import Runtime
from tests.local_aws import LocalAws

SignedIn = Callable[[User], Client]


def address(deployment: Deployment) -> str:
    return f"/o/acme/deployments/{deployment.pk}/"


def region(client: Client, deployment: Deployment, name: str, query: str = "") -> Any:
    return client.get(f"{address(deployment)}{query}", headers={"HX-Request": "true", "HX-Target": name})


def test_page_renders_without_reading_aws(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    """No local AWS runs in this test, so a read would fail."""
    page = client_for(cast.viewer).get(address(deployment))

    text = page.content.decode()
    assert page.status_code == 200
    assert "Reading CloudWatch Logs." in text
    assert 'hx-trigger="load, refresh"' in text
    assert "0</span> of" in text


@pytest.mark.parametrize("name", ["state", "timeline", "window"])
def test_each_region_can_be_requested_by_itself(
    cast: Cast, client_for: SignedIn, deployment: Deployment, name: str
) -> None:
    response = region(client_for(cast.viewer), deployment, name)

    assert "<html" not in response.content.decode()
    assert f'id="{name}"' in response.content.decode()
    assert response["Vary"].replace(" ", "").startswith("HX-Request") or "HX-Target" in response["Vary"]


def test_unchanged_region_costs_304(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    client = client_for(cast.viewer)
    window = "?since=2026-01-01T00:00:00Z&until=2026-01-01T01:00:00Z"
    first = region(client, deployment, "timeline", window)

    headers = {"HX-Request": "true", "HX-Target": "timeline", "If-None-Match": first["ETag"]}
    again = client.get(f"{address(deployment)}{window}", headers=headers)

    assert again.status_code == 304


def test_unknown_region_is_404(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    assert region(client_for(cast.viewer), deployment, "secrets").status_code == 404


def test_disabled_actions_show_the_reason_of_the_api(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    Deployment.objects.update(status="stopped", wanted="stopped")

    page = client_for(cast.operator).get(address(deployment)).content.decode()

    assert "Can only scale running deployments." in page
    assert f'href="{address(deployment)}restart"' in page
    assert f'href="{address(deployment)}scale"' not in page


def test_viewer_sees_why_actions_are_disabled(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    page = client_for(cast.viewer).get(address(deployment)).content.decode()

    assert page.count("Your role is viewer: this needs operator.") == 4
    assert f'href="{address(deployment)}kill"' not in page


def test_outsider_gets_404(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    client = client_for(cast.outsider)

    for path in (address(deployment), f"{address(deployment)}kill", f"{address(deployment)}logs.txt"):
        assert client.get(path).status_code == 404
        assert client.get(path.replace("/o/acme/", "/o/globex/")).status_code == 404


def test_anonymous_is_sent_to_sign_in(client: Client, deployment: Deployment) -> None:
    fragment = region(client, deployment, "state")

    assert client.get(address(deployment))["Location"].startswith("/accounts/login/?next=")
    assert (fragment.status_code, fragment["HX-Redirect"]) == (401, "/accounts/login/")


def test_failure_shows_the_reason_of_ecs(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    Deployment.objects.update(status="failed", error_message="image pull failed: <b>not found</b>")

    page = client_for(cast.viewer).get(address(deployment)).content.decode()

    assert "<strong>Failed:</strong>" in page
    assert "image pull failed: &lt;b&gt;not found&lt;/b&gt;" in page


def test_timeline_folds_repeats_filters_and_says_who(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    for number in range(5):
        record_event(deployment, EventType.FAILED, actor="system", status="failed", node_id=f"task-{number}")
    client = client_for(cast.viewer)

    everything = region(client, deployment, "timeline")
    creations = region(client, deployment, "timeline", "?event_type=create")

    assert "4 more of the same" in everything.content.decode()
    assert [(each.value, each.count) for each in everything.context["timeline"].types] == [
        ("create", "1"),
        ("deploy.failed", "5"),
    ]
    assert "4 more of the same" not in creations.content.decode()
    assert f"by {cast.operator.email}" in creations.content.decode()


def test_timeline_pages_by_skip(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    for number in range(60):
        record_event(deployment, EventType.READY, actor="system", status="ready", detail=str(number))

    second = region(client_for(cast.viewer), deployment, "timeline", "?skip=50")

    page = second.context["timeline"].page
    assert (page.first, page.last, page.has_more, page.previous_skip) == (51, 61, False, 0)


def test_an_event_links_to_the_window_around_it(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    event = deployment.events.get()
    text = region(client_for(cast.viewer), deployment, "timeline", "?level=ERROR").content.decode()

    since = f"{event.created_at - timedelta(minutes=10):%Y-%m-%dT%H}%3A"
    assert f"level=ERROR&amp;since={since}" in text
    assert f"at={event.pk}" in text


@pytest.mark.parametrize("query", ["?event_type=nope", "?status=nope"])
def test_unknown_filter_of_the_timeline_is_named(
    cast: Cast, client_for: SignedIn, deployment: Deployment, query: str
) -> None:
    assert "nope." in region(client_for(cast.viewer), deployment, "timeline", query).content.decode()


@pytest.mark.parametrize("query", ["?range=2w", "?since=yesterday", "?since=2026-01-02&until=2026-01-01", "?since=%00"])
def test_invalid_window_shows_the_last_hour_and_says_so(
    cast: Cast, client_for: SignedIn, deployment: Deployment, query: str
) -> None:
    response = region(client_for(cast.viewer), deployment, "window", query)

    assert response.context["window"].range == "1h"
    assert "Showing the last hour." in response.content.decode()


def test_empty_window_links_to_the_latest_event(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    text = region(
        client_for(cast.viewer), deployment, "window", "?since=2026-01-01T00:00:00Z&until=2026-01-01T01:00:00Z"
    ).content.decode()

    assert "No events in this window." in text
    assert "Go to the latest event" in text


@pytest.fixture
def ready(cast: Cast, runtime: Runtime, deployment: Deployment) -> Iterator[Deployment]:
    """Return a deployment that has run for three minutes, on the clock of AWS and on that of the portal."""
    runtime.run(deployment, "ready")
    runtime.local_aws.advance(180)
    cache.clear()
    with time_machine.travel(runtime.local_aws.now()):
        yield deployment


def test_metrics_and_logs_of_what_runs(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    now = timezone.now()
    window = f"?since={now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}&until={now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    client = client_for(cast.viewer)

    metrics = region(client, ready, "metrics", window).content.decode()
    logs = region(client, ready, "logs", window)

    assert metrics.count("<figure") == 3
    assert "CPU as table" in metrics
    assert "style=" not in metrics
    assert "Created" in metrics  # the mark
    assert logs.context["logs"].records
    assert 'class="log-time"' in logs.content.decode()


def test_whole_page_for_a_browser_without_javascript(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    page = client_for(cast.viewer).get(f"{address(ready)}?whole=1").content.decode()

    assert 'id="log-box"' in page
    assert "Reading CloudWatch" not in page


@pytest.mark.parametrize("form", ["txt", "ndjson", "csv"])
def test_download_has_the_shown_records_oldest_first(
    cast: Cast, client_for: SignedIn, ready: Deployment, form: str
) -> None:
    client = client_for(cast.viewer)
    query = f"?since={ready.created_at:%Y-%m-%dT%H:%M:%SZ}&until={timezone.now():%Y-%m-%dT%H:%M:%SZ}&level=INFO"
    shown = region(client, ready, "logs", f"{query}&order=newest").context["logs"]

    answer = client.get(f"{address(ready)}logs.{form}{query}&order=newest")

    text = answer.content.decode()
    first, last = shown.records[-1], shown.records[0]
    assert first.timestamp < last.timestamp
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert (
        f'filename="support-agent-{ready.short_id}-{first.timestamp:%Y%m%dT%H%M%SZ}.{form}"'
        in (answer["Content-Disposition"])
    )
    assert 0 < text.index(f"{first.timestamp:%H:%M:%S}") < text.rindex(f"{last.timestamp:%H:%M:%S}")
    if form == "ndjson":
        records = [json.loads(line) for line in text.splitlines()]
        assert [each["message"] for each in records] == [each.message for each in shown.records[::-1]]


def test_an_unknown_form_of_download_is_not_found(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    assert client_for(cast.viewer).get(f"{address(ready)}logs.xlsx").status_code == 404


def test_a_level_counts_and_shows_what_is_worse(
    cast: Cast, client_for: SignedIn, ready: Deployment, platform: LocalAws
) -> None:
    put_lines(platform, ready, "INFO a", "ERROR b", "Traceback (most recent call last):", "KeyError: 'MODEL_ID'")
    client = client_for(cast.viewer)

    logs = region(client, ready, "logs", "?range=6h&level=ERROR&task=put").context["logs"]

    assert [record.message for record in logs.records] == [
        "ERROR b\nTraceback (most recent call last):\nKeyError: 'MODEL_ID'"
    ]
    assert dict(logs.levels) == {"CRITICAL": 0, "ERROR": 1, "WARNING": 1, "INFO": 2, "DEBUG": 2}


def test_follower_gets_late_lines_and_keeps_polling(
    cast: Cast, client_for: SignedIn, ready: Deployment, platform: LocalAws
) -> None:
    client = client_for(cast.viewer)
    following = region(client, ready, "logs", "?follow=1").context["logs"]
    platform.advance(30)
    put_lines(platform, ready, "late line", ago=-20)  # AWS's clock is three minutes ahead
    cache.delete(f"logs:{ready.pk}:tail:fresh")

    polled = region(client, ready, "log-poll", f"?follow=1&after={following.after}")

    assert following.is_following
    assert "late line" in [record.message for record in polled.context["newer"]]
    assert f"after={following.after}" not in polled.content.decode()
    assert "after=" in polled.content.decode()


def test_the_overview_names_the_last_error_of_a_failed_deployment(
    cast: Cast, client_for: SignedIn, ready: Deployment, platform: LocalAws
) -> None:
    trace = ["ERROR start-up failed", "Traceback (most recent call last):", "KeyError: 'MODEL_ID'"]
    put_lines(platform, ready, *trace, "ERROR main: exited with code 1")
    Deployment.objects.filter(pk=ready.pk).update(status="failed", status_at=timezone.now())

    client = client_for(cast.viewer)
    deadline, page = time.monotonic() + 5, ""
    while "KeyError: 'MODEL_ID'" not in page and time.monotonic() < deadline:  # the page does not wait for AWS
        page = html.unescape(client.get("/o/acme/").content.decode())

    assert "KeyError: 'MODEL_ID'" in page
    assert f'href="{address(ready)}#logs"' in page


def test_a_failed_deployments_page_names_its_last_error(
    cast: Cast, client_for: SignedIn, ready: Deployment, platform: LocalAws
) -> None:
    put_lines(platform, ready, "ERROR start-up failed", "Traceback (most recent call last):", "KeyError: 'MODEL_ID'")
    failed_at = timezone.now()
    Deployment.objects.filter(pk=ready.pk).update(status="failed", status_at=failed_at, error_message="it stopped")

    client = client_for(cast.viewer)
    first = client.get(address(ready)).content.decode()
    deadline, line = time.monotonic() + 5, ""
    while "MODEL_ID" not in line and time.monotonic() < deadline:  # the page does not wait for AWS
        line = region(client, ready, "last-error").content.decode()
    elsewhere = "?since=2026-01-01T00:00:00Z&until=2026-01-01T01:00:00Z"
    later = html.unescape(region(client, ready, "state", elsewhere).content.decode())

    assert 'id="last-error"' in first
    assert "it stopped" in first
    assert "KeyError: &#x27;MODEL_ID&#x27;" in line
    assert "KeyError: 'MODEL_ID'" in later
    since = (failed_at - timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M")
    assert f"?since={since}" in later.replace("%3A", ":")


def put_lines(platform: LocalAws, deployment: Deployment, *messages: str, ago: float = 5) -> None:
    """Put lines of one more task into the deployment's log group, one millisecond apart."""
    client, stream = platform.client("logs"), f"{deployment.service_name}/agent/put"
    client.create_log_stream(logGroupName=deployment.log_group, logStreamName=stream)
    at = int((time.time() - ago) * 1000)
    events = [{"timestamp": at + number, "message": message} for number, message in enumerate(messages)]
    client.put_log_events(logGroupName=deployment.log_group, logStreamName=stream, logEvents=events)


def test_failing_cloudwatch_shows_and_breaks_nothing(
    cast: Cast, client_for: SignedIn, ready: Deployment, local_aws: LocalAws
) -> None:
    client = client_for(cast.viewer)
    local_aws.fault("throttle", action="FilterLogEvents")
    local_aws.fault("access_denied", action="GetMetricData")

    metrics, logs = region(client, ready, "metrics"), region(client, ready, "logs")

    assert "CloudWatch could not be read, so there are no metrics to show." in metrics.content.decode()
    assert "CloudWatch Logs could not be read, so there are no lines to show." in logs.content.decode()
    assert (metrics.status_code, logs.status_code) == (200, 200)


def test_failing_cloudwatch_keeps_the_last_lines(
    cast: Cast, client_for: SignedIn, ready: Deployment, local_aws: LocalAws
) -> None:
    client = client_for(cast.viewer)
    seen = region(client, ready, "logs", "?range=6h").context["logs"].records
    local_aws.fault("throttle", action="FilterLogEvents")
    cache.delete(f"logs:{ready.pk}:tail:fresh")

    again = region(client, ready, "logs", "?range=6h")

    assert [each.id for each in again.context["logs"].records] == [each.id for each in seen]
    assert "CloudWatch Logs could not be read. Showing lines read" in again.content.decode()
