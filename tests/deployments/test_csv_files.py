"""The CSV files of deployments, agents and events: exactly the rows of the page with its filters."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.commands import create_deployment
from deployments.models import Deployment
from portal.models import AuditEvent, User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment, read_html

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
LIST, AGENTS = "/o/acme/deployments/", "/o/acme/agents/"


def read_rows(response: Any) -> list[dict[str, str]]:
    assert (response.status_code, response["Content-Type"]) == (200, "text/csv; charset=utf-8")
    return list(csv.DictReader(io.StringIO(response.content.decode())))


def test_the_lists_as_files(cast: Cast, client_for: SignedIn) -> None:
    triage, support = make_agent(cast, "Triage"), make_agent(cast, "=Support")
    failed, ready = make_deployment(cast, triage, "failed", version="v2"), make_deployment(cast, support)
    client = client_for(cast.viewer)

    page = read_html(client.get(f"{LIST}?status=failed"))
    some, every = read_rows(client.get(f"{LIST}list.csv?status=failed")), read_rows(client.get(f"{LIST}list.csv"))
    agents = read_rows(client.get(f"{AGENTS}list.csv?q=supp"))

    assert f'href="{LIST}list.csv?status=failed" download' in page
    assert [(row["deployment_id"], row["version"], row["status"]) for row in some] == [(str(failed.pk), "v2", "failed")]
    assert [row["deployment_id"] for row in every] == [str(ready.pk), str(failed.pk)]
    assert [(row["name"], row["status"]) for row in agents] == [("'=Support", "running")]
    assert (
        AuditEvent.objects.filter(kind="data.exported").count() == 2
    )  # the second of a file within a minute is counted


def test_the_events_of_the_window_as_a_file(cast: Cast, client_for: SignedIn) -> None:
    deployment = create_deployment(make_agent(cast), actor=cast.operator)
    Deployment.objects.update(status="ready")
    client = client_for(cast.operator)
    client.post(f"{LIST}{deployment.pk}/scale", {"replicas": "2", "idempotency_key": "k"})
    one = f"{LIST}{deployment.pk}/"

    page = read_html(client.get(f"{one}?event_type=scale"))
    scaled = read_rows(client.get(f"{one}events.csv?event_type=scale"))
    earlier = read_rows(client.get(f"{one}events.csv?since=2026-01-01T00:00&until=2026-01-01T01:00"))

    assert f'href="{one}events.csv?event_type=scale"' in page
    assert [(row["event_type"], row["actor"]) for row in scaled] == [("scale", cast.operator.email)]
    assert earlier == []


@pytest.mark.parametrize("path", [f"{LIST}list.csv?status=unknown", f"{LIST}list.csv?sort=size"])
def test_an_invalid_filter_gives_no_file(cast: Cast, client_for: SignedIn, path: str) -> None:
    assert client_for(cast.viewer).get(path).status_code == 400


@pytest.mark.parametrize("name", ["events.csv", "logs.csv"])
def test_an_invalid_window_gives_no_file(cast: Cast, client_for: SignedIn, name: str) -> None:
    """The page shows the last hour in its place and says so, which a file could not."""
    deployment = make_deployment(cast, make_agent(cast))

    refused = client_for(cast.viewer).get(f"{LIST}{deployment.pk}/{name}?since=yesterday")

    assert refused.status_code == 400
    assert "Nothing was exported. Enter since and until as times" in read_html(refused)
