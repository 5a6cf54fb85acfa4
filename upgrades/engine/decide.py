"""Sends people's decisions at pauses to ECS. commands/decide.py records them.

Never lost: a decision stays pending until ECS has taken it, its pause has ended, or the rollout has. Never doubled: the
call names the hook that the person saw, and ECS refuses it for any other hook and for one that no longer waits.
"""

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from portal.aws import ecs
from portal.aws.errors import AwsDenied, AwsError, AwsUnavailable, summarize_error, with_advice
from upgrades.engine.lease import RolloutLease
from upgrades.events import record_event
from upgrades.models import Decision, Rollout, Upgrade
from upgrades.states import DecisionAction, EventKind
from upgrades.verdicts import is_rolling_back

logger = logging.getLogger(__name__)

UNANSWERED = "AWS has not answered yet. If no answer comes, the portal sends the decision again."
PAUSE_ENDED = "The pause ended before ECS took this decision."
ROLLOUT_ENDED = "The rollout ended before ECS took this decision."
ENDED_HOOK = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT"})


def send_decisions(lease: RolloutLease, deployment: ecs.ServiceDeployment | None) -> bool:
    """Send the pending decision if its pause still waits, and end those whose pause has ended.

    Return whether ECS accepted a decision, so that it soon reports another state. If a stop was requested, nothing is sent.
    """
    if deployment is None or deployment.answered_at is None:
        return False  # The list of service deployments contains no hooks.
    is_accepted = False
    for decision in lease.rollout.decisions.filter(ended_at__isnull=True):
        if is_waiting(deployment, decision):
            if not lease.rollout.upgrade.stop_requested_at:
                is_accepted = send_decision(lease, deployment, decision)
        elif has_ended(lease, deployment, decision):
            end_decision(lease, deployment, decision)
    return is_accepted


def is_waiting(deployment: ecs.ServiceDeployment, decision: Decision) -> bool:
    """Return whether the pause of the decision still waits."""
    return deployment.status == "IN_PROGRESS" and any(
        hook.id == decision.hook_id and hook.status == "AWAITING_ACTION" for hook in deployment.hooks
    )


def has_ended(lease: RolloutLease, deployment: ecs.ServiceDeployment, decision: Decision) -> bool:
    """Return whether the pause of the decision has ended, if it does not wait.

    Reads may lag. Within the read lag, one may show the state before the pause, which proves nothing.
    """
    hook = next((hook for hook in deployment.hooks if hook.id == decision.hook_id), None)
    is_proven = deployment.status not in ("PENDING", "IN_PROGRESS") or (hook is not None and hook.status in ENDED_HOOK)
    lag = timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS)
    return is_proven or lease.now - decision.decided_at >= lag


def send_decision(lease: RolloutLease, deployment: ecs.ServiceDeployment, decision: Decision) -> bool:
    """Call ContinueServiceDeployment, and record the answer. Return whether ECS accepted the decision.

    `sent_at` is written before the call, in case it is lost.
    """
    sent_before = decision.sent_at
    write_decision(lease, decision, sent_at=lease.now, error=UNANSWERED)
    fields: dict[str, Any]
    try:
        ecs.continue_service_deployment(
            lease.rollout.upgrade.aws_target,
            deployment.arn,
            hook_id=decision.hook_id,
            action=decision.action.upper(),
            before_call=lease.renew,
        )
    except AwsUnavailable as error:
        sent_at = lease.now if error.may_have_happened else sent_before
        fields = {"sent_at": sent_at, "error": f"{UNANSWERED} {summarize_error(error)}"}
    except AwsError as error:
        # The role lacks the permission, or the pause has ended meanwhile. The next observation shows it.
        logger.info("rollout %s: decision refused: %s", lease.rollout.pk, error)
        why = with_advice(error) if isinstance(error, AwsDenied) else summarize_error(error)
        fields = {"sent_at": sent_before, "error": f"ECS refused the decision. {why}"}
    else:
        fields = {"ended_at": Now(), "error": None}
    write_decision(lease, decision, **fields)
    return "ended_at" in fields


def end_decision(lease: RolloutLease, deployment: ecs.ServiceDeployment, decision: Decision) -> None:
    """End a decision whose pause no longer waits. If it was sent and ECS does what it says, ECS took it."""
    does_it = is_rolling_back(deployment) == (decision.action == DecisionAction.ROLLBACK)
    if decision.sent_at is not None and does_it:
        return write_decision(lease, decision, ended_at=Now(), error=None)
    now = "ECS rolls back." if is_rolling_back(deployment) else describe_state(deployment)
    last_error = (decision.error or "").removeprefix(UNANSWERED).strip()
    why = " ".join(part for part in (PAUSE_ENDED, now, last_error) if part)
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(lease.rollout.upgrade_id)
        write_decision(lease, decision, ended_at=Now(), error=why)
        record_no_effect(upgrade, lease.rollout, decision, why)


def end_pending_decisions(upgrade: Upgrade, rollout: Rollout) -> None:
    """End the decisions that the rollout's end leaves without an answer. The caller opens the transaction."""
    for decision in rollout.decisions.filter(ended_at__isnull=True):
        Decision.objects.filter(pk=decision.pk).update(ended_at=Now(), error=ROLLOUT_ENDED)
        record_no_effect(upgrade, rollout, decision, ROLLOUT_ENDED)


def record_no_effect(upgrade: Upgrade, rollout: Rollout, decision: Decision, why: str) -> None:
    message = f"No effect: {decision.get_action_display().lower()} by {decision.decided_by_email}. {why}"
    record_event(upgrade, EventKind.ROLLOUT_DECIDED, message, rollout=rollout)


def describe_state(deployment: ecs.ServiceDeployment) -> str:
    if deployment.status != "IN_PROGRESS":
        return f"The deployment is {deployment.status}."
    return f"The deployment is at {deployment.lifecycle_stage}." if deployment.lifecycle_stage else "It continued."


def write_decision(lease: RolloutLease, decision: Decision, **fields: Any) -> None:
    """Write the decision if the lease is still held. *Raises* LeaseLost."""
    with transaction.atomic():
        lease.renew()
        Decision.objects.filter(pk=decision.pk).update(**fields)
    for name, value in fields.items():
        setattr(decision, name, value)


def find_decider(rollout: Rollout) -> str | None:
    """Return who decided to roll back at a pause, if ECS may have taken the decision. *Costs* one query."""
    taken = rollout.decisions.filter(action=DecisionAction.ROLLBACK, sent_at__isnull=False)
    # One that had no effect keeps its error.
    return taken.exclude(ended_at__isnull=False, error__isnull=False).values_list("decided_by_email", flat=True).first()
