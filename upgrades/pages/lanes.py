"""The open upgrades as lanes on the overview: what runs, how far it is and how long it still takes."""

from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone

from portal.database.statements import Given
from portal.database.together import attach
from portal.models import Organization
from portal.web.overview_rows import Rows
from upgrades.estimates import find_usual_seconds, time_left
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.pages.ecs_sentences import shorten_of_rollout
from upgrades.pages.results import upgrade_title
from upgrades.pages.rollout_cards import Segment, build_bar, build_headline
from upgrades.states import OPEN, EventKind, Phase, PlatformService


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
    return Lane(rollout, bar, build_headline(rollout), "" if rollout.is_terminal else newest_sentence(rollout))


def newest_sentence(rollout: Rollout) -> str:
    """Return the short form of ECS's newest event of a rollout of `take_open`; empty without one."""
    return shorten_of_rollout(getattr(rollout, "newest_message", None) or "", rollout)
