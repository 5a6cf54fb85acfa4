"""The one window of time that timeline, metrics and logs of a deployment share. It lives in the address; pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.http import QueryDict
from django.utils.dateparse import parse_datetime

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
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """A stretch of time as the address writes it."""

    since: str
    until: str


@dataclass(frozen=True)
class Move:
    """A way to another window: `name` for the element's id, `label` for people."""

    name: str
    label: str
    since: str
    until: str


@dataclass(frozen=True)
class Window:
    """`range` is one of RANGES, then it ends now and moves on; or `custom`."""

    since: datetime
    until: datetime
    range: str
    is_live: bool
    error: str | None = None

    @property
    def length(self) -> timedelta:
        return self.until - self.since

    @property
    def since_text(self) -> str:
        return as_text(self.since)

    @property
    def until_text(self) -> str:
        return as_text(self.until)

    @property
    def moves(self) -> list[Move]:
        """Earlier, later, closer, wider: what a pointer would do by dragging, as links."""
        half, quarter = self.length / 2, self.length / 4
        moves = [("earlier", "Earlier", self.since - half, self.until - half)]
        if not self.is_live:
            moves.append(("later", "Later", self.since + half, self.until + half))
        if self.length >= SHORTEST * 2:
            moves.append(("closer", "Zoom in", self.since + quarter, self.until - quarter))
        if self.length * 2 <= LONGEST:
            moves.append(("wider", "Zoom out", self.since - half, self.until + half))
        return [Move(name, label, as_text(since), as_text(until)) for name, label, since, until in moves]


def window_of(query: QueryDict, *, now: datetime) -> Window:
    """The window that the address names. One that makes no sense is the newest hour, with a sentence that says so."""
    since, until = moment(query.get("since")), moment(query.get("until"))
    if query.get("since") or query.get("until"):
        return custom_window(since, until, now=now, is_readable=is_readable(query))
    name = query.get("range") or DEFAULT_RANGE
    if name not in RANGES:
        error = f"There is no range {name[:20]}: take one of {', '.join(RANGES)}. This is the newest hour."
        return newest(DEFAULT_RANGE, now=now, error=error)
    return newest(name, now=now)


def custom_window(since: datetime | None, until: datetime | None, *, now: datetime, is_readable: bool) -> Window:
    if not is_readable or since is None:
        error = "Give the window as since and until, each a time such as 2026-03-12T09:15:00Z. This is the newest hour."
        return newest(DEFAULT_RANGE, now=now, error=error)
    end = until or now
    if end <= since or since < EARLIEST or since > now:
        error = "The window must begin before it ends, and not in the future. This is the newest hour."
        return newest(DEFAULT_RANGE, now=now, error=error)
    if end - since > LONGEST:
        error = f"The window is longer than {LONGEST.days} days, which is as long as CloudWatch keeps metrics."
        return newest(DEFAULT_RANGE, now=now, error=f"{error} This is the newest hour.")
    end = max(end, since + SHORTEST)
    return Window(since, end, CUSTOM, is_live=until is None)


def newest(name: str, *, now: datetime, error: str | None = None) -> Window:
    return Window(now - RANGES[name], now, name, is_live=True, error=error)


def around_event(at: datetime) -> Span:
    return Span(as_text(at - BEFORE_EVENT), as_text(at + AFTER_EVENT))


def around_line(at: datetime) -> Span:
    return Span(as_text(at - AROUND_LINE), as_text(at + AROUND_LINE))


def is_readable(query: QueryDict) -> bool:
    return all(moment(query.get(name)) for name in ("since", "until") if query.get(name))


def moment(text: str | None) -> datetime | None:
    """ISO 8601; without a zone it is UTC, as everything on the page. None for what is no time."""
    try:
        at = parse_datetime((text or "").strip().replace(" ", "+"))
    except ValueError:
        return None
    if at is None:
        return None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        return None


def as_text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
