"""ETag, 304 and Link of JSON reads."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.models import Agent
from portal.models import Scope, User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, make_agent, make_deployment
from tests.portal.test_api_tokens import bearer, make_token
from tests.upgrades.conftest import make_upgrade
from upgrades.states import Status

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


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


def test_a_change_or_another_role_has_another_tag(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployment.pk}"
    tag = client.get(path)["ETag"]
    type(deployment).objects.filter(pk=deployment.pk).update(running_replicas=7)

    assert ask(client, path, tag).json()["running_replicas"] == 7
    assert Client().get(path, headers={"If-None-Match": tag}).status_code == 401
    assert ask(client_for(cast.outsider), path, tag).status_code == 404


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


def read_links(answer: Any) -> dict[str, str]:
    parts = [each.split("; rel=") for each in answer["Link"].split(", ")]
    return {name.strip('"'): address.strip("<>") for address, name in parts}
