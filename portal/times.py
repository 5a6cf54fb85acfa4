"""Times as clients read them."""

from datetime import UTC, datetime


def utc(at: datetime | None) -> str | None:
    """ISO 8601, UTC, `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None
