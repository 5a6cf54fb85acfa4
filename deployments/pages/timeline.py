"""How events are shown: days with a header, repeats folded into one line. Pure: it groups what the query brought."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Protocol


class Happened(Protocol):
    """What an event must tell; deployments.models.DeploymentEvent does."""

    event_type: str
    status: str
    error_message: str | None
    actor: str
    created_at: datetime


@dataclass(frozen=True)
class Fold:
    """One line: the newest of its repeats, and the others."""

    event: Happened
    more: list[Happened] = field(default_factory=list)

    @property
    def oldest(self) -> Happened:
        return self.more[-1] if self.more else self.event


@dataclass(frozen=True)
class Day:
    day: date
    folds: list[Fold]


def days_of(events: Iterable[Happened]) -> list[Day]:
    """Events (newest first) by day in UTC, each day's repeats folded."""
    return [Day(day, folds_of(each)) for day, each in groupby(events, key=lambda event: utc_day(event.created_at))]


def folds_of(events: Iterable[Happened]) -> list[Fold]:
    """Neighbours that say the same become one line. Two of a kind are no burst and stay two lines."""
    folds: list[Fold] = []
    for _, group in groupby(events, key=says):
        first, *others = group
        if len(others) == 1:
            folds += [Fold(first), Fold(others[0])]
        else:
            folds.append(Fold(first, others))
    return folds


def says(event: Happened) -> tuple[str, str, str | None, str]:
    """Events are alike when they say the same of the same thing; the task that it happened on may differ."""
    return (event.event_type, event.status, event.error_message, event.actor)


def utc_day(at: datetime) -> date:
    return at.astimezone(UTC).date()
