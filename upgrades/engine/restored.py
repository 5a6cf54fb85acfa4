"""Rollouts from a restored backup: the call may have been made after the backup, so it is searched for before it is made.

A row carries the identity of the database in which it was requested. If another database answers, its history may end
before the call. The same holds after a standby has taken over that had not received the last transactions.
"""

from datetime import datetime

from portal.aws import ecs
from portal.database import DatabaseIdentity
from portal.templatetags.formatting import last_part
from upgrades.engine.lease import RolloutLease
from upgrades.models import Rollout
from upgrades.states import Outcome, Status
from upgrades.verdicts import Verdict

NOTE = (
    "The database was restored, or another server took over, after this upgrade was requested. The portal followed the "
    "deployment that had started since."
)
# The value of Rollout.database after `manage.py mark_restored`. No database has this identity.
MARKED = "restored"


def may_have_been_called(rollout: Rollout) -> bool:
    """Return whether UpdateService may have been called without a trace in this database. *Costs* one query."""
    return Rollout.objects.filter(pk=rollout.pk).exclude(database=DatabaseIdentity()).exists()


def build_baseline(lease: RolloutLease, service: ecs.Service, answered_at: datetime) -> dict[str, object]:
    """Return the baseline as it was when the upgrade was requested: what ECS has started since may be its own.

    Only the time since the request is taken from the database, so that its clock may differ from that of AWS.
    """
    requested_at = answered_at - (lease.now - lease.rollout.upgrade.created_at)
    earlier = [deployment.id for deployment in service.deployments if deployment.created_at < requested_at]
    return {"deployment_ids": earlier, "service_deployment": None, "answered_at": requested_at.isoformat()}


def build_deployed_since_verdict(runs: str) -> Verdict:
    """Return the verdict for a restored rollout that must not call, because it would undo a later deployment."""
    reason = (
        f"The database was restored, or another server took over, after this upgrade was requested. {last_part(runs)} was "
        "deployed since, so nothing was called. Find out who deployed it and whether it should stay."
    )
    return Verdict(Status.FAILED, Outcome.SUPERSEDED, reason)
