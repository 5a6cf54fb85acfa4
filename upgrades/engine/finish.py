"""The end of a rollout: write its terminal state once, start the next service, update the upgrade."""

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from portal.audit import record
from portal.aws.errors import AwsDenied, AwsError, AwsMissing, summarize_error, with_advice
from portal.models import AuditKind
from portal.templatetags.formatting import last_part
from upgrades.checks.matrix import open_matrix, update_validation
from upgrades.engine.decide import end_pending_decisions
from upgrades.engine.lease import RolloutLease
from upgrades.events import record_event
from upgrades.models import Rollout, Upgrade
from upgrades.notifications import notify_ended
from upgrades.states import (
    ROLLED_OUT,
    TERMINAL,
    EventKind,
    Outcome,
    Phase,
    Status,
    describe_upgrade,
    not_supported,
    overall_status,
)
from upgrades.verdicts import Verdict

logger = logging.getLogger(__name__)

# After these outcomes the next service of `all` starts. After any other outcome it is not attempted.
CONTINUE_AFTER = ROLLED_OUT | {Outcome.NO_CHANGE, Outcome.DISABLED, Outcome.NOT_SUPPORTED}
NOT_ATTEMPTED = "Not attempted because an earlier service failed. Nothing was changed."


def finish_rollout(lease: RolloutLease, verdict: Verdict, **observed: Any) -> None:
    """Write the terminal state once, then start the next service or end the remaining ones. One transaction."""
    rollout = lease.rollout
    logger.info("rollout %s ends %s %s", rollout.pk, verdict.status, verdict.outcome)
    failed = verdict.status == Status.FAILED
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(rollout.upgrade_id)
        lease.write(
            **observed
            | {
                "status": verdict.status,
                "outcome": verdict.outcome,
                "rollout_reason": verdict.reason,
                "error_message": build_error_message(rollout, verdict, observed) if failed else None,
                "phase": Phase.DONE,
                "is_stalled": False,
                "is_draining": has_old_tasks(rollout, verdict, observed),
                "is_overdue": False,
                "waiting_since": None,
                "hook": None,
                "started_at": rollout.started_at or lease.now,
                "completed_at": Now(),
                "next_check_at": None,
                "lease_until": None,
            }
        )
        end_pending_decisions(upgrade, rollout)
        record_event(upgrade, EventKind.ROLLOUT_ENDED, describe_end(rollout, verdict), rollout=rollout)
        # A service that never existed does not block the others. One that was deleted during its rollout does.
        was_never_there = verdict.outcome == Outcome.SERVICE_MISSING and not rollout.attempts
        start_next_service(upgrade, continues=verdict.outcome in CONTINUE_AFTER or was_never_there)
        refresh_upgrade(upgrade)


def has_old_tasks(rollout: Rollout, verdict: Verdict, observed: dict[str, Any]) -> bool:
    """Return whether ECS still replaces tasks after the success. upgrades/checks/draining.py counts them from then on."""
    old_tasks = observed.get("source_running", rollout.source_running)
    return verdict.outcome == Outcome.COMPLETED_EARLY or (verdict.outcome == Outcome.COMPLETED and old_tasks > 0)


def build_error_message(rollout: Rollout, verdict: Verdict, observed: dict[str, Any]) -> str:
    """Return the error message: outcome, ECS's reason, and why the newest stopped task stopped."""
    parts = [describe_outcome(verdict), verdict.reason or ""]
    parts.append(rollout.attribution_note or "")
    parts.append(describe_newest_stop(observed.get("stopped_tasks") or rollout.stopped_tasks))
    return " ".join(part for part in parts if part)


def describe_end(rollout: Rollout, verdict: Verdict) -> str:
    """Describe the end of the rollout for the timeline. Reads the fields as they were written."""
    said = rollout.error_message or " ".join(part for part in (describe_outcome(verdict), verdict.reason) if part)
    return f"{verdict.status.label}: {said}"


def describe_outcome(verdict: Verdict) -> str:
    """Return the outcome as a sentence. Empty for a stop by a person, whose reason names the person."""
    if not verdict.outcome or (verdict.outcome == Outcome.STOPPED_BY_USER and verdict.reason):
        return ""
    return f"{Outcome(verdict.outcome).label}."


def describe_newest_stop(stopped_tasks: list[dict[str, Any]]) -> str:
    """Return ECS's reason for the newest stopped task, or an empty string if none stopped."""
    if not stopped_tasks:
        return ""
    code = stopped_tasks[0]["exit_code"]
    exit_code = f" (exit code {code})" if code is not None else ""
    return f"Newest stopped task: {stopped_tasks[0]['reason']}{exit_code}."


def start_next_service(upgrade: Upgrade, *, continues: bool) -> None:
    waiting = Rollout.objects.filter(upgrade=upgrade, phase=Phase.WAITING).order_by("position")
    following = waiting.first()
    if following is None:
        return
    if continues:
        Rollout.objects.filter(pk=following.pk).update(
            phase=Phase.DUE, next_check_at=Now(), deadline_at=Now() + deadline()
        )
        return
    for rollout in waiting:
        record_event(upgrade, EventKind.ROLLOUT_ENDED, f"{Status.FAILED.label}: {NOT_ATTEMPTED}", rollout=rollout)
    waiting.update(
        phase=Phase.DONE,
        status=Status.FAILED,
        outcome=Outcome.NOT_ATTEMPTED,
        error_message=NOT_ATTEMPTED,
        completed_at=Now(),
    )


def refresh_upgrade(upgrade: Upgrade) -> None:
    """Update the upgrade from its rollouts. The caller holds the lock on its row. An ended upgrade is never changed."""
    if upgrade.status in TERMINAL:
        return
    rows = list(upgrade.rollouts.values_list("service", "status", "outcome", "rollout_reason"))
    rollouts = [(service, Status(its_status), outcome) for service, its_status, outcome, _ in rows]
    statuses = [its_status for _, its_status, _ in rollouts]
    status = overall_status(statuses)
    fields: dict[str, Any] = {
        "status": status,
        "success_count": statuses.count(Status.SUCCESS),
        "failed_count": statuses.count(Status.FAILED),
    }
    if status != Status.PENDING and upgrade.started_at is None:
        fields["started_at"] = Now()
    if status in TERMINAL:
        fields["completed_at"] = Now()
        reasons = {service: reason for service, _, _, reason in rows}
        said = describe_upgrade(status, rollouts, reasons=reasons, is_rollback=upgrade.is_rollback)
        record_event(upgrade, EventKind.ENDED, said)
        notify_ended(upgrade, status)
    if any(getattr(upgrade, name) != value for name, value in fields.items()):
        Upgrade.objects.filter(pk=upgrade.pk).update(**fields)
    if status in TERMINAL:
        record(
            AuditKind.UPGRADE_ENDED,
            organization=upgrade.organization,
            actor=None,
            subject=upgrade.upgrade_id,
            data={"status": status, "success_count": fields["success_count"], "failed_count": fields["failed_count"]},
        )
    if status in TERMINAL and any(outcome in ROLLED_OUT for _, _, outcome in rollouts):
        open_matrix(upgrade)
        update_validation(upgrade, actor=None)


def deadline() -> timedelta:
    return timedelta(seconds=settings.UPGRADE_DEADLINE_SECONDS)


def build_timed_out_verdict(rollout: Rollout, last_state: str) -> Verdict:
    minutes = (settings.UPGRADE_DEADLINE_SECONDS + (rollout.allowed_seconds or 0)) // 60
    return Verdict(Status.FAILED, Outcome.TIMED_OUT, f"Not finished within {minutes} minutes. Last state: {last_state}")


def build_service_missing_verdict(rollout: Rollout) -> Verdict:
    reason = f"Cluster {rollout.upgrade.cluster} has no active service {rollout.service_name}."
    return Verdict(Status.FAILED, Outcome.SERVICE_MISSING, reason)


def build_created_again_verdict() -> Verdict:
    """Return the verdict for a rollout whose service was deleted and created again under its name."""
    reason = (
        "The service was deleted and created again after the rollout had started, so ECS no longer has its deployment."
    )
    return Verdict(Status.FAILED, Outcome.SERVICE_MISSING, reason)


def other_controller(rollout: Rollout, controller: str) -> Verdict:
    """Return the verdict for a service that another controller deploys, so the portal must not."""
    reason = f"{rollout.service_name} is {not_supported(controller)}."
    return Verdict(Status.FAILED, Outcome.NOT_SUPPORTED, reason)


def build_changed_since_verdict(rollout: Rollout, runs: str, version: str | None) -> Verdict:
    """Return the verdict for a rollback that would undo a later change by someone else."""
    running = last_part(runs) + (f" ({version})" if version else "")
    reason = (
        f"{rollout.service_name} runs {running}, which is not what the upgrade left. Nothing was changed. "
        "Find out who deployed it and whether it should stay."
    )
    return Verdict(Status.FAILED, Outcome.CHANGED_SINCE, reason)


def build_superseded_verdict(runs: str) -> Verdict:
    """Return the verdict for a lost call that must not be repeated, because it would undo a later deployment."""
    reason = (
        f"The reply to UpdateService was lost and no deployment of it was found. {last_part(runs)} was deployed outside "
        "this upgrade since, so the call was not repeated. Find out who deployed it and whether it should stay."
    )
    return Verdict(Status.FAILED, Outcome.SUPERSEDED, reason)


def build_refused_verdict(rollout: Rollout, error: AwsError) -> Verdict:
    """Return the verdict for a definite refusal at the start, with what to do about it."""
    if isinstance(error, AwsDenied):
        return Verdict(Status.FAILED, Outcome.ACCESS_DENIED, with_advice(error))
    if isinstance(error, AwsMissing):
        reason = f"{build_service_missing_verdict(rollout).reason} {summarize_error(error)}"
        return Verdict(Status.FAILED, Outcome.SERVICE_MISSING, reason)
    return Verdict(Status.FAILED, Outcome.REFUSED, with_advice(error))


def get_stopper_email(rollout: Rollout) -> str:
    person = rollout.upgrade.stop_requested_by
    return person.email if person else "A user"
