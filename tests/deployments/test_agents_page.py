"""The pages of agents: list, detail, new and edit. Refusals of the command show at their field."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.commands import create_deployment
from deployments.models import Agent
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import IMAGE, make_agent, make_deployment, read_html
from tests.local_aws import LocalAws

SignedIn = Callable[[User], Client]
AGENTS = "/o/acme/agents/"
SECRET = "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/key-Ab12Cd"


@pytest.fixture(autouse=True)
def aws(local_aws: LocalAws) -> None:
    """References to secrets are compared with the account of the portal's own credentials."""


def form(**changed: str) -> dict[str, str]:
    return {
        "name": "Order triage",
        "description": "",
        "image": IMAGE,
        "size": "512/2048",
        "environment": "LOG_LEVEL=info\n# a comment\n\nMODE = fast",
        "secrets": f"API_KEY={SECRET}",
        "idempotency_key": "k1",
    } | changed


def test_create_once_and_read(cast: Cast, client_for: SignedIn) -> None:
    client = client_for(cast.operator)

    addresses = {client.post(f"{AGENTS}new", form())["Location"] for _ in range(2)}

    agent = Agent.objects.get()
    assert addresses == {f"{AGENTS}{agent.pk}/"}
    assert (agent.cpu, agent.memory) == (512, 2048)
    assert agent.environment == {"LOG_LEVEL": "info", "MODE": "fast", "API_KEY": SECRET}
    page = client.get(addresses.pop()).content.decode()
    assert "secret reference" in page
    assert "Not deployed yet." in page


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image": "not an image"}, "is not a valid image reference"),
        ({"environment": "API_TOKEN=hunter2hunter2"}, "is named like a secret but has a plain value"),
        ({"environment": "no equals sign"}, "Line 1 is not NAME=value."),
        ({"environment": "A=1\nA=2"}, "Line 2: A is already set above."),
        ({"secrets": "API_KEY=plain"}, "API_KEY is not an ARN"),
        ({"environment": "API_KEY=x", "secrets": f"API_KEY={SECRET}"}, "also set as a plain variable"),
        ({"size": "256/8192"}, "not one of the available choices"),
        ({"name": ""}, "This field is required."),
    ],
)
def test_refusals_show_at_their_field(cast: Cast, client_for: SignedIn, changed: dict[str, str], said: str) -> None:
    response = client_for(cast.operator).post(f"{AGENTS}new", form(**changed))

    assert response.status_code == 422
    assert said in response.content.decode()
    assert "Nothing was saved." in response.content.decode()
    assert set(response.context["form"].errors) == {"secrets" if "secrets" in changed else next(iter(changed))}
    assert not Agent.objects.exists()


def test_a_value_that_looks_like_a_secret_is_not_named(cast: Cast, client_for: SignedIn) -> None:
    response = client_for(cast.operator).post(f"{AGENTS}new", form(environment="API_TOKEN=hunter2hunter2"))

    errors = response.context["form"].errors.as_text()
    assert "hunter2" not in errors


def test_taken_name_is_refused_at_its_field(cast: Cast, client_for: SignedIn) -> None:
    make_agent(cast, "Order Triage")

    response = client_for(cast.operator).post(f"{AGENTS}new", form())

    assert "already has an agent named Order triage" in response.context["form"].errors["name"][0]


def test_edit_shows_current_values_and_saves(cast: Cast, client_for: SignedIn) -> None:
    agent = make_agent(cast, environment={"LOG_LEVEL": "info", "API_KEY": SECRET})
    client = client_for(cast.operator)

    page = client.get(f"{AGENTS}{agent.pk}/edit").content.decode()
    response = client.post(f"{AGENTS}{agent.pk}/edit", form(name=agent.name, environment="LOG_LEVEL=debug"))

    agent.refresh_from_db()
    assert f"API_KEY={SECRET}" in page
    assert response["Location"] == f"{AGENTS}{agent.pk}/"
    assert agent.environment["LOG_LEVEL"] == "debug"


def test_list_and_detail_show_the_agent(cast: Cast, client_for: SignedIn) -> None:
    agent = make_agent(cast)
    deployment = create_deployment(agent, actor=cast.operator)
    client = client_for(cast.viewer)

    assert agent.name in client.get(AGENTS).content.decode()
    assert f"/o/acme/deployments/{deployment.pk}/" in client.get(f"{AGENTS}{agent.pk}/").content.decode()


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        ([], "Stopped"),
        (["failed", "ready"], "Ready"),
        (["ready", "failed"], "Failed"),
        (["deploying", "ready", "killed"], "Deploying"),
    ],
)
def test_list_and_detail_show_the_worst_status(
    cast: Cast, client_for: SignedIn, statuses: list[str], shown: str
) -> None:
    """An earlier failure no longer counts; the newest one does."""
    agent = make_agent(cast)
    for status in statuses:
        make_deployment(cast, agent, status)
    client = client_for(cast.viewer)

    listed, detail = client.get(AGENTS), client.get(f"{AGENTS}{agent.pk}/")

    assert [each.worst_status.label for each in listed.context["page"].items] == [shown]
    assert detail.context["status"].label == shown


def test_empty_agent_list_offers_to_create_one(cast: Cast, client_for: SignedIn) -> None:
    assert "Create the first agent" in client_for(cast.operator).get(AGENTS).content.decode()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("skip=50", f'No more agents. <a href="{AGENTS}">Back to the newest</a>'),
        ("q=a%26b%3D1&skip=50", f'No more agents. <a href="{AGENTS}?q=a%26b%3D1">Back to the newest</a>'),
        ("q=nobody", f'<a href="{AGENTS}">Show all agents</a>'),
    ],
)
def test_an_empty_list_says_why(cast: Cast, client_for: SignedIn, query: str, said: str) -> None:
    make_agent(cast, "a&b=1")

    text = read_html(client_for(cast.viewer).get(f"{AGENTS}?{query}"))

    assert said in text
    assert "No agents yet" not in text


def test_viewer_sees_why_not_and_cannot(cast: Cast, client_for: SignedIn) -> None:
    agent = make_agent(cast)
    client = client_for(cast.viewer)

    assert "Your role is viewer: this needs operator." in client.get(f"{AGENTS}{agent.pk}/").content.decode()
    assert client.post(f"{AGENTS}new", form()).status_code == 403
    assert client.post(f"{AGENTS}{agent.pk}/edit", form(name="Other")).status_code == 403
    agent.refresh_from_db()
    assert (Agent.objects.count(), agent.name) == (1, "Support agent")


def test_outsider_gets_404(cast: Cast, client_for: SignedIn) -> None:
    agent = make_agent(cast)
    client = client_for(cast.outsider)

    for path in (AGENTS, f"{AGENTS}new", f"{AGENTS}{agent.pk}/", f"/o/globex/agents/{agent.pk}/edit"):
        assert client.get(path).status_code == 404


def test_anonymous_is_sent_to_sign_in(client: Client, cast: Cast) -> None:
    assert client.get(AGENTS)["Location"].startswith("/accounts/login/?next=")


def test_environment_is_escaped(cast: Cast, client_for: SignedIn, settings: Any) -> None:
    agent = make_agent(cast, description="<script>1</script>", environment={"GREETING": "<b>hi</b>"})

    page = client_for(cast.viewer).get(f"{AGENTS}{agent.pk}/").content.decode()

    assert "&lt;script&gt;1" in page
    assert "&lt;b&gt;hi" in page
