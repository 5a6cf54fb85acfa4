"""Groups events for the timeline: by day, with repeats folded into one line."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Protocol

from portal.times import to_zone


class Happened(Protocol):
    """The attributes of an event that this module needs. deployments.models.DeploymentEvent has them."""

    event_type: str
    status: str
    error_message: str | None
    actor: str
    created_at: datetime


@dataclass(frozen=True)
class Fold:
    """One line of the timeline: the newest event, and the older repeats folded into it."""

    event: Happened
    more: list[Happened] = field(default_factory=list)

    @property
    def oldest(self) -> Happened:
        return self.more[-1] if self.more else self.event


@dataclass(frozen=True)
class Day:
    day: date
    folds: list[Fold]


def group_by_day(events: Iterable[Happened]) -> list[Day]:
    """Group events (newest first) by day in the person's zone, and fold each day's repeats."""
    return [
        Day(day, fold_events(each)) for day, each in groupby(events, key=lambda event: to_zone(event.created_at).date())
    ]


def fold_events(events: Iterable[Happened]) -> list[Fold]:
    """Fold three or more equal neighbours into one line. A pair stays as two lines."""
    folds: list[Fold] = []
    for _, group in groupby(events, key=build_fold_key):
        first, *others = group
        if len(others) == 1:
            folds += [Fold(first), Fold(others[0])]
        else:
            folds.append(Fold(first, others))
    return folds


def build_fold_key(event: Happened) -> tuple[str, str, str | None, str]:
    """Return the key by which events count as equal. The task may differ."""
    return (event.event_type, event.status, event.error_message, event.actor)
