"""Leases on rows: an expiry on the database's clock and a fencing counter. Both apps use them as their work queue.

Two workers may claim the same row, and a worker may die or pause while it holds one. Only the holder of the newest
epoch can write; a write with an older epoch changes nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection, models, transaction
from django.db.models.functions import Now
from django.utils.functional import cached_property

from portal.database import statements
from portal.database.statements import Given, RowStatement
from portal.outages import is_database_outage, note_database_outage

logger = logging.getLogger(__name__)

# A running step's leases are renewed for this long. Celery's own limit (CELERY_TASK_TIME_LIMIT) ends a task that hangs.
KEPT_SECONDS = 60


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
# When a row is due that is released for a while.
AFTER_PAUSE = Now() + Given("pause", models.DurationField())


def get_lease_duration() -> timedelta:
    """Return how long a lease lasts. After this time, the rows of a crashed worker can be claimed again.

    It is longer than any write to AWS, so a call has ended before another worker searches for its effect.
    """
    return timedelta(seconds=settings.LEASE_SECONDS)


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
        self.write_with({}, **fields)

    def write_with(self, given: dict[str, Any], **fields: Any) -> None:
        """Write fields, for these values of the placeholders (Given) in their expressions. Raises LeaseLost."""
        if not statements.update(type(self.row).unfinished, self.match_own_row(), fields, **given):
            raise LeaseLost(str(self.row))
        for name, value in fields.items():
            setattr(self.row, name, value)

    def match_own_row(self) -> dict[str, Any]:
        """Return what the row has as long as the lease is held."""
        return {"id": self.row.pk, "lease_epoch": self.row.lease_epoch}

    def renew(self) -> None:
        """Extend the lease. Call this before each AWS call. Raises LeaseLost."""
        self.write(lease_until=Now() + get_lease_duration())

    def extend(self) -> None:
        """Renew the lease from another thread: not if it was released, has expired or belongs to another worker."""
        own_rows = type(self.row).unfinished().filter(**self.match_own_row())
        own_rows.filter(lease_until__gt=Now()).update(lease_until=Now() + get_lease_duration())

    def release(self, *, seconds: float, **fields: Any) -> None:
        """Write `fields`, release the lease, and make the row due again in `seconds`."""
        self.write_with({"pause": timedelta(seconds=seconds)}, lease_until=None, next_check_at=AFTER_PAUSE, **fields)


def find_due(function: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Return the ids of due work in every organization, from the function of the database with this name.

    `arguments` follow the database's clock. It needs no context (upgrades/migrations/0022_due_work.py).
    """
    marks = ", ".join(["statement_timestamp()", *["%s"] * len(arguments)])
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {function}({marks})", arguments)  # noqa: S608 - our own names
        return list(cursor.fetchall())


def find_organization(function: str, pk: int) -> UUID | None:
    """Return the organization of a row, from the function of the database with this name. None without such a row.

    It needs no context. The row is then claimed inside its organization.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [pk])
        (organization_id,) = cursor.fetchone()
    return organization_id if organization_id is None else UUID(str(organization_id))


class Claim(Generic[Row]):
    """Claims the rows of a query set, in their order. Those that others have locked are skipped.

    `rows`: a function that returns the query set. It is made into SQL once. Rows that it joins are not locked.
    """

    def __init__(self, rows: "Callable[[], models.QuerySet[Row]]", *, most: int = 1) -> None:
        self.rows, self.most = rows, most

    def take(self, **place: Any) -> list[Lease[Row]]:
        """Claim up to `most` rows for these values of the placeholders. Each gets a lease and the next epoch."""
        with transaction.atomic(), connection.cursor() as cursor:
            found: list[Any] = self.statement.read_all(**place)
            if found:
                given: dict[str, Any] = {"duration": get_lease_duration(), "keys": [row.pk for row in found]}
                cursor.execute(CLAIM.format(table=self.statement.model._meta.db_table), given)
        for row in found:
            row.lease_epoch += 1
        return [Lease(row, row.claimed_at) for row in found]

    @cached_property
    def statement(self) -> RowStatement[Row]:
        """The rows with the clock of Now(). Only in a transaction are row locks made into SQL."""
        found: models.QuerySet[Any] = self.rows().annotate(claimed_at=Now())
        return RowStatement(found.select_for_update(skip_locked=True, of=("self",), no_key=True)[: self.most])


CLAIM = """
UPDATE "{table}" SET lease_until = STATEMENT_TIMESTAMP() + %(duration)s, lease_epoch = lease_epoch + 1
WHERE id = ANY(%(keys)s)
"""


@contextmanager
def kept(*leases: Lease[Any]) -> Iterator[None]:
    """Renew the leases on another thread while the block runs, so that slow reads of AWS do not lose them.

    A process that is stopped or killed renews nothing. *Costs* a thread; a database connection only in a slow block.
    """
    ended = threading.Event()
    # With the context of organizations, without which the thread would see no row.
    keeper = threading.Thread(target=copy_context().run, args=(keep, leases, ended), name="leases", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def keep(leases: Iterable[Lease[Any]], ended: threading.Event) -> None:
    pause = settings.LEASE_SECONDS / 3
    stops_at = time.monotonic() + KEPT_SECONDS
    try:
        while not ended.wait(pause) and time.monotonic() < stops_at:
            for lease in leases:
                lease.extend()
    except DatabaseError as error:
        note_database_outage(error)
    finally:
        connection.close()


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
