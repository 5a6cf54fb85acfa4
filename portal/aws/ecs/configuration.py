"""How ECS deploys a service: strategy, steps, bake, hooks, circuit breaker and alarms."""

from dataclasses import dataclass
from typing import Any

# ECS's defaults of members that a service need not set: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
# (API_LinearConfiguration, API_CanaryConfiguration, API_DeploymentLifecycleHookTimeoutConfiguration).
ROLLING = "ROLLING"
# Strategies that shift traffic between two revisions in stages.
SHIFTING = ("BLUE_GREEN", "LINEAR", "CANARY")
DEFAULT_STEP_PERCENT, DEFAULT_STEP_BAKE_MINUTES = 10.0, 6
DEFAULT_CANARY_PERCENT, DEFAULT_CANARY_BAKE_MINUTES = 5.0, 10
DEFAULT_HOOK_MINUTES = 1440
LAMBDA_HOOK, PAUSE_HOOK = "AWS_LAMBDA", "PAUSE"


@dataclass(frozen=True)
class ConfiguredHook:
    """A lifecycle hook as it is configured. `target_type` is LAMBDA_HOOK or PAUSE_HOOK."""

    target_type: str
    target_arn: str | None
    stages: tuple[str, ...]
    timeout_minutes: int
    timeout_action: str


@dataclass(frozen=True)
class DeploymentConfiguration:
    """How ECS deploys. `strategy` is ROLLING, BLUE_GREEN, LINEAR, CANARY or one that ECS adds later.

    `step_percent` and `step_bake_minutes` are those of LINEAR or CANARY. `source_cleanup` is BLOCKING or DEFERRED, and
    None without early success. A service's present configuration may differ from that of a deployment in progress.
    """

    strategy: str = ROLLING
    bake_minutes: int = 0
    step_percent: float | None = None
    step_bake_minutes: int = 0
    hooks: tuple[ConfiguredHook, ...] = ()
    breaker_enabled: bool = False
    breaker_rolls_back: bool = False
    alarms_enabled: bool = False
    alarms_roll_back: bool = False
    alarm_names: tuple[str, ...] = ()
    early_success: bool = False
    healthy_percent: int | None = None
    source_cleanup: str | None = None

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "DeploymentConfiguration":
        """Return the configuration of a dictionary made by `asdict`, also after it was stored as JSON."""
        hooks = tuple(ConfiguredHook(**{**hook, "stages": tuple(hook["stages"])}) for hook in data["hooks"])
        return cls(**data | {"hooks": hooks, "alarm_names": tuple(data["alarm_names"])})


@dataclass(frozen=True)
class LoadBalancer:
    """A load balancer of a service, by ARN, with what ECS needs to shift its traffic between two revisions.

    The production rule is the listener's rule, of a Network Load Balancer the listener:
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AdvancedConfiguration.html.
    """

    target_group: str | None
    alternate_target_group: str | None = None
    production_rule: str | None = None
    test_rule: str | None = None
    role: str | None = None


def parse_load_balancer(raw: dict[str, Any]) -> LoadBalancer:
    advanced = raw.get("advancedConfiguration") or {}
    return LoadBalancer(
        target_group=raw.get("targetGroupArn") or None,
        alternate_target_group=advanced.get("alternateTargetGroupArn") or None,
        production_rule=advanced.get("productionListenerRule") or None,
        test_rule=advanced.get("testListenerRule") or None,
        role=advanced.get("roleArn") or None,
    )


def parse_configuration(raw: dict[str, Any]) -> DeploymentConfiguration:
    """Convert a deploymentConfiguration, with ECS's defaults for members that are missing."""
    strategy = raw.get("strategy") or ROLLING
    breaker, alarms = raw.get("deploymentCircuitBreaker") or {}, raw.get("alarms") or {}
    early = raw.get("earlySuccessCriteria") or {}
    is_early = bool(early.get("enable")) and strategy == ROLLING
    step_percent, step_bake_minutes = _steps(strategy, raw)
    return DeploymentConfiguration(
        strategy=strategy,
        bake_minutes=raw.get("bakeTimeInMinutes") or 0,
        step_percent=step_percent,
        step_bake_minutes=step_bake_minutes,
        hooks=tuple(_configured_hook(hook) for hook in raw.get("lifecycleHooks") or []),
        breaker_enabled=bool(breaker.get("enable")),
        breaker_rolls_back=bool(breaker.get("enable") and breaker.get("rollback")),
        alarms_enabled=bool(alarms.get("enable") and alarms.get("alarmNames")),
        alarms_roll_back=bool(alarms.get("enable") and alarms.get("rollback")),
        alarm_names=tuple(alarms.get("alarmNames") or ()),
        early_success=is_early,
        healthy_percent=early.get("healthyPercent") if is_early else None,
        source_cleanup=(early.get("sourceServiceRevisionCleanup") or "BLOCKING") if is_early else None,
    )


def _steps(strategy: str, raw: dict[str, Any]) -> tuple[float | None, int]:
    """Return a step's percentage of the traffic and its bake time in minutes, for LINEAR and CANARY."""
    if strategy == "LINEAR":
        linear = raw.get("linearConfiguration") or {}
        bake = linear.get("stepBakeTimeInMinutes")
        return linear.get("stepPercent") or DEFAULT_STEP_PERCENT, DEFAULT_STEP_BAKE_MINUTES if bake is None else bake
    if strategy == "CANARY":
        canary = raw.get("canaryConfiguration") or {}
        bake = canary.get("canaryBakeTimeInMinutes")
        percent = canary.get("canaryPercent") or DEFAULT_CANARY_PERCENT
        return percent, DEFAULT_CANARY_BAKE_MINUTES if bake is None else bake
    return None, 0


def _configured_hook(raw: dict[str, Any]) -> ConfiguredHook:
    timeout = raw.get("timeoutConfiguration") or {}
    return ConfiguredHook(
        target_type=raw.get("targetType") or LAMBDA_HOOK,
        target_arn=raw.get("hookTargetArn"),
        stages=tuple(raw.get("lifecycleStages") or ()),
        timeout_minutes=timeout.get("timeoutInMinutes") or DEFAULT_HOOK_MINUTES,
        timeout_action=timeout.get("action") or "ROLLBACK",
    )
