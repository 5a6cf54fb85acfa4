"""GET /api/v1/deployments/upgrade/{upgrade_id}."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import Membership, Organization, User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, UPGRADE, assert_refused, make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

# The members of a service that has not begun, but its service_name.
NEW_SERVICE = {
    "service": "agent",
    "status": "PENDING",
    "outcome": None,
    "desired_count": None,
    "running_count": None,
    "pending_count": None,
    "failed_tasks": None,
    "from_version": None,
    "to_version": None,
    "task_definition": None,
    "previous_task_definition": None,
    "deployment_id": None,
    "rollout_reason": None,
    "error_message": None,
    "started_at": None,
    "completed_at": None,
    "last_checked_at": None,
    "strategy": None,
    "lifecycle_stage": None,
    "stage_began_at": None,
    "production_weight": None,
    "test_weight": None,
    "source_weight": None,
    "target_running": 0,
    "target_pending": 0,
    "source_running": 0,
    "bake_ends_at": None,
    "hook": None,
    "is_stalled": False,
    "is_overdue": False,
    "deadline_at": None,
    "is_draining": False,
    "decision": None,
}


def test_a_new_upgrade_has_every_key_with_null_for_unknown(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.PENDING], reason="OPS-1")

    response = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}")

    assert response.status_code == 200
    assert response.json() == {
        "success": False,
        "upgrade_id": upgrade.upgrade_id,
        "organization": "acme",
        "status": "PENDING",
        "kind": "upgrade",
        "version": "latest",
        "force_new_deployment": True,
        "reason": "OPS-1",
        "initiated_by": "operator@example.com",
        "services": [NEW_SERVICE | {"service_name": f"{cast.acme.deployment_stack}-agent-service"}],
        "success_count": 0,
        "failed_count": 0,
        "validation": "none",
        "message": "Recorded. No service has started yet.",
        "error_message": None,
        "started_at": None,
        "completed_at": None,
        "override_reason": None,
        "checks": [],
    }


def test_services_are_in_rolling_order_with_their_outcomes(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(
        cast.acme, by=cast.operator, target="all", statuses=[Status.SUCCESS, Status.FAILED, Status.SKIPPED]
    )

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()

    assert [(entry["service"], entry["status"], entry["outcome"]) for entry in body["services"]] == [
        ("agent", "SUCCESS", "completed"),
        ("orchestrator", "FAILED", "rolled_back"),
        ("customer-portal", "SKIPPED", "disabled"),
    ]
    assert (body["status"], body["success"], body["success_count"], body["failed_count"]) == ("PARTIAL", False, 1, 1)
    assert body["error_message"] == "orchestrator: Rolled back by ECS."
    assert (
        body["message"] == "Partial: agent service advanced, orchestrator did not. Skipped, disabled: customer portal."
    )


def test_success_is_true_only_for_a_successful_upgrade(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    assert client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["success"] is True


@pytest.mark.django_db(transaction=True)
def test_it_shows_ecs_while_the_upgrade_runs(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    platform.advance(10)
    engine.step()

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()

    (entry,) = body["services"]
    assert (body["status"], entry["status"]) == ("IN_PROGRESS", "IN_PROGRESS")
    assert body["message"] == "In progress: agent service."
    assert entry["desired_count"] == 4
    assert entry["deployment_id"].startswith("ecs-svc/")
    assert entry["task_definition"].startswith("arn:aws:ecs:eu-central-1:111111111111:task-definition/")
    assert all(UTC.fullmatch(time) for time in (body["started_at"], entry["started_at"], entry["last_checked_at"]))
    assert (body["completed_at"], entry["completed_at"]) == (None, None)

    engine.run(upgrade)

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()
    assert (body["status"], body["success"], body["success_count"]) == ("SUCCESS", True, 1)
    assert UTC.fullmatch(body["completed_at"])


def test_a_person_of_several_organizations_needs_no_header(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.globex, by=cast.outsider)

    response = client_for(cast.consultant).get(f"{UPGRADE}/{upgrade.upgrade_id}", headers={"X-Organization": "acme"})

    assert (response.status_code, response.json()["organization"]) == (200, "globex")


@pytest.mark.parametrize("services", [["agent"], ["agent", "orchestrator", "customer-portal"]])
def test_its_queries_do_not_grow_with_the_services(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, services: list[str]
) -> None:
    target = "all" if len(services) > 1 else services[0]
    upgrade = make_upgrade(cast.acme, by=cast.operator, target=target)
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    with django_assert_num_queries(SIGNED_IN_QUERIES + 1):
        client.get(f"{UPGRADE}/{upgrade.upgrade_id}")


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404_as_for_a_random_id(cast: Cast, client_for: SignIn, person: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(getattr(cast, person))

    foreign = client.get(f"{UPGRADE}/{upgrade.upgrade_id}", headers={"X-Organization": "acme"})

    assert_refused(foreign, 404, "not_found")
    assert foreign.content == client.get(f"{UPGRADE}/upgrade-2026-0101-000000-abcdef").content


def test_removed_members_and_suspended_organizations_get_404(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    removed, member = client_for(cast.operator), client_for(cast.admin)
    Membership.objects.filter(user=cast.operator).delete()

    assert_refused(removed.get(f"{UPGRADE}/{upgrade.upgrade_id}"), 404, "not_found")
    assert member.get(f"{UPGRADE}/{upgrade.upgrade_id}").status_code == 200
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    assert_refused(member.get(f"{UPGRADE}/{upgrade.upgrade_id}"), 404, "not_found")


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}, {"Authorization": "Bearer x"}])
def test_anonymous_gets_401(cast: Cast, headers: dict[str, str]) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = Client().get(f"{UPGRADE}/{upgrade.upgrade_id}", headers=headers)

    assert_refused(response, 401, "not_authenticated")


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "upgrade_id", ["1", "x" * 5000, "é", "%27%20OR%201=1", "%2e%2e", "upgrade-2026-0101-000000-abcdef"]
)
def test_an_unknown_id_is_404(cast: Cast, client_for: SignIn, upgrade_id: str) -> None:
    assert_refused(client_for(cast.viewer).get(f"{UPGRADE}/{upgrade_id}"), 404, "not_found")


def test_a_nul_in_the_id_is_400(cast: Cast, client_for: SignIn) -> None:
    assert_refused(client_for(cast.viewer).get(f"{UPGRADE}/a%00"), 400, "bad_request")


def test_an_unknown_query_key_is_400(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    body = assert_refused(client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}?depth=1"), 400, "invalid")

    assert list(body["errors"]) == ["depth"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, method: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = getattr(client_for(cast.admin), method)(f"{UPGRADE}/{upgrade.upgrade_id}")

    assert_refused(response, 405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_head_answers_like_get_and_a_trailing_slash_is_404(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)

    head = client.head(f"{UPGRADE}/{upgrade.upgrade_id}")

    assert (head.status_code, head.content) == (200, b"")
    assert_refused(client.get(f"{UPGRADE}/{upgrade.upgrade_id}/"), 404, "not_found")
