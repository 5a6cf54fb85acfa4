"""View model for one service's rollout card: status text and task progress bar. Contains no rules about state."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from portal.aws.ecs import ROLLING
from upgrades.engine.finish import describe_newest_stop
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.outcome_texts import OUTCOME_TEXTS
from upgrades.pages.rollout_stages import (
    STAGE_NAMES,
    StageLine,
    Traffic,
    build_stage_line,
    build_traffic,
    describe_strategy,
    describe_timeout,
)
from upgrades.pages.timeline import Line, fold_events
from upgrades.states import EventKind, Outcome, Phase, Status, find_idle_end

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
    lines: list[Line]
    bar: list[Segment]
    headline: str
    state_after_end: str | None
    checked_ago_seconds: int | None
    stall_reasons: list[Line]
    strategy: str | None
    stage_line: StageLine | None
    traffic: list[Traffic]
    hook: "HookCard | None"
    missing_tasks: int
    cleanup: str | None
    has_breaker: bool


@dataclass(frozen=True)
class HookCard:
    """The hook that ECS waits for. `then`: what ECS does at `expires_at`. `began_at`: about, for a Lambda function."""

    is_pause: bool
    name: str | None
    stage_name: str | None
    stage: str | None
    began_at: datetime | None
    expires_at: datetime | None
    then: str | None


def build_rollout_cards(
    upgrade: Upgrade, events: list[UpgradeEvent], *, now: datetime | None = None
) -> list[RolloutCard]:
    """Return a card for each rollout. `events`: those of the upgrade, newest first (timeline.py)."""
    now = now or timezone.now()
    of_ecs: dict[int, list[UpgradeEvent]] = defaultdict(list)
    for event in events:
        if event.rollout_id and event.kind == EventKind.ECS:
            of_ecs[event.rollout_id].append(event)
    return [
        RolloutCard(
            rollout=rollout,
            events=of_ecs[rollout.pk][:EVENTS_SHOWN],
            lines=fold_events(of_ecs[rollout.pk][:EVENTS_SHOWN]),
            bar=build_bar(rollout),
            headline=build_headline(rollout),
            state_after_end=describe_state_after_end(rollout),
            checked_ago_seconds=int((now - rollout.last_checked_at).total_seconds())
            if rollout.last_checked_at
            else None,
            stall_reasons=find_newest_ecs_messages(of_ecs[rollout.pk]) if rollout.is_stalled else [],
            strategy=describe_strategy(rollout),
            stage_line=build_stage_line(rollout),
            traffic=build_traffic(rollout),
            hook=build_hook(rollout),
            missing_tasks=max((rollout.desired_count or 0) - rollout.target_running, 0),
            cleanup=(rollout.configuration or {}).get("source_cleanup"),
            # The circuit breaker exists for ROLLING only (checks/detection.py), even if ECS reports a threshold.
            has_breaker=rollout.breaker_threshold > 0 and rollout.strategy in (None, ROLLING),
        )
        for rollout in upgrade.rollouts.all()
    ]


def build_hook(rollout: Rollout) -> HookCard | None:
    """Return the hook that an open rollout waits for. ECS does not say when it began, so the stage's begin is shown."""
    hook = rollout.hook
    if hook is None or rollout.is_terminal:
        return None
    stage, target = hook.get("stage"), hook.get("target")
    return HookCard(
        is_pause=hook.get("status") == "AWAITING_ACTION",
        name=str(target).rpartition(":")[2] if target else None,
        stage_name=STAGE_NAMES.get(stage or ""),
        stage=stage,
        began_at=rollout.stage_began_at or rollout.progressed_at,
        expires_at=rollout.hook_expires_at,
        then=describe_timeout(rollout),
    )


def describe_state_after_end(rollout: Rollout) -> str | None:
    """Return the service's state after the rollout. None for plain success and while the rollout is open."""
    if not rollout.is_terminal or not rollout.outcome:
        return None
    if rollout.outcome == Outcome.STOPPED_BY_USER and rollout.source_running and not rollout.target_running:
        return "ECS stopped the rollout as requested. Only the earlier tasks run."
    texts = OUTCOME_TEXTS.get(Outcome(rollout.outcome))
    return texts.state if texts else None


def find_newest_ecs_messages(events: list[UpgradeEvent]) -> list[Line]:
    """Return the last messages of ECS, each message once, newest first."""
    distinct: dict[str, Line] = {}
    for line in fold_events(events):
        distinct.setdefault(line.text, line)
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
    return " ".join(part for part in (describe_wait(rollout), describe_tasks(rollout), newest) if part)


def describe_wait(rollout: Rollout) -> str:
    """Return what ECS waits for in an open rollout, or what else it reports. Empty if tasks are what it waits for."""
    if rollout.outcome == Outcome.WAITING_FOR_DECISION:
        return "Paused by ECS."
    if rollout.outcome == Outcome.HOOK_RUNNING:
        return "A lifecycle hook decides whether it goes on."
    if rollout.outcome == Outcome.BAKING:
        return "All traffic is on the new version. ECS may still roll it back."
    has_moved = rollout.target_running == rollout.desired_count and not rollout.source_running
    watches_alarms = bool((rollout.configuration or {}).get("alarms_enabled"))
    if rollout.strategy == ROLLING and has_moved and rollout.desired_count and watches_alarms:
        return "ECS watches the alarms before it ends the rollout."
    # The engine's reason begins with the stage, which the stage line shows (verdicts.judge).
    said = (rollout.rollout_reason or "") if rollout.outcome is None else ""
    return said.partition(". ")[2] if said.startswith("Stage ") else said


def describe_tasks(rollout: Rollout) -> str:
    wanted = rollout.desired_count
    running = (
        f"{rollout.target_running} of {wanted} new tasks running" if wanted is not None else "New tasks are starting"
    )
    old = f", {rollout.source_running} old tasks still running" if rollout.source_running else ""
    return f"{running}{old}."


def describe_end(rollout: Rollout) -> str:
    if rollout.error_message:
        return rollout.error_message  # outcome, ECS's reason, and why the last task stopped
    if find_idle_end(rollout.rollout_reason):
        return f"Rolled out. {rollout.rollout_reason}"
    if rollout.outcome == Outcome.COMPLETED and not rollout.desired_count:
        return "Rolled out. No task runs, because none is desired."
    if rollout.outcome == Outcome.COMPLETED:
        return f"Rolled out: {rollout.running_count} of {rollout.desired_count} tasks running."
    if rollout.outcome == Outcome.COMPLETED_EARLY:
        return f"Rolled out early: {describe_tasks(rollout)}"
    label = Outcome(rollout.outcome).label if rollout.outcome else Status(rollout.status).label
    return f"{label}. {rollout.rollout_reason or ''}".strip()
