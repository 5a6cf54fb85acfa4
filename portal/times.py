"""Times in the format of the API, and in the formats that people and scripts write."""

import re
from datetime import UTC, datetime

# A time with an offset whose `+` a query string has turned into a space, and the portal's own `2026-11-28 16:03:10 UTC`.
TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?P<clock>[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)"
    r"( ?(?P<utc>Z|UTC)| ?(?P<sign>[-+ ])(?P<offset>[0-9]{2}:?[0-9]{2}))?",
    re.ASCII | re.IGNORECASE,
)


def utc(at: datetime | None) -> str | None:
    """Return the time in ISO 8601, UTC, with `Z`; None for None."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


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
