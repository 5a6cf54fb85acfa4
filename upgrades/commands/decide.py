"""Decides at a pause of a rollout: continue, or roll back. engine/decide.py sends the decision to ECS."""

from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from portal.access import require, require_fresh
from portal.audit import record
from portal.errors import PortalError
from portal.members.approvals import find_approvers
from portal.models import AuditKind, Role, User
from upgrades.commands.record import dispatch_upgrade
from upgrades.events import record_event
from upgrades.models import Decision, Rollout, Upgrade
from upgrades.states import DecisionAction, EventKind, Outcome, inline_label

APPROVERS_NAMED = 5


def decide_rollout(
    upgrade: Upgrade,
    *,
    actor: User,
    service: str,
    hook_id: str,
    action: DecisionAction,
    reason: str = "",
    is_fresh: bool = False,
) -> Upgrade:
    """Record the decision at the pause with this hook id. Repeating it is harmless.

    The lock on the upgrade's row serializes people and the engine, so the hook is compared with the newest observation.

    `is_fresh`: whether the person re-authenticated in the last minutes; needed to continue where the organization requires
    it. Rolling back never needs it.

    Raises PortalError: 403 `second_person_required`, `reauthentication_required`, 404, 400 `not_in_upgrade`, 409
    `upgrade_ended`, `already_decided`, `stop_requested`, `nothing_waits`, `another_pause`.
    """
    require(actor, upgrade.organization, Role.OPERATOR)
    with transaction.atomic():
        locked = Upgrade.objects.locked(upgrade.pk)
        rollout = find_rollout(locked, service)
        if is_repeated(rollout, hook_id, action):
            return locked
        hook = require_waiting(locked, rollout, hook_id)
        if action == DecisionAction.CONTINUE:
            require_second_person(locked, actor)
            if locked.organization.requires_reauthentication:
                require_fresh(is_fresh)
        Decision.objects.create(
            organization=locked.organization,
            rollout=rollout,
            hook_id=hook_id,
            stage=hook["stage"],
            action=action,
            reason=reason,
            decided_by=actor,
            decided_by_email=actor.email,
        )
        Rollout.objects.filter(pk=rollout.pk).update(next_check_at=Now())
        record_decision(locked, rollout, hook, actor=actor, action=action, reason=reason)
        transaction.on_commit(lambda: dispatch_upgrade(locked), robust=True)
    return locked


def find_rollout(upgrade: Upgrade, service: str) -> Rollout:
    rollout = upgrade.rollouts.filter(service=service).first()
    if rollout is None:
        message = f"{upgrade.upgrade_id} does not upgrade the {inline_label(service)}."
        raise PortalError("not_in_upgrade", message, 400, errors={"service": [message]})
    return rollout


def is_repeated(rollout: Rollout, hook_id: str, action: DecisionAction) -> bool:
    """Return whether the same was decided at this pause before. Raises PortalError 409 `already_decided` if another was."""
    earlier = rollout.decisions.filter(hook_id=hook_id).first()
    if earlier is None:
        return False
    if earlier.action != action:
        raise PortalError(
            "already_decided",
            f"{earlier.decided_by_email} decided at this pause at {earlier.decided_at:%H:%M:%S} UTC: "
            f"{earlier.get_action_display().lower()}. Stop the upgrade if it must not go on.",
            409,
        )
    return True


def require_waiting(upgrade: Upgrade, rollout: Rollout, hook_id: str) -> dict[str, Any]:
    """Return the pause if it is the one that waits now. Raises PortalError 409 that says what changed."""
    label = inline_label(rollout.service).capitalize()
    if not upgrade.is_open:
        raise PortalError("upgrade_ended", f"{upgrade.upgrade_id} has ended {upgrade.status}. Nothing waits.", 409)
    if upgrade.stop_requested_at:
        raise PortalError("stop_requested", "A stop was already requested. ECS rolls the rollout back.", 409)
    hook = rollout.waiting_hook
    if hook is None:
        raise PortalError("nothing_waits", f"{label} no longer waits for a decision. {describe_now(rollout)}", 409)
    if hook["id"] != hook_id:
        at = f" at {hook['stage']}" if hook["stage"] else ""
        raise PortalError(
            "another_pause",
            f"{label} waits at another pause now{at}, with the hook_id {hook['id']}. Nothing was decided. Check the new "
            "state, then decide again.",
            409,
        )
    return hook


def describe_now(rollout: Rollout) -> str:
    """Describe the rollout's present state in a sentence."""
    state = Outcome(rollout.outcome).label if rollout.outcome else rollout.get_status_display()
    at = f", at {rollout.lifecycle_stage}" if rollout.lifecycle_stage else ""
    return f"Its state is now: {state}{at}."


def require_second_person(upgrade: Upgrade, actor: User) -> None:
    """Raise PortalError 403 if the organization requires a second person and the actor triggered the upgrade."""
    why_not = explain_second_person(upgrade, actor)
    if why_not:
        raise PortalError("second_person_required", why_not, 403)


def explain_second_person(upgrade: Upgrade, actor: User, approvers: str | None = None) -> str | None:
    """Return why the actor may not continue the upgrade, and who may; None if they may.

    `approvers`: the result of describe_approvers, if the caller has it. *Costs* one query at most.
    """
    organization = upgrade.organization
    if not organization.requires_second_approver or upgrade.initiated_by_id != actor.pk:
        return None
    return (
        f"You triggered this upgrade, and {organization.name} requires a second person to continue it. "
        f"{approvers or describe_approvers(upgrade)} Rolling back and Stop need no second person."
    )


def describe_approvers(upgrade: Upgrade) -> str:
    """Name the people who may continue the upgrade, or say what to do if there is no one. *Costs* one query."""
    organization = upgrade.organization
    but = upgrade.initiated_by if organization.requires_second_approver else None
    emails = find_approvers(organization, but=but)
    if not emails:
        other = f"except {upgrade.initiated_by_email}, who triggered it, " if but else ""
        return (
            f"No one may continue it: {other}no active member is an operator or admin. An admin can add one"
            f"{', or allow one person again under Settings' if but else ''}."
        )
    more = f" and {len(emails) - APPROVERS_NAMED} more" if len(emails) > APPROVERS_NAMED else ""
    return f"{', '.join(emails[:APPROVERS_NAMED])}{more} may continue it."


def record_decision(
    upgrade: Upgrade, rollout: Rollout, hook: dict[str, Any], *, actor: User, action: DecisionAction, reason: str
) -> None:
    """Write the audit row and the timeline entry of the decision."""
    data = {
        "service": rollout.service,
        "hook_id": hook["id"],
        "stage": hook["stage"],
        "action": action,
        "reason": reason,
        "second_person_required": upgrade.organization.requires_second_approver,
    }
    record(
        AuditKind.UPGRADE_DECIDED,
        organization=upgrade.organization,
        actor=actor,
        subject=upgrade.upgrade_id,
        data=data,
    )
    at = f" at {hook['stage']}" if hook["stage"] else ""
    message = f"{action.label}{at}. {reason}".strip()
    record_event(upgrade, EventKind.ROLLOUT_DECIDED, message, rollout=rollout, actor=actor)
