"""The pages of upgrades: what runs, live page, history. Same queries and commands as the API."""

from typing import Any

from django.db.models import Prefetch
from django.http import HttpRequest

from portal.access import role_in
from portal.errors import existing
from portal.models import Organization, Role
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.states import TERMINAL, EventKind


def find_upgrade(request: HttpRequest, organization: Organization, upgrade_id: str) -> Upgrade:
    """Raises PortalError 404 for another organization's upgrade as for one that does not exist."""
    of_ecs = UpgradeEvent.objects.filter(kind=EventKind.ECS).order_by("-created_at", "-id")
    events = Prefetch("rollouts__events", of_ecs)
    return existing(
        Upgrade.objects.visible_to(request.user)
        .for_record()
        .select_related("rolls_back")
        .prefetch_related(events, "rollbacks__rollouts", "checks")
        .filter(organization=organization, upgrade_id=upgrade_id)
        .first()
    )


def stop_rule(request: HttpRequest, upgrade: Upgrade) -> dict[str, Any]:
    """Whether Stop is offered, and why not."""
    role = role_in(request.user, upgrade.organization)
    reason = None
    if upgrade.status in TERMINAL:
        reason = f"It has ended {upgrade.status}: nothing of it runs any more."
    elif upgrade.stop_requested_at:
        reason = "A stop was asked for already."
    elif role is None or not role.includes(Role.OPERATOR):
        reason = f"Your role is {role}: stopping an upgrade needs operator."
    return {"may_stop": reason is None, "stop_blocked_reason": reason}
