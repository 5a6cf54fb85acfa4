"""The confirmation page of a command on one deployment, and the form that deploys an agent."""

import re
from collections.abc import Callable

import pytest
from django.test import Client

from deployments.models import Agent, Deployment
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent

SignedIn = Callable[[User], Client]
NEW = "/o/acme/deployments/new"
HTMX = {"HX-Request": "true", "HX-Target": "act"}


def address(deployment: Deployment, command: str = "") -> str:
    return f"/o/acme/deployments/{deployment.pk}/{command}"


@pytest.fixture
def ready(deployment: Deployment) -> Deployment:
    Deployment.objects.update(status="ready", running_replicas=2)
    deployment.refresh_from_db()
    return deployment


def test_confirmation_shows_effects_and_how_to_undo(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    page = client_for(cast.operator).get(address(ready, "stop")).content.decode()

    assert "Stop Support agent?" in page
    assert "ECS stops its 2 running tasks" in page
    assert "To undo this, restart it." in page
    assert "Keep it running" in page
    assert 'data-environment="production"' in page


def test_scale_through_the_page(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    sent = {"replicas": "3", "idempotency_key": "k1"}

    response = client_for(cast.operator).post(address(ready, "scale"), sent)

    ready.refresh_from_db()
    assert (response.status_code, response["Location"], ready.replicas) == (302, address(ready), 3)


def test_scale_as_a_part_of_the_page(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    sent = {"replicas": "3", "idempotency_key": "k1"}

    response = client_for(cast.operator).post(address(ready, "scale"), sent, headers=HTMX)

    assert "Scale requested: Support agent to 3." in response.content.decode()
    assert "<html" not in response.content.decode()
    assert (response["HX-Trigger"], response["HX-Part"]) == ("changed", "act")


def test_double_click_acts_once(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client, sent = client_for(cast.operator), {"replicas": "3", "idempotency_key": "k1"}

    answers = [client.post(address(ready, "scale"), sent).status_code for _ in range(2)]

    assert answers == [302, 302]
    assert ready.events.filter(event_type="scale").count() == 1


@pytest.mark.parametrize("replicas", ["0", "11", "-1", "many", ""])
def test_replica_bounds_show_at_their_field(cast: Cast, client_for: SignedIn, ready: Deployment, replicas: str) -> None:
    sent = {"replicas": replicas, "idempotency_key": "k1"}

    response = client_for(cast.operator).post(address(ready, "scale"), sent, headers=HTMX)

    ready.refresh_from_db()
    assert (response.status_code, ready.replicas, response["HX-Part"]) == (422, 2, "act")
    assert 'class="field-error"' in response.content.decode()


def test_a_form_without_its_key_comes_back_with_one(cast: Cast, ready: Deployment, client_for: SignedIn) -> None:
    client = client_for(cast.operator)

    refused = client.post(address(ready, "scale"), {"replicas": "3"})
    text = refused.content.decode()

    assert refused.status_code == 422
    assert "The form was sent without its key. A new key was added: send the form again." in text
    assert re.search(r'name="idempotency_key" value="[0-9a-f]{32,}"', text)


def test_kill_needs_the_name_typed(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.operator)
    wrong = client.post(address(ready, "kill"), {"confirmation": "support", "idempotency_key": "k1"})
    ready.refresh_from_db()
    status_before = ready.status
    right = client.post(address(ready, "kill"), {"confirmation": "Support agent", "idempotency_key": "k1"})

    ready.refresh_from_db()
    assert (wrong.status_code, status_before) == (422, "ready")
    assert (right.status_code, ready.status) == (302, "killed")


def test_impossible_command_says_why_and_changes_nothing(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    client = client_for(cast.operator)

    page = client.get(address(ready, "restart"))
    sent = client.post(address(ready, "restart"), {"idempotency_key": "k1"}, headers=HTMX)

    assert "This is not possible now. Can only restart stopped or failed deployments." in page.content.decode()
    assert (sent.status_code, sent["HX-Part"]) == (422, "act")
    assert "Nothing was changed. Can only restart stopped or failed deployments" in sent.content.decode()
    assert not ready.events.filter(event_type="restart").exists()


def test_unknown_command_is_404(cast: Cast, client_for: SignedIn, ready: Deployment) -> None:
    assert client_for(cast.operator).get(address(ready, "explode")).status_code == 404


@pytest.mark.parametrize("command", ["scale", "stop", "kill"])
def test_viewer_sees_why_not_and_cannot(cast: Cast, client_for: SignedIn, ready: Deployment, command: str) -> None:
    client = client_for(cast.viewer)
    sent = {"replicas": "3", "confirmation": "Support agent", "idempotency_key": "k1"}

    page = client.get(address(ready, command)).content.decode()
    response = client.post(address(ready, command), sent)

    ready.refresh_from_db()
    assert "Your role is viewer: this needs operator." in page
    assert (response.status_code, ready.status, ready.replicas) == (403, "ready", 2)
    assert list(ready.events.values_list("event_type", flat=True)) == ["create"]


def test_sending_the_form_twice_deploys_once(cast: Cast, client_for: SignedIn, agent: Agent) -> None:
    client = client_for(cast.operator)
    assert f'value="{agent.pk}" selected' in client.get(f"{NEW}?agent={agent.pk}").content.decode()
    sent = {"agent": str(agent.pk), "replicas": "2", "version": "v1.5.0", "idempotency_key": "k1"}

    answers = {client.post(NEW, sent)["Location"] for _ in range(2)}

    deployment = Deployment.objects.get()
    assert answers == {address(deployment)}
    assert (deployment.replicas, deployment.version) == (2, "v1.5.0")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("replicas", "11", "Must be 1 to 10, the limit for Acme Robotics."),
        ("version", "no tag!", "is not a valid image tag"),
        ("agent", "", "This field is required."),
    ],
)
def test_refused_form_keeps_what_was_typed(
    cast: Cast, client_for: SignedIn, agent: Agent, field: str, value: str, said: str
) -> None:
    sent = {"agent": str(agent.pk), "replicas": "2", "version": "v9", "idempotency_key": "k1"} | {field: value}

    response = client_for(cast.operator).post(NEW, sent)

    assert response.status_code == 422
    assert said in response.content.decode()
    assert "Nothing was deployed." in response.content.decode()
    assert not Deployment.objects.exists()


def test_foreign_agent_cannot_be_chosen(cast: Cast, client_for: SignedIn) -> None:
    foreign = make_agent(cast, organization=cast.globex)

    response = client_for(cast.operator).post(NEW, {"agent": str(foreign.pk), "replicas": "1", "idempotency_key": "k"})

    assert (response.status_code, Deployment.objects.count()) == (422, 0)


def test_viewer_cannot_deploy(cast: Cast, client_for: SignedIn, agent: Agent) -> None:
    client = client_for(cast.viewer)

    page = client.get(NEW).content.decode()
    response = client.post(NEW, {"agent": str(agent.pk), "replicas": "1", "idempotency_key": "k1"})

    assert "You can view this form but not deploy. Your role is viewer: this needs operator." in page
    assert (response.status_code, Deployment.objects.count()) == (403, 0)


def test_without_a_cluster_the_page_says_so(cast: Cast, client_for: SignedIn) -> None:
    assert "has no ECS cluster" in client_for(cast.newcomer).get("/o/initech/deployments/new").content.decode()
