"""An upgrade's timeline: lines are told in the transaction of what they tell of."""

from typing import Any

from portal.models import User
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.notifications import announce_stalled
from upgrades.states import EventKind, Outcome, Verdict


def tell(
    upgrade: Upgrade, kind: EventKind, message: str, *, rollout: Rollout | None = None, actor: User | None = None
) -> None:
    """Add a line. `actor` None means the portal itself."""
    UpgradeEvent.objects.create(
        organization_id=upgrade.organization_id,
        upgrade=upgrade,
        rollout=rollout,
        kind=kind,
        actor_email=actor.email if actor else "",
        message=message,
    )


def tell_turns(upgrade: Upgrade, rollout: Rollout, verdict: Verdict, seen: dict[str, Any]) -> None:
    """What changed from the look before (`rollout`, not written yet) to this one: it stalls, moves again, rolls back."""
    if verdict.outcome == Outcome.ROLLING_BACK and rollout.outcome != Outcome.ROLLING_BACK:
        message = f"ECS restores the earlier tasks. {verdict.reason or ''}".strip()
        tell(upgrade, EventKind.ROLLOUT_ROLLING_BACK, message, rollout=rollout)
    if seen["is_stalled"] and not rollout.is_stalled:
        message = (
            f"No task has moved since {seen['progressed_at']:%H:%M:%S} UTC. {newest_word(rollout, verdict)}".strip()
        )
        announce_stalled(upgrade, rollout, message)
        tell(upgrade, EventKind.ROLLOUT_STALLED, message, rollout=rollout)
    if rollout.is_stalled and not seen["is_stalled"]:
        tell(upgrade, EventKind.ROLLOUT_RESUMED, "A task has moved.", rollout=rollout)


def newest_word(rollout: Rollout, verdict: Verdict) -> str:
    """What ECS told last of the service, which says more than its reason for the whole deployment; one query."""
    newest = rollout.events.filter(kind=EventKind.ECS).order_by("-created_at", "-id").first()
    return newest.message if newest else verdict.reason or ""


def describe_revision(rollout: Rollout) -> str:
    """Which revision names the image. `rollout` as it was written."""
    arn = rollout.task_definition or ""
    image = f"{rollout.to_version} ({rollout.to_digest})"
    return f"{arn.rpartition('/')[2]} names {image}; nothing else differs from the revision before."


def describe_start(rollout: Rollout) -> str:
    """Which deployment is followed, from what to what. `rollout` as it was written."""
    name = rollout.deployment_id or (rollout.service_deployment_arn or "").rpartition("/")[2]
    versions = f", {rollout.from_version} to {rollout.to_version}" if rollout.from_version else ""
    return f"Deployment {name}{versions}. {rollout.attribution_note or ''}".strip()
