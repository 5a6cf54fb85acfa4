"""An upgrade's timeline for its page: the entries of one kind or of all, with the count of each kind."""

from dataclasses import dataclass

from django.db.models import Count

from portal.pagination import Page
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.states import EventKind

EVENTS_PER_PAGE = 50


@dataclass(frozen=True)
class KindCount:
    kind: EventKind
    count: int


@dataclass(frozen=True)
class Timeline:
    """One page of timeline entries.

    `kinds`: the kinds that have entries, in the order of states.py. `kind`: the selected kind, empty for all.
    """

    page: Page[UpgradeEvent]
    kinds: list[KindCount]
    kind: str
    count: int


def build_timeline(upgrade: Upgrade, *, kind: str = "", skip: int = 0) -> Timeline:
    """Return one page of the timeline. The upgrade must come from `for_record`. Costs two queries."""
    events = UpgradeEvent.objects.for_timeline(upgrade)
    counts = dict(events.order_by().values_list("kind").annotate(Count("pk")))
    total = counts.get(kind, 0) if kind else sum(counts.values())
    rows = UpgradeEvent.objects.for_timeline(upgrade, kind=kind or None)[skip : skip + EVENTS_PER_PAGE]
    return Timeline(
        page=Page(items=list(rows), total=total, skip=skip, limit=EVENTS_PER_PAGE),
        kinds=[KindCount(each, counts[each]) for each in EventKind if each in counts],
        kind=kind,
        count=sum(counts.values()),
    )
