"""Timeline entries of an upgrade. Each is written in the same transaction as the change it describes."""

from typing import Any

from portal.database.statements import insert
from portal.models import User
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.notifications import notify_overdue, notify_stalled, notify_waiting
from upgrades.states import EventKind, Outcome
from upgrades.verdicts import Verdict


def record_event(
    upgrade: Upgrade, kind: EventKind, message: str, *, rollout: Rollout | None = None, actor: User | None = None
) -> None:
    """Add a timeline entry. `actor` None means the portal itself."""
    event = UpgradeEvent(
        organization_id=upgrade.organization_id,
        upgrade=upgrade,
        rollout=rollout,
        kind=kind,
        actor_email=actor.email if actor else "",
        message=message,
    )
    insert([event])


def record_progress_events(upgrade: Upgrade, rollout: Rollout, verdict: Verdict, observed: dict[str, Any]) -> None:
    """Add entries for what changed since the previous observation: a pause, a bake, a stall, progress, a rollback.

    `rollout` still holds the previous observation. Call this before the new one is written.
    """
    if verdict.outcome == Outcome.ROLLING_BACK and rollout.outcome != Outcome.ROLLING_BACK:
        message = f"ECS is restoring the earlier tasks. {verdict.reason or ''}".strip()
        record_event(upgrade, EventKind.ROLLOUT_ROLLING_BACK, message, rollout=rollout)
    if verdict.outcome == Outcome.WAITING_FOR_DECISION and is_new_pause(rollout, observed):
        notify_waiting(upgrade, rollout, observed.get("hook") or {})
        record_event(upgrade, EventKind.ROLLOUT_WAITING, verdict.reason or "", rollout=rollout)
    if verdict.outcome == Outcome.BAKING and rollout.outcome != Outcome.BAKING:
        record_event(upgrade, EventKind.ROLLOUT_BAKING, verdict.reason or "", rollout=rollout)
    if observed["is_stalled"] and not rollout.is_stalled:
        since = f"No progress since {observed['progressed_at']:%H:%M:%S} UTC."
        message = f"{since} {find_newest_ecs_message(rollout, verdict)}".strip()
        notify_stalled(upgrade, rollout, message)
        record_event(upgrade, EventKind.ROLLOUT_STALLED, message, rollout=rollout)
    if rollout.is_stalled and not observed["is_stalled"]:
        record_event(upgrade, EventKind.ROLLOUT_RESUMED, "Tasks are progressing again.", rollout=rollout)


def is_new_pause(rollout: Rollout, observed: dict[str, Any]) -> bool:
    """Return whether the deployment waits for another decision than at the previous observation."""
    before, now = rollout.hook or {}, observed.get("hook") or {}
    return rollout.outcome != Outcome.WAITING_FOR_DECISION or before.get("id") != now.get("id")


def record_overdue(upgrade: Upgrade, rollout: Rollout, last_state: str) -> None:
    """Add the entry that the rollout is past its deadline, and notify. The caller does this once for each rollout."""
    deadline = f"{rollout.deadline_at:%Y-%m-%d %H:%M} UTC" if rollout.deadline_at else "its deadline"
    message = f"Not finished by {deadline}. The portal watches it further. Last state: {last_state}"
    notify_overdue(upgrade, rollout, message)
    record_event(upgrade, EventKind.ROLLOUT_OVERDUE, message, rollout=rollout)


def find_newest_ecs_message(rollout: Rollout, verdict: Verdict) -> str:
    """Return the newest ECS event of the rollout, or else the reason in the verdict.

    An event is more specific than ECS's reason for the whole deployment. Costs one query.
    """
    newest = rollout.events.filter(kind=EventKind.ECS).order_by("-created_at", "-id").first()
    return newest.message if newest else verdict.reason or ""


def describe_revision(rollout: Rollout) -> str:
    """Describe the revision that was registered for this rollout. Reads the fields as they were written."""
    arn = rollout.task_definition or ""
    image = f"{rollout.to_version} ({rollout.to_digest})"
    return f"{arn.rpartition('/')[2]} uses {image}. Nothing else differs from the previous revision."


def describe_start(rollout: Rollout) -> str:
    """Describe the deployment that is followed and its versions. Reads the fields as they were written."""
    name = rollout.deployment_id or (rollout.service_deployment_arn or "").rpartition("/")[2]
    versions = f", {rollout.from_version} to {rollout.to_version}" if rollout.from_version else ""
    return f"Deployment {name}{versions}. {rollout.attribution_note or ''}".strip()
