"""How a rollout is shown: its lane's sentences and its bar of tasks. No rule about state lives here."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from upgrades.engine.finish import newest_stop
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import Outcome, Phase, Status

EVENTS_SHOWN = 20
STALL_REASONS_SHOWN = 3

# What is true of a service after each end that is not plain success: what it runs, and whether anything still happens.
# What may be done about it: next_steps.py.
LEFT_AS = {
    Outcome.NO_CHANGE: "No task was touched. Force a new rollout where its tasks should be replaced all the same.",
    Outcome.DISABLED: "Nothing was changed. Scale the service up in ECS if it should run.",
    Outcome.ROLLED_BACK: "ECS has put the earlier tasks back: the service runs what it ran before.",
    Outcome.STOPPED_BY_USER: "As asked for, ECS stopped it. It goes back to the earlier tasks wherever a deployment had "
    "completed before.",
    Outcome.ROLLBACK_FAILED: "ECS could not put the earlier tasks back. Too few may run; nothing more happens by itself.",
    Outcome.CIRCUIT_BREAKER: "ECS gave up and left it so: the failing deployment stays the newest, beside what earlier "
    "tasks still run. It is not set to roll back, or has nothing to go back to.",
    Outcome.ALARM: "ECS stopped there and left it so: new and earlier tasks may run side by side. It is not set to roll "
    "back, or has nothing to go back to.",
    Outcome.SUPERSEDED: "It runs, or rolls to, what somebody else deployed; the portal no longer watches it.",
    Outcome.CHANGED_SINCE: "It runs on as somebody else deployed it.",
    Outcome.STOPPED: "ECS stopped it and had nothing to go back to: new and earlier tasks may run side by side.",
    Outcome.ACCESS_DENIED: "Nothing was changed in ECS: the service runs what it ran before.",
    Outcome.REFUSED: "Nothing was changed in ECS: the service runs what it ran before.",
    Outcome.SERVICE_MISSING: "There is nothing left to watch.",
    Outcome.NOT_SUPPORTED: "Nothing was changed in ECS: the service runs what its controller deployed.",
    Outcome.TIMED_OUT: "The portal has stopped watching, and its slot is free. ECS may still be rolling it.",
    Outcome.NOT_ATTEMPTED: "The service runs what it ran before.",
}


@dataclass(frozen=True)
class Segment:
    """A stretch of the bar, on a scale of 0 to 100. `kind`: new, old, pending, failed."""

    kind: str
    count: int
    x: float
    width: float


@dataclass(frozen=True)
class Lane:
    rollout: Rollout
    events: list[UpgradeEvent]
    bar: list[Segment]
    headline: str
    left_as: str | None
    checked_ago_seconds: int | None
    stall_reasons: list[UpgradeEvent]


def lanes_of(upgrade: Upgrade, *, now: datetime | None = None) -> list[Lane]:
    """A lane for each rollout. The upgrade comes from `for_record`, its rollouts' events prefetched."""
    now = now or timezone.now()
    return [
        Lane(
            rollout=rollout,
            events=list(rollout.events.all()[:EVENTS_SHOWN]),
            bar=bar_of(rollout),
            headline=headline_of(rollout),
            left_as=LEFT_AS.get(Outcome(rollout.outcome)) if rollout.is_terminal and rollout.outcome else None,
            checked_ago_seconds=int((now - rollout.last_checked_at).total_seconds())
            if rollout.last_checked_at
            else None,
            stall_reasons=newest_words(rollout) if rollout.is_stalled else [],
        )
        for rollout in upgrade.rollouts.all()
    ]


def newest_words(rollout: Rollout) -> list[UpgradeEvent]:
    """What ECS told last, each sentence once, newest first."""
    distinct: dict[str, UpgradeEvent] = {}
    for event in rollout.events.all():
        distinct.setdefault(event.message, event)
    return list(distinct.values())[:STALL_REASONS_SHOWN]


def bar_of(rollout: Rollout) -> list[Segment]:
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


def headline_of(rollout: Rollout) -> str:
    """State before reason."""
    if rollout.phase == Phase.WAITING:
        return "Waits for the service before it."
    if rollout.phase == Phase.DUE:
        return "About to start."
    if rollout.phase == Phase.CALLING:
        return "ECS was asked to start; waiting for the deployment to show."
    if rollout.phase == Phase.DONE:
        return ended(rollout)
    newest = newest_stop(rollout.stopped_tasks)
    if rollout.outcome == Outcome.ROLLING_BACK:
        return " ".join(part for part in ("Rolling back.", rollout.rollout_reason, newest) if part)
    wanted = rollout.desired_count
    running = f"{rollout.target_running} of {wanted} new tasks run" if wanted is not None else "New tasks start"
    old = f", {rollout.source_running} old still run" if rollout.source_running else ""
    return f"{running}{old}. {newest}".strip()


def ended(rollout: Rollout) -> str:
    if rollout.error_message:
        return rollout.error_message  # outcome, ECS's reason, and why the last task stopped
    if rollout.outcome == Outcome.COMPLETED:
        return f"Rolled out: {rollout.running_count} of {rollout.desired_count} tasks run."
    label = Outcome(rollout.outcome).label if rollout.outcome else Status(rollout.status).label
    return f"{label}. {rollout.rollout_reason or ''}".strip()
