"""Builds the timeline region of the deployment page for its time window: filtered, counted and folded. No AWS."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q
from django.http import QueryDict

from deployments.models import Deployment, DeploymentEvent
from deployments.pages.timeline import Day, group_by_day
from deployments.states import EventType, Status
from portal.pagination import MAX_SKIP, Page
from portal.web.observe.charts import Event
from portal.web.observe.time_window import Span, Window, around_event

EVENTS_SHOWN = 50
EVENT_LABELS = {kind.value: str(kind.label) for kind in EventType}
# The counts on the filter chips stop here and then show "1000+", so that they stay cheap.
MAX_COUNTED = 1000
# Events that the charts show as marks: the actions of people, and failures.
MARKED = (
    EventType.CREATE,
    EventType.SCALE,
    EventType.RESTART,
    EventType.STOP,
    EventType.KILL,
    EventType.FAILED,
)
MAX_MARKS, MAX_MARK_DETAIL_LENGTH = 40, 30


@dataclass(frozen=True)
class Choice:
    value: str
    label: str
    count: str


@dataclass(frozen=True)
class Timeline:
    event_type: str
    status: str
    count: str
    types: list[Choice]
    statuses: list[Choice]
    days: list[Day]
    page: Page[DeploymentEvent]
    at: str
    error: str | None
    newest: Span | None
    newest_at: datetime | None


def build_timeline(query: QueryDict, deployment: Deployment, window: Window) -> Timeline:
    """Build the events of the window: filtered, folded and grouped by day.

    *Costs* two queries: one for the page, one for the counts on the chips.
    """
    event_type, status = query.get("event_type", ""), query.get("status", "")
    error = unknown(event_type, EventType.values, "event type") or unknown(status, Status.values, "status")
    counted = list(in_window(deployment, window).values_list("event_type", "status")[: MAX_COUNTED + 1])
    rows = in_window(deployment, window, event_type=event_type or None, status=status or None)
    skip = number(query.get("skip"))
    items = [] if error else list(rows[skip : skip + EVENTS_SHOWN + 1])
    page = Page(items[:EVENTS_SHOWN], skip + len(items), skip, EVENTS_SHOWN)
    newest_at = newest_event_at(deployment)
    return Timeline(
        event_type=event_type,
        status=status,
        count=as_count(len(counted)),
        types=choices(EventType, (each for each, _ in counted)),
        statuses=choices(Status, (each for _, each in counted)),
        days=group_by_day(page.items),
        page=page,
        at=query.get("at", ""),
        error=error,
        newest=around_event(newest_at) if newest_at else None,
        newest_at=newest_at,
    )


def build_links_around(path: str, query: QueryDict) -> Callable[[DeploymentEvent], str]:
    """Return a function that returns the address of the page with the window around an event, and else unchanged."""
    kept = query.copy()
    for name in ("range", "since", "until", "zone", "at", "skip"):
        kept.pop(name, None)
    begin = f"{path}?{kept.urlencode()}&" if kept else f"{path}?"

    def link_around(event: DeploymentEvent) -> str:
        near = around_event(event.created_at)
        return f"{begin}{urlencode({'since': near.since, 'until': near.until, 'at': event.pk})}"

    return link_around


def in_window(deployment: Deployment, window: Window, **filters: Any) -> Any:
    """Return the events of the window. A live window has no end, so that it includes events of this moment."""
    until = None if window.is_live else window.until
    return DeploymentEvent.objects.for_timeline(deployment, since=window.since, until=until, **filters)


def unknown(value: str, values: Iterable[str], what: str) -> str | None:
    return f"Unknown {what}: {value[:30]}." if value and value not in values else None


def choices(kinds: Any, found: Iterable[str]) -> list[Choice]:
    counts = Counter(found)
    return [Choice(kind.value, kind.label, as_count(counts[kind.value])) for kind in kinds if counts[kind.value]]


def as_count(count: int) -> str:
    return f"{MAX_COUNTED}+" if count > MAX_COUNTED else str(count)


def number(text: str | None) -> int:
    return min(int(text), MAX_SKIP) if text and text.isdecimal() and len(text) < 12 else 0


def newest_event_at(deployment: Deployment) -> datetime | None:
    """Return the time of the newest event, from the events that the row already has. *Costs* no query."""
    newest = deployment.newest_events[0]["created_at"] if deployment.newest_events else None
    return datetime.fromisoformat(newest) if isinstance(newest, str) else newest


def list_marks(deployment: Deployment, window: Window, chosen: str) -> list[Event]:
    """Return the events that the charts of the window mark. *Costs* one query.

    `chosen`: the `at` of the query, the id of the event around which the window was opened. It is marked, whatever it is.
    """
    wanted = Q(event_type__in=MARKED)
    if is_uuid(chosen):
        wanted |= Q(pk=chosen)
    events = in_window(deployment, window).filter(wanted)[:MAX_MARKS]
    return [Event(event.created_at, describe_mark(event), str(event.pk) == chosen) for event in events]


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def describe_mark(event: DeploymentEvent) -> str:
    """Return the label of a mark: the event, and its detail if that is short, such as `Scaled from 2 to 3`."""
    is_short = len(event.detail) <= MAX_MARK_DETAIL_LENGTH
    return f"{event.get_event_type_display()} {event.detail if is_short else ''}".strip()
