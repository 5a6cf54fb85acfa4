"""The failure detection of a service's deployments: what would end a failing rollout, by the service's strategy. Pure.

The circuit breaker exists for ROLLING only. With the other strategies, alarms and lifecycle hooks detect a failure, and ECS
can roll back within seconds while both versions run, which is until the end of the bake, if there is one:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
"""

from collections.abc import Iterable
from dataclasses import dataclass

from portal.aws.ecs import PAUSE_HOOK, ROLLING, SHIFTING, DeploymentConfiguration, LoadBalancer

# What ECS needs of a load balancer to shift its traffic, by the name of the member.
SHIFT_PARTS = {
    "target_group": "target group",
    "alternate_target_group": "alternate target group",
    "production_rule": "production listener rule",
    "test_rule": "test listener rule",
    "role": "role",
}


@dataclass(frozen=True)
class Detection:
    """What detects a failing rollout, and what is missing.

    `is_enough`: whether a failing rollout would be ended; None for a strategy that the portal does not know.
    """

    strategy: str
    on: tuple[str, ...]
    missing: tuple[str, ...]
    is_enough: bool | None

    def __str__(self) -> str:
        """Return it as a phrase: `BLUE_GREEN: alarms with rollback, bake of 10 min; no lifecycle hook`."""
        parts = [", ".join(self.on), f"no {', no '.join(self.missing)}" if self.missing else ""]
        return f"{self.strategy}: {'; '.join(part for part in parts if part)}"


def find_detection(configuration: DeploymentConfiguration) -> Detection:
    if configuration.strategy == ROLLING:
        return find_rolling_detection(configuration)
    alarms, hooks = describe_alarms(configuration), describe_hooks(configuration)
    bake = f"bake of {configuration.bake_minutes} min" if configuration.bake_minutes else ""
    wanted = {"alarms with rollback": configuration.alarms_roll_back, "lifecycle hook": hooks, "bake": bake}
    # Alarms and hooks end a failing rollout at earlier stages too, and at each step. The bake only gives them longer.
    is_enough = bool(configuration.alarms_roll_back or hooks)
    return Detection(
        configuration.strategy,
        on=tuple(each for each in (alarms, hooks, bake) if each),
        missing=tuple(name for name, is_on in wanted.items() if not is_on),
        is_enough=is_enough if configuration.strategy in SHIFTING else None,
    )


def find_rolling_detection(configuration: DeploymentConfiguration) -> Detection:
    breaker = ""
    if configuration.breaker_enabled:
        breaker = f"circuit breaker {'with' if configuration.breaker_rolls_back else 'without automatic'} rollback"
    alarms = describe_alarms(configuration)
    on = [breaker, alarms, describe_hooks(configuration)]
    missing = () if breaker or alarms else ("circuit breaker", "alarms")
    return Detection(ROLLING, tuple(each for each in on if each), missing, is_enough=bool(breaker or alarms))


def describe_alarms(configuration: DeploymentConfiguration) -> str:
    if not configuration.alarms_enabled:
        return ""
    return f"alarms {'with' if configuration.alarms_roll_back else 'without'} rollback"


def describe_hooks(configuration: DeploymentConfiguration) -> str:
    pauses = sum(hook.target_type == PAUSE_HOOK for hook in configuration.hooks)
    functions = len(configuration.hooks) - pauses
    counted = [(functions, "lifecycle hook"), (pauses, "pause")]
    return ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in counted if count)


def find_missing_parts(configuration: DeploymentConfiguration, balancers: Iterable[LoadBalancer]) -> list[str]:
    """Return what the service's load balancers lack for the strategy to shift their traffic, and to move it back.

    Without a test rule only test traffic is not shifted. Whether both target groups are on the rule is not known here,
    because only Elastic Load Balancing says it.
    """
    if configuration.strategy not in SHIFTING:
        return []
    return [name for part, name in SHIFT_PARTS.items() if any(getattr(each, part) is None for each in balancers)]


def describe_early_success(configuration: DeploymentConfiguration) -> str:
    """Return what early success means for this service, an empty string if it is off."""
    if not configuration.early_success:
        return ""
    percent, deferred = configuration.healthy_percent, configuration.source_cleanup == "DEFERRED"
    at = "as soon as enough of" if percent is None else f"when {percent} % of"
    drain = " Old tasks drain afterwards, for up to two weeks, so two versions serve." if deferred else ""
    return (
        f"early success ends the deployment {at} the new tasks are healthy. No circuit breaker, alarm or rollback "
        f"protects the rest.{drain}"
    )
