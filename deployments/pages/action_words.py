"""Labels, descriptions and confirmation text for each deployment command.

Contains no rules about state or role. commands.py and states.py enforce them and give the reasons shown here.
"""

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
    Command.SCALE: "Runs more or fewer tasks of the same version.",
    Command.RESTART: "Starts its tasks again.",
    Command.STOP: "Stops all tasks. Restart starts them again.",
    Command.KILL: "Deletes it. You will be asked to type its name.",
}
BACK = {
    Command.SCALE: "Cancel",
    Command.RESTART: "Cancel",
    Command.STOP: "Keep it running",
    Command.KILL: "Keep it",
}
DONE = {
    Command.SCALE: "Scale requested",
    Command.RESTART: "Restart requested",
    Command.STOP: "Stop requested",
    Command.KILL: "Killed",
}
# Acting on more rows than this, or any kill, must be confirmed by typing.
TYPED_ABOVE = 3


@dataclass(frozen=True)
class Action:
    """A command on the deployment's page. `reason` says why it is not possible now."""

    command: str
    label: str
    effect: str
    reason: str | None


@dataclass(frozen=True)
class Confirmation:
    """The confirmation of one command."""

    command: str
    title: str
    verb: str
    back: str
    effects: list[str]
    reason: str | None


def build_actions(deployment: Deployment, may_not_reason: str | None) -> list[Action]:
    return [
        Action(
            command.value,
            LABELS[command],
            EFFECTS[command],
            may_not_reason or build_refusal_sentence(deployment.refusal(command)),
        )
        for command in LABELS
    ]


def build_confirmation(command: Command, deployment: Deployment, may_not_reason: str | None) -> Confirmation:
    name = deployment.agent.name
    return Confirmation(
        command=command.value,
        title=f"{LABELS[command]} {name}?" if command != Command.SCALE else f"Scale {name}",
        verb=LABELS[command],
        back=BACK[command],
        effects=describe_effects(command, deployment),
        reason=may_not_reason or build_refusal_sentence(deployment.refusal(command)),
    )


def describe_effects(command: Command, deployment: Deployment) -> list[str]:
    """Return sentences that say what the command will do and how to undo it."""
    tasks = f"{deployment.running_replicas} running task{'' if deployment.running_replicas == 1 else 's'}"
    task_count = f"{deployment.replicas} task{'' if deployment.replicas == 1 else 's'}"
    if command == Command.SCALE:
        return ["ECS starts or stops tasks to reach the new number. The other tasks keep running."]
    if command == Command.RESTART:
        what = "the agent's current settings" if deployment.status == Status.FAILED else "the same version as before"
        return [f"ECS starts {task_count} with {what}.", "No task is running, so nothing is interrupted."]
    if command == Command.STOP:
        return [
            f"ECS stops its {tasks}. Work in progress is interrupted.",
            "To undo this, restart it. The same number of tasks will start.",
        ]
    return [
        f"ECS stops its {tasks} and deletes the service.",
        "The record, its timeline and its logs are kept.",
        "This cannot be undone. To run the agent again, create a new deployment.",
    ]


def describe_consequence(command: Command) -> str:
    return {
        Command.RESTART: "Stopped and failed deployments start their tasks again.",
        Command.STOP: "Running deployments stop all their tasks. Restart starts them again.",
        Command.KILL: "All tasks stop and the ECS services are deleted. This cannot be undone.",
    }[command]


def build_refusal_sentence(refusal: Refusal | None) -> str | None:
    """Return the API's message as a sentence for a page, or None."""
    return None if refusal is None else f"{refusal.message.rstrip('.')}."


@dataclass(frozen=True)
class BulkRow:
    """One row of a bulk command. `outcome` is will, refused or done."""

    deployment: Deployment
    outcome: str
    sentence: str


@dataclass(frozen=True)
class Bulk:
    """The answer to a bulk command. It has rows with `is_done`, a form that asks for confirmation, or an error."""

    command: str
    title: str
    status: int = 200
    verb: str = ""
    consequence: str = ""
    rows: list[BulkRow] | None = None
    form: Any = None
    error: str | None = None
    is_done: bool = False
