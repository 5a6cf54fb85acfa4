"""Notifications about upgrades: started, ended, stalled, overdue, waiting, not validated. portal/notifications sends them.

Call each function in the transaction of the change it reports, after the guard that lets the change happen only once.
A repeated step then sends no second notification.
"""

from typing import Any

from django.urls import reverse

from portal.models.notifications import NotificationKind
from portal.notifications import notify
from upgrades.models import Kind, Rollout, Upgrade, UpgradeEvent
from upgrades.outcome_texts import OUTCOME_TEXTS, UNCLEAR
from upgrades.states import ROLLED_OUT, EventKind, Outcome, Status, describe_upgrade, find_idle_end, inline_label

NEXT_AFTER_OVERDUE = (
    "Next: find out on the upgrade's page what ECS waits for. Stop the upgrade to let ECS roll it back."
)
NEXT_AFTER_STALL = "Next: find the cause on the upgrade's page. Stop the upgrade to let ECS roll it back."


def notify_started(upgrade: Upgrade, rollouts: list[Rollout]) -> None:
    names = ", then ".join(inline_label(rollout.service) for rollout in rollouts)
    destination = f"to {upgrade.version}"
    if upgrade.rolls_back:
        destination = f"back to {upgrade.version}, rolling back {upgrade.rolls_back.upgrade_id}"
    lines = [
        f"{upgrade.initiated_by_email} started {upgrade.upgrade_id}: {names} {destination}"
        f"{', forced' if upgrade.force_new_deployment else ''}.",
        f"Reason: {upgrade.reason}" if upgrade.reason else "",
        f"A failed check was overridden: {upgrade.override_reason}" if upgrade.override_reason else "",
    ]
    text = "\n".join(line for line in lines if line)
    notify_upgrade(
        upgrade, NotificationKind.UPGRADE_STARTED, rollouts, what=f"{describe_kind(upgrade)} started", text=text
    )


def notify_ended(upgrade: Upgrade, status: Status) -> None:
    """Notify that the upgrade ended. `status` is about to be written. The rollouts already have theirs."""
    rollouts = get_rollouts(upgrade)
    parts = [(rollout.service, Status(rollout.status), rollout.outcome) for rollout in rollouts]
    reasons = {rollout.service: rollout.rollout_reason for rollout in rollouts}
    summary = describe_upgrade(status, parts, reasons=reasons, is_rollback=upgrade.is_rollback)
    lines = [summary, *(describe_rollout(rollout) for rollout in rollouts), f"Next: {next_action(status, rollouts)}"]
    notify_upgrade(
        upgrade,
        NotificationKind.UPGRADE_ENDED,
        rollouts,
        what=f"{describe_kind(upgrade)} ended {status}",
        text="\n".join(lines),
        status=status,
    )


def notify_stalled(upgrade: Upgrade, rollout: Rollout, message: str) -> None:
    """Notify once per rollout that it stalled. Call this before the timeline entry is written."""
    if UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_STALLED).exists():
        return
    service = inline_label(rollout.service)
    lines = [f"{service.capitalize()} of {upgrade.upgrade_id}: {message}", NEXT_AFTER_STALL]
    what, text = f"rollout of {service} stalled", "\n".join(lines)
    notify_upgrade(upgrade, NotificationKind.UPGRADE_STALLED, get_rollouts(upgrade), what=what, text=text)


def notify_overdue(upgrade: Upgrade, rollout: Rollout, message: str) -> None:
    """Notify that a rollout is past its deadline and still open. The caller does this once for each rollout."""
    service = inline_label(rollout.service)
    lines = [f"{service.capitalize()} of {upgrade.upgrade_id}: {message}", NEXT_AFTER_OVERDUE]
    what, text = f"rollout of {service} overdue", "\n".join(lines)
    notify_upgrade(upgrade, NotificationKind.UPGRADE_OVERDUE, get_rollouts(upgrade), what=what, text=text)


def notify_waiting(upgrade: Upgrade, rollout: Rollout, hook: dict[str, Any]) -> None:
    """Notify that a rollout waits for a decision at this pause. The caller does this once for each pause."""
    service = inline_label(rollout.service)
    ends = (
        f" Without one by {hook['expires_at']}, ECS takes {hook['timeout_action']}." if hook.get("expires_at") else ""
    )
    text = (
        f"{service.capitalize()} of {upgrade.upgrade_id} waits at {hook.get('stage') or 'a pause'} for a decision.{ends}\n"
        "Next: continue or roll back, on the page."
    )
    notify_upgrade(
        upgrade,
        NotificationKind.UPGRADE_WAITING,
        get_rollouts(upgrade),
        what=f"rollout of {service} waits for a decision",
        text=text,
        page="upgrades:decide",
        hook={"service": rollout.service, **hook},
    )


def notify_validation_missing(upgrade: Upgrade, open_rows: list[str]) -> None:
    """Notify that the upgrade is not validated. `open_rows` are the labels of the checks that have not passed."""
    since = f" at {upgrade.completed_at:%Y-%m-%d %H:%M} UTC" if upgrade.completed_at else ""
    text = (
        f"{upgrade.upgrade_id} ended{since} and is not validated. Open: {', '.join(open_rows)}.\n"
        "Next: do these checks and sign them, or roll back."
    )
    notify_upgrade(
        upgrade,
        NotificationKind.UPGRADE_VALIDATION_MISSING,
        get_rollouts(upgrade),
        what=f"validation of {describe_kind(upgrade)} missing",
        text=text,
    )


def notify_upgrade(
    upgrade: Upgrade,
    kind: NotificationKind,
    rollouts: list[Rollout],
    *,
    what: str,
    text: str,
    status: Status | None = None,
    page: str = "upgrades:detail",
    **more: Any,
) -> None:
    """Notify about the upgrade, with a link to `page`. `more`: further members of a webhook's `data`."""
    organization = upgrade.organization
    notify(
        organization,
        kind,
        subject=upgrade.upgrade_id,
        title=f"{organization.name} ({organization.environment}): {what}",
        text=text,
        path=reverse(page, args=[organization.slug, upgrade.upgrade_id]),
        data={
            "upgrade_id": upgrade.upgrade_id,
            "kind": upgrade.kind,
            "status": status or upgrade.status,
            "version": upgrade.version,
            "force_new_deployment": upgrade.force_new_deployment,
            "reason": upgrade.reason,
            "override_reason": upgrade.override_reason,
            "rolls_back": upgrade.rolls_back.upgrade_id if upgrade.rolls_back else None,
            "actor": upgrade.initiated_by_email,
            "services": [service_data(rollout) for rollout in rollouts],
            **more,
        },
    )


def service_data(rollout: Rollout) -> dict[str, Any]:
    return {
        "service": rollout.service,
        "status": rollout.status,
        "outcome": rollout.outcome,
        "from_version": rollout.from_version,
        "to_version": rollout.to_version,
        "error_message": rollout.error_message,
    }


def get_rollouts(upgrade: Upgrade) -> list[Rollout]:
    """Return the rollouts in rolling order, as this transaction sees them."""
    return list(Rollout.objects.filter(upgrade=upgrade).order_by("position"))


def describe_kind(upgrade: Upgrade) -> str:
    return Kind(upgrade.kind).label.lower()


def describe_rollout(rollout: Rollout) -> str:
    """Return a line such as `Orchestrator, v9.9.0 to v9.9.1: Failed. Rolled back by ECS. Tasks failed to start.`"""
    moves = rollout.from_version and rollout.to_version and rollout.from_version != rollout.to_version
    versions = f", {rollout.from_version} to {rollout.to_version}" if moves else ""
    outcome = f" {Outcome(rollout.outcome).label}." if rollout.outcome and not rollout.error_message else ""
    idle_end = rollout.rollout_reason if find_idle_end(rollout.rollout_reason) else None
    said = f" {rollout.error_message or idle_end}" if rollout.error_message or idle_end else ""
    return f"{rollout.get_service_display()}{versions}: {Status(rollout.status).label}.{outcome}{said}"


def next_action(status: Status, rollouts: list[Rollout]) -> str:
    """Return what to do next, in one or two sentences."""
    causes = [each for each in rollouts if each.status == Status.FAILED and each.outcome != Outcome.NOT_ATTEMPTED]
    if causes:
        hint = OUTCOME_TEXTS[Outcome(str(causes[0].outcome))].hint
        is_unclear = any(each.outcome in UNCLEAR for each in causes)
        return hint if is_unclear else f"{hint} The upgrade's page offers the safe next step."
    if status == Status.FAILED:
        return "Nothing was changed. Find out why, then start it again."
    if any(rollout.outcome in ROLLED_OUT for rollout in rollouts):
        return "Validate it. Rolled out does not mean working."
    return "Nothing was changed, so there is nothing to validate."
