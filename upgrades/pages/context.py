"""What the pages of one upgrade share: finding the upgrade, and whether it can be stopped."""

from typing import Any

from django.http import HttpRequest

from portal.access import get_role
from portal.errors import found_or_404
from portal.models import Organization, Role
from upgrades.models import Upgrade
from upgrades.states import TERMINAL


def find_upgrade(request: HttpRequest, organization: Organization, upgrade_id: str) -> Upgrade:
    """Return the organization's upgrade with everything that its pages show.

    Raises PortalError 404 for an unknown upgrade and for one of another organization.
    """
    upgrade = found_or_404(
        Upgrade.objects.visible_to(request.user)
        .for_record()
        .select_related(None)
        .select_related("stop_requested_by", "rolls_back", "validation_run")
        .prefetch_related("rollbacks__rollouts", "rolls_back__rollouts", "checks")
        .filter(organization=organization, upgrade_id=upgrade_id)
        .first()
    )
    upgrade.organization = organization
    if upgrade.rolls_back:
        upgrade.rolls_back.organization = organization
    return upgrade


def stop_rule(request: HttpRequest, upgrade: Upgrade) -> dict[str, Any]:
    """Return whether Stop is offered, and if not, why."""
    role = get_role(request.user, upgrade.organization)
    reason = None
    if upgrade.status in TERMINAL:
        reason = f"It has already ended with status {upgrade.status}."
    elif upgrade.stop_requested_at:
        reason = "A stop was already requested."
    elif role is None or not role.includes(Role.OPERATOR):
        reason = f"Your role is {role}: stopping an upgrade needs operator."
    return {"may_stop": reason is None, "stop_blocked_reason": reason}
