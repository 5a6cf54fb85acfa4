"""Advances one service's rollout: claim it, run the step for its phase, write the result.

    due -> start() -> calling -> watching -> done          states.py explains the phases
             '-- call() --'  '-- resolve() after an ambiguous end

Never lost: a rollout that is not done becomes due again, even if a worker dies. Never doubled: the baseline is committed
before UpdateService is called, and the call is made once. After an ambiguous end, resolve() first searches for the
deployment that the call started. Only then may UpdateService be called again.

No AWS call is made inside a transaction. Every write checks the lease's epoch, so a worker that lost its lease changes
nothing.
"""

import logging

from portal.aws.credentials import drop_session
from portal.aws.errors import EXPIRED, AwsError, summarize_error
from portal.leases import kept, run_guarded
from portal.request_id import carrying
from portal.tenancy import organizations
from upgrades.engine.lease import RolloutLease, claim_rollout
from upgrades.engine.next_poll import record_failed_observation
from upgrades.engine.start import resolve, start
from upgrades.engine.watch import watch
from upgrades.states import Phase

logger = logging.getLogger(__name__)


def advance(rollout_id: int) -> bool:
    """Run the next step of the rollout if it is due and no other worker holds it. Return whether a step ran.

    Safe to call at any time, any number of times, from any process. Costs about ten AWS calls at most.
    """
    lease = claim_rollout(rollout_id)
    if lease is None:
        return False
    crash = "The portal could not process this rollout. See the worker's log for the error."
    with organizations(lease.rollout.organization_id), carrying(lease.rollout.upgrade.request_id), kept(lease):
        run_guarded(
            f"rollout {rollout_id} in {lease.rollout.phase}",
            lambda: run_step(lease),
            record_crash=lambda: record_failed_observation(lease, crash),
        )
    return True


def run_step(lease: RolloutLease) -> None:
    """Run the step for the rollout's phase. Record in the row that AWS failed, if it did."""
    step = {Phase.DUE: start, Phase.CALLING: resolve, Phase.WATCHING: watch}[Phase(lease.rollout.phase)]
    try:
        step(lease)
    except AwsError as error:
        logger.warning("rollout %s in %s: %s", lease.rollout.pk, lease.rollout.phase, error)
        if error.code in EXPIRED:
            drop_session(lease.rollout.upgrade.aws_target)
        record_failed_observation(lease, summarize_error(error), error)
