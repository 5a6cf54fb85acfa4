"""Lists, records and history through the API: shapes, filters, bounds, totals and query counts."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.events import record_event
from deployments.models import Agent, Deployment, count_rows, with_every_status
from deployments.states import EventType, Status
from portal.models import User
from portal.times import utc
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, assert_refused, make_agent, make_deployment

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


@pytest.fixture
def client(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.viewer)


def events_url(deployment: Deployment) -> str:
    return f"{DEPLOYMENTS}/{deployment.pk}/events"


def deployments_queries(client: Client, path: str) -> list[str]:
    """Return the queries of one request on the app's own tables."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in captured.captured_queries if 'FROM "deployments_' in query["sql"]]


# --- the list -------------------------------------------------------------------------------------------------------


def test_an_empty_list_has_the_whole_envelope(client: Client) -> None:
    assert client.get("/deployments").json() == {
        "items": [],
        "total": 0,
        "skip": 0,
        "limit": 50,
        "has_more": False,
        "organization": "acme",
        "agent_id": None,
        "status": None,
        "q": None,
    }


def test_pages_are_newest_first_and_counted(cast: Cast, client: Client, agent: Agent) -> None:
    made = [make_deployment(cast, agent) for _ in range(5)]

    first = client.get(DEPLOYMENTS, {"limit": 2}).json()
    last = client.get(DEPLOYMENTS, {"limit": 2, "skip": 4}).json()
    beyond = client.get(DEPLOYMENTS, {"skip": 9}).json()

    assert [item["id"] for item in first["items"]] == [str(made[4].pk), str(made[3].pk)]
    assert (first["total"], first["has_more"], first["skip"], first["limit"]) == (5, True, 0, 2)
    assert [item["id"] for item in last["items"]] == [str(made[0].pk)]
    assert (last["total"], last["has_more"]) == (5, False)
    assert (beyond["total"], beyond["items"], beyond["has_more"]) == (5, [], False)
    assert "events" not in first["items"][0]


def test_an_id_may_be_in_upper_case(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    upper, lower = (client.get(f"{DEPLOYMENTS}/{each}") for each in (str(deployment.pk).upper(), deployment.pk))

    assert (upper.status_code, upper.json()) == (200, lower.json())
    assert client.get(f"/agents/{str(agent.pk).upper()}/deploy").status_code == 405


def test_filters_combine_and_are_echoed(cast: Cast, client: Client, agent: Agent) -> None:
    other = make_agent(cast, "Invoice agent")
    ready = make_deployment(cast, agent)
    make_deployment(cast, agent, "failed")
    failed = make_deployment(cast, other, "failed")

    by_status = client.get(DEPLOYMENTS, {"status": "failed", "limit": 1}).json()
    both = client.get(DEPLOYMENTS, {"status": "failed", "agent_id": str(other.pk)}).json()
    by_name = client.get(DEPLOYMENTS, {"q": "INVOICE"}).json()
    by_id = client.get(DEPLOYMENTS, {"q": str(ready.pk)[:10]}).json()

    assert (by_status["total"], by_status["has_more"], by_status["status"]) == (2, True, "failed")
    assert [item["id"] for item in both["items"]] == [str(failed.pk)]
    assert (both["agent_id"], both["total"]) == (str(other.pk), 1)
    assert [item["id"] for item in by_name["items"]] == [str(failed.pk)]
    assert [item["id"] for item in by_id["items"]] == [str(ready.pk)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=pending", "status"),
        ("status=READY", "status"),
        ("agent_id=x", "agent_id"),
        ("skip=-1", "skip"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("sort=name", "sort"),
        ("user_id=1", "user_id"),
        ("status=ready&status=failed", "status"),
        (f"q={'x' * 101}", "q"),
    ],
)
def test_bad_filters_are_named(client: Client, query: str, field: str) -> None:
    refused = assert_refused(client.get(f"{DEPLOYMENTS}?{query}"), 400, "invalid")

    assert set(refused["errors"]) == {field}


def test_other_organizations_are_not_listed(cast: Cast, client: Client) -> None:
    theirs = make_agent(cast, organization=cast.globex)
    make_deployment(cast, theirs)

    assert client.get(DEPLOYMENTS).json()["total"] == 0
    assert client.get(DEPLOYMENTS, {"q": "Support"}).json()["items"] == []


def test_a_list_costs_one_query_and_counts_no_rows(cast: Cast, client: Client, agent: Agent) -> None:
    for _ in range(4):
        make_deployment(cast, agent)

    for query in ("", "?limit=2", "?status=ready", f"?agent_id={agent.pk}", "?q=support"):
        reads = deployments_queries(client, DEPLOYMENTS + query)

        assert len(reads) == 1
        assert "COUNT(" not in reads[0]


def test_a_search_finds_parts_of_names_and_starts_of_ids(cast: Cast, client: Client) -> None:
    named, other = make_agent(cast, "100% Café_agent"), make_agent(cast, "Other")
    first, second = make_deployment(cast, named), make_deployment(cast, named, "failed")
    third = make_deployment(cast, other)

    def search(**query: Any) -> tuple[list[str], int]:
        body = client.get(DEPLOYMENTS, query).json()
        return [item["id"] for item in body["items"]], body["total"]

    newest_first = [str(second.pk), str(first.pk)]
    assert search(q="CAFÉ_A") == (newest_first, 2)
    assert search(q="0% c") == (newest_first, 2)
    assert search(q="_") == (newest_first, 2)
    assert search(q="caf_") == ([], 0)
    assert search(q="e", status="failed") == (newest_first[:1], 1)
    assert search(q="agent", limit=1, skip=1) == (newest_first[1:], 2)
    assert search(q=str(third.pk)[:13]) == ([str(third.pk)], 1)
    # A hexadecimal text may be both: a row is found and counted once.
    Agent.objects.filter(pk=named.pk).update(name=str(first.pk)[:6])
    assert search(q=str(first.pk)[:6]) == (newest_first, 2)


# --- one record -----------------------------------------------------------------------------------------------------


def test_a_record_carries_its_newest_events_in_one_query(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent, "failed", error_message="image pull failed", node_id="node-123")
    for _ in range(25):
        record_event(deployment, EventType.FAILED, actor="system")

    record = client.get(f"/deployments/{deployment.pk}").json()

    assert (record["id"], record["agent_name"], record["organization"]) == (str(deployment.pk), agent.name, "acme")
    assert (record["error_message"], record["node_id"]) == ("image pull failed", "node-123")
    assert len(record["events"]) == 20
    stored = list(deployment.events.values_list("id", flat=True)[:20])
    assert [event["id"] for event in record["events"]] == [str(pk) for pk in stored]
    reads = deployments_queries(client, f"{DEPLOYMENTS}/{deployment.pk}")
    assert len(reads) == 1


@pytest.mark.parametrize("microsecond", [0, 1, 120, 123000, 999999])
def test_times_are_written_as_everywhere(cast: Cast, client: Client, agent: Agent, microsecond: int) -> None:
    at = datetime(2026, 3, 8, 0, 5, 0, microsecond, tzinfo=UTC)
    deployment = make_deployment(cast, agent, started_at=at.astimezone(timezone(timedelta(hours=-7))))

    record = client.get(f"{DEPLOYMENTS}/{deployment.pk}").json()

    assert (record["started_at"], record["ended_at"]) == (utc(at), None)


def test_texts_are_passed_on_as_they_are(cast: Cast, client: Client, agent: Agent) -> None:
    text = 'at 10:00:00.000000Z+00:00 "é" \\ \u2028 \t \x1f </script> 🚀'
    deployment = make_deployment(cast, agent, "failed", error_message=text)

    assert client.get(f"{DEPLOYMENTS}/{deployment.pk}").json()["error_message"] == text
    assert client.get(DEPLOYMENTS).json()["items"][0]["error_message"] == text


@pytest.mark.parametrize("suffix", ["", "/events", "/logs", "/metrics"])
def test_a_foreign_record_is_404_like_one_that_does_not_exist(cast: Cast, client: Client, suffix: str) -> None:
    theirs = make_deployment(cast, make_agent(cast, organization=cast.globex))

    foreign = client.get(f"{DEPLOYMENTS}/{theirs.pk}{suffix}")
    nothing = client.get(f"{DEPLOYMENTS}/{uuid.uuid4()}{suffix}")

    assert foreign.status_code == nothing.status_code == 404
    assert foreign.json() == nothing.json()


def test_reading_a_record_marks_it_as_watched(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    Deployment.objects.filter(pk=deployment.pk).update(next_check_at=datetime(2100, 1, 1, tzinfo=UTC))

    client.get(f"{DEPLOYMENTS}/{deployment.pk}")
    client.get(f"{DEPLOYMENTS}/{deployment.pk}")

    deployment.refresh_from_db()
    assert deployment.watched_until
    assert deployment.next_check_at
    assert deployment.next_check_at.year < 2100


# --- history --------------------------------------------------------------------------------------------------------


def test_the_published_example_of_history(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent, "failed")
    at = datetime(2026, 3, 12, 9, 15, tzinfo=UTC)
    failed = {"node_id": "node-123", "error_message": "image pull failed", "created_at": at}
    record_event(deployment, EventType.FAILED, actor="system", **failed)  # type: ignore[arg-type] # values of two types

    answer = client.get(f"/deployments/{deployment.pk}/events", {"status": "failed", "limit": 20}).json()

    event = deployment.events.first()
    assert event
    assert answer == {
        "deployment_id": str(deployment.pk),
        "deployment_status": "failed",
        "items": [
            {
                "id": str(event.pk),
                "deployment_id": str(deployment.pk),
                "event_type": "deploy.failed",
                "status": "failed",
                "node_id": "node-123",
                "error_message": "image pull failed",
                "created_at": "2026-03-12T09:15:00Z",
                "actor": "system",
            }
        ],
        "total": 1,
        "skip": 0,
        "limit": 20,
        "has_more": False,
        "event_type": None,
        "status": "failed",
    }


def test_history_pages_and_filters_by_counters(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    for number in range(9):
        status = Status.READY if number % 3 == 0 else Status.RUNNING
        record_event(deployment, EventType(f"deploy.{status.value}"), actor="system", status=status.value)

    def page(**query: Any) -> dict[str, Any]:
        body: dict[str, Any] = client.get(events_url(deployment), query).json()
        return body

    assert (page()["total"], page()["limit"]) == (10, 100)
    assert [page(skip=skip, limit=4)["has_more"] for skip in (0, 4, 8)] == [True, True, False]
    assert [len(page(skip=skip, limit=4)["items"]) for skip in (0, 4, 8, 12)] == [4, 4, 2, 0]
    whole = [item["id"] for item in page()["items"]]
    assert [item["id"] for skip in (0, 4, 8) for item in page(skip=skip, limit=4)["items"]] == whole
    assert (page(event_type="deploy.ready")["total"], page(status="running")["total"]) == (3, 6)
    assert page(event_type="create", status="deploying")["total"] == 1
    assert page(event_type="create", status="ready") == {
        "deployment_id": str(deployment.pk),
        "deployment_status": "ready",
        "items": [],
        "total": 0,
        "skip": 0,
        "limit": 100,
        "has_more": False,
        "event_type": "create",
        "status": "ready",
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=501", "limit"),
        ("limit=0", "limit"),
        ("skip=-1", "skip"),
        ("event_type=explode", "event_type"),
        ("status=pending", "status"),
        ("q=x", "q"),
    ],
)
def test_bad_filters_of_history_are_named(cast: Cast, client: Client, agent: Agent, query: str, field: str) -> None:
    deployment = make_deployment(cast, agent)

    refused = assert_refused(client.get(f"{events_url(deployment)}?{query}"), 400, "invalid")

    assert set(refused["errors"]) == {field}


def test_history_costs_one_query_however_far_back(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    for _ in range(5):
        record_event(deployment, EventType.READY, actor="system")

    reads = deployments_queries(client, f"{events_url(deployment)}?skip=3&limit=2")

    assert len(reads) == 1
    assert "COUNT(" not in reads[0]
    assert "OFFSET" not in reads[0]


def test_sequence_and_counters_are_kept_by_the_insert(cast: Cast, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    record_event(deployment, EventType.SCALE, actor="operator@example.com")
    record_event(deployment, EventType.SCALE, actor="operator@example.com")

    deployment.refresh_from_db()

    assert list(deployment.events.values_list("sequence", flat=True)) == [3, 2, 1]
    assert deployment.events_count == 3
    assert deployment.event_counts == {"create|deploying": 1, "scale|ready": 2}
    at = list(deployment.events.order_by("sequence").values_list("created_at", flat=True))
    assert at == sorted(at)


def test_deployments_are_counted_by_status_as_they_change(cast: Cast, agent: Agent) -> None:
    deployment = make_deployment(cast, agent, "ready")
    make_deployment(cast, agent, "ready")
    make_deployment(cast, make_agent(cast, "Other"), "failed")

    Deployment.objects.filter(pk=deployment.pk).update(status="stopped")

    expected = dict.fromkeys(Status.values, 0) | {"ready": 1, "failed": 1, "stopped": 1}
    assert with_every_status(count_rows(cast.acme)) == expected
    Deployment.objects.filter(pk=deployment.pk).delete()
    assert with_every_status(count_rows(cast.acme))["stopped"] == 0
    assert sum(with_every_status(count_rows(cast.globex)).values()) == 0
