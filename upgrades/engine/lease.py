"""Leases on rollouts (see portal/leases.py)."""

from django.conf import settings

from portal import leases
from portal.database.statements import Given
from portal.leases import LeaseLost
from portal.tenancy import organizations
from upgrades.models import Rollout, RolloutQuerySet
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
    with organizations(organization_id):
        for lease in DUE_ROLLOUT.take(id=rollout_id):
            lease.row.upgrade.organization = lease.row.organization
            return RolloutLease(lease.row, lease.now)
    return None


def find_due_rollout() -> RolloutQuerySet:
    rows = Rollout.objects.due().filter(pk=Given("id")).exclude(phase=Phase.WAITING)
    return rows.select_related("organization", "upgrade__stop_requested_by")


DUE_ROLLOUT = leases.Claim(find_due_rollout)


def poll_seconds() -> float:
    return float(settings.UPGRADE_POLL_SECONDS)
