"""Leases on rollouts (see portal/leases.py)."""

from django.conf import settings

from portal import leases
from portal.leases import LeaseLost
from upgrades.models import Rollout
from upgrades.states import Phase

__all__ = ["Claim", "LeaseLost", "is_past_deadline", "poll_seconds", "take"]


class Claim(leases.Claim[Rollout]):
    """A lease on one rollout. `now` is the database's time of the claim."""

    @property
    def rollout(self) -> Rollout:
        return self.row


def take(rollout_id: int) -> Claim | None:
    """Claim a due rollout: set the lease by the database's clock and increment the epoch.

    Return None if the rollout is not due or another worker holds it.
    """
    rows = Rollout.objects.due().filter(pk=rollout_id).exclude(phase=Phase.WAITING)
    for claim in leases.take(rows.select_related("organization", "upgrade__stop_requested_by")):
        return Claim(claim.row, claim.now)
    return None


def is_past_deadline(claim: Claim) -> bool:
    return claim.rollout.deadline_at is not None and claim.now >= claim.rollout.deadline_at


def poll_seconds() -> float:
    return float(settings.UPGRADE_POLL_SECONDS)
