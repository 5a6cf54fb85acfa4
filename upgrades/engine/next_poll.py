"""What is written after an observation that does not end the rollout: its progress, its first doubt, or why AWS failed."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from portal.aws.errors import AwsError, AwsUnavailable
from upgrades.engine.deadline import is_past_deadline, is_past_ecs_limit
from upgrades.engine.finish import build_timed_out_verdict, finish_rollout, refresh_upgrade
from upgrades.engine.lease import RolloutLease, poll_seconds
from upgrades.engine.restored import may_have_been_called
from upgrades.events import record_overdue, record_progress_events
from upgrades.models import Upgrade
from upgrades.states import Phase, Status
from upgrades.verdicts import Verdict


def record_progress(
    lease: RolloutLease, verdict: Verdict, observed: dict[str, Any], *, is_decided: bool = False
) -> None:
    """Write the progress of a rollout that still runs. After a decision, ECS is read again soon.

    A status never goes back from IN_PROGRESS to PENDING, because the read may be stale.
    """
    rollout = lease.rollout
    status = rollout.status if verdict.status == Status.PENDING else verdict.status
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(rollout.upgrade_id)
        record_progress_events(upgrade, rollout, verdict, observed)
        if observed["is_overdue"] and rollout.overdue_notified_at is None:
            record_overdue(upgrade, rollout, verdict.reason or "ECS still reports it in progress.")
            observed |= {"overdue_notified_at": lease.now}
        seconds = poll_seconds() if is_decided else seconds_to_next_poll(lease)
        lease.release(seconds=seconds, status=status, outcome=verdict.outcome, **observed)
        refresh_upgrade(upgrade)


def finish_when_confirmed(lease: RolloutLease, verdict: Verdict, **observed: Any) -> None:
    """Finish with a verdict that a stale read could fake only if a second read confirms it after the read lag."""
    rollout = lease.rollout
    lag = timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS)
    if rollout.doubted_at is not None and lease.now - rollout.doubted_at >= lag:
        return finish_rollout(lease, verdict, **observed)
    fields = observed | {"doubted_at": rollout.doubted_at or lease.now, "rollout_reason": verdict.reason}
    lease.release(seconds=poll_seconds(), **fields)


def record_failed_observation(lease: RolloutLease, why: str, error: AwsError | None = None) -> None:
    """Record that ECS could not be read. The state stays unchanged, and the page shows since when.

    Past the deadline, only a definite refusal ends the rollout: if AWS does not answer, ECS may still be rolling. Before
    the call, nothing can be rolling.
    """
    rollout = lease.rollout
    if not is_past_deadline(rollout, lease.now):
        return lease.release(seconds=5 * poll_seconds(), check_error=why)
    verdict = build_timed_out_verdict(rollout, f"AWS could not be read. {why}")
    is_not_called = rollout.phase == Phase.DUE and not may_have_been_called(rollout)
    if is_not_called or is_past_ecs_limit(rollout, lease.now):
        return finish_rollout(lease, verdict)
    if error is not None and not isinstance(error, AwsUnavailable):
        return finish_when_confirmed(lease, verdict, check_error=why)
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(rollout.upgrade_id)
        fields: dict[str, Any] = {"check_error": why, "is_overdue": True}
        if rollout.overdue_notified_at is None:
            record_overdue(upgrade, rollout, f"AWS could not be read. {why}")
            fields["overdue_notified_at"] = lease.now
        lease.release(seconds=8 * poll_seconds(), **fields)


def seconds_to_next_poll(lease: RolloutLease) -> float:
    """Return the polling interval: short for a young rollout, longer later, so that a stalled one spares AWS's limits."""
    age = lease.now - (lease.rollout.started_at or lease.now)
    if age < timedelta(minutes=2):
        return poll_seconds()
    return poll_seconds() * (3 if age < timedelta(minutes=10) else 8)
