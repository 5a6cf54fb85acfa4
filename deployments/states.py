"""The state machine of deployments: statuses, allowed commands, and the rule that maps ECS's report to a status. Pure.

    status     meaning, as last reported by ECS
    deploying  tasks are starting, none is running yet
    running    some tasks are running
    ready      all tasks are running and ECS reports the rollout as completed
    stopped    the service's desired count is 0 and no task is running
    failed     ECS's circuit breaker tripped, the service could not be created, or no task started in time
    killed     deleted, in the portal or outside it; final

Commands write only `deploying` (create, restart) and `killed`. All other statuses are written after reading ECS.
FROM below lists the statuses that each command needs.
"""

from collections.abc import Collection
from dataclasses import dataclass

from django.db import models

from portal.aws.ecs import Service


class Status(models.TextChoices):
    DEPLOYING = "deploying", "Deploying"
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"
    KILLED = "killed", "Killed"


# An agent counts as running while one of its deployments has one of these statuses.
LIVE = frozenset({Status.DEPLOYING, Status.RUNNING, Status.READY})
ENDED = frozenset({Status.STOPPED, Status.FAILED, Status.KILLED})

# From the worst to the best status of a deployment that should run.
WORST_FIRST = (Status.FAILED, Status.DEPLOYING, Status.RUNNING, Status.READY)


def find_worst(statuses: Collection[str]) -> Status:
    """Return the worst of these statuses; `stopped` if there is none.

    >>> find_worst(["ready", "failed", "running"]).value, find_worst([]).value
    ('failed', 'stopped')
    """
    return next((status for status in WORST_FIRST if status in statuses), Status.STOPPED)


class DesiredState(models.TextChoices):
    """The wanted state of the ECS service. The reconciler applies it."""

    RUNNING = "running"
    STOPPED = "stopped"
    GONE = "gone"


class EventType(models.TextChoices):
    """Event types. Actions of people are one word; reports of the reconciler are dotted."""

    CREATE = "create", "Created"
    SCALE = "scale", "Scaled"
    RESTART = "restart", "Restarted"
    STOP = "stop", "Stop requested"
    KILL = "kill", "Killed"
    DEPLOYING = "deploy.deploying", "No running tasks"
    RUNNING = "deploy.running", "Tasks running"
    READY = "deploy.ready", "Ready"
    STOPPED = "deploy.stopped", "Stopped"
    FAILED = "deploy.failed", "Failed"


SYSTEM = "system"
OUTSIDE = "outside the portal"


class Command(models.TextChoices):
    SCALE = "scale"
    STOP = "stop"
    RESTART = "restart"
    KILL = "kill"


FROM = {
    Command.SCALE: frozenset({Status.RUNNING, Status.READY}),
    Command.STOP: frozenset({Status.DEPLOYING, Status.RUNNING, Status.READY}),
    Command.RESTART: frozenset({Status.STOPPED, Status.FAILED}),
    Command.KILL: frozenset(Status),
}
REFUSALS = {
    Command.SCALE: ("not_running", "Can only scale running deployments"),
    Command.STOP: ("not_running", "Can only stop deploying, running or ready deployments"),
    Command.RESTART: ("not_restartable", "Can only restart stopped or failed deployments"),
}


@dataclass(frozen=True)
class Refusal:
    """Why a command is not possible now: code and message of the API's 400 response."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


def allowed(command: str, status: str, *, is_stopping: bool = False) -> Refusal | None:
    """Return None if the command is possible in this status, else the refusal. See also `Deployment.refusal(command)`.

    `is_stopping` means that a stop was requested and ECS still reports tasks. Then scale and restart are refused, and
    another stop is a no-op.
    """
    requested = Command(command)
    possible = status in FROM[requested] and not (is_stopping and requested == Command.SCALE)
    return None if possible else Refusal(*REFUSALS[requested])


@dataclass(frozen=True)
class Verdict:
    """The result of one ECS read. `status` is None while a change is under way and nothing can be concluded."""

    status: Status | None
    reason: str | None = None


def judge(service: Service, *, is_overdue: bool = False) -> Verdict:
    """Return the status that follows from ECS's report of the service.

    `is_overdue` means that no task started within the deadline: the status is then `failed` instead of `deploying`. The
    circuit breaker counts slowly, and failures that it does not count never trip it:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
    """
    running, desired = service.running_count, service.desired_count
    if desired == 0:
        return Verdict(Status.STOPPED) if running + service.pending_count == 0 else Verdict(None)
    primary = service.primary
    state = primary.rollout_state if primary else None
    reason = primary.rollout_state_reason if primary else None
    if state == "FAILED":
        return Verdict(Status.FAILED, reason)
    # ECS sometimes gives no rollout state. Then the counts and a single deployment decide.
    complete = state == "COMPLETED" or (state is None and len(service.deployments) == 1)
    if running >= desired and complete:
        return Verdict(Status.READY, reason)
    if running > 0:
        return Verdict(Status.RUNNING, reason)
    return Verdict(Status.FAILED, reason) if is_overdue else Verdict(Status.DEPLOYING, reason)


def event_type_for(status: Status) -> EventType:
    """Return the event type for a deployment that reached this status in ECS."""
    return EventType(f"deploy.{status.value}")


IMAGE_PULL_FAILED = "image pull failed"
PULL_ERRORS = ("CannotPullContainer", "CannotPullImageManifest", "CannotPullECRContainer", "ImagePull", "pull image")


def explain_stop(reason: str, exit_code: int | None) -> str:
    """Return why a task stopped: a short reason followed by ECS's own text.

    >>> explain_stop("CannotPullContainerError: not found", None)
    'image pull failed: CannotPullContainerError: not found'
    >>> explain_stop("Essential container in task exited", 137)
    'container exited with code 137: Essential container in task exited'
    """
    if any(word in reason for word in PULL_ERRORS):
        return f"{IMAGE_PULL_FAILED}: {reason}"
    return reason if exit_code is None else f"container exited with code {exit_code}: {reason}"
