"""The list of deployments: filters in the URL, counts, the live fragment, and bulk commands."""

import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from deployments.commands import create_deployment
from deployments.models import Deployment
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, read_html

SignedIn = Callable[[User], Client]
LIST = "/o/acme/deployments/"
BULK = "/o/acme/deployments/bulk"


def make(cast: Cast, name: str, **state: Any) -> Deployment:
    """Create a deployment with a given state. It is not in ECS."""
    deployment = create_deployment(make_agent(cast, name), actor=cast.operator, replicas=2)
    Deployment.objects.filter(pk=deployment.pk).update(**state)
    deployment.refresh_from_db()
    return deployment


@pytest.fixture
def three(cast: Cast) -> dict[str, Deployment]:
    return {status: make(cast, f"Agent {status}", status=status) for status in ("ready", "stopped", "failed")}


def ids(response: Any) -> set[str]:
    return {str(deployment.pk) for deployment in response.context["page"].items}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"ready", "stopped", "failed"}),
        ("?status=failed", {"failed"}),
        ("?q=agent+st", {"stopped"}),
        ("?q=zz", set()),
    ],
)
def test_filters_are_in_the_url(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment], query: str, found: set[str]
) -> None:
    response = client_for(cast.viewer).get(LIST + query)

    assert ids(response) == {str(three[status].pk) for status in found}


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("", "edcba"),
        ("sort=created_at", "abcde"),
        ("sort=agent", "dcaeb"),
        ("sort=agent&status=ready", "dcae"),
        ("sort=agent&q=agent", "dcaeb"),
        ("sort=status", "bedca"),
        ("sort=-replicas", "bedca"),
        ("q=agent+x", "dca"),
    ],
)
def test_every_order_is_total(cast: Cast, client_for: SignedIn, query: str, order: str) -> None:
    last, first = make_agent(cast, "agent y"), make_agent(cast, "Agent X")
    agents = {"a": first, "b": last, "c": first, "d": first, "e": last}
    made = {name: create_deployment(agent, actor=cast.operator, replicas=2) for name, agent in agents.items()}
    Deployment.objects.update(status="ready")
    Deployment.objects.filter(pk=made["b"].pk).update(status="failed", replicas=3)

    items = client_for(cast.viewer).get(f"{LIST}?{query}").context["page"].items

    names = {deployment.pk: name for name, deployment in made.items()}
    assert "".join(names[item.pk] for item in items) == order
    assert walk(client_for(cast.viewer), items[0], query) == [item.pk for item in items]


def walk(client: Client, first: Deployment, query: str) -> list[Any]:
    """Follow the links to the next deployment of the filtered list, and return the ids; backwards they are the same."""
    forth, back = [f"{LIST}{first.pk}/?{urlencode({'list': query or 'all'})}"], list[str]()
    while after := client.get(forth[-1]).context["neighbours"].after:
        forth.append(after)
    here: str | None = forth[-1]
    while here:
        back.append(here)
        here = client.get(here).context["neighbours"].before
    ids = [uuid.UUID(address.split("/")[4]) for address in forth]
    assert [uuid.UUID(address.split("/")[4]) for address in back] == ids[::-1]
    return ids


def test_the_first_link_of_a_row_opens_it_with_filters(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    client = client_for(cast.viewer)
    row = read_html(client.get(f"{LIST}?status=failed")).partition("<tbody>")[2]

    opens = re.findall(r'href="([^"]+)"', row)[:2]
    page = read_html(client.get(opens[0]))

    failed = three["failed"]
    assert opens == [f"{LIST}{failed.pk}/?list=status%3Dfailed", f"/o/acme/agents/{failed.agent_id}/"]
    assert f'<a href="{LIST}?status=failed">Deployments</a>' in page


@pytest.mark.parametrize("query", ["?list=sort%3Dwrong", "?list=%00", "?list=agent%3D1", ""])
def test_a_page_opened_otherwise_has_no_neighbours(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment], query: str
) -> None:
    page = client_for(cast.viewer).get(f"{LIST}{three['ready'].pk}/{query}")

    assert (page.status_code, b'rel="next"' in page.content) == (200, False)


def test_filter_by_agent_and_the_start_of_an_id(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    client, ready = client_for(cast.viewer), three["ready"]

    assert ids(client.get(f"{LIST}?agent={ready.agent_id}")) == {str(ready.pk)}
    assert ids(client.get(f"{LIST}?q={ready.short_id}")) == {str(ready.pk)}


def test_chips_count_and_keep_the_other_filters(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    response = client_for(cast.viewer).get(f"{LIST}?q=agent&status=ready")

    chips = {chip["value"]: chip for chip in response.context["statuses"]}
    assert [chips[value]["count"] for value in ("", "ready", "failed", "killed")] == [3, 1, 1, 0]
    assert chips["failed"]["href"] == f"{LIST}?status=failed&q=agent"
    assert chips["ready"]["is_chosen"]


def test_unknown_filter_is_named_and_not_ignored(cast: Cast, client_for: SignedIn) -> None:
    response = client_for(cast.viewer).get(f"{LIST}?status=nope")

    assert "<p>Status: Select a valid choice. nope is not one of the available choices." in response.content.decode()


def test_an_invalid_filter_keeps_the_others_in_the_form(cast: Cast, client_for: SignedIn) -> None:
    text = read_html(client_for(cast.viewer).get(f"{LIST}?status=nope&q=agent&sort=agent"))

    assert 'name="q" value="agent"' in text
    assert '<option value="agent" selected>' in text


@pytest.mark.parametrize(("query", "back"), [("", ""), ("status=ready&", "?status=ready")])
def test_a_page_beyond_the_end_links_back(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment], query: str, back: str
) -> None:
    text = read_html(client_for(cast.viewer).get(f"{LIST}?{query}skip=50"))

    assert f'No more deployments. <a href="{LIST}{back}">Back to the first page</a>' in text
    assert "No deployments yet" not in text


def test_fragment_polls_fast_only_while_something_changes(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    client = client_for(cast.viewer)
    Deployment.objects.update(observed_generation=1)
    steady = read_html(client.get(f"{LIST}?status=ready", headers={"HX-Request": "true"}))
    Deployment.objects.filter(status="ready").update(status="deploying")
    changing = read_html(client.get(f"{LIST}?status=deploying", headers={"HX-Request": "true"}))

    assert "<html" not in steady
    assert 'data-live="15"' in steady
    assert f'hx-get="{LIST}?status=ready"' in steady
    assert 'data-live="2"' in changing


def test_empty_lists_show_the_next_step(cast: Cast, client_for: SignedIn) -> None:
    client = client_for(cast.operator)
    without_agents = client.get(LIST).content.decode()
    make_agent(cast)

    assert "Create the first agent" in without_agents
    assert "Deploy the first agent" in client.get(LIST).content.decode()
    assert "No deployments match these filters" in client.get(f"{LIST}?q=zz").content.decode()


def test_list_costs_the_same_queries_whatever_its_length(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment], django_assert_max_num_queries: Any
) -> None:
    client = client_for(cast.viewer)
    client.get(LIST)

    with django_assert_max_num_queries(6):
        client.get(LIST)


def test_viewer_sees_the_list_and_why_actions_are_off(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    page = client_for(cast.viewer).get(LIST).content.decode()

    assert "Your role is viewer: this needs operator." in page
    assert 'name="id"' not in page


def test_outsider_gets_404_and_sees_nothing(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    client = client_for(cast.outsider)

    assert client.get(LIST).status_code == 404
    assert client.post(BULK, {"command": "stop"}).status_code == 404
    assert ids(client.get("/o/globex/deployments/")) == set()


def test_anonymous_is_sent_to_sign_in(cast: Cast, client: Client) -> None:
    fragment = client.get(LIST, headers={"HX-Request": "true"})

    assert client.get(LIST)["Location"].startswith("/accounts/login/?next=")
    assert (fragment.status_code, fragment["HX-Redirect"]) == (401, "/accounts/login/")


def test_bulk_acts_where_allowed_and_explains_refusals(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    chosen = [str(deployment.pk) for deployment in three.values()]
    client = client_for(cast.operator)

    asked = client.post(BULK, {"command": "stop", "id": chosen})
    untouched = not Deployment.objects.filter(wanted="stopped").exists()
    response = client.post(BULK, {"command": "stop", "id": chosen, "is_sure": "1"})

    assert (asked.context["bulk"].is_done, untouched) == (False, True)
    assert [row.outcome for row in asked.context["bulk"].rows].count("will") == 1
    rows = {row.deployment.pk: row for row in response.context["bulk"].rows}
    assert rows[three["ready"].pk].outcome == "done"
    refused = rows[three["failed"].pk]
    assert refused.sentence == "Not done. Can only stop deploying, running or ready deployments."
    assert list(Deployment.objects.filter(wanted="stopped")) == [three["ready"]]
    assert response["HX-Trigger"] == "changed"


def test_bulk_kill_must_be_typed(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    client, chosen = client_for(cast.operator), [str(deployment.pk) for deployment in three.values()]

    asked = client.post(BULK, {"command": "kill", "id": chosen})
    wrong = client.post(BULK, {"command": "kill", "id": chosen, "is_sure": "1", "confirmation": "yes"})
    untouched = Deployment.objects.filter(status="killed").count()
    right = client.post(BULK, {"command": "kill", "id": chosen, "is_sure": "1", "confirmation": "kill 3"})

    assert (asked.status_code, wrong.status_code, right.status_code, untouched) == (200, 422, 200, 0)
    assert "Type kill 3 to confirm" in asked.content.decode()
    assert Deployment.objects.filter(status="killed").count() == 3


def test_bulk_of_more_than_three_must_be_typed(cast: Cast, client_for: SignedIn) -> None:
    chosen = [str(make(cast, f"Agent {number}", status="ready").pk) for number in range(4)]

    response = client_for(cast.operator).post(BULK, {"command": "stop", "id": chosen})

    assert "Type stop 4 to confirm" in response.content.decode()
    assert not Deployment.objects.filter(wanted="stopped").exists()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"command": "stop"}, "Select at least one"),
        ({"command": "scale", "id": "x"}, "Choose Restart, Stop or Kill."),
    ],
)
def test_an_invalid_bulk_command_changes_nothing(
    cast: Cast, client_for: SignedIn, sent: dict[str, str], said: str
) -> None:
    response = client_for(cast.operator).post(BULK, sent)

    assert response.status_code == 422
    assert said in response.content.decode()


def test_bulk_of_too_many_is_refused(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    chosen = [str(three["ready"].pk)] * 51

    refused = client_for(cast.operator).post(BULK, {"command": "stop", "id": chosen, "is_sure": "1"})

    assert (refused.status_code, "Select at most 50 deployments" in refused.content.decode()) == (422, True)
    assert not Deployment.objects.filter(wanted="stopped").exists()


def test_bulk_kill_promises_nothing_for_a_killed_one(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    Deployment.objects.filter(pk=three["ready"].pk).update(status="killed")

    asked = client_for(cast.operator).post(BULK, {"command": "kill", "id": [str(three["ready"].pk)]})

    assert "No change. It is already killed." in asked.content.decode()


def test_viewer_cannot_act_in_bulk(cast: Cast, client_for: SignedIn, three: dict[str, Deployment]) -> None:
    response = client_for(cast.viewer).post(BULK, {"command": "stop", "id": str(three["ready"].pk)})

    assert response.status_code == 403
    assert not Deployment.objects.filter(wanted="stopped").exists()


def test_rows_of_other_organizations_are_ignored(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment]
) -> None:
    agent = make_agent(cast, "Foreign", organization=cast.globex)
    foreign = create_deployment(agent, actor=cast.outsider)

    response = client_for(cast.operator).post(BULK, {"command": "stop", "id": [str(foreign.pk), "no-uuid"]})

    assert "Select at least one" in response.content.decode()


def test_overview_counts_deployments_by_status(
    cast: Cast, client_for: SignedIn, three: dict[str, Deployment], platform: Any
) -> None:
    page = client_for(cast.viewer).get("/o/acme/").content.decode()

    assert f'href="{LIST}?status=failed"' in page
