"""Times in the format of the API, in the formats that people and scripts write, and as the person of a request reads them.

A person chooses a time zone, and dates or ages (on the account page). Files are always in UTC.
"""

import re
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

# A time with an offset whose `+` a query string has turned into a space, and the portal's own `2026-11-28 16:03:10 UTC`.
TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?P<clock>[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)"
    r"( ?(?P<utc>Z|UTC)| ?(?P<sign>[-+ ])(?P<offset>[0-9]{2}:?[0-9]{2}))?",
    re.ASCII | re.IGNORECASE,
)


def utc(at: datetime | None) -> str | None:
    """Return the time in ISO 8601, UTC, with `Z`; None for None."""
    return to_utc(at).isoformat().replace("+00:00", "Z") if at else None


def to_utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def normalize_time(text: str) -> str:
    """Return a time from a query string in ISO 8601; any other text unchanged.

    >>> normalize_time("2026-11-28T10:00:00 01:00"), normalize_time("2026-11-28 16:03:10 UTC")
    ('2026-11-28T10:00:00+01:00', '2026-11-28T16:03:10Z')
    """
    found = TIME.fullmatch(text.strip())
    if found is None:
        return text
    sign = (found["sign"] or "").replace(" ", "+")
    return f"{found['date']}T{found['clock']}{'Z' if found['utc'] else sign + (found['offset'] or '')}"


@dataclass(frozen=True)
class TimeChoice:
    """How pages show times: the name of the zone, and whether as dates in place of ages."""

    zone: str = "UTC"
    is_absolute: bool = False


DEFAULT_TIMES = TimeChoice()
_choice: ContextVar[TimeChoice] = ContextVar("times", default=DEFAULT_TIMES)


def choose_times(choice: TimeChoice) -> None:
    """Show times like this for the rest of the request."""
    _choice.set(choice)


def chosen_times() -> TimeChoice:
    """Return how the person of the request reads times; UTC and ages without a request."""
    return _choice.get()


def to_zone(at: datetime) -> datetime:
    """Return the time in the zone of the person."""
    zone = _choice.get().zone
    return at.astimezone(UTC if zone == "UTC" else find_zone(zone))


@lru_cache(maxsize=600)
def find_zone(name: str) -> tzinfo:
    """Return the zone; UTC if this machine does not know it any more."""
    return ZoneInfo(name) if name in zone_names() else UTC


@lru_cache(maxsize=1)
def zone_names() -> list[str]:
    """Return the names of the IANA zones that this machine knows, such as Europe/Berlin. UTC is the first."""
    named = {name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/"))}
    return ["UTC", *sorted(named - {"UTC"})]
