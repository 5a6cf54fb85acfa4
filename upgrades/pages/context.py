"""What the pages of one upgrade share: finding the upgrade, and whether it can be stopped."""

from functools import cache
from typing import Any

from django.http import HttpRequest

from portal.access import get_role
from portal.database.statements import Given
from portal.database.together import Together, attach
from portal.errors import found_or_404
from portal.models import Organization, Role
from upgrades.models import Decision, Rollout, Upgrade, UpgradeCheck, UpgradeEvent
from upgrades.states import TERMINAL

# The columns of an entry that the timeline shows.
TIMELINE_COLUMNS = ("upgrade", "rollout", "kind", "actor_email", "message", "created_at")


def find_upgrade(organization: Organization, upgrade_id: str) -> Upgrade:
    """Return the organization's upgrade with everything that its pages show. `organization`: one that the person sees.

    *Raises* PortalError 404 for an unknown upgrade and for one of another organization. *Costs* one query.
    """
    return find_with_timeline(organization, upgrade_id, make_record())[0]


def find_with_timeline(
    organization: Organization, upgrade_id: str, statement: Together | None = None
) -> tuple[Upgrade, list[UpgradeEvent]]:
    """Return the upgrade as find_upgrade does, and all entries of its timeline, newest first. *Costs* one query."""
    statement = statement or make_record(with_timeline=True)
    read = statement.read(organization=organization.pk, upgrade_id=upgrade_id)
    upgrade = found_or_404(next(iter(read["upgrade"]), None))
    upgrades = [upgrade, *read["rollbacks"], *([upgrade.rolls_back] if upgrade.rolls_back else [])]
    for each in upgrades:
        each.organization = organization
    attach([upgrade], "rollbacks", read["rollbacks"])
    attach([upgrade], "checks", read["checks"])
    attach(upgrades, "rollouts", read["rollouts"])
    rollouts = {rollout.pk: rollout for rollout in upgrade.rollouts.all()}
    attach(list(rollouts.values()), "decisions", read["decisions"])
    entries = [*read.get("of_portal", []), *read.get("of_ecs", [])]
    for entry in entries:
        entry.rollout = rollouts[entry.rollout_id] if entry.rollout_id else None
    return upgrade, sorted(entries, key=lambda entry: (entry.created_at, entry.pk), reverse=True)


@cache
def make_record(*, with_timeline: bool = False) -> Together:
    """Return the statement that reads an upgrade. Two indexes find the entries of its timeline, so two parts read them."""
    found = Upgrade.objects.filter(organization=Given("organization"), upgrade_id=Given("upgrade_id")).order_by()
    own: Any = found.values("pk")
    undone: Any = found.values("rolls_back")
    rollbacks = Upgrade.objects.filter(rolls_back__in=own).order_by()
    owners: list[Any] = [own, rollbacks.values("pk"), undone]
    rollouts = [Rollout.objects.filter(upgrade__in=each).order_by() for each in owners]
    parts: dict[str, Any] = {
        "upgrade": found.select_related("stop_requested_by", "initiated_by", "rolls_back", "validation_run"),
        "rollbacks": rollbacks.newest_first(),
        "rollouts": rollouts[0].union(*rollouts[1:], all=True).order_by("position"),
        "checks": UpgradeCheck.objects.filter(upgrade__in=own).order_by("stage", "position"),
        "decisions": Decision.objects.filter(rollout__upgrade__in=own).order_by("-decided_at", "-id"),
    }
    if with_timeline:
        entries = UpgradeEvent.objects.only(*TIMELINE_COLUMNS).order_by()
        parts["of_portal"] = entries.filter(upgrade__in=own)
        parts["of_ecs"] = entries.filter(upgrade__isnull=True, rollout__upgrade__in=own)
    return Together(**parts)


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
