"""Pre-flight checks as the API returns them, and what is written for them."""

from typing import Any

from django.test import Client

from portal.idempotency import IdempotencyKey
from tests.conftest import Cast, audited_changes
from tests.upgrades.conftest import PREFLIGHT
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Rollout, Upgrade, UpgradeCheck


def ask(client: Client, **query: str) -> dict[str, dict[str, Any]]:
    """Return the checks from the API by name."""
    response = client.get(PREFLIGHT, query)
    assert response.status_code == 200, response.content
    return {check["check"]: check for check in response.json()["checks"]}


def statuses(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks.items()}


def written() -> tuple[int, ...]:
    counts = (model.objects.count() for model in (Upgrade, Rollout, UpgradeCheck, IdempotencyKey))
    return (*counts, audited_changes().count())


def get_agent(cast: Cast) -> str:
    return service_name(cast.acme, "agent")
