"""State machine of upgrades: states, outcomes, and how an upgrade follows from its rollouts. Pure: no database, no AWS.

An upgrade has one rollout for each platform service that it targets. A rollout has a phase, which decides what the
engine does next, and a status, which people see:

    phase     status        what is true
    waiting   PENDING       an earlier service of the same upgrade has not ended yet
    due       PENDING       may start now, nothing was sent to ECS
    calling   PENDING       the baseline is committed, UpdateService may or may not have happened
    watching  IN_PROGRESS   the rollout's own deployment is known and has not ended (PENDING while ECS says so)
    done      terminal      written once, never changed again

verdicts.py judges a rollout. The checks before and after an upgrade follow the platform's guide:
https://docs.getaxonflow.com/docs/deployment/deployment-operations/
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import models


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


# A rollout's reason begins with one of these if the desired count was 0 when its deployment ended (verdicts.py).
NO_TASK_HAS_RUN = "No task of the new version has run"
NO_TASK_RUNS = "No task of the new version runs"


def find_idle_end(reason: str | None) -> str | None:
    """Return the sentence with which the reason says that no task of the new version runs, or None if it does not."""
    return next((said for said in (NO_TASK_HAS_RUN, NO_TASK_RUNS) if (reason or "").startswith(said)), None)


def describe_upgrade(
    status: Status,
    rollouts: Sequence[tuple[str, Status, str | None]],
    *,
    reasons: Mapping[str, str | None] | None = None,
    is_rollback: bool = False,
) -> str:
    """Describe an upgrade's state in one or two sentences.

    `rollouts`: service, status and outcome of each, in rolling order. `reasons`: the reason of each service's rollout.
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
    succeeded = [service for service, its_status, _ in rollouts if its_status == Status.SUCCESS]
    idle_ends = {service: find_idle_end((reasons or {}).get(service)) for service in succeeded}
    others = {
        **{
            said: ", ".join(inline_label(service) for service, idle_end in idle_ends.items() if idle_end == said)
            for said in (NO_TASK_HAS_RUN, NO_TASK_RUNS)
        },
        "Nothing to change": list_services(Status.SUCCESS, only=Outcome.NO_CHANGE),
        "Not attempted": list_services(Status.FAILED, only=Outcome.NOT_ATTEMPTED),
        "Skipped, disabled": list_services(Status.SKIPPED),
    }
    return " ".join([first, *(f"{what}: {names}." for what, names in others.items() if names)])


def describe_errors(rollouts: Iterable[tuple[str, str | None, str | None]]) -> str | None:
    """Return the error messages of an upgrade by service, or None. Leaves out services that were not attempted.

    `rollouts`: service, outcome and error message of each, in rolling order.
    """
    reasons = [
        f"{service}: {error_message}"
        for service, outcome, error_message in rollouts
        if error_message and outcome != Outcome.NOT_ATTEMPTED
    ]
    return " ".join(reasons) or None


def not_supported(controller: str) -> str:
    """Return why the portal cannot upgrade a service, as the end of a sentence.

    >>> not_supported("EXTERNAL")
    'deployed by another controller (EXTERNAL): the portal cannot upgrade it'
    """
    return f"deployed by another controller ({controller}): the portal cannot upgrade it"


def inline_label(service: str) -> str:
    """Return the label for use within a sentence: `agent service`, not "agent", which is what deployments/ runs."""
    return PlatformService(service).label.lower()
