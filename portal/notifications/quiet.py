"""Quiet hours of a channel: when they end, and which messages do not wait for that. Pure."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from django.db.models import Q

from portal.models.notifications import NotificationChannel, NotificationKind
from portal.times import find_zone

# Somebody has to act before the morning, or asked for the message a moment ago.
URGENT = frozenset(
    {
        NotificationKind.UPGRADE_WAITING,
        NotificationKind.UPGRADE_STALLED,
        NotificationKind.UPGRADE_OVERDUE,
        NotificationKind.DEPLOYMENT_FAILED,
        NotificationKind.TEST,
    }
)


@dataclass(frozen=True)
class QuietHours:
    """From `begin` to `end` by the clock of `zone`, over midnight if `end` is the earlier one. The two differ."""

    begin: time
    end: time
    zone: str

    def __str__(self) -> str:
        return f"{self.begin:%H:%M} to {self.end:%H:%M}, {self.zone}"

    def find_end(self, now: datetime) -> datetime | None:
        """Return when the quiet hours end that `now` is in; None outside of them.

        On the day when the clocks go forward, a time in the hour left out counts as one hour later.

        >>> from datetime import UTC
        >>> hours = QuietHours(time(22), time(7), "Europe/Berlin")
        >>> hours.find_end(datetime(2026, 3, 28, 23, tzinfo=UTC)).astimezone(UTC).isoformat()
        '2026-03-29T05:00:00+00:00'
        >>> hours.find_end(datetime(2026, 3, 29, 5, tzinfo=UTC))
        """
        zone = find_zone(self.zone)
        today = now.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            last_day = day if self.begin < self.end else day + timedelta(days=1)
            begins, ends = datetime.combine(day, self.begin, zone), datetime.combine(last_day, self.end, zone)
            if begins <= now < ends:
                return ends
        return None


def get_quiet_hours(channel: NotificationChannel) -> QuietHours | None:
    if channel.quiet_from is None or channel.quiet_until is None:
        return None
    return QuietHours(channel.quiet_from, channel.quiet_until, channel.quiet_zone)


def is_urgent(kind: str, data: dict[str, Any]) -> bool:
    """Return whether the message is sent in quiet hours too: also the end of an upgrade that is not SUCCESS."""
    return kind in URGENT or (kind == NotificationKind.UPGRADE_ENDED and data.get("status") != "SUCCESS")


def like(kind: str, data: dict[str, Any]) -> Q:
    """Return the condition of deliveries that are as urgent as this one."""
    urgent = Q(kind__in=URGENT) | (Q(kind=NotificationKind.UPGRADE_ENDED) & ~Q(data__status="SUCCESS"))
    return urgent if is_urgent(kind, data) else ~urgent
