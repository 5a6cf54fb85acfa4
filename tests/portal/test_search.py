"""The search of the palette and its page: what is found, by whom, and at what cost."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.portal.isolation_table import HTMX
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Kind
from upgrades.rollback_plan import PREVIOUS

pytestmark = pytest.mark.django_db
SignIn = Callable[[User], Client]
SEARCH = "/o/acme/search/"


def labels(response: Any) -> list[str]:
    """Return what was found as `kind: label`, in order."""
    found = re.findall(r'data-kind="([^"]+)">([^<]+)', response.content.decode())
    return [f"{kind}: {label.strip()}" for kind, label in found]


def search(client: Client, q: str) -> list[str]:
    return labels(client.get(SEARCH, {"q": q}, headers=HTMX))


def test_search_finds_by_name_id_version_status(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    failed = make_deployment(cast, make_agent(cast, "Triage agent"), "failed", version="v9.1")
    make_deployment(cast, make_agent(cast, "Support agent"), version="v9.2")
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="agent", version="v9.9.1")
    found = f"Upgrade, {upgrade.get_status_display().lower()}: Agent service to v9.9.1"

    assert search(client, "TRIAGE") == ["Agent: Triage agent", "Deployment, failed: Triage agent"]
    assert search(client, "triage failed") == ["Deployment, failed: Triage agent"]
    assert search(client, str(failed.pk)[4:13]) == ["Deployment, failed: Triage agent"]
    assert search(client, str(failed.pk)) == ["Deployment, failed: Triage agent"]
    assert search(client, "v9.2") == ["Deployment, ready: Support agent"]
    assert search(client, "9.9.1") == [found]
    assert search(client, upgrade.upgrade_id[10:]) == [found]
    assert search(client, "triage ready") == search(client, "%") == search(client, "\x00") == []


def test_search_finds_an_upgrade_by_what_its_page_says(cast: Cast, client_for: SignIn) -> None:
    """By the version that it rolled to, also if `latest` or `previous` was requested, with the title of its page."""
    client = client_for(cast.viewer)
    latest = make_upgrade(cast.acme, by=cast.operator, target="all")
    latest.rollouts.update(to_version="v9.9.1")
    back = make_upgrade(cast.acme, by=cast.operator, target="all", kind=Kind.ROLLBACK, version=PREVIOUS)
    back.rollouts.update(to_version="v9.9.0")
    mixed = make_upgrade(cast.acme, by=cast.operator, target="all", version="latest")
    mixed.rollouts.filter(service="agent").update(to_version="v7.0.1")
    mixed.rollouts.exclude(service="agent").update(to_version="v7.0.0")
    digest = make_upgrade(cast.acme, by=cast.operator, target="agent", version=f"sha256:{'5f' * 32}")

    for upgrade, q, title in [
        (latest, "v9.9.1", "All three to v9.9.1"),
        (back, "rollback v9.9.0", "Rollback of all three to v9.9.0"),
        (mixed, "v7.0.0", "All three to latest"),
        (digest, "5f5f", "Agent service to sha256:5f5f5f5f5f5f"),
        (digest, digest.upgrade_id, "Agent service to sha256:5f5f5f5f5f5f"),
    ]:
        page = client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
        assert [label.partition(": ")[2] for label in search(client, q)] == [title]
        assert f'data-heading="{title}"' in page


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("stop tri", ["Action: Stop Triage agent"]),
        ("restart", []),
        ("deploy tri", ["Action: Deploy Triage agent"]),
        ("create", ["Action: Create an agent"]),
        ("member", []),
        ("orchestrator", ["Action: Upgrade the orchestrator"]),
    ],
)
def test_search_offers_what_the_role_may_do(cast: Cast, client_for: SignIn, q: str, expected: list[str]) -> None:
    make_deployment(cast, make_agent(cast, "Triage agent"))

    assert search(client_for(cast.operator), q) == expected
    assert search(client_for(cast.viewer), q) == []


def test_search_stays_in_the_organization(cast: Cast, client_for: SignIn) -> None:
    foreign = make_deployment(cast, make_agent(cast, "Foreign", organization=cast.globex))
    upgrade = make_upgrade(cast.globex, by=cast.outsider, target="agent")
    client = client_for(cast.consultant)  # a member of both

    for q in ("foreign", str(foreign.pk), upgrade.upgrade_id):
        assert search(client, q) == []
        assert labels(client.get("/o/globex/search/", {"q": q})) != []


def test_search_costs_two_statements(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    with CaptureQueriesContext(connection) as without:
        search(client, "")
    with CaptureQueriesContext(connection) as captured:
        search(client, "stop abcdef01")

    assert len(captured) - len(without) == 2
