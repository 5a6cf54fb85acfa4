"""An upgrade's timeline for its page: the entries of one kind or of all, with the count of each kind."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from portal.pagination import Page, paginate_list
from portal.times import to_zone
from upgrades.models import UpgradeEvent
from upgrades.pages.ecs_sentences import shorten_event
from upgrades.states import EventKind

EVENTS_PER_PAGE = 50
# The newest lines are in sight, and a link unfolds the others of the page.
LINES_SHOWN = 8
KIND_LABELS = {kind.value: str(kind.label) for kind in EventKind}


@dataclass(frozen=True)
class KindCount:
    kind: EventKind
    count: int


@dataclass(frozen=True)
class Line:
    """A line of the timeline: the newest of one or more entries in a row that say the same.

    `text`: what it says in short. `events`: the entries, newest first, with their full text.
    """

    text: str
    events: list[UpgradeEvent] = field(default_factory=list)

    @property
    def event(self) -> UpgradeEvent:
        return self.events[0]

    @property
    def oldest(self) -> UpgradeEvent:
        return self.events[-1]

    @property
    def is_folded(self) -> bool:
        """Return whether there is more to read than the line: other entries, or what ECS really wrote."""
        return len(self.events) > 1 or self.event.message != self.text

    @property
    def day(self) -> date:
        """Return the day in the person's zone."""
        return to_zone(self.event.created_at).date()


@dataclass(frozen=True)
class Timeline:
    """One page of timeline entries.

    `kinds`: the kinds that have entries, in the order of states.py. `kind`: the selected kind, empty for all.
    `lines`: the entries of the page, folded.
    """

    page: Page[UpgradeEvent]
    kinds: list[KindCount]
    kind: str
    count: int
    lines: list[Line]

    @property
    def newest(self) -> list[Line]:
        return self.lines[:LINES_SHOWN]

    @property
    def rest(self) -> list[Line]:
        return self.lines[LINES_SHOWN:]


def build_timeline(events: list[UpgradeEvent], *, kind: str = "", skip: int = 0) -> Timeline:
    """Return one page of the timeline. `events`: all entries of the upgrade, newest first."""
    counts = Counter(event.kind for event in events)
    found = [event for event in events if kind in ("", event.kind)]
    page = paginate_list(found, skip=skip, limit=EVENTS_PER_PAGE)
    return Timeline(
        page=page,
        kinds=[KindCount(each, counts[each]) for each in EventKind if each in counts],
        kind=kind,
        count=len(events),
        lines=fold_events(page.items),
    )


def fold_events(events: Iterable[UpgradeEvent]) -> list[Line]:
    """Return the entries as lines: those in a row of one rollout, kind, person and day that say the same are one line."""
    lines: list[Line] = []
    last: tuple[object, ...] | None = None
    for event in events:
        text = shorten_event(event)
        said = (text, event.kind, event.rollout_id, event.actor_email, to_zone(event.created_at).date())
        if said != last:
            lines.append(Line(text))
        lines[-1].events.append(event)
        last = said
    return lines
