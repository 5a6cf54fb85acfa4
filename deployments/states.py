"""STATE MACHINE of deployments: statuses, what may be done in which, and what ECS's words mean. Pure: no database, no AWS.

    status     what is true, as ECS reported it last
    deploying  tasks are being started, none runs
    running    some tasks run
    ready      all tasks run, and ECS calls the rollout completed
    stopped    the service's desired count is 0 and nothing runs
    failed     ECS's circuit breaker gave up, the service could not be made, or nothing started in time
    killed     by a person; the only state without a way out

`deploying` (create, restart) and `killed` are written by the command itself; each other status only after a look at ECS.
What each command needs is in FROM below.
"""

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


# Its agent counts as running while one of its deployments is in one of these.
LIVE = frozenset({Status.DEPLOYING, Status.RUNNING, Status.READY})
ENDED = frozenset({Status.STOPPED, Status.FAILED, Status.KILLED})


class Wanted(models.TextChoices):
    """What people want of the ECS service; the runtime makes it true."""

    RUNNING = "running"
    STOPPED = "stopped"
    GONE = "gone"


class EventType(models.TextChoices):
    """What people do is one word, what the runtime reports is dotted."""

    CREATE = "create", "Created"
    SCALE = "scale", "Scaled"
    RESTART = "restart", "Restarted"
    STOP = "stop", "Stop requested"
    KILL = "kill", "Killed"
    DEPLOYING = "deploy.deploying", "No task runs any more"
    RUNNING = "deploy.running", "Tasks run"
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
    """Why a command is not possible now: the code and the words of the API's 400."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


def allowed(command: str, status: str, *, is_stopping: bool = False) -> Refusal | None:
    """None when the command is possible in this status, else why not. `Deployment.refusal(command)` fills in the rest.

    `is_stopping`: a stop was asked for and ECS has not reported its end; then neither scale nor restart is possible, and
    stop itself changes nothing more.
    """
    wanted = Command(command)
    possible = status in FROM[wanted] and not (is_stopping and wanted == Command.SCALE)
    return None if possible else Refusal(*REFUSALS[wanted])


@dataclass(frozen=True)
class Verdict:
    """What one look at ECS says. `status` None: on its way, nothing to conclude yet."""

    status: Status | None
    reason: str | None = None


def judge(service: Service, *, is_overdue: bool = False) -> Verdict:
    """The status that ECS's report of the service amounts to.

    `is_overdue`: nothing has started within the deadline, so that "tasks are being started" is believed no more (the
    circuit breaker counts slowly, and a failure that it does not count never trips it:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html).
    """
    running, desired = service.running_count, service.desired_count
    if desired == 0:
        return Verdict(Status.STOPPED) if running + service.pending_count == 0 else Verdict(None)
    primary = service.primary
    state = primary.rollout_state if primary else None
    reason = primary.rollout_state_reason if primary else None
    if state == "FAILED":
        return Verdict(Status.FAILED, reason)
    # ECS leaves the state out where it has none to tell; then the counts and a single deployment must do.
    complete = state == "COMPLETED" or (state is None and len(service.deployments) == 1)
    if running >= desired and complete:
        return Verdict(Status.READY, reason)
    if running > 0:
        return Verdict(Status.RUNNING, reason)
    return Verdict(Status.FAILED, reason) if is_overdue else Verdict(Status.DEPLOYING, reason)


def event_of(status: Status) -> EventType:
    """What the runtime reports when ECS has brought a deployment into this status."""
    return EventType(f"deploy.{status.value}")


IMAGE_PULL_FAILED = "image pull failed"
PULL_ERRORS = ("CannotPullContainer", "CannotPullImageManifest", "CannotPullECRContainer", "ImagePull", "pull image")


def explain_stop(reason: str, exit_code: int | None) -> str:
    """Why a task stopped, in a few words and then in ECS's own.

    >>> explain_stop("CannotPullContainerError: not found", None)
    'image pull failed: CannotPullContainerError: not found'
    >>> explain_stop("Essential container in task exited", 137)
    'exit code 137: Essential container in task exited'
    """
    if any(word in reason for word in PULL_ERRORS):
        return f"{IMAGE_PULL_FAILED}: {reason}"
    return reason if exit_code is None else f"exit code {exit_code}: {reason}"
