"""The time window that timeline, metrics and logs of a deployment share. Parsed from the query string; pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from django.http import QueryDict
from django.utils.dateparse import parse_datetime

from portal.times import find_zone, normalize_time

RANGES = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
DEFAULT_RANGE = "1h"
CUSTOM = "custom"
LONGEST = timedelta(days=455)  # CloudWatch keeps metrics for 15 months
SHORTEST = timedelta(minutes=2)
BEFORE_EVENT, AFTER_EVENT = timedelta(minutes=10), timedelta(minutes=20)
AROUND_LINE = timedelta(minutes=2)
BEFORE_SPAN, AFTER_SPAN = timedelta(minutes=10), timedelta(minutes=15)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """A span of time in the format of the query string."""

    since: str
    until: str


@dataclass(frozen=True)
class Move:
    """A link to another window. `name` is part of the element's id, `label` is its text."""

    name: str
    label: str
    since: str
    until: str


@dataclass(frozen=True)
class Window:
    """A time window. `range` is one of RANGES (the window ends now and moves along) or `custom`."""

    since: datetime
    until: datetime
    range: str
    is_live: bool
    error: str | None = None

    @property
    def length(self) -> timedelta:
        return self.until - self.since

    @property
    def moves(self) -> list[Move]:
        """Return the links that pan and zoom the window."""
        half, quarter = self.length / 2, self.length / 4
        moves = [("earlier", "Earlier", self.since - half, self.until - half)]
        if not self.is_live:
            moves.append(("later", "Later", self.since + half, self.until + half))
        if self.length >= SHORTEST * 2:
            moves.append(("closer", "Zoom in", self.since + quarter, self.until - quarter))
        if self.length * 2 <= LONGEST:
            moves.append(("wider", "Zoom out", self.since - half, self.until + half))
        return [Move(name, label, as_text(since), as_text(until)) for name, label, since, until in moves]


def parse_window(query: QueryDict, *, now: datetime) -> Window:
    """Return the window given in the query. If it is invalid, return the last hour with an error sentence.

    `zone` of the query is that of times without a zone, which the form of the custom window sends.
    """
    zone = find_zone(query.get("zone") or "UTC")
    since, until = moment(query.get("since"), zone), moment(query.get("until"), zone)
    if query.get("since") or query.get("until"):
        return custom_window(since, until, now=now, is_readable=is_readable(query))
    name = query.get("range") or DEFAULT_RANGE
    if name not in RANGES:
        error = f"Unknown range {name[:20]}. Use one of {', '.join(RANGES)}."
        return newest(DEFAULT_RANGE, now=now, error=error)
    return newest(name, now=now)


def custom_window(since: datetime | None, until: datetime | None, *, now: datetime, is_readable: bool) -> Window:
    if not is_readable or since is None:
        error = "Enter since and until as times such as 2026-03-12T09:15:00Z."
        return newest(DEFAULT_RANGE, now=now, error=error)
    # What has not happened yet has no lines and no points. Such a window follows the present until it is full.
    is_live = until is None or until >= now
    end = min(until or now, now)
    if (until or now) <= since or since < EARLIEST or since > now:
        error = "The window must start before it ends and must not start in the future."
        return newest(DEFAULT_RANGE, now=now, error=error)
    if end - since > LONGEST:
        error = f"The window can be at most {LONGEST.days} days, because CloudWatch keeps metrics no longer."
        return newest(DEFAULT_RANGE, now=now, error=error)
    if end - since < SHORTEST:
        end = min(since + SHORTEST, now)
        since = min(since, end - SHORTEST)
    return Window(since, end, CUSTOM, is_live=is_live)


def newest(name: str, *, now: datetime, error: str | None = None) -> Window:
    return Window(now - RANGES[name], now, name, is_live=True, error=error)


def spanning(began: datetime, ended: datetime | None, *, now: datetime) -> Window:
    """Return the window of something that began then, with what came shortly before and after; live until it is over."""
    until = ended + AFTER_SPAN if ended else now
    is_live = until >= now
    return Window(began - BEFORE_SPAN, now if is_live else until, CUSTOM, is_live=is_live)


def around_event(at: datetime) -> Span:
    return Span(as_text(at - BEFORE_EVENT), as_text(at + AFTER_EVENT))


def around_line(at: datetime) -> Span:
    return Span(as_text(at - AROUND_LINE), as_text(at + AROUND_LINE))


def is_readable(query: QueryDict) -> bool:
    return all(moment(query.get(name)) for name in ("since", "until") if query.get(name))


def moment(text: str | None, zone: tzinfo = UTC) -> datetime | None:
    """Parse an ISO 8601 time, or the portal's own format. Return None if it is not a time. `zone`: of one without any."""
    try:
        at = parse_datetime(normalize_time((text or "").strip()))
    except ValueError:
        return None
    if at is None:
        return None
    try:
        return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
    except OverflowError:
        return None


def as_text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
