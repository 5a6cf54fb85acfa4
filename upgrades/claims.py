"""The right to advance one rollout: a lease on the database's clock with a fencing counter.

Two workers may want the same rollout, a worker may die or sleep with one in its hands: whoever holds the newest epoch may
write, everybody else's writes change nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from upgrades.models import Rollout
from upgrades.states import Phase

# Renewed before each AWS call, so it outlives the longest one (portal/aws/credentials.py), and the work of a worker that
# died waits no longer than this.
LEASE = timedelta(seconds=20)


class LeaseLost(Exception):
    """Another worker holds the rollout now: what this one found must not be written."""


@dataclass
class Claim:
    """The right to advance one rollout. `now` is the database's clock when it was claimed."""

    rollout: Rollout
    now: datetime

    def write(self, **fields: Any) -> None:
        """Guarded update: raises LeaseLost when the lease is another's, or the rollout done."""
        rollout = self.rollout
        mine = Rollout.objects.filter(pk=rollout.pk, lease_epoch=rollout.lease_epoch)
        if not mine.exclude(phase=Phase.DONE).update(**fields):
            raise LeaseLost(str(rollout))
        for name, value in fields.items():
            setattr(rollout, name, value)

    def renew(self) -> None:
        """Call before each AWS call; raises LeaseLost."""
        self.write(lease_until=Now() + LEASE)

    def release(self, *, seconds: float, **fields: Any) -> None:
        """Write, give the lease back, and be due again in so many seconds."""
        self.write(lease_until=None, next_check_at=Now() + timedelta(seconds=seconds), **fields)


def take(rollout_id: int) -> Claim | None:
    """Claim a due rollout: lease on the database's clock, epoch one higher. None when it is not due or taken."""
    with transaction.atomic():
        rollout = (
            Rollout.objects.due()
            .filter(pk=rollout_id)
            .exclude(phase=Phase.WAITING)
            .select_related("organization", "upgrade__stop_requested_by")
            .select_for_update(skip_locked=True, of=("self",))
            .first()
        )
        if rollout is None:
            return None
        with connection.cursor() as cursor:
            cursor.execute("SELECT now()")
            (now,) = cursor.fetchone()
        rollout.lease_epoch += 1
        Rollout.objects.filter(pk=rollout.pk).update(lease_until=Now() + LEASE, lease_epoch=rollout.lease_epoch)
    return Claim(rollout=rollout, now=now)


def is_past_deadline(claim: Claim) -> bool:
    return claim.rollout.deadline_at is not None and claim.now >= claim.rollout.deadline_at


def poll_seconds() -> float:
    return float(settings.UPGRADE_POLL_SECONDS)
