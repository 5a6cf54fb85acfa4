"""View model of a rollout's stages and traffic: names, the step line, the bars. Contains no rules about state.

Stages and their order: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
"""

import math
from dataclasses import dataclass
from typing import Literal

from portal.aws.ecs import PAUSE_HOOK, ROLLING, SHIFTING, DeploymentConfiguration
from portal.templatetags.formatting import duration
from upgrades.engine.deadline import count_steps
from upgrades.engine.stages import recall_configuration
from upgrades.models import Rollout
from upgrades.states import ROLLED_OUT, Outcome

STAGE_NAMES = {
    "RECONCILE_SERVICE": "Earlier revisions are reconciled",
    "PRE_SCALE_UP": "Before new tasks start",
    "SCALE_UP": "New tasks start",
    "POST_SCALE_UP": "New tasks run",
    "TEST_TRAFFIC_SHIFT": "Test traffic moves",
    "POST_TEST_TRAFFIC_SHIFT": "Test traffic has moved",
    "PRE_PRODUCTION_TRAFFIC_SHIFT": "Before production traffic moves",
    "PRODUCTION_TRAFFIC_SHIFT": "Production traffic moves",
    "POST_PRODUCTION_TRAFFIC_SHIFT": "Production traffic has moved",
    "BAKE_TIME": "Bake",
    "CLEAN_UP": "Old tasks stop",
}
# Only after a deployment that left several revisions active, so it is shown only if ECS reports it.
RARE_STAGE = "RECONCILE_SERVICE"
STRATEGY_NAMES = {"ROLLING": "Rolling", "BLUE_GREEN": "Blue/green", "LINEAR": "Linear", "CANARY": "Canary"}
TIMEOUT_ACTIONS = {"ROLLBACK": "ECS rolls back", "CONTINUE": "ECS continues with the rollout"}


@dataclass(frozen=True)
class Step:
    """A step of the stage line. `name` is ECS's own."""

    name: str
    label: str
    position: Literal["done", "present", "ahead"]


@dataclass(frozen=True)
class StageLine:
    """The stages of a rollout. `present`: the plain name of the reported stage, None if the portal does not know it.

    `number`: the place of the present step, from 1; None if there is none.
    """

    steps: list[Step]
    present: str | None
    number: int | None


def build_stage_line(rollout: Rollout) -> StageLine | None:
    """Return the stages that the strategy has; None without stages.

    While ECS rolls back, and after a failure, it says nothing about a position, so there is no line either.
    """
    has_stages = rollout.strategy in SHIFTING or rollout.lifecycle_stage is not None
    is_back = rollout.outcome == Outcome.ROLLING_BACK or (rollout.is_terminal and rollout.outcome not in ROLLED_OUT)
    if not has_stages or is_back:
        return None
    stage = rollout.lifecycle_stage
    names = [name for name in STAGE_NAMES if name != RARE_STAGE or stage == RARE_STAGE]
    if rollout.strategy not in SHIFTING:
        names = []
    present = names.index(stage) if stage in names and not rollout.is_terminal else None
    steps = [Step(name, STAGE_NAMES[name], find_position(rollout, index, present)) for index, name in enumerate(names)]
    return StageLine(steps, STAGE_NAMES.get(stage or ""), None if present is None else present + 1)


def describe_next(rollout: Rollout) -> str:
    """Return what ECS does after the pause that the rollout waits at: the next thing that users or tasks notice."""
    weight = rollout.production_weight
    new = f"the new tasks ({rollout.to_version})" if rollout.to_version else "the new tasks"
    if rollout.strategy not in SHIFTING or weight is None:
        return "ECS goes on with the rollout."
    if weight < 100:
        how = "all production traffic moves" if rollout.strategy == "BLUE_GREEN" else "the next share of traffic moves"
        return f"ECS goes on. Next, {how} to {new}."
    minutes = (rollout.configuration or {}).get("bake_minutes")
    bake = f"bakes for {minutes} min and " if minutes and rollout.lifecycle_stage != "BAKE_TIME" else ""
    return f"ECS goes on. It {bake}then stops the earlier tasks."


def find_position(rollout: Rollout, index: int, present: int | None) -> Literal["done", "present", "ahead"]:
    if rollout.is_terminal:
        return "done"
    if present is None or index > present:
        return "ahead"
    return "present" if index == present else "done"


def describe_strategy(rollout: Rollout) -> str | None:
    """Return the strategy with what its configuration says, as `Linear: 25 % every 2 min. Bake of 10 min`."""
    if rollout.strategy is None:
        return None
    configuration = recall_configuration(rollout)
    return name_strategy(rollout.strategy, describe_configuration(configuration) if configuration else [])


def name_strategy(strategy: str, parts: list[str]) -> str:
    name = STRATEGY_NAMES.get(strategy, strategy)
    return f"{name}: {', '.join(parts)}" if parts else name


def describe_configuration(configuration: DeploymentConfiguration) -> list[str]:
    if configuration.early_success:
        percent = f" at {configuration.healthy_percent} % healthy" if configuration.healthy_percent is not None else ""
        return [f"early success{percent}"]
    parts = []
    step = f"{configuration.step_percent:g} %" if configuration.step_percent is not None else "a step"
    wait = duration(configuration.step_bake_minutes * 60)
    if configuration.strategy == "LINEAR":
        parts.append(f"{step} every {wait}")
    if configuration.strategy == "CANARY":
        parts.append(f"first {step} for {wait}")
    if configuration.strategy != ROLLING:
        parts.append(f"bake of {duration(configuration.bake_minutes * 60)}")
    return parts


def describe_planned_strategy(configuration: DeploymentConfiguration) -> str | None:
    """Return the strategy before a rollout, with the pauses that wait for a person; None for plain ROLLING."""
    stages = [stage for hook in configuration.hooks if hook.target_type == PAUSE_HOOK for stage in hook.stages]
    parts = describe_configuration(configuration)
    parts += [f"waits for a decision at {stage}" for stage in stages]
    if configuration.strategy == ROLLING and not parts:
        return None
    return name_strategy(configuration.strategy, parts)


def least_minutes(configuration: DeploymentConfiguration) -> int:
    """Return the minutes of the bake, and of the waits between traffic steps."""
    if configuration.strategy not in SHIFTING:
        return 0
    waits = max(count_steps(configuration) - 1, 0) * configuration.step_bake_minutes
    return configuration.bake_minutes + waits


@dataclass(frozen=True)
class Traffic:
    """The shares of one kind of traffic in percent. `old` is None if ECS does not report it."""

    name: str
    new: float
    old: float | None
    shifts: str | None = None

    @property
    def old_x(self) -> float:
        return 100 - (self.old or 0)


def build_traffic(rollout: Rollout) -> list[Traffic]:
    """Return the production and test traffic of an open rollout, as far as ECS reports it."""
    if rollout.is_terminal:
        return []
    bars = []
    if rollout.production_weight is not None:
        bars.append(Traffic("Production", rollout.production_weight, rollout.source_weight, describe_shifts(rollout)))
    if rollout.test_weight is not None:
        bars.append(Traffic("Test", rollout.test_weight, None))
    return bars


def describe_shifts(rollout: Rollout) -> str | None:
    """Return how many shifts of LINEAR or CANARY are done, by the weight."""
    configuration = recall_configuration(rollout)
    weight, steps = rollout.production_weight, count_steps(configuration) if configuration else 0
    if configuration is None or weight is None or steps < 2 or not configuration.step_percent:
        return None
    is_canary = configuration.strategy == "CANARY"
    done = (weight > 0) + (weight == 100) if is_canary else math.ceil(round(weight / configuration.step_percent, 3))
    return f"{min(done, steps)} of {steps} shifts done"


def describe_timeout(rollout: Rollout) -> str | None:
    """Return what ECS does when the time of the hook is over; None if ECS does not say."""
    action = (rollout.hook or {}).get("timeout_action")
    return TIMEOUT_ACTIONS.get(action, f"ECS does {action}") if action else None
