"""The `deploymentConfiguration` of a service: its defaults, what ECS refuses in it, and the values read from it.

Members: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
"""

import math
from typing import Any

from portal.sandbox.errors import invalid_parameter

Json = dict[str, Any]

STRATEGIES = ("ROLLING", "BLUE_GREEN", "LINEAR", "CANARY")

DEFAULT_CONFIGURATION: Json = {
    "maximumPercent": 200,
    "minimumHealthyPercent": 100,
    "deploymentCircuitBreaker": {"enable": False, "rollback": False},
    "strategy": "ROLLING",
}

STAGES = (
    "RECONCILE_SERVICE",
    "PRE_SCALE_UP",
    "SCALE_UP",
    "POST_SCALE_UP",
    "TEST_TRAFFIC_SHIFT",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
    "BAKE_TIME",
    "CLEAN_UP",
)
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentLifecycleHook.html
HOOK_STAGES = tuple(stage for stage in STAGES if stage not in ("SCALE_UP", "BAKE_TIME", "CLEAN_UP"))
LAMBDA_ONLY_STAGES = ("TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT")
DEFAULT_TIMEOUT_MINUTES, LONGEST_PAUSE_MINUTES = 1440, 20160
MOST_HOOKS_OF_ONE_TYPE = 10
MOST_BAKE_MINUTES = 1440


def merged_configuration(current: Json, change: Json | None) -> Json:
    """Return a new deploymentConfiguration. A copy, because a service deployment keeps the one it started with."""
    return {**current, **{name: value for name, value in (change or {}).items() if value is not None}}


def strategy_of(configuration: Json) -> str:
    return str(configuration.get("strategy") or "ROLLING")


def hooks_at(configuration: Json, stage: str) -> list[Json]:
    """Return the configured hooks of a lifecycle stage."""
    hooks = configuration.get("lifecycleHooks") or []
    return [each for each in hooks if stage in (each.get("lifecycleStages") or [])]


def has_alarms(configuration: Json) -> bool:
    return bool((configuration.get("alarms") or {}).get("enable"))


def early_success(configuration: Json) -> Json | None:
    """Return the early success criteria, or None when they are off."""
    criteria: Json = configuration.get("earlySuccessCriteria") or {}
    return criteria if criteria.get("enable") and strategy_of(configuration) == "ROLLING" else None


def breaker_threshold(configuration: Json, desired: int) -> int:
    """Return the number of failed tasks that trips the circuit breaker.

    COUNT is the number itself; the percentages are of the latest desired count, BOUNDED_PERCENT within 3 and 200
    (https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ThresholdConfiguration.html). That percentages are
    rounded up, and that UNBOUNDED_PERCENT is at least 1, is assumed.
    """
    threshold = (configuration.get("deploymentCircuitBreaker") or {}).get("thresholdConfiguration") or {}
    value = int(threshold.get("value", 50))
    kind = threshold.get("type") or "BOUNDED_PERCENT"
    if kind == "COUNT":
        return value
    share = math.ceil(desired * value / 100)
    return max(share, 1) if kind == "UNBOUNDED_PERCENT" else min(max(share, 3), 200)


def production_steps(configuration: Json) -> list[float]:
    """Return the target revision's share of production traffic after each shift, in percent. The last is 100."""
    strategy = strategy_of(configuration)
    if strategy == "LINEAR":
        percent = float((configuration.get("linearConfiguration") or {}).get("stepPercent", 10.0))
        whole = math.ceil(round(100 / percent, 6))
        return [*(round(percent * number, 1) for number in range(1, whole)), 100.0]
    if strategy == "CANARY":
        percent = float((configuration.get("canaryConfiguration") or {}).get("canaryPercent", 5.0))
        return [percent, 100.0] if percent < 100 else [100.0]
    return [100.0]


def step_bake_seconds(configuration: Json) -> float:
    """Return the bake time after each shift of production traffic but the last."""
    if strategy_of(configuration) == "LINEAR":
        return float((configuration.get("linearConfiguration") or {}).get("stepBakeTimeInMinutes", 6)) * 60
    return float((configuration.get("canaryConfiguration") or {}).get("canaryBakeTimeInMinutes", 10)) * 60


def check_configuration(configuration: Json) -> None:
    """Raise InvalidParameterException for what ECS's documentation rules out. The texts are our own."""
    strategy = strategy_of(configuration)
    if strategy not in STRATEGIES:
        raise invalid_parameter(f"The deployment strategy must be one of {', '.join(STRATEGIES)}.")
    bake = configuration.get("bakeTimeInMinutes")
    if strategy == "BLUE_GREEN" and bake is None:
        raise invalid_parameter("bakeTimeInMinutes is required for the BLUE_GREEN deployment strategy.")
    if bake is not None and not 0 <= bake <= MOST_BAKE_MINUTES:
        raise invalid_parameter(f"bakeTimeInMinutes must be between 0 and {MOST_BAKE_MINUTES}.")
    for member, owner in (("linearConfiguration", "LINEAR"), ("canaryConfiguration", "CANARY")):
        if configuration.get(member) and strategy != owner:
            raise invalid_parameter(f"{member} is only valid for the {owner} deployment strategy.")
    if strategy in ("LINEAR", "CANARY"):
        check_steps(configuration)
    check_early_success(configuration)
    check_hooks(configuration)


def check_steps(configuration: Json) -> None:
    first = production_steps(configuration)[0]
    least = 3.0 if strategy_of(configuration) == "LINEAR" else 0.1
    if not least <= first <= 100:
        raise invalid_parameter(f"The percentage of each traffic shift must be between {least} and 100.0.")
    if not 0 <= step_bake_seconds(configuration) <= MOST_BAKE_MINUTES * 60:
        raise invalid_parameter(f"The bake time of a traffic shift must be between 0 and {MOST_BAKE_MINUTES} minutes.")


def check_early_success(configuration: Json) -> None:
    criteria = configuration.get("earlySuccessCriteria") or {}
    if not criteria.get("enable"):
        return
    if strategy_of(configuration) != "ROLLING":
        raise invalid_parameter("earlySuccessCriteria can only be used with the ROLLING deployment strategy.")
    percent = criteria.get("healthyPercent")
    if percent is None or criteria.get("sourceServiceRevisionCleanup") not in ("BLOCKING", "DEFERRED"):
        raise invalid_parameter("earlySuccessCriteria needs healthyPercent and sourceServiceRevisionCleanup.")
    if not configuration["minimumHealthyPercent"] <= percent <= 100:
        raise invalid_parameter("healthyPercent must be between minimumHealthyPercent and 100.")


def check_hooks(configuration: Json) -> None:
    hooks = configuration.get("lifecycleHooks") or []
    for kind in ("AWS_LAMBDA", "PAUSE"):
        if sum(hook_type(each) == kind for each in hooks) > MOST_HOOKS_OF_ONE_TYPE:
            raise invalid_parameter(f"A service can have at most {MOST_HOOKS_OF_ONE_TYPE} hooks of type {kind}.")
    for hook in hooks:
        check_hook(hook)


def check_hook(hook: Json) -> None:
    """Raise InvalidParameterException for a hook at a stage that its type does not have, or without its target."""
    kind, stages = hook_type(hook), hook.get("lifecycleStages") or []
    if kind not in ("AWS_LAMBDA", "PAUSE"):
        raise invalid_parameter(f"The target type {kind} of a lifecycle hook is not AWS_LAMBDA or PAUSE.")
    if not stages or not set(stages) <= set(HOOK_STAGES):
        raise invalid_parameter(f"lifecycleStages must name some of {', '.join(HOOK_STAGES)}.")
    if kind == "AWS_LAMBDA" and not (hook.get("hookTargetArn") and hook.get("roleArn")):
        raise invalid_parameter("hookTargetArn and roleArn are required for AWS_LAMBDA hooks.")
    refused = [stage for stage in stages if stage in LAMBDA_ONLY_STAGES]
    if kind == "PAUSE" and refused:
        raise invalid_parameter(f"PAUSE hooks cannot be configured at the stage {refused[0]}.")
    minutes, _action = hook_timeout(hook)
    most = LONGEST_PAUSE_MINUTES if kind == "PAUSE" else DEFAULT_TIMEOUT_MINUTES
    if not 1 <= minutes <= most:
        raise invalid_parameter(f"timeoutInMinutes of a hook of type {kind} must be between 1 and {most}.")


def hook_type(hook: Json) -> str:
    return str(hook.get("targetType") or "AWS_LAMBDA")


def hook_timeout(hook: Json) -> tuple[int, str]:
    """Return after how many minutes a hook times out, and what ECS does then: ROLLBACK or CONTINUE."""
    timeout = hook.get("timeoutConfiguration") or {}
    return int(timeout.get("timeoutInMinutes") or DEFAULT_TIMEOUT_MINUTES), str(timeout.get("action") or "ROLLBACK")
