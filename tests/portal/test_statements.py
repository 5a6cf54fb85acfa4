"""SQL that is made once and kept (portal/database/statements.py)."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.commands import create_agent
from deployments.models import Agent
from portal.database.statements import insert
from tests.conftest import Cast, sign_in

pytestmark = pytest.mark.django_db

IMAGE = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/support-agent:v1.4.0"


def test_insert_writes_what_the_orm_writes(cast: Cast) -> None:
    given: dict[str, Any] = {"organization": cast.acme, "image": IMAGE, "cpu": 256, "memory": 512}
    made = [Agent(name=f"Kept {number}", **given) for number in range(2)]
    made[1].environment = {"MODE": "a'b"}

    insert(made)

    saved = Agent.objects.create(name="Saved", **given)
    kept, other = (Agent.objects.get(pk=each.pk) for each in made)
    unlike = {"id", "name", "created_at"}
    fields = [each.attname for each in Agent._meta.concrete_fields if each.attname not in unlike]
    assert [getattr(kept, name) for name in fields] == [getattr(saved, name) for name in fields]
    assert other.environment == {"MODE": "a'b"}
    assert made[0].created_at == kept.created_at


def test_a_command_costs_few_statements(cast: Cast) -> None:
    agent = create_agent(cast.acme, actor=cast.operator, name="Support", image=IMAGE)
    client = sign_in(Client(), cast.operator)
    body = {"agent_id": str(agent.pk), "replicas": 2}

    with CaptureQueriesContext(connection) as create:
        made = client.post(
            "/api/v1/deployments",
            body,
            content_type="application/json",
            headers={"X-Organization": "acme", "Idempotency-Key": "a"},
        )
    with CaptureQueriesContext(connection) as kill:
        killed = client.delete(f"/api/v1/deployments/{made.json()['id']}", headers={"Idempotency-Key": "b"})

    assert (made.status_code, killed.status_code) == (201, 204)
    counts = [len([each for each in run if "SAVEPOINT" not in each["sql"]]) for run in (create, kill)]
    # A deploy also locks the agent and records its revision.
    assert counts[0] <= 8
    assert counts[1] <= 6
