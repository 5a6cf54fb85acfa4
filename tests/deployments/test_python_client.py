"""A Python client of the documented Deployments API (the SDK and command line of MUTX): its requests, as it sends them.

It has a base address and an `Authorization: Bearer` header, sends `skip` and `limit` with every list and no body where it
has nothing to say, and reads members by name.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import requests
from django.conf import settings

from deployments.models import Agent, Deployment
from deployments.states import Status
from portal.models import Scope
from tests.conftest import Cast
from tests.deployments.conftest import Runtime, make_agent
from tests.portal.test_api_tokens import SECRET, make_token

pytestmark = pytest.mark.django_db(transaction=True)

Json = dict[str, Any]


class Caller:
    """A session with a base address."""

    def __init__(self, base: str, **headers: str) -> None:
        self.base, self.session = base, requests.Session()
        self.session.headers.update(headers)

    def send_csrf_token(self) -> None:
        self.session.headers["X-CSRFToken"] = self.session.cookies[settings.CSRF_COOKIE_NAME]

    def get(self, path: str, params: Json | None = None) -> requests.Response:
        return self.session.get(self.base + path, params=params)

    def post(self, path: str, json: Json | None = None) -> requests.Response:
        return self.session.post(self.base + path, json=json)

    def delete(self, path: str) -> requests.Response:
        return self.session.delete(self.base + path)


@pytest.fixture(params=["token", "session"])
def client(request: pytest.FixtureRequest, live_server: Any, cast: Cast) -> Caller:
    """Return the client with a token, or with a session beside a foreign key, which is ignored."""
    base = f"{live_server.url}/api"
    if request.param == "token":
        make_token(cast.operator, cast.acme, Scope.READ, Scope.DEPLOY)
        return Caller(base, Authorization=f"Bearer {SECRET}")
    client = Caller(base, **{"Authorization": "Bearer mutx_live_key", "X-Organization": "acme"})
    client.get("/v1/auth/session")
    client.send_csrf_token()
    client.post("/v1/auth/login", json={"email": cast.operator.email, "password": cast.password}).raise_for_status()
    client.send_csrf_token()
    return client


def read(response: requests.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def read_deployment(data: Json) -> Json:
    """Read a record as the client does: ids, times and events must be as it parses them."""
    UUID(data["id"]), UUID(data["agent_id"])
    assert isinstance(data["replicas"], int)
    for name in ("started_at", "ended_at"):
        assert data[name] is None or datetime.fromisoformat(data[name])
    assert {"node_id", "error_message"} <= data.keys()
    for event in data.get("events", []):
        read_event(event)
    return data


def read_event(data: Json) -> None:
    UUID(data["id"]), UUID(data["deployment_id"]), datetime.fromisoformat(data["created_at"])
    assert {"event_type", "status", "node_id", "error_message"} <= data.keys()


def test_every_method_of_the_document_works(client: Caller, cast: Cast, runtime: Runtime) -> None:
    agent: Agent = make_agent(cast)
    path = "/v1/deployments"

    made = read_deployment(read(client.post(path, json={"agent_id": str(agent.pk), "replicas": 1}), 201))
    assert made["status"] == "deploying"
    started = read(client.post(f"/v1/agents/{agent.pk}/deploy"), 201)
    assert started.keys() == {"deployment_id", "status"}
    row = runtime.run(Deployment.objects.get(pk=made["id"]), "ready")
    listed = read(client.get(path, params={"skip": 0, "limit": 50, "agent_id": str(agent.pk), "status": "ready"}))
    assert [read_deployment(each)["id"] for each in listed["items"]][-1] == made["id"]
    assert read_deployment(read(client.get(f"{path}/{made['id']}")))["status"] == "ready"
    history = {"skip": 0, "limit": 100, "event_type": "create", "status": "deploying"}
    events = read(client.get(f"{path}/{made['id']}/events", params=history))
    assert (events["total"], events["event_type"], events["deployment_id"]) == (1, "create", made["id"])
    read_event(events["items"][0])
    for name, more in (("logs", {"level": "INFO"}), ("metrics", {})):
        found = read(client.get(f"{path}/{made['id']}/{name}", params={"skip": 0, "limit": 100, **more}))
        assert (found["deployment_status"], type(found["items"])) == ("ready", list)
    assert read_deployment(read(client.post(f"{path}/{made['id']}/scale", json={"replicas": 2})))["replicas"] == 2
    assert read(client.post(f"{path}/{made['id']}/restart"), 400)["detail"].startswith("Can only restart")
    Deployment.objects.filter(pk=row.pk).update(status=Status.FAILED)
    assert read_deployment(read(client.post(f"{path}/{made['id']}/restart")))["status"] == "deploying"
    assert client.delete(f"{path}/{made['id']}").status_code == 204
    assert read(client.get(f"{path}/{made['id']}"))["status"] == "killed"
    # The same at the root, for clients whose base address has no /api/v1.
    client.base = client.base.removesuffix("/api")
    assert read(client.get("/deployments"))["total"] == 2
