"""View model for one service's rollout card: status text and task progress bar. Contains no rules about state."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from upgrades.engine.finish import describe_newest_stop
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.outcome_texts import OUTCOME_TEXTS
from upgrades.states import Outcome, Phase, Status

EVENTS_SHOWN = 20
STALL_REASONS_SHOWN = 3


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
            state_after_end=describe_state_after_end(rollout),
            checked_ago_seconds=int((now - rollout.last_checked_at).total_seconds())
            if rollout.last_checked_at
            else None,
            stall_reasons=find_newest_ecs_messages(rollout) if rollout.is_stalled else [],
        )
        for rollout in upgrade.rollouts.all()
    ]


def describe_state_after_end(rollout: Rollout) -> str | None:
    """Return the service's state after the rollout. None for plain success and while the rollout is open."""
    if not rollout.is_terminal or not rollout.outcome:
        return None
    texts = OUTCOME_TEXTS.get(Outcome(rollout.outcome))
    return texts.state if texts else None


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
