"""ETag, 304 and Link of JSON reads."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.api import reads as deployment_reads
from deployments.events import record_event
from deployments.models import Agent
from deployments.states import EventType
from portal.models import Organization, Scope, User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.portal.isolation_table import TENANT, get_address, make_place
from tests.portal.test_api_tokens import bearer, make_token
from tests.upgrades.conftest import make_upgrade
from upgrades.api import reads as upgrade_reads
from upgrades.checks.matrix import open_matrix
from upgrades.models import Decision, Upgrade, UpgradeCheck
from upgrades.states import Status

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

UNSEEN = import_module("upgrades.migrations.0027_revisions").UNSEEN
DEPLOYMENT_UNSEEN = import_module("deployments.migrations.0022_revision").UNSEEN


def ask(client: Client, path: str, tag: str) -> Any:
    return client.get(path, headers={"If-None-Match": tag})


@pytest.fixture
def agent(cast: Cast) -> Agent:
    return make_agent(cast)


@pytest.fixture
def reads(cast: Cast) -> list[str]:
    """Return a read of each kind: lists and records that PostgreSQL makes, and one that REST framework renders."""
    deployment = make_deployment(cast, make_agent(cast))
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.SUCCESS])
    path = f"/api/v1/deployments/upgrade/{upgrade.upgrade_id}"
    return [
        DEPLOYMENTS,
        f"{DEPLOYMENTS}/{deployment.pk}",
        path,
        f"{path}/events",
        "/api/v1/auth/session",
        "/api/schema",
    ]


def test_an_unchanged_read_is_confirmed_without_body(cast: Cast, client_for: SignIn, reads: list[str]) -> None:
    client = client_for(cast.viewer)

    for path in reads:
        first = client.get(path)
        again = ask(client, path, first["ETag"])

        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
        assert again["ETag"] == first["ETag"]
        assert {"Cookie", "Authorization", "X-Organization"} <= {*again["Vary"].replace(" ", "").split(",")}
        assert ask(client, path, '"other"').status_code == 200
        assert ask(client, path, f'"other", {first["ETag"].removeprefix("W/")}').status_code == 304
        assert client.head(path)["ETag"] == first["ETag"]


def test_each_read_is_confirmed_also_by_head_and_upper_case(
    cast: Cast, platform: LocalAws, client_for: SignIn, subtests: Any
) -> None:
    """Pre-flight and logs are left out: they say when they were read, and each reading is another answer."""
    place, client = make_place(cast, cast.acme), client_for(cast.viewer)
    paths = [get_address(row, place) for row in TENANT if row.is_api and row.get]

    for path in [each for each in paths if not each.endswith(("/preflight", "/logs"))]:
        with subtests.test(path):
            first = client.get(path, headers={"X-Organization": place.slug})
            known = {"X-Organization": place.slug, "If-None-Match": first["ETag"]}
            upper = UUID.sub(lambda found: found[0].upper(), path)

            answers = [
                client.get(path, headers=known),
                client.head(path, headers=known),
                client.get(upper, headers=known),
            ]

            assert first.status_code == 200
            assert [(each.status_code, each["ETag"]) for each in answers] == [(304, first["ETag"])] * 3
            assert client.head(path, headers={"X-Organization": place.slug})["ETag"] == first["ETag"]


def test_a_change_or_another_role_has_another_tag(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployment.pk}"
    tag = client.get(path)["ETag"]
    type(deployment).objects.filter(pk=deployment.pk).update(running_replicas=7)

    assert ask(client, path, tag).json()["running_replicas"] == 7
    assert Client().get(path, headers={"If-None-Match": tag}).status_code == 401
    assert ask(client_for(cast.outsider), path, tag).status_code == 404


CHANGES: dict[str, Callable[[Upgrade], object]] = {
    "upgrade": lambda _: Upgrade.objects.update(reason="OPS-413"),
    "rollout": lambda upgrade: upgrade.rollouts.update(target_running=2),
    "time of the last look": lambda upgrade: upgrade.rollouts.update(last_checked_at=timezone.now()),
    "check": lambda _: UpgradeCheck.objects.update(status="pass"),
    "decision": lambda _: Decision.objects.update(ended_at=timezone.now()),
    "organization": lambda _: Organization.objects.filter(slug="acme").update(slug="acme-2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_an_upgrade_is_seen(cast: Cast, client_for: SignIn, change: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    open_matrix(upgrade)
    made = {"decided_by": cast.admin, "decided_by_email": cast.admin.email, "action": "continue", "hook_id": "earlier"}
    Decision.objects.create(organization=cast.acme, rollout=upgrade.rollouts.get(), **made)
    client, path = client_for(cast.viewer), f"/api/v1/deployments/upgrade/{upgrade.upgrade_id}"
    first = client.get(path)

    CHANGES[change](upgrade)

    again = ask(client, path, first["ETag"])
    assert (again.status_code, again.json() != first.json()) == (200, True)


def test_a_record_shows_only_columns_that_count_a_revision() -> None:
    """Columns that count none decide no tag. The tag of an upgrade names the one of them that its record shows."""
    shown = {"rollout": upgrade_reads.SERVICE, "upgradecheck": upgrade_reads.CHECK, "decision": upgrade_reads.DECISION}
    shown["upgrade"] = upgrade_reads.upgrade_fields({})
    unseen = {name: set(columns) for name, (_, columns) in UNSEEN.items()}

    assert {each for name, fields in shown.items() for each in fields if each in unseen[name]} == {"last_checked_at"}
    assert set(deployment_reads.DEPLOYMENT) & set(DEPLOYMENT_UNSEEN) == set()


def test_an_agents_new_name_and_an_event_are_seen(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployment.pk}"
    tag = client.get(path)["ETag"]

    Agent.objects.update(name="Renamed")
    renamed = ask(client, path, tag)
    record_event(deployment, EventType.RUNNING, actor="system")
    after = ask(client, path, renamed["ETag"])

    assert (renamed.json()["agent_name"], after.json()["events"][0]["event_type"]) == ("Renamed", "deploy.running")


def test_a_304_costs_no_more_statements(
    cast: Cast, client_for: SignIn, reads: list[str], django_assert_max_num_queries: Any
) -> None:
    client = client_for(cast.viewer)

    for path in reads[:4]:
        tag = client.get(path)["ETag"]
        with django_assert_max_num_queries(2):
            assert ask(client, path, tag).status_code == 304


def test_what_runs_says_on_304_when_to_ask_again(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    client, path = client_for(cast.viewer), f"/api/v1/deployments/upgrade/{upgrade.upgrade_id}"

    answer = ask(client, path, client.get(path)["ETag"])

    assert (answer.status_code, answer["Retry-After"]) == (304, "2")


def test_only_clients_with_a_token_may_keep_answers(cast: Cast, client_for: SignIn) -> None:
    make_token(cast.viewer, cast.acme, Scope.READ)

    assert bearer().get(DEPLOYMENTS)["Cache-Control"] == "private, no-cache"
    assert client_for(cast.viewer).get(DEPLOYMENTS)["Cache-Control"] == "no-store"
    assert "ETag" not in bearer().get(f"{DEPLOYMENTS}?limit=0")


def test_links_lead_through_a_list_and_back(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    made = {str(make_deployment(cast, agent).pk) for _ in range(5)}
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}?limit=2&agent_id={agent.pk}"
    seen: list[str] = []
    links: dict[str, str] = {"next": path}

    while "next" in links:
        answer = client.get(links["next"])
        links = read_links(answer)
        seen += [item["id"] for item in answer.json()["items"]]

    assert set(seen) == made
    assert len(seen) == 5
    assert (answer.json()["skip"], links["last"].endswith("skip=4&limit=2")) == (4, True)
    assert client.get(links["prev"]).json()["skip"] == 2
    assert read_links(client.get(links["first"])).keys() == {"first", "next", "last"}
    assert all(f"agent_id={agent.pk}" in each for each in links.values())


def test_beyond_the_end_prev_leads_to_the_last_page(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    for _ in range(5):
        make_deployment(cast, agent)

    links = read_links(client_for(cast.viewer).get(f"{DEPLOYMENTS}?skip=90&limit=2"))

    assert links.keys() == {"first", "prev", "last"}
    assert links["prev"] == links["last"]


def read_links(answer: Any) -> dict[str, str]:
    parts = [each.split("; rel=") for each in answer["Link"].split(", ")]
    return {name.strip('"'): address.strip("<>") for address, name in parts}
