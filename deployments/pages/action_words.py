"""How the commands are put to people: verb, effect, consequences, how sure somebody must be. No rule about state or role:
those are the commands' and the state machine's, and come here as sentences."""

from dataclasses import dataclass
from typing import Any

from deployments.models import Deployment
from deployments.states import Command, Refusal, Status

LABELS = {
    Command.SCALE: "Scale",
    Command.RESTART: "Restart",
    Command.STOP: "Stop",
    Command.KILL: "Kill",
}
EFFECTS = {
    Command.SCALE: "More or fewer tasks of the same version.",
    Command.RESTART: "Starts its tasks again.",
    Command.STOP: "Ends all tasks; restart brings them back.",
    Command.KILL: "Ends it for good; asks for its name.",
}
BACK = {
    Command.SCALE: "Leave it as it is",
    Command.RESTART: "Leave it as it is",
    Command.STOP: "Keep it running",
    Command.KILL: "Keep it",
}
DONE = {
    Command.SCALE: "Scale asked for",
    Command.RESTART: "Restart asked for",
    Command.STOP: "Stop asked for",
    Command.KILL: "Killed",
}
# More rows than this at once, or any kill, is confirmed by typing.
TYPED_ABOVE = 3


@dataclass(frozen=True)
class Action:
    """One command as the deployment's page offers it; `reason` says why it is not possible now."""

    command: str
    label: str
    effect: str
    reason: str | None


@dataclass(frozen=True)
class Act:
    """One command about to be given: what its confirmation says."""

    command: str
    title: str
    verb: str
    back: str
    effects: list[str]
    reason: str | None
    refused: str | None = None


def actions_of(deployment: Deployment, may_not_reason: str | None) -> list[Action]:
    return [
        Action(command.value, LABELS[command], EFFECTS[command], may_not_reason or words(deployment.refusal(command)))
        for command in LABELS
    ]


def act_of(command: Command, deployment: Deployment, may_not_reason: str | None, *, refused: str | None = None) -> Act:
    name = deployment.agent.name
    return Act(
        command=command.value,
        title=f"{LABELS[command]} {name}?" if command != Command.SCALE else f"Scale {name}",
        verb=LABELS[command],
        back=BACK[command],
        effects=effects_of(command, deployment),
        reason=may_not_reason or words(deployment.refusal(command)),
        refused=refused,
    )


def effects_of(command: Command, deployment: Deployment) -> list[str]:
    """What the command will touch, and the way back."""
    tasks = f"{deployment.running_replicas} running task{'' if deployment.running_replicas == 1 else 's'}"
    wanted = f"{deployment.replicas} task{'' if deployment.replicas == 1 else 's'}"
    if command == Command.SCALE:
        return ["ECS starts what is missing, or stops what is too many; the tasks that stay are not touched."]
    if command == Command.RESTART:
        what = (
            "the agent as it is described now" if deployment.status == Status.FAILED else "the same version as before"
        )
        return [f"ECS starts {wanted} of {what}.", "Nothing runs that could be interrupted."]
    if command == Command.STOP:
        return [
            f"ECS ends its {tasks}: what they are doing is interrupted.",
            "The way back: restart it, and the same number of tasks starts again.",
        ]
    return [
        f"ECS ends its {tasks} and deletes the service.",
        "The record, its timeline and its logs stay.",
        "There is no way back: to run the agent again, make a new deployment.",
    ]


def consequence_of(command: Command) -> str:
    return {
        Command.RESTART: "Each that can be restarted starts its tasks again.",
        Command.STOP: "Each that runs ends its tasks; restart brings them back.",
        Command.KILL: "Each ends its tasks for good and its ECS service is deleted; there is no way back.",
    }[command]


def words(refusal: Refusal | None) -> str | None:
    """The API's words, as the sentence of a page."""
    return None if refusal is None else f"{refusal.message.rstrip('.')}."


@dataclass(frozen=True)
class BulkRow:
    """`outcome`: will, refused, done."""

    deployment: Deployment
    outcome: str
    sentence: str


@dataclass(frozen=True)
class Bulk:
    command: str
    title: str
    verb: str = ""
    consequence: str = ""
    rows: list[BulkRow] | None = None
    form: Any = None
    error: str | None = None
    is_done: bool = False
