"""The right to work on one row: a lease on the database's clock with a fencing counter. The queue of both apps.

Two workers may want the same row, a worker may die or sleep with one in its hands: whoever holds the newest epoch may
write, everybody else's writes change nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import connection, models, transaction
from django.db.models.functions import Now

# Renewed before each AWS call, so it outlives the longest one, a role assumed on the way included (a test holds it to
# portal/aws/credentials.py), and the work of a worker that died waits no longer than this.
LEASE = timedelta(seconds=30)


class LeaseLost(Exception):
    """Another worker holds the row now, or it is done: what this one found must not be written."""


class Leased(models.Model):
    """A row that is worked on: due when `next_check_at` has come and nobody holds a lease (the database's clock)."""

    next_check_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    lease_epoch = models.BigIntegerField(default=0, help_text="Fencing: a write with an older epoch changes nothing.")

    class Meta:
        abstract = True

    @classmethod
    def unfinished(cls) -> "models.QuerySet[Any]":
        """The rows that somebody may still write to under a lease."""
        raise NotImplementedError


Row = TypeVar("Row", bound=Leased)


def free() -> models.Q:
    """Nobody holds it."""
    return models.Q(lease_until__isnull=True) | models.Q(lease_until__lt=Now())


def due() -> models.Q:
    """What may be claimed now: its time has come and nobody holds it."""
    return free() & models.Q(next_check_at__lte=Now())


@dataclass
class Claim(Generic[Row]):
    """The right to work on one row. `now` is the database's clock when it was claimed."""

    row: Row
    now: datetime

    def write(self, **fields: Any) -> None:
        """Guarded update: raises LeaseLost when the lease is another's, or the row done."""
        mine = type(self.row).unfinished().filter(pk=self.row.pk, lease_epoch=self.row.lease_epoch)
        if not mine.update(**fields):
            raise LeaseLost(str(self.row))
        for name, value in fields.items():
            setattr(self.row, name, value)

    def renew(self) -> None:
        """Call before each AWS call; raises LeaseLost."""
        self.write(lease_until=Now() + LEASE)

    def release(self, *, seconds: float, **fields: Any) -> None:
        """Write, give the lease back, and be due again in so many seconds."""
        self.write(lease_until=None, next_check_at=Now() + timedelta(seconds=seconds), **fields)


def take(rows: "models.QuerySet[Row]", *, most: int = 1) -> list[Claim[Row]]:
    """Claim of these rows what nobody else does, `most` at most and in their order: a lease each, epoch one higher."""
    with transaction.atomic():
        found = list(rows.select_for_update(skip_locked=True, of=("self",))[:most])
        if not found:
            return []
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")  # what Now() is
            (now,) = cursor.fetchone()
        model = type(found[0])
        model._default_manager.filter(pk__in=[row.pk for row in found]).update(
            lease_until=Now() + LEASE, lease_epoch=models.F("lease_epoch") + 1
        )
    for row in found:
        row.lease_epoch += 1
    return [Claim(row, now) for row in found]
