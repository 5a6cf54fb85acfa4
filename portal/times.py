"""Times in the format of the API."""

from datetime import UTC, datetime


def utc(at: datetime | None) -> str | None:
    """Return the time in ISO 8601, UTC, with `Z`; None for None."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None
