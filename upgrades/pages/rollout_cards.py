"""View model for one service's rollout card: status text and task progress bar. Contains no rules about state."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from upgrades.engine.finish import describe_newest_stop
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import Outcome, Phase, Status

EVENTS_SHOWN = 20
STALL_REASONS_SHOWN = 3

# The state of a service after each outcome except plain success: what it runs, and whether anything still happens.
# What can be done about it is in next_steps.py.
STATE_AFTER_END = {
    Outcome.NO_CHANGE: "No task was replaced. To replace the tasks anyway, force a new deployment.",
    Outcome.DISABLED: "Nothing was changed. Scale the service up in ECS if it should run.",
    Outcome.ROLLED_BACK: "ECS restored the earlier tasks. The service runs the version that it ran before.",
    Outcome.STOPPED_BY_USER: "ECS stopped the rollout as requested. It restores the earlier tasks if an earlier "
    "deployment had completed.",
    Outcome.ROLLBACK_FAILED: "ECS could not restore the earlier tasks and will not try again. Too few may be running.",
    Outcome.CIRCUIT_BREAKER: "ECS gave up and did not roll back. The failed deployment stays the newest, beside any "
    "earlier tasks that still run. Automatic rollback is off, or there is nothing to roll back to.",
    Outcome.ALARM: "ECS stopped the rollout and did not roll back. New and earlier tasks may run side by side. Automatic "
    "rollback is off, or there is nothing to roll back to.",
    Outcome.SUPERSEDED: "The service runs, or is rolling to, a later deployment. The portal no longer watches it.",
    Outcome.CHANGED_SINCE: "The portal changed nothing. The service keeps running the later deployment.",
    Outcome.STOPPED: "ECS stopped the rollout and had nothing to roll back to. New and earlier tasks may run side by side.",
    Outcome.ACCESS_DENIED: "Nothing was changed in ECS. The service runs the version that it ran before.",
    Outcome.REFUSED: "Nothing was changed in ECS. The service runs the version that it ran before.",
    Outcome.SERVICE_MISSING: "The service does not exist in ECS, so there is nothing to watch.",
    Outcome.NOT_SUPPORTED: "Nothing was changed in ECS. The service runs what its own controller deployed.",
    Outcome.TIMED_OUT: "The portal stopped watching, and the service can be upgraded again. ECS may still be rolling it.",
    Outcome.NOT_ATTEMPTED: "The service runs the version that it ran before.",
}


@dataclass(frozen=True)
class Segment:
    """A segment of the task bar, on a scale of 0 to 100. `kind`: new, old, pending, failed."""

    kind: str
    count: int
    x: float
    width: float


@dataclass(frozen=True)
class RolloutCard:
    rollout: Rollout
    events: list[UpgradeEvent]
    bar: list[Segment]
    headline: str
    state_after_end: str | None
    checked_ago_seconds: int | None
    stall_reasons: list[UpgradeEvent]


def build_rollout_cards(upgrade: Upgrade, *, now: datetime | None = None) -> list[RolloutCard]:
    """Return a card for each rollout.

    The upgrade must come from `for_record`, with its rollouts' events prefetched.
    """
    now = now or timezone.now()
    return [
        RolloutCard(
            rollout=rollout,
            events=list(rollout.events.all()[:EVENTS_SHOWN]),
            bar=build_bar(rollout),
            headline=build_headline(rollout),
            state_after_end=STATE_AFTER_END.get(Outcome(rollout.outcome))
            if rollout.is_terminal and rollout.outcome
            else None,
            checked_ago_seconds=int((now - rollout.last_checked_at).total_seconds())
            if rollout.last_checked_at
            else None,
            stall_reasons=find_newest_ecs_messages(rollout) if rollout.is_stalled else [],
        )
        for rollout in upgrade.rollouts.all()
    ]


def find_newest_ecs_messages(rollout: Rollout) -> list[UpgradeEvent]:
    """Return the last messages of ECS, each message once, newest first."""
    distinct: dict[str, UpgradeEvent] = {}
    for event in rollout.events.all():
        distinct.setdefault(event.message, event)
    return list(distinct.values())[:STALL_REASONS_SHOWN]


def build_bar(rollout: Rollout) -> list[Segment]:
    counts = [
        ("new", rollout.target_running),
        ("pending", rollout.target_pending),
        ("old", rollout.source_running),
        ("failed", rollout.failed_tasks or 0),
    ]
    total = sum(count for _, count in counts)
    segments: list[Segment] = []
    x = 0.0
    for kind, count in counts:
        if count:
            width = round(100 * count / total, 2)
            segments.append(Segment(kind, count, round(x, 2), width))
            x += width
    return segments


def build_headline(rollout: Rollout) -> str:
    """Return the status text of a rollout: first the state, then the reason."""
    if rollout.phase == Phase.WAITING:
        return "Waiting for the previous service."
    if rollout.phase == Phase.DUE:
        return "About to start."
    if rollout.phase == Phase.CALLING:
        return "Start requested. Waiting for the deployment to appear in ECS."
    if rollout.phase == Phase.DONE:
        return describe_end(rollout)
    newest = describe_newest_stop(rollout.stopped_tasks)
    if rollout.outcome == Outcome.ROLLING_BACK:
        return " ".join(part for part in ("Rolling back.", rollout.rollout_reason, newest) if part)
    wanted = rollout.desired_count
    running = (
        f"{rollout.target_running} of {wanted} new tasks running" if wanted is not None else "New tasks are starting"
    )
    old = f", {rollout.source_running} old tasks still running" if rollout.source_running else ""
    return f"{running}{old}. {newest}".strip()


def describe_end(rollout: Rollout) -> str:
    if rollout.error_message:
        return rollout.error_message  # outcome, ECS's reason, and why the last task stopped
    if rollout.outcome == Outcome.COMPLETED:
        return f"Rolled out: {rollout.running_count} of {rollout.desired_count} tasks running."
    label = Outcome(rollout.outcome).label if rollout.outcome else Status(rollout.status).label
    return f"{label}. {rollout.rollout_reason or ''}".strip()
