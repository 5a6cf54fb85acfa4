"""The live fragments of deployments: what changes them changes their ETag, and else they cost a 304."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db.models import F
from django.test import Client
from django.utils import timezone

from deployments.commands import create_deployment
from deployments.events import record_event
from deployments.models import Agent, Deployment
from deployments.states import EventType
from portal.models import Membership, User
from tests.conftest import Cast, revise_each_field
from tests.deployments.conftest import make_agent, make_deployment

SignedIn = Callable[[User], Client]
LIST = "/o/acme/deployments/"
UNSEEN = import_module("deployments.migrations.0022_revision").UNSEEN


@pytest.fixture
def ready(cast: Cast) -> Deployment:
    return make_deployment(cast, make_agent(cast), "ready")


def address(deployment: Deployment) -> str:
    return f"{LIST}{deployment.pk}/"


def poll(client: Client, path: str, target: str, tag: str = "") -> Any:
    return client.get(path, headers={"HX-Request": "true", "HX-Target": target, "If-None-Match": tag})


def test_each_shown_column_counts_a_revision(ready: Deployment) -> None:
    assert revise_each_field(ready, omit=("agent", "organization")) == set(UNSEEN)


def record(deployment: Deployment) -> None:
    record_event(deployment, EventType.READY, actor="system", status="ready")


def age(deployment: Deployment) -> None:
    deployment.events.update(created_at=timezone.now() - timedelta(hours=2))


CHANGES: dict[str, Callable[[Deployment], object]] = {
    "status": lambda _: Deployment.objects.update(status="failed", error_message="exit code 1"),
    "tasks": lambda _: Deployment.objects.update(running_replicas=F("running_replicas") + 1),
    "failed check": lambda _: Deployment.objects.update(check_error="AWS did not answer"),
    "event": record,
    "agent": lambda _: Agent.objects.update(name="Another name"),
    "role": lambda _: Membership.objects.update(role="viewer"),
}


@pytest.mark.parametrize("change", [*CHANGES, "event leaves the window"])
def test_each_change_of_a_deployment_is_sent(cast: Cast, client_for: SignedIn, ready: Deployment, change: str) -> None:
    client = client_for(cast.operator)
    first = poll(client, address(ready), "state")

    assert poll(client, address(ready), "state", first["ETag"]).status_code == 304
    CHANGES.get(change, age)(ready)
    changed = poll(client, address(ready), "state", first["ETag"])

    assert changed.status_code == 200
    assert 'id="state"' in changed.content.decode()
    assert 'hx-swap-oob="true"' in changed.content.decode()


@pytest.mark.parametrize("change", [*CHANGES, "new deployment"])
def test_each_change_of_the_list_is_sent(cast: Cast, client_for: SignedIn, ready: Deployment, change: str) -> None:
    client = client_for(cast.operator)
    first = poll(client, f"{LIST}?status=", "rows")

    assert poll(client, f"{LIST}?status=", "rows", first["ETag"]).status_code == 304
    CHANGES.get(change, lambda row: create_deployment(row.agent, actor=cast.operator))(ready)

    assert poll(client, f"{LIST}?status=", "rows", first["ETag"]).status_code == 200


def test_a_change_beyond_the_filter_shows_in_the_counts(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.viewer)
    first = poll(client, f"{LIST}?status=failed", "rows")

    Deployment.objects.update(status="stopped")

    assert poll(client, f"{LIST}?status=failed", "rows", first["ETag"]).status_code == 200


def test_a_filter_by_text_answers_304_by_its_content(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.operator)
    first = poll(client, f"{LIST}?q=support", "rows")

    assert poll(client, f"{LIST}?q=support", "rows", first["ETag"]).status_code == 304
    Deployment.objects.update(status="failed")
    assert poll(client, f"{LIST}?q=support", "rows", first["ETag"]).status_code == 200


def test_an_unchanged_answer_says_when_ecs_was_read(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.viewer)
    first = poll(client, address(ready), "state")
    read_at = timezone.now()

    Deployment.objects.update(last_checked_at=read_at)
    again = poll(client, address(ready), "state", first["ETag"])

    assert (again.status_code, again["X-Times"]) == (304, f"last-checked={read_at.isoformat()}")


@pytest.mark.parametrize("path", [LIST, "detail"])
def test_an_unchanged_poll_costs_one_statement(
    cast: Cast, client_for: SignedIn, ready: Deployment, path: str, django_assert_num_queries: Any
) -> None:
    client, path = client_for(cast.viewer), address(ready) if path == "detail" else path
    first = poll(client, path, "state")
    poll(client, path, "state", first["ETag"])

    with django_assert_num_queries(2):  # the session with its person; the organization with the revisions
        assert poll(client, path, "state", first["ETag"]).status_code == 304


def test_the_page_says_the_tag_of_its_live_block(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.viewer)
    page = client.get(address(ready))

    tag = page.context["tag"]

    assert poll(client, address(ready), "state", tag).status_code == 304
    assert tag.replace('"', "&quot;") in page.content.decode()


def test_a_poll_marks_what_is_seen_as_watched(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.viewer)
    for path in (LIST, address(ready)):
        first = poll(client, path, "state")
        Deployment.objects.update(watched_until=timezone.now() + timedelta(seconds=1))
        poll(client, path, "state", first["ETag"])
        ready.refresh_from_db()

        assert ready.watched_until is not None
        assert ready.watched_until > timezone.now() + timedelta(seconds=15)


def test_a_watched_minute_costs_few_requests_and_kibibytes(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    """Ask as static/portal.js does: after `data-live` seconds, 1.5 times later after each 304, up to 10 s."""
    client = client_for(cast.viewer)
    page = client.get(address(ready)).content.decode()
    blocks = re.findall(r'id="([\w-]+)"[^>]*? data-live="(\d+)"', page)
    requests, size = 0, 0

    for target, live in blocks:
        pace, now, tag = float(live), float(live), page_tag(page, target)
        while now < 60:
            if requests == 3:
                Deployment.objects.update(running_replicas=F("running_replicas") + 1)
            answer = poll(client, address(ready), target, tag)
            requests += 1
            size += len(answer.content) + sum(len(name) + len(value) + 4 for name, value in answer.headers.items())
            is_same = answer.status_code == 304
            tag = answer["ETag"]
            pace = min(pace * 1.5, max(float(live), 10)) if is_same else float(live)
            now += pace

    assert len(blocks) == 1
    assert requests <= 12
    assert size <= 30 * 1024


def page_tag(page: str, target: str) -> str:
    found = re.search(rf'id="{target}"[^>]*? data-tag="([^"]+)"', page)
    return html.unescape(found[1]) if found else ""
