"""The right to advance one rollout: portal/leases.py, for rollouts."""

from django.conf import settings

from portal import leases
from portal.leases import LeaseLost
from upgrades.models import Rollout
from upgrades.states import Phase

__all__ = ["Claim", "LeaseLost", "is_past_deadline", "poll_seconds", "take"]


class Claim(leases.Claim[Rollout]):
    """The right to advance one rollout. `now` is the database's clock when it was claimed."""

    @property
    def rollout(self) -> Rollout:
        return self.row


def take(rollout_id: int) -> Claim | None:
    """Claim a due rollout: lease on the database's clock, epoch one higher. None when it is not due or taken."""
    rows = Rollout.objects.due().filter(pk=rollout_id).exclude(phase=Phase.WAITING)
    for claim in leases.take(rows.select_related("organization", "upgrade__stop_requested_by")):
        return Claim(claim.row, claim.now)
    return None


def is_past_deadline(claim: Claim) -> bool:
    return claim.rollout.deadline_at is not None and claim.now >= claim.rollout.deadline_at


def poll_seconds() -> float:
    return float(settings.UPGRADE_POLL_SECONDS)
