"""Leases on rollouts (see portal/leases.py)."""

from django.conf import settings

from portal import leases
from portal.leases import LeaseLost
from portal.tenancy import organizations
from upgrades.models import Rollout
from upgrades.states import Phase

__all__ = ["LeaseLost", "RolloutLease", "claim_rollout", "poll_seconds"]


class RolloutLease(leases.Lease[Rollout]):
    """A lease on one rollout. `now` is the database's time of the claim."""

    @property
    def rollout(self) -> Rollout:
        return self.row


def claim_rollout(rollout_id: int) -> RolloutLease | None:
    """Claim a due rollout: set the lease by the database's clock and increment the epoch.

    Return None if the rollout is not due or another worker holds it.
    """
    organization_id = leases.find_organization("upgrades_rollout_organization", rollout_id)
    if organization_id is None:
        return None
    rows = Rollout.objects.due().filter(pk=rollout_id).exclude(phase=Phase.WAITING)
    with organizations(organization_id):
        for lease in leases.claim_rows(rows.select_related("organization", "upgrade__stop_requested_by")):
            return RolloutLease(lease.row, lease.now)
    return None


def poll_seconds() -> float:
    return float(settings.UPGRADE_POLL_SECONDS)
