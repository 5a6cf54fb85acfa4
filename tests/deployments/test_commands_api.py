"""Create, scale, stop, restart and kill through the API: allowed statuses, permissions, bounds and repetition."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.models import Agent, Deployment
from portal.models import AuditEvent, Organization, User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, assert_refused, history, make_agent, make_deployment, send_json

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]

RECORD = {
    "id",
    "agent_id",
    "agent_name",
    "organization",
    "status",
    "version",
    "replicas",
    "running_replicas",
    "node_id",
    "started_at",
    "ended_at",
    "error_message",
    "created_at",
    "events",
}
STATUSES = ["deploying", "running", "ready", "stopped", "failed", "killed"]


@pytest.fixture
def client(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.operator)


def act(client: Client, deployment: Deployment, command: str, body: Any = None, **headers: str) -> Any:
    return send_json(client, "post", f"{DEPLOYMENTS}/{deployment.pk}/{command}", body, **headers)


# --- create ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/deployments", DEPLOYMENTS])
def test_create_answers_the_full_record(client: Client, agent: Agent, path: str) -> None:
    response = send_json(client, "post", path, {"agent_id": str(agent.pk)})

    record = response.json()
    assert response.status_code == 201
    assert set(record) == RECORD
    assert response.headers["Location"] == f"{DEPLOYMENTS}/{record['id']}"
    assert (record["agent_id"], record["status"], record["replicas"]) == (str(agent.pk), "deploying", 1)
    assert (record["node_id"], record["ended_at"], record["error_message"]) == (None, None, None)
    assert record["started_at"].endswith("Z")
    (event,) = record["events"]
    assert (event["event_type"], event["status"], event["actor"]) == ("create", "deploying", "operator@example.com")
    assert AuditEvent.objects.filter(kind="deployment.created", subject=record["id"]).exists()


def test_the_activity_names_the_agent_of_a_change(client: Client, deployment: Deployment) -> None:
    text = client.get("/o/acme/activity/?kind=deployment.created").content.decode()

    link = f'<a href="/o/acme/deployments/{deployment.pk}/" title="{deployment.pk}">{deployment.agent.name}</a>'
    assert link in " ".join(text.split())
    assert f'<span class="small-id mono">{deployment.service_name}</span>' in text


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_deploy_of_an_agent_answers_its_id_and_status(client: Client, agent: Agent, prefix: str) -> None:
    response = client.generic("POST", f"{prefix}/agents/{agent.pk}/deploy")

    deployment = Deployment.objects.get()
    assert response.status_code == 201
    assert response.json() == {"deployment_id": str(deployment.pk), "status": "deploying"}
    assert (deployment.replicas, deployment.created_by.email) == (1, "operator@example.com")


def test_a_version_replaces_the_agents_tag(client: Client, agent: Agent) -> None:
    body = {"agent_id": str(agent.pk), "replicas": 3, "version": "v2.0.0"}

    record = send_json(client, "post", DEPLOYMENTS, body).json()

    assert (record["version"], record["replicas"]) == ("v2.0.0", 3)
    assert Deployment.objects.get().image.endswith("/support-agent:v2.0.0")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "agent_id"),
        ({"agent_id": "x"}, "agent_id"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": 11}, "replicas"),
        ({"replicas": "2"}, "replicas"),
        ({"replicas": True}, "replicas"),
        ({"version": "a b"}, "version"),
        ({"version": 2}, "version"),
        ({"status": "ready"}, "status"),
    ],
)
def test_bad_input_is_named(client: Client, agent: Agent, body: dict[str, Any], field: str) -> None:
    asked = body if field == "agent_id" else {"agent_id": str(agent.pk)} | body

    refused = assert_refused(send_json(client, "post", DEPLOYMENTS, asked), 400, "invalid")

    assert set(refused["errors"]) == {field}
    assert not Deployment.objects.exists()


def test_without_a_cluster_it_is_refused(cast: Cast, client_for: SignIn) -> None:
    agent = Agent.objects.create(organization=cast.initech, name="A", image="a:1", cpu=256, memory=512)

    response = client_for(cast.newcomer).generic("POST", f"/agents/{agent.pk}/deploy")

    assert_refused(response, 400, "no_cluster")


def test_an_agent_of_another_organization_is_404(cast: Cast, client: Client) -> None:
    theirs = make_agent(cast, organization=cast.globex)

    assert_refused(send_json(client, "post", DEPLOYMENTS, {"agent_id": str(theirs.pk)}), 404, "not_found")
    assert_refused(client.generic("POST", f"/agents/{theirs.pk}/deploy"), 404, "not_found")
    assert_refused(client.get(DEPLOYMENTS, {"agent_id": str(theirs.pk)}), 404, "not_found")


def test_several_memberships_need_the_header(cast: Cast, client_for: SignIn, agent: Agent) -> None:
    consultant = client_for(cast.consultant)
    body = {"agent_id": str(agent.pk)}

    assert_refused(send_json(consultant, "post", DEPLOYMENTS, body), 400, "organization_required")
    assert_refused(send_json(consultant, "post", DEPLOYMENTS, body, X_Organization="globex"), 404, "not_found")
    assert send_json(consultant, "post", DEPLOYMENTS, body, X_Organization="acme").status_code == 201


# --- permissions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["restart", "stop", "scale", "delete"])
@pytest.mark.parametrize(("person", "status"), [("viewer", 403), ("outsider", 404), ("stranger", 404), (None, 401)])
def test_people_without_permission_change_nothing(
    cast: Cast, agent: Agent, client_for: SignIn, command: str, person: str | None, status: int
) -> None:
    deployment = make_deployment(cast, agent, "stopped" if command == "restart" else "ready")
    client = client_for(getattr(cast, person)) if person else Client()

    if command == "delete":
        response = client.delete(f"{DEPLOYMENTS}/{deployment.pk}")
    else:
        response = act(client, deployment, command, {"replicas": 3} if command == "scale" else None)

    assert response.status_code == status
    before = Deployment.objects.get(pk=deployment.pk)
    assert (before.status, before.replicas, before.requested_generation) == (deployment.status, 2, 1)
    assert history(before) == [("create", "deploying")]


# --- allowed statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
def test_scale_only_running_deployments(cast: Cast, client: Client, agent: Agent, status: str) -> None:
    deployment = make_deployment(cast, agent, status)

    response = act(client, deployment, "scale", {"replicas": 3})

    if status in ("running", "ready"):
        assert response.status_code == 200
        assert (response.json()["replicas"], response.json()["status"]) == (3, status)
        assert history(deployment)[-1] == ("scale", status)
    else:
        refused = assert_refused(response, 400, "not_running")
        assert refused["detail"] == "Can only scale running deployments"
        assert history(deployment) == [("create", "deploying")]


@pytest.mark.parametrize("status", STATUSES)
def test_restart_only_stopped_or_failed_deployments(cast: Cast, client: Client, agent: Agent, status: str) -> None:
    deployment = make_deployment(cast, agent, status, error_message="why")

    response = act(client, deployment, "restart")

    if status in ("stopped", "failed"):
        record = response.json()
        assert (response.status_code, record["status"], record["error_message"]) == (200, "deploying", None)
        assert history(deployment)[-1] == ("restart", "deploying")
    else:
        refused = assert_refused(response, 400, "not_restartable")
        assert refused["detail"] == "Can only restart stopped or failed deployments"
        assert history(deployment) == [("create", "deploying")]


@pytest.mark.parametrize("status", STATUSES)
def test_stop_only_deploying_running_or_ready_deployments(
    cast: Cast, client: Client, agent: Agent, status: str
) -> None:
    deployment = make_deployment(cast, agent, status)

    response = act(client, deployment, "stop")

    deployment.refresh_from_db()
    if status in ("deploying", "running", "ready"):
        assert (response.status_code, response.json()["status"]) == (200, status)  # ECS has not reported it yet
        assert deployment.is_stopping
        assert history(deployment)[-1] == ("stop", status)
    else:
        refused = assert_refused(response, 400, "not_running")
        assert refused["detail"] == "Can only stop deploying, running or ready deployments"


@pytest.mark.parametrize("status", STATUSES)
def test_kill_from_any_status_and_again(cast: Cast, client: Client, agent: Agent, status: str) -> None:
    deployment = make_deployment(cast, agent, status)
    kills = 0 if status == "killed" else 1

    answers = [client.delete(f"{DEPLOYMENTS}/{deployment.pk}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert answers[0].content == b""
    deployment.refresh_from_db()
    assert (deployment.status, deployment.wanted) == ("killed", "gone")
    assert [event for event, _ in history(deployment)].count("kill") == kills
    assert bool(deployment.ended_at) == bool(kills)


def test_while_it_stops_it_neither_scales_nor_restarts(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    act(client, deployment, "stop")

    assert_refused(act(client, deployment, "scale", {"replicas": 3}), 400, "not_running")
    assert_refused(act(client, deployment, "restart"), 400, "not_restartable")


def test_the_agent_is_stopped_without_a_live_deployment(cast: Cast, client: Client, agent: Agent) -> None:
    first, second = make_deployment(cast, agent), make_deployment(cast, agent)

    def status() -> str:
        return str(client.get(f"/api/v1/agents/{agent.pk}").json()["status"])

    assert status() == "running"
    client.delete(f"{DEPLOYMENTS}/{first.pk}")
    assert status() == "running"
    client.delete(f"{DEPLOYMENTS}/{second.pk}")
    assert status() == "stopped"


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [0, -5, 11, 100_000, 2.5, "3", None, True])
def test_scale_is_bounded(cast: Cast, client: Client, agent: Agent, replicas: Any) -> None:
    deployment = make_deployment(cast, agent)

    refused = assert_refused(act(client, deployment, "scale", {"replicas": replicas}), 400, "invalid")

    assert set(refused["errors"]) == {"replicas"}
    assert history(deployment) == [("create", "deploying")]


def test_the_limit_is_the_organizations(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_replica_limit=20)

    assert act(client, deployment, "scale", {"replicas": 20}).status_code == 200
    assert_refused(act(client, deployment, "scale", {"replicas": 21}), 400, "invalid")


@pytest.mark.parametrize("command", ["restart", "stop", "scale"])
def test_unknown_fields_and_keys_are_named(cast: Cast, client: Client, agent: Agent, command: str) -> None:
    deployment = make_deployment(cast, agent)

    body = assert_refused(act(client, deployment, command, {"replicas": 3, "force": True}), 400, "invalid")
    query = assert_refused(act(client, deployment, f"{command}?force=1", {"replicas": 3}), 400, "invalid")

    assert "force" in body["errors"]
    assert set(query["errors"]) == {"force"}


# --- sent twice -----------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_deployment(client: Client, agent: Agent) -> None:
    body = {"agent_id": str(agent.pk), "replicas": 2}

    first, second = (send_json(client, "post", DEPLOYMENTS, body, Idempotency_Key="k1") for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert Deployment.objects.count() == 1
    other = send_json(client, "post", DEPLOYMENTS, body | {"replicas": 3}, Idempotency_Key="k1")
    assert_refused(other, 422, "idempotency_mismatch")


def test_a_key_belongs_to_one_person(cast: Cast, client: Client, client_for: SignIn, agent: Agent) -> None:
    """The same key of another member is another request, whatever its body."""
    body = {"agent_id": str(agent.pk), "replicas": 2}
    mine = send_json(client, "post", DEPLOYMENTS, body, Idempotency_Key="k1")
    theirs = client_for(cast.admin)

    same, other = (
        send_json(theirs, "post", DEPLOYMENTS, body | {"replicas": replicas}, Idempotency_Key=key)
        for replicas, key in ((2, "k1"), (3, "k2"))
    )
    again = send_json(client, "post", DEPLOYMENTS, body | {"replicas": 4}, Idempotency_Key="k2")

    assert [answer.status_code for answer in (mine, same, other, again)] == [201] * 4
    assert len({answer.json()["id"] for answer in (mine, same, other, again)}) == 4
    # Each of them gets their own again, not what the other one created with this key.
    repeated = [send_json(person, "post", DEPLOYMENTS, body, Idempotency_Key="k1") for person in (theirs, client)]
    assert [answer.json()["id"] for answer in repeated] == [same.json()["id"], mine.json()["id"]]


def test_deploy_twice_with_a_key_is_one_deployment(client: Client, agent: Agent) -> None:
    path = f"/agents/{agent.pk}/deploy"
    answers = [client.generic("POST", path, headers={"Idempotency-Key": "k"}).json() for _ in range(2)]

    assert answers[0] == answers[1]
    assert Deployment.objects.count() == 1


@pytest.mark.parametrize(
    ("command", "status", "body"),
    [("scale", "ready", {"replicas": 3}), ("stop", "ready", None), ("restart", "failed", None)],
)
def test_a_command_sent_twice_is_one_event(
    cast: Cast, client: Client, agent: Agent, command: str, status: str, body: Any
) -> None:
    deployment = make_deployment(cast, agent, status)

    answers = [act(client, deployment, command, body, Idempotency_Key="once") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [event for event, _ in history(deployment)] == ["create", command]
    deployment.refresh_from_db()
    assert deployment.requested_generation == 2
    assert_refused(
        act(client, deployment, "stop" if body else "scale", None if body else {"replicas": 4}, Idempotency_Key="once"),
        422,
        "idempotency_mismatch",
    )


def test_a_double_click_without_a_key_is_one_event(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)

    for _ in range(2):
        assert act(client, deployment, "scale", {"replicas": 3}).status_code == 200
    for _ in range(2):
        assert act(client, deployment, "stop").status_code == 200

    assert [event for event, _ in history(deployment)] == ["create", "scale", "stop"]


def test_a_kill_takes_no_fields(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent, "ready")

    response = send_json(client, "delete", f"{DEPLOYMENTS}/{deployment.pk}", {"force": True})

    assert "force" in assert_refused(response, 400, "invalid")["errors"]
    assert Deployment.objects.get(pk=deployment.pk).status == "ready"
