"""Leases on rows: an expiry on the database's clock and a fencing counter. Both apps use them as their work queue.

Two workers may claim the same row, and a worker may die or pause while it holds one. Only the holder of the newest
epoch can write; a write with an older epoch changes nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import connection, models, transaction
from django.db.models.functions import Now

from portal.outages import is_database_outage

logger = logging.getLogger(__name__)

# Must exceed the longest AWS call, including a role assumed on the way: leases are renewed before each call. A test
# checks this against portal/aws/credentials.py. After a worker crash, its rows become claimable again after this long.
LEASE_DURATION = timedelta(seconds=30)


class LeaseLost(Exception):
    """Another worker holds the row now, or it is done. The current worker must not write its results."""


class Leased(models.Model):
    """A row with work to do. It is due when `next_check_at` has passed and no lease is active (database's clock)."""

    next_check_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    lease_epoch = models.BigIntegerField(default=0, help_text="Fencing: a write with an older epoch changes nothing.")

    class Meta:
        abstract = True

    @classmethod
    def unfinished(cls) -> "models.QuerySet[Any]":
        """Return the rows that may still be written under a lease."""
        raise NotImplementedError


Row = TypeVar("Row", bound=Leased)


def free() -> models.Q:
    """Match rows without an active lease."""
    return models.Q(lease_until__isnull=True) | models.Q(lease_until__lt=Now())


def due() -> models.Q:
    """Match rows that may be claimed now: due and without an active lease."""
    return free() & models.Q(next_check_at__lte=Now())


@dataclass
class Lease(Generic[Row]):
    """A lease on one row. `now` is the database's clock when it was claimed."""

    row: Row
    now: datetime

    def write(self, **fields: Any) -> None:
        """Update the row if the lease is still held. Raises LeaseLost if another worker holds it or the row is done."""
        own_rows = type(self.row).unfinished().filter(pk=self.row.pk, lease_epoch=self.row.lease_epoch)
        if not own_rows.update(**fields):
            raise LeaseLost(str(self.row))
        for name, value in fields.items():
            setattr(self.row, name, value)

    def renew(self) -> None:
        """Extend the lease. Call this before each AWS call. Raises LeaseLost."""
        self.write(lease_until=Now() + LEASE_DURATION)

    def release(self, *, seconds: float, **fields: Any) -> None:
        """Write `fields`, release the lease, and make the row due again in `seconds`."""
        self.write(lease_until=None, next_check_at=Now() + timedelta(seconds=seconds), **fields)


def claim_rows(rows: "models.QuerySet[Row]", *, most: int = 1) -> list[Lease[Row]]:
    """Claim up to `most` of these rows in their order, skipping locked ones. Each gets a lease and the next epoch."""
    with transaction.atomic():
        found = list(rows.select_for_update(skip_locked=True, of=("self",))[:most])
        if not found:
            return []
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")  # the clock of Now()
            (now,) = cursor.fetchone()
        model = type(found[0])
        model._default_manager.filter(pk__in=[row.pk for row in found]).update(
            lease_until=Now() + LEASE_DURATION, lease_epoch=models.F("lease_epoch") + 1
        )
    for row in found:
        row.lease_epoch += 1
    return [Lease(row, now) for row in found]


def run_guarded(name: str, step: Callable[[], None], *, record_crash: Callable[[], None]) -> bool:
    """Run the step of a claimed row. Return False if the lease was lost, in which case nothing more was written.

    `record_crash` runs after an unexpected error: a row that no step can process must neither stop the others nor stay
    claimed. It should release the lease.
    `name`: names the row in the log.

    *Raises* the database's error in an outage, because then nothing can be recorded. The lease expires.
    """
    try:
        try:
            step()
        except LeaseLost:
            raise
        except Exception as error:
            if is_database_outage(error):
                raise
            logger.exception("%s: step failed", name)
            record_crash()
    except LeaseLost:
        logger.info("%s: lease lost, nothing written", name)
        return False
    return True
