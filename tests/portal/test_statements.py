"""SQL that is made once and kept (portal/database/statements.py)."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.models import Agent
from portal.database.statements import insert
from tests.conftest import Cast, sign_in
from tests.local_aws import LocalAws
from tests.portal.isolation_table import TENANT, Row, ask, make_place, undone

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


# The most statements of a request, without BEGIN, COMMIT and savepoints. The first one reads session and person.
JSON, PAGE, COMMAND, TRIGGER = 2, 5, 6, 12
COMMANDS = ("deployments", "deploy", "scale", "stop", "restart", "<slug:command>", "new", "edit", "<any_uuid:agent_id>")
# The names of images, for a new reading of ECS: on a slow machine, the one of the request before is too old.
NEW_READING = '"to_digest" AS "to_digest"'
# Reads of several objects for one answer, or of what only few read, and commands that are more than one change.
UPGRADE, AGENT = "upgrade/<str:upgrade_id>", "agents/<any_uuid:agent_id>"
MORE = {
    ("get", "o/<slug:slug>/upgrades/<str:upgrade_id>/rollback"): 9,
    ("get", "api/v1/deployments/versions"): 3,
    ("get", "api/v1/deployments/preflight"): 3,
    ("get", f"api/v1/deployments/{UPGRADE}/evidence"): 8,
    ("get", f"api/v1/deployments/{UPGRADE}/validation"): 5,
    ("get", f"{AGENT}/revisions/<int:number>"): 3,
    ("get", f"api/v1/{AGENT}/revisions/<int:number>"): 3,
}


def find_budget(row: Row, method: str) -> int | None:
    """Return the most statements of a request; None for commands that are rare."""
    if (method, row.route) in MORE:
        return MORE[method, row.route]
    if method == "get":
        return JSON if row.is_api else PAGE
    if row.route.endswith(("upgrades/new", "deployments/upgrade")):
        return TRIGGER
    of_upgrades, last = "upgrade" in row.route or "settings" in row.route, row.route.rpartition("/")[2]
    return COMMAND if not of_upgrades and (last in COMMANDS or method == "delete") else None


def test_requests_cost_few_statements(cast: Cast, platform: LocalAws, subtests: Any) -> None:
    """Each route of the isolation matrix, as the person who may use all. What waits for AWS reads ECS before."""
    place = make_place(cast, cast.acme)
    client = sign_in(Client(), cast.admin)

    for row, method in ((each, method) for each in TENANT for method in sorted(each.allowed - {"head"})):
        budget = find_budget(row, method)
        if budget is None:
            continue
        with subtests.test(f"{method} {row.route} {row.command}"), undone():
            if method == "get":
                ask(client, row, method, place)
            with CaptureQueriesContext(connection) as captured:
                answer = ask(client, row, method, place)
            texts = [
                each["sql"] for each in captured if not each["sql"].startswith(("SAVEPOINT", "RELEASE", "ROLLBACK"))
            ]
            sent = [text for text in texts if NEW_READING not in text]
            assert answer.status_code < 400
            assert len(sent) <= budget, "\n".join(text[:150] for text in sent)
