"""Shared fixtures for the tests of deployments: agents, and a runtime that takes its turns by hand."""

import json
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from deployments.commands import create_agent, create_deployment
from deployments.engine.reconciler import reconcile
from deployments.models import Agent, Deployment
from portal import tenancy
from portal.models import Organization
from tests.conftest import Cast
from tests.local_aws import LocalAws

DEPLOYMENTS = "/api/v1/deployments"
AGENTS = "/api/v1/agents"
IMAGE = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/support-agent:v1.4.0"


def send_json(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """Send an API call with a JSON body. Underscores in header names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = "" if body is None else json.dumps(body)
    return getattr(client, method)(path, content, content_type="application/json", headers=named)


def assert_refused(response: Any, status: int, code: str) -> dict[str, Any]:
    """Assert the JSON shape of an error and return its body."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert set(body) <= {"detail", "code", "errors"}
    return body


def read_html(response: Any) -> str:
    """Return the page with each run of white space as one space: templates wrap their lines, also inside tags."""
    return " ".join(response.content.decode().split())


class Runtime:
    """Replaces worker and sweep: takes turns when the test calls it, and advances the clock of the local AWS."""

    def __init__(self, local_aws: LocalAws) -> None:
        self.local_aws = local_aws

    def turn(self) -> int:
        """Make every unfinished row due and reconcile it. Return how many rows were claimed."""
        Deployment.unfinished().update(next_check_at=Now(), lease_until=None, has_read_slot=True)
        places = set(Deployment.unfinished().values_list("organization_id", "cluster"))
        observed_at = 0
        with tenancy.inside(tenancy.NOTHING):
            for organization_id, cluster in places:
                while taken := reconcile(str(organization_id), cluster):
                    observed_at += taken
        return observed_at

    def run(self, deployment: Deployment, *statuses: str, seconds: float = 6, turns: int = 60) -> Deployment:
        """Take turns and advance AWS's clock until the deployment has one of the statuses and all changes are applied."""
        for _ in range(turns):
            self.turn()
            deployment.refresh_from_db()
            if deployment.status in statuses and deployment.observed_generation == deployment.requested_generation:
                return deployment
            self.local_aws.advance(seconds)
        raise AssertionError(f"still {deployment.status}: {Deployment.objects.filter(pk=deployment.pk).values()}")

    def settle(self, deployment: Deployment, *, seconds: float = 5, turns: int = 60) -> Deployment:
        """Take turns until a killed deployment is finished."""
        for _ in range(turns):
            self.turn()
            deployment.refresh_from_db()
            if deployment.next_check_at is None:
                return deployment
            self.local_aws.advance(seconds)
        raise AssertionError(f"not settled: {Deployment.objects.filter(pk=deployment.pk).values()}")


@pytest.fixture
def runtime(platform: LocalAws, settings: Any) -> Runtime:
    """Return a runtime without waiting times: two reads in a row confirm a change, and steady reads need no slot."""
    settings.DEPLOYMENTS_LAG_SECONDS = -60
    settings.DEPLOYMENTS_READS_PER_MINUTE = 10_000_000
    return Runtime(platform)


def make_agent(
    cast: Cast, name: str = "Support agent", *, organization: Organization | None = None, **fields: Any
) -> Agent:
    organization = organization or cast.acme
    actor = cast.outsider if organization == cast.globex else cast.operator
    return create_agent(organization, actor=actor, name=name, **{"image": IMAGE} | fields)


@pytest.fixture
def agent(cast: Cast) -> Agent:
    return make_agent(cast)


@pytest.fixture
def deployment(cast: Cast, agent: Agent) -> Deployment:
    """Return a new deployment with two replicas. It is not in ECS yet."""
    return create_deployment(agent, actor=cast.operator, replicas=2)


def make_deployment(cast: Cast, agent: Agent, status: str = "ready", *, replicas: int = 2, **fields: Any) -> Deployment:
    """Create a deployment in any status, as if the runtime had set it. It is not in ECS."""
    actor = cast.outsider if agent.organization == cast.globex else cast.operator
    made = create_deployment(agent, actor=actor, replicas=replicas)
    wanted = {"stopped": "stopped", "killed": "gone"}.get(status, "running")
    known = {
        "status": status,
        "wanted": wanted,
        "observed_generation": made.requested_generation,
        "live_revision": made.target_revision if status == "ready" else None,
        "service_arn": "arn:aws:ecs:x:1:service/x",
    }
    Deployment.objects.filter(pk=made.pk).update(**known | fields)
    made.refresh_from_db()
    return made


def history(deployment: Deployment) -> list[tuple[str, str]]:
    """Return type and status of the deployment's events, oldest first."""
    return list(deployment.events.order_by("sequence").values_list("event_type", "status"))


def services_created(local_aws: LocalAws, deployment: Deployment) -> int:
    """Return how many CreateService calls took effect, from the ledger. Calls with the same token count once."""
    calls = local_aws.ledger(action="CreateService", service=deployment.service_name, effect=True)
    return len({call["service_deployment_arn"] for call in calls if call["service_deployment_arn"]})
