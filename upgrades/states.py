"""State machine of upgrades: states, outcomes, and how both are judged. Pure: no database, no AWS, no clock.

An upgrade has one rollout for each platform service that it targets. A rollout has a phase, which decides what the
engine does next, and a status, which people see:

    phase     status        what is true
    waiting   PENDING       an earlier service of the same upgrade has not ended yet
    due       PENDING       may start now, nothing was sent to ECS
    calling   PENDING       the baseline is committed, UpdateService may or may not have happened
    watching  IN_PROGRESS   the rollout's own deployment is known and has not ended (PENDING while ECS says so)
    done      terminal      written once, never changed again

A rollout is judged by the deployment that its own UpdateService call started. It is never judged by the newest one, nor
by running == desired, which is also true after a rollback. The checks before and after an upgrade follow the platform's
guide: https://docs.getaxonflow.com/docs/deployment/deployment-operations/
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import models

from portal.aws.ecs import PAUSE_HOOK, ROLLING, Deployment, LifecycleHook, Service, ServiceDeployment, ServiceEvent


class PlatformService(models.TextChoices):
    """The services that an upgrade may target, in the order in which `all` rolls them.

    The agent service goes first because it runs the migrations. The portal goes last because it restarts itself.
    """

    AGENT = "agent", "Agent service"
    ORCHESTRATOR = "orchestrator", "Orchestrator"
    CUSTOMER_PORTAL = "customer-portal", "Customer portal"


ALL_SERVICES = "all"
TARGETS = [*PlatformService.values, ALL_SERVICES]


def get_services(target: str) -> list[str]:
    """Return the services of a target, in rolling order."""
    return list(PlatformService.values) if target == ALL_SERVICES else [target]


class Status(models.TextChoices):
    """Status of an upgrade or a rollout. A rollout is never PARTIAL, an upgrade is never SKIPPED."""

    PENDING = "PENDING", "Pending"
    IN_PROGRESS = "IN_PROGRESS", "In progress"
    SUCCESS = "SUCCESS", "Success"
    FAILED = "FAILED", "Failed"
    PARTIAL = "PARTIAL", "Partial"
    SKIPPED = "SKIPPED", "Skipped"


UPGRADE_STATUSES = [Status.PENDING, Status.IN_PROGRESS, Status.SUCCESS, Status.FAILED, Status.PARTIAL]
TERMINAL = frozenset({Status.SUCCESS, Status.FAILED, Status.PARTIAL, Status.SKIPPED})
OPEN = frozenset({Status.PENDING, Status.IN_PROGRESS})


class Phase(models.TextChoices):
    WAITING = "waiting"
    DUE = "due"
    CALLING = "calling"
    WATCHING = "watching"
    DONE = "done"


class Outcome(models.TextChoices):
    """The reason for a rollout's status: the second half of every verdict."""

    COMPLETED = "completed", "Completed"
    # SUCCESS by early success: old tasks may still run, and some of the new ones may still have to start.
    COMPLETED_EARLY = "completed_early", "Completed early: old tasks may still run"
    NO_CHANGE = "no_change", "Nothing to change"
    DISABLED = "disabled", "Disabled: desired count is 0"
    # IN_PROGRESS, and no tasks need to move meanwhile.
    WAITING_FOR_DECISION = "waiting_for_decision", "Waiting for a decision"
    HOOK_RUNNING = "hook_running", "A lifecycle hook is running"
    BAKING = "baking", "Serving and baking"
    ROLLING_BACK = "rolling_back", "ECS is rolling back"
    ROLLED_BACK = "rolled_back", "Rolled back by ECS"
    ROLLBACK_FAILED = "rollback_failed", "Rollback failed"
    STOPPED_BY_USER = "stopped_by_user", "Stopped by a person"
    SUPERSEDED = "superseded", "Superseded by another deployment"
    # Only for a rollback: at its turn the service no longer ran what the upgrade had left. Nothing was changed.
    CHANGED_SINCE = "changed_since", "Changed since the upgrade"
    CIRCUIT_BREAKER = "circuit_breaker", "Stopped by the circuit breaker"
    ALARM = "alarm", "Stopped by an alarm"
    STOPPED = "stopped", "Stopped by ECS"
    ACCESS_DENIED = "access_denied", "AWS denied access"
    SERVICE_MISSING = "service_missing", "Service not found"
    NOT_SUPPORTED = "not_supported", "Deployed by another controller"
    REFUSED = "refused", "ECS refused the update"
    TIMED_OUT = "timed_out", "Timed out"
    NOT_ATTEMPTED = "not_attempted", "Not attempted"


class DecisionAction(models.TextChoices):
    """A person's decision at a pause."""

    CONTINUE = "continue", "Continue"
    ROLLBACK = "rollback", "Roll back"


# Outcomes of a rollout that rolled its service out.
ROLLED_OUT = frozenset({Outcome.COMPLETED, Outcome.COMPLETED_EARLY})


class Stage(models.TextChoices):
    """When a check runs: before the trigger, or after the rollout."""

    PREFLIGHT = "preflight", "Before"
    VALIDATION = "validation", "After"


class PreflightCheck(models.TextChoices):
    """Checks before an upgrade, in display order (the guide, "Before starting")."""

    ENVIRONMENT = "environment", "Tenant and environment"
    SESSION = "session", "Portal session"
    CLUSTER_AND_SERVICES = "cluster_and_services", "Cluster and services"
    STEADY = "steady", "Services run steadily"
    # Named by what was checked first. Each strategy has its own failure detection (checks/detection.py).
    CIRCUIT_BREAKER = "circuit_breaker", "Failure detection"
    PERMISSION = "permission", "Permission to update"
    AGENT_HEALTH = "agent_health", "Agent service health"
    ORCHESTRATOR_HEALTH = "orchestrator_health", "Orchestrator health"
    CONNECTORS = "connectors", "Connectors"
    PROVIDERS = "providers", "LLM providers"


class CheckStatus(models.TextChoices):
    """Result of a check. A check that could not be verified is unknown, never a pass."""

    PASS = "pass", "Pass"
    FAIL = "fail", "Fail"
    UNKNOWN = "unknown", "Not known"


class Validation(models.TextChoices):
    """Validation state of an upgrade: its third stage."""

    NONE = "none", "Nothing to validate"
    NEEDED = "needed", "Needs validation"
    PASSED = "passed", "Validated"
    FAILED = "failed", "Validation failed"


class MatrixRow(models.TextChoices):
    """Rows of the guide's post-upgrade matrix, in display order.

    Rows that need a person (signing in, the licence and usage views) are separate from the rows that a probe checks.
    """

    SIGN_IN_PAGE = "sign_in_page", "Sign-in page responds"
    SIGN_IN = "sign_in", "Sign-in works"
    PLATFORM_HEALTH = "platform_health", "Platform is healthy"
    PROVIDER_PATH = "provider_path", "A call through an LLM provider works"
    CONNECTOR_PATH = "connector_path", "A call through a connector works"
    MONITORING = "monitoring", "Services run steadily"
    PORTAL_VIEWS = "portal_views", "Deployment views open"
    LICENCE_USAGE = "licence_usage", "Licence and usage views open"


# The portal checks these rows itself. A person signs the others, and may sign any row.
AUTOMATIC = frozenset(MatrixRow) - {MatrixRow.SIGN_IN, MatrixRow.LICENCE_USAGE}


@dataclass(frozen=True)
class CheckResult:
    """Result of one matrix row. `is_signed`: a person signed it, so no probe overwrites it."""

    status: CheckStatus
    is_signed: bool = False


def judge_validation(rows: Collection[CheckResult], *, is_probing: bool) -> Validation:
    """Return the validation state of a matrix. Without rows the upgrade completed no service.

    Pure. A failed probe counts only after probing has ended, because it is retried until then. A signed result is final.
    """
    if not rows:
        return Validation.NONE
    if any(row.status == CheckStatus.FAIL and (row.is_signed or not is_probing) for row in rows):
        return Validation.FAILED
    if all(row.status == CheckStatus.PASS for row in rows):
        return Validation.PASSED
    return Validation.NEEDED


class EventKind(models.TextChoices):
    """Kinds of timeline entry. `ecs` entries are copied verbatim from ECS."""

    ECS = "ecs", "ECS"
    TRIGGERED = "upgrade.triggered", "Triggered"
    STOP_REQUESTED = "upgrade.stop_requested", "Stop requested"
    ENDED = "upgrade.ended", "Ended"
    ROLLED_BACK = "upgrade.rolled_back", "Rollback started"
    VALIDATED = "upgrade.validated", "Validation"
    REVISION_REGISTERED = "rollout.revision_registered", "Revision registered"
    ROLLOUT_STARTED = "rollout.started", "Rollout started"
    ROLLOUT_STALLED = "rollout.stalled", "Rollout stalled"
    ROLLOUT_RESUMED = "rollout.resumed", "Rollout resumed"
    ROLLOUT_WAITING = "rollout.waiting", "Waiting for a decision"
    ROLLOUT_DECIDED = "rollout.decided", "Decided"
    ROLLOUT_BAKING = "rollout.baking", "Baking"
    ROLLOUT_OVERDUE = "rollout.overdue", "Rollout overdue"
    ROLLOUT_ROLLING_BACK = "rollout.rolling_back", "Rolling back"
    ROLLOUT_ENDED = "rollout.ended", "Rollout ended"
    CHECK_RECORDED = "check.recorded", "Check recorded"


@dataclass(frozen=True)
class Verdict:
    """Result of judging one observation of a rollout's own deployment.

    `is_resting`: ECS waits on purpose, so a standstill is no stall. `needs_confirmation`: a stale read could show the same.
    """

    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    is_resting: bool = False
    needs_confirmation: bool = False

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


ROLLBACK_STATUSES = frozenset({"ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"})
ALL_TRAFFIC = 100.0
# Stages after the last shift: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
STAGES_AFTER_SHIFT = frozenset({"POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP"})


# While traffic shifts, the counts stand still, and the weights move in steps.
STAGES_OF_SHIFT = frozenset({"TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT"})


def is_rolling_back(deployment: ServiceDeployment) -> bool:
    """Return whether ECS rolls the deployment back or has done so. Its stage and hooks then say nothing."""
    return deployment.status in ROLLBACK_STATUSES


def is_shifted(deployment: ServiceDeployment) -> bool:
    """Return whether all production traffic goes to the new version."""
    if deployment.lifecycle_stage in STAGES_AFTER_SHIFT:
        return deployment.production_weight in (None, ALL_TRAFFIC)
    return deployment.lifecycle_stage is not None and deployment.production_weight == ALL_TRAFFIC


def find_open_hook(deployment: ServiceDeployment) -> LifecycleHook | None:
    """Return the hook that ECS waits for: first one that awaits a person, then one that runs. None if there is none."""
    if deployment.status != "IN_PROGRESS":
        return None
    for status in ("AWAITING_ACTION", "IN_PROGRESS"):
        found = next((hook for hook in deployment.hooks if hook.status == status), None)
        if found:
            return found
    return None


def judge(
    deployment: ServiceDeployment,
    *,
    superseded_by: str | None = None,
    stopped_by: str | None = None,
    shifted_at: datetime | None = None,
    has_run: bool = False,
    failure: str | None = None,
) -> Verdict:
    """Judge a rollout by its own service deployment.

    `superseded_by`: ARN of a deployment that was started later. The caller finds it only if this one has stopped.
    `stopped_by`: the person for whom this portal sent StopServiceDeployment.
    `shifted_at`: when all traffic was first seen on the new version. `has_run`: a task of it was seen running.
    `failure`: why DescribeServices says that the deployment failed.

    Only the deployment's own status decides. Stage, weights and counts explain: after a rollback, and at most stages of
    BLUE_GREEN, LINEAR and CANARY, `running == desired` too.
    """
    state = deployment.status
    if state == "PENDING":
        return Verdict(Status.PENDING)
    if state == "SUCCESSFUL":
        return _judge_successful(deployment, has_run=has_run)
    if is_rolling_back(deployment):
        return _judge_rolled_back(deployment, stopped_by=stopped_by, shifted_at=shifted_at)
    if state == "STOPPED":
        return _judge_stopped(deployment, superseded_by=superseded_by, stopped_by=stopped_by, failure=failure)
    if state == "IN_PROGRESS":
        return _judge_in_progress(deployment)
    if state == "STOP_REQUESTED":
        return Verdict(Status.IN_PROGRESS, None, deployment.status_reason)
    # A status that ECS added later: not ended until ECS says so.
    return Verdict(Status.IN_PROGRESS, None, _join(f"ECS reports the status {state}.", deployment.status_reason))


def _judge_successful(deployment: ServiceDeployment, *, has_run: bool) -> Verdict:
    """Judge a deployment that ECS calls successful. Early success leaves old tasks, and some new ones to start."""
    configuration = deployment.configuration
    if deployment.target_requested == 0 and deployment.target_running == 0:
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, _join(_describe_no_task(has_run), deployment.status_reason))
    if configuration is None or not configuration.early_success:
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, deployment.status_reason)
    then = (
        "Old tasks may drain for up to two weeks" if configuration.source_cleanup == "DEFERRED" else "Others may start"
    )
    known = deployment.target_requested is not None
    ran = f"{deployment.target_running} of {deployment.target_requested} new tasks ran then. " if known else ""
    early = f"ECS ended it by early success. {ran}{then}, and neither breaker nor alarms watch them."
    return Verdict(Status.SUCCESS, Outcome.COMPLETED_EARLY, _join(early, deployment.status_reason))


def _describe_no_task(has_run: bool) -> str:
    verb = "runs" if has_run else "has run"
    return f"No task of the new version {verb}: the desired count was 0 when the deployment ended."


def _judge_in_progress(deployment: ServiceDeployment) -> Verdict:
    """Judge a deployment that is in progress: what ECS waits for."""
    hook = find_open_hook(deployment)
    said = deployment.status_reason
    stage = deployment.lifecycle_stage
    if hook is not None:
        is_pause = hook.status == "AWAITING_ACTION"
        outcome = Outcome.WAITING_FOR_DECISION if is_pause else Outcome.HOOK_RUNNING
        return Verdict(Status.IN_PROGRESS, outcome, _describe_hook(hook, stage), is_resting=True)
    if stage == "BAKE_TIME":
        baking = "The new version serves all traffic and bakes. ECS may still roll it back."
        return Verdict(Status.IN_PROGRESS, Outcome.BAKING, _join(baking, said), is_resting=True)
    if stage is not None:
        weight = deployment.production_weight
        where = (
            f"Stage {stage}." if weight is None else f"Stage {stage}: {weight:g} % of the traffic on the new version."
        )
        return Verdict(Status.IN_PROGRESS, None, _join(where, said), is_resting=stage in STAGES_OF_SHIFT)
    if _watches_alarms(deployment):
        alarms = ", ".join(deployment.configuration.alarm_names) if deployment.configuration else ""
        watches = (
            f"All new tasks run. ECS watches the alarms{f' ({alarms})' if alarms else ''} before it ends the rollout."
        )
        return Verdict(Status.IN_PROGRESS, None, _join(watches, said), is_resting=True)
    return Verdict(Status.IN_PROGRESS, None, said)


def _describe_hook(hook: LifecycleHook, stage: str | None) -> str:
    """Describe the hook that ECS waits for, until when, and what ECS does then."""
    action = {"ROLLBACK": "rolls back", "CONTINUE": "continues"}.get(hook.timeout_action or "")
    ends = f" until {hook.expires_at:%Y-%m-%d %H:%M} UTC" if hook.expires_at else ""
    then = f" Then ECS {action}." if action else ""
    where = f" at {stage}" if stage else ""
    if hook.status == "AWAITING_ACTION":
        return f"Paused{where}{ends}.{then}"
    name = f" {hook.target_arn.rpartition(':')[2]}" if hook.target_arn else ""
    return f"ECS waits for the hook{name}{where}{ends}.{then}"


def _watches_alarms(deployment: ServiceDeployment) -> bool:
    """Return whether only the alarms keep a rolling deployment open: all new tasks run and the old ones are gone."""
    has_moved = (
        bool(deployment.target_requested)
        and deployment.target_running >= (deployment.target_requested or 0)
        and deployment.target_pending == 0
        and deployment.source_running == 0
    )
    configured = deployment.configuration is not None and deployment.configuration.alarms_enabled
    return has_moved and (configured or deployment.alarms_status == "MONITORING")


def _judge_rolled_back(
    deployment: ServiceDeployment, *, stopped_by: str | None, shifted_at: datetime | None
) -> Verdict:
    """Judge a deployment that ECS rolls back or has rolled back. Its stage may still be that of the way forward."""
    reason = _describe_rollback(deployment, shifted_at)
    if deployment.status in ("ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"):
        return Verdict(Status.IN_PROGRESS, Outcome.ROLLING_BACK, reason)
    if deployment.status == "ROLLBACK_FAILED":
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, reason)
    # If ECS had already started to roll back, a later stop is not the reason.
    if stopped_by and not _failed_by_itself(deployment):
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", reason))
    return Verdict(Status.FAILED, Outcome.ROLLED_BACK, reason)


def _describe_rollback(deployment: ServiceDeployment, shifted_at: datetime | None) -> str | None:
    """Return ECS's reason for a rollback, the alarms and hooks behind it, and how long after the traffic shift it came."""
    reason = deployment.rollback_reason or deployment.status_reason
    alarms = [alarm for alarm in deployment.triggered_alarms if alarm not in (reason or "")]
    hooks = {"FAILED": "failed", "TIMED_OUT": "timed out"}
    parts = [
        reason or "",
        f"Triggered alarms: {', '.join(alarms)}." if alarms else "",
        *(f"The hook {_name_hook(hook)} {hooks[str(hook.status)]}." for hook in _failed_hooks(deployment)),
    ]
    began_at = deployment.rollback_started_at
    if shifted_at and began_at and began_at >= shifted_at:
        minutes = round((began_at - shifted_at).total_seconds() / 60)
        parts.append(f"That was {minutes} min after the traffic shift: the new version had served all traffic.")
    return " ".join(part for part in parts if part) or None


def _name_hook(hook: LifecycleHook) -> str:
    return hook.target_arn.rpartition(":")[2] if hook.target_arn else hook.id


def _failed_hooks(deployment: ServiceDeployment) -> list[LifecycleHook]:
    """Return the hooks that made ECS roll back.

    A pause that a person ended is none of them, nor is a hook after whose time-out ECS continued.
    """
    failed = [hook for hook in deployment.hooks if hook.status == "FAILED" and hook.target_type != PAUSE_HOOK]
    late = [hook for hook in deployment.hooks if hook.status == "TIMED_OUT" and hook.timeout_action != "CONTINUE"]
    return failed + late


def _failed_by_itself(deployment: ServiceDeployment) -> bool:
    has_alarm = bool(deployment.triggered_alarms)
    return deployment.breaker_status == "TRIGGERED" or has_alarm or bool(_failed_hooks(deployment))


def _judge_stopped(
    deployment: ServiceDeployment, *, superseded_by: str | None, stopped_by: str | None, failure: str | None
) -> Verdict:
    reason = deployment.status_reason
    if deployment.triggered_alarms:
        alarms = ", ".join(deployment.triggered_alarms)
        return Verdict(Status.FAILED, Outcome.ALARM, _join(f"Triggered alarms: {alarms}.", reason))
    if deployment.breaker_status == "TRIGGERED":
        return Verdict(Status.FAILED, Outcome.CIRCUIT_BREAKER, reason)
    # ListServiceDeployments reports neither breaker nor alarms, but DescribeServices says that one of them failed it.
    why = next((text for text in (failure, reason) if _names_a_watcher(text)), None)
    if deployment.breaker_status is None and why:
        return Verdict(Status.FAILED, _find_failure_outcome(why), why)
    if superseded_by:
        return Verdict(Status.FAILED, Outcome.SUPERSEDED, _join(f"Replaced by {superseded_by}.", reason))
    if stopped_by:
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", reason))
    return Verdict(Status.FAILED, Outcome.STOPPED, reason)


NOT_SHOWN = Verdict(Status.IN_PROGRESS, None, "ECS does not show this deployment yet.")
UNKNOWN_STRATEGY = (
    "ECS reports the end of a {strategy} deployment only by ecs:DescribeServiceDeployments, and the portal could not "
    "read it there."
)
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
ENDED = re.compile(r"\(deployment (?P<id>[^)]+)\) deployment (?P<how>completed|failed)")
ROLLING_BACK = "rolling back to deployment"
DEPLOYMENT_ID = re.compile(r"ecs-svc/\d+")
# ECS writes that a deployment failed and that it rolls back within milliseconds.
SAME_MOMENT = timedelta(minutes=1)


@dataclass(frozen=True)
class _Events:
    """What ECS's events say about one deployment, verbatim. None if they do not say it.

    `rolls_back`: ECS started to roll it back. `rolls_back_to`: the id it went back to, None if the event names none.
    `rollback_failed`: whether that failed or was replaced, None if not known.
    `other`: the id of a deployment that is new since the baseline and ended before this one failed.
    """

    completed: str | None = None
    failed: str | None = None
    rolls_back: bool = False
    rolls_back_to: str | None = None
    rollback_failed: bool | None = None
    other: str | None = None


def judge_by_id(
    service: Service,
    deployment_id: str,
    *,
    baseline: Collection[str],
    since: datetime,
    strategy: str = ROLLING,
    was_rolling_back: bool = False,
    stopped_by: str | None = None,
) -> Verdict:
    """Judge a rollout without service deployments: by the service's `ecs-svc/..` entries and its events.

    `baseline`: the ids that existed before the call. `since`: an event of this time or later is later than the baseline.
    `stopped_by`: as for judge. `was_rolling_back`: an earlier read saw ECS roll the deployment back.

    A rollback makes an earlier deployment PRIMARY again, under its own id, which is one of the baseline. Some imitations
    of ECS give it a new id. Both are recognized. A stale read from before the call also shows the baseline. An id of the
    baseline therefore proves a rollback only if the same read shows this deployment, its failure or the rollback.
    A missing entry is never taken for a success. ECS documents rolloutState only for rolling deployments, so for any
    other `strategy` nothing is concluded: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html.
    """
    if strategy != ROLLING:
        return Verdict(Status.IN_PROGRESS, None, UNKNOWN_STRATEGY.format(strategy=strategy), is_resting=True)
    deployment, primary = service.deployment(deployment_id), service.primary
    # A deployment that is older than the call may have been missing in the baseline, if reads lagged.
    older = {each.id for each in service.deployments if each.created_at < since and each.id != deployment_id}
    baseline = older.union(baseline)
    events = _read_events(service, deployment_id, baseline=baseline, since=since)
    if deployment is not None and deployment.rollout_state == "COMPLETED":
        return _complete(service, deployment.rollout_state_reason)
    if events.completed:
        return _complete(service, events.completed)
    if primary is None:
        return NOT_SHOWN
    if primary.id == deployment_id:
        return _judge_primary(service, primary, since=since)
    came_later = events.other or _came_later(service, deployment, known={deployment_id, primary.id, *baseline})
    if came_later and not events.failed and not was_rolling_back:
        return Verdict(Status.FAILED, Outcome.SUPERSEDED, f"Replaced by {came_later}.")
    is_restored = primary.id in baseline
    is_after_the_call = deployment is not None or events.failed is not None
    is_rollback = is_after_the_call if is_restored else primary.is_rollback
    if is_rollback or was_rolling_back or events.rolls_back:
        is_its_rollback = is_restored or primary.is_rollback
        return _judge_rollback(deployment, primary, events, is_its_rollback=is_its_rollback, stopped_by=stopped_by)
    if is_restored:
        return NOT_SHOWN
    if events.failed:
        return Verdict(Status.FAILED, _find_failure_outcome(events.failed), events.failed)
    return Verdict(Status.FAILED, Outcome.SUPERSEDED, f"Replaced by {primary.id}.")


def _complete(service: Service, reason: str | None) -> Verdict:
    no_task = _describe_no_task(has_run=False) if service.desired_count == 0 == service.running_count else ""
    return Verdict(Status.SUCCESS, Outcome.COMPLETED, _join(no_task, reason) if no_task else reason)


def _judge_primary(service: Service, mine: Deployment, *, since: datetime) -> Verdict:
    """Judge the deployment while it is the PRIMARY one."""
    if mine.is_rollback:
        # A later deployment is rolled back to this one. ECS rolls back only to a completed deployment.
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, mine.rollout_state_reason)
    if mine.rollout_state == "FAILED":
        return Verdict(Status.FAILED, _find_failure_outcome(mine.rollout_state_reason), mine.rollout_state_reason)
    if mine.rollout_state is None and _is_steady(service, mine, since=since):
        verdict = _complete(service, "It is the only deployment, all its tasks run, and the service is steady.")
        return replace(verdict, needs_confirmation=True)
    return Verdict(Status.IN_PROGRESS, None, mine.rollout_state_reason)


def _is_steady(service: Service, mine: Deployment, *, since: datetime) -> bool:
    """Return whether a deployment without a rolloutState has ended: behind a Classic Load Balancer, ECS returns none."""
    is_steady = any("steady state" in event.message and event.created_at >= since for event in service.events)
    is_whole = mine.pending_count == 0 and mine.running_count == service.desired_count == mine.desired_count
    return is_steady and is_whole and len(service.deployments) == 1 and mine.task_definition == service.task_definition


def _came_later(service: Service, mine: Deployment | None, *, known: Collection[str]) -> str | None:
    """Return the id of a deployment that started after this one and is no longer PRIMARY, or None if none is listed."""
    return next(
        (
            other.id
            for other in service.deployments
            if other.id not in known and not other.is_rollback and (mine is None or other.created_at >= mine.created_at)
        ),
        None,
    )


def _judge_rollback(
    mine: Deployment | None, primary: Deployment, events: _Events, *, is_its_rollback: bool, stopped_by: str | None
) -> Verdict:
    """Judge a deployment that ECS is rolling back or has rolled back.

    `is_its_rollback`: the PRIMARY deployment is the rollback of this one.
    """
    why = events.failed
    if why is None and mine is not None and mine.rollout_state == "FAILED":
        why = mine.rollout_state_reason
    has_failed = events.rollback_failed
    if has_failed is None:
        has_failed = {"COMPLETED": False, "FAILED": True}.get(primary.rollout_state or "")
    if has_failed is None and is_its_rollback:
        return Verdict(Status.IN_PROGRESS, Outcome.ROLLING_BACK, primary.rollout_state_reason)
    if has_failed is None:
        cut_short = _join(f"{primary.id} replaced the rollback.", why)
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, cut_short)
    if has_failed:
        reason = primary.rollout_state_reason if is_its_rollback else why
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, reason)
    # If ECS had already started to roll back, a later stop is not the reason.
    if stopped_by and not _names_a_watcher(why):
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", why))
    return Verdict(Status.FAILED, Outcome.ROLLED_BACK, why or primary.rollout_state_reason)


def _read_events(service: Service, deployment_id: str, *, baseline: Collection[str], since: datetime) -> _Events:
    """Return what the service's events say about the deployment.

    The event of a rollback names only the deployment that ECS rolls back to. It belongs to the deployment that failed just
    before it. If none did, the rollback was requested, and belongs to this deployment unless it is older than the call.
    """
    read = _Events()
    failed_now: tuple[str, datetime] | None = None
    # ECS lists the newest first and may give several events one time. The sort is stable and keeps their order.
    oldest_first = list(reversed(service.events))
    oldest_first.sort(key=lambda event: event.created_at)
    for event in oldest_first:
        if failed_now and event.created_at - failed_now[1] > SAME_MOMENT:
            failed_now = None
        ended = ENDED.search(event.message)
        if ended and read.rolls_back:
            # Another deployment that ends now has replaced the rollback.
            is_replaced = read.rolls_back_to not in (None, ended["id"])
            return replace(read, rollback_failed=is_replaced or ended["how"] == "failed")
        if ended:
            read = _with_end(read, event, ended, deployment_id, baseline=baseline, since=since)
            failed_now = (ended["id"], event.created_at) if ended["how"] == "failed" else None
        elif ROLLING_BACK in event.message:
            is_asked_for = failed_now is None and read.failed is None and event.created_at >= since
            if is_asked_for or (failed_now and failed_now[0] == deployment_id):
                destination = DEPLOYMENT_ID.search(event.message.partition(ROLLING_BACK)[2])
                read = replace(read, rolls_back=True, rolls_back_to=destination[0] if destination else None)
            failed_now = None
    return read


def _with_end(
    read: _Events,
    event: ServiceEvent,
    ended: re.Match[str],
    deployment_id: str,
    *,
    baseline: Collection[str],
    since: datetime,
) -> _Events:
    """Add the event that a deployment completed or failed. The first end counts."""
    if read.completed or read.failed:
        return read
    if ended["id"] != deployment_id:
        is_other = ended["id"] not in baseline and event.created_at >= since
        return replace(read, other=read.other or ended["id"]) if is_other else read
    if ended["how"] == "completed":
        return replace(read, completed=event.message)
    return replace(read, failed=event.message)


def find_failure(service: Service, deployment_id: str, *, baseline: Collection[str], since: datetime) -> str | None:
    """Return why the deployment failed, by its rolloutState or the service's events. None if it did not."""
    deployment = service.deployment(deployment_id)
    if deployment is not None and deployment.rollout_state == "FAILED":
        return deployment.rollout_state_reason
    return _read_events(service, deployment_id, baseline=baseline, since=since).failed


def _names_a_watcher(reason: str | None) -> bool:
    """Return whether the circuit breaker or an alarm failed the deployment, not a person."""
    return any(word in (reason or "").lower() for word in ("circuit breaker", "alarm", "failed to start"))


def _find_failure_outcome(reason: str | None) -> Outcome:
    """Return whether the alarms or the circuit breaker failed the deployment, from ECS's reason."""
    return Outcome.ALARM if "alarm" in (reason or "").lower() else Outcome.CIRCUIT_BREAKER


def _join(own_reason: str, ecs_reason: str | None) -> str:
    return f"{own_reason} {ecs_reason}" if ecs_reason else own_reason


def overall_status(rollouts: Collection[Status]) -> Status:
    """Return the upgrade's status for the statuses of its rollouts (at least one). Pure.

    SKIPPED (desired count 0) counts as neither success nor failure. An upgrade whose rollouts were all skipped is FAILED,
    because nothing of what was requested happened.
    """
    if all(status == Status.PENDING for status in rollouts):
        return Status.PENDING
    if any(status not in TERMINAL for status in rollouts):
        return Status.IN_PROGRESS
    counted = {status for status in rollouts if status != Status.SKIPPED}
    if counted == {Status.SUCCESS}:
        return Status.SUCCESS
    return Status.PARTIAL if Status.SUCCESS in counted else Status.FAILED


def describe_upgrade(
    status: Status, rollouts: Sequence[tuple[str, Status, str | None]], *, is_rollback: bool = False
) -> str:
    """Describe an upgrade's state in one or two sentences.

    `rollouts`: service, status and outcome of each, in rolling order.
    """

    def list_services(wanted: Status, *, but: Outcome | None = None, only: Outcome | None = None) -> str:
        return ", ".join(
            inline_label(service)
            for service, its_status, outcome in rollouts
            if its_status == wanted and (but is None or outcome != but) and (only is None or outcome == only)
        )

    done = list_services(Status.SUCCESS, but=Outcome.NO_CHANGE)
    failed = list_services(Status.FAILED, but=Outcome.NOT_ATTEMPTED)
    match status:
        case Status.PENDING:
            return "Recorded. No service has started yet."
        case Status.IN_PROGRESS:
            running = list_services(Status.IN_PROGRESS) or list_services(Status.PENDING).partition(", ")[0]
            ended = list_services(Status.SUCCESS)
            return f"In progress: {running}." + (f" Done: {ended}." if ended else "")
        case Status.SUCCESS:
            first = f"Rolled {'back' if is_rollback else 'out'}: {done}." if done else "Nothing was rolled."
        case Status.PARTIAL:
            moved = "went back" if is_rollback else "advanced"
            still = "" if done else " go back" if is_rollback else " advance"
            halted = f"{failed} did not{still}" if failed else ""
            first = f"Partial: {', '.join(part for part in (done and f'{done} {moved}', halted) if part)}."
        case _:
            first = f"Failed: {failed}." if failed else "Nothing was rolled."
    others = {
        "Nothing to change": list_services(Status.SUCCESS, only=Outcome.NO_CHANGE),
        "Not attempted": list_services(Status.FAILED, only=Outcome.NOT_ATTEMPTED),
        "Skipped, disabled": list_services(Status.SKIPPED),
    }
    return " ".join([first, *(f"{what}: {names}." for what, names in others.items() if names)])


def not_supported(controller: str) -> str:
    """Return why the portal cannot upgrade a service, as the end of a sentence.

    >>> not_supported("EXTERNAL")
    'deployed by another controller (EXTERNAL): the portal cannot upgrade it'
    """
    return f"deployed by another controller ({controller}): the portal cannot upgrade it"


def inline_label(service: str) -> str:
    """Return the label for use within a sentence: `agent service`, not "agent", which is what deployments/ runs."""
    return PlatformService(service).label.lower()
