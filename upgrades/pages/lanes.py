"""The open upgrades as lanes on the overview: what runs, how far it is and how long it still takes."""

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone
from django.utils.text import capfirst

from portal.database.statements import Given
from portal.database.together import attach
from portal.models import Organization
from portal.web.overview_rows import Rows
from upgrades.estimates import find_usual_seconds, time_left
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.pages.results import upgrade_title
from upgrades.pages.rollout_cards import Segment, build_bar, build_headline
from upgrades.states import OPEN, EventKind, Phase, PlatformService

# Such as `(service acme-prod-agent-service) (deployment ecs-svc/123)` and `: (task 0123ab)`.
IDS = re.compile(r"^(\((service|deployment) [^)]*\) ?)+|:? ?\((task|deployment) [^)]*\)")


@dataclass(frozen=True)
class Lane:
    """One service of an open upgrade. `bar` and `newest_event` are empty before ECS was read, and after the end."""

    rollout: Rollout
    bar: list[Segment]
    headline: str
    newest_event: str


@dataclass(frozen=True)
class OpenUpgrade:
    upgrade: Upgrade
    title: str
    lanes: list[Lane]
    time_left: str


def select_open() -> dict[str, QuerySet[Any]]:
    """Return the open upgrades, newest first, and their rollouts, each with `newest_message` of ECS."""
    events = UpgradeEvent.objects.filter(rollout=OuterRef("pk"), kind=EventKind.ECS).order_by("-created_at", "-id")
    found = Upgrade.objects.filter(organization=Given("organization"), status__in=OPEN)
    rollouts = Rollout.objects.filter(upgrade__in=found.order_by().values("pk")).order_by("position")
    return {
        "open_upgrades": found.newest_first(),
        "open_rollouts": rollouts.annotate(newest_message=Subquery(events.values("message")[:1])),
    }


def take_open(organization: Organization, rows: Rows) -> list[Upgrade]:
    """Return the open upgrades of the overview's rows, with their rollouts."""
    upgrades: list[Upgrade] = rows["open_upgrades"]
    for each in upgrades:
        each.organization = organization
    attach(upgrades, "rollouts", rows["open_rollouts"])
    return upgrades


def build_lanes(organization: Organization, upgrades: list[Upgrade]) -> list[OpenUpgrade]:
    """Return the lanes of the open upgrades. *Costs* one query, none without upgrades."""
    if not upgrades:
        return []
    now = timezone.now()
    usual = find_usual_seconds(organization, PlatformService.values)
    return [
        OpenUpgrade(
            upgrade,
            title=upgrade_title(upgrade),
            lanes=[build_lane(rollout) for rollout in upgrade.rollouts.all()],
            time_left=str(time_left(upgrade, now=now, usual=usual) or ""),
        )
        for upgrade in upgrades
    ]


def build_lane(rollout: Rollout) -> Lane:
    bar = build_bar(rollout) if rollout.phase == Phase.WATCHING else []
    event = "" if rollout.is_terminal else shorten_event(getattr(rollout, "newest_message", None) or "")
    return Lane(rollout, bar, build_headline(rollout), event)


def shorten_event(message: str) -> str:
    """Return an event of ECS without the ids in it, which the upgrade's page has.

    >>> shorten_event("(service acme-agent) has started 2 tasks: (task 1f) (task 2e).")
    'Has started 2 tasks.'
    >>> shorten_event("(service acme-agent) was unable to place a task. Reason: no capacity.")
    'Was unable to place a task. Reason: no capacity.'
    """
    return capfirst(IDS.sub("", message).strip())
