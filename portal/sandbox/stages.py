"""The lifecycle stages of a service deployment, and the traffic that moves in them.

Stages and their order: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
and .../deployment-type-linear.html. A stage begins with its hooks. It ends when they have ended and its condition holds.

A rolling deployment reports no stage and moves no weights. Its stages serve its hooks and its watch over alarms. Where its
hooks run is not documented; assumed are RECONCILE_SERVICE and PRE_SCALE_UP before its first task, and POST_SCALE_UP after
all its tasks are healthy. Hooks at stages that move traffic never run.
"""

import math

from portal.sandbox.deployment_configuration import (
    STAGES,
    early_success,
    has_alarms,
    hooks_at,
    production_steps,
    step_bake_seconds,
)
from portal.sandbox.hooks import advance_hooks, has_open_hooks, next_hook_times, start_hooks
from portal.sandbox.records import Service, ServiceDeployment
from portal.sandbox.scheduler import PACE

ROLLING_HOOK_STAGES = ("RECONCILE_SERVICE", "PRE_SCALE_UP", "POST_SCALE_UP")
STAGES_BEFORE_TASKS = ("RECONCILE_SERVICE", "PRE_SCALE_UP")

# "Each lifecycle stage can last up to 24 hours": blue-green-deployment-how-it-works.html. A bake ends by itself.
LONGEST_STAGE_SECONDS = 86400.0
LONGEST_DEPLOYMENT_SECONDS = 30 * 86400.0


def stages_of(current: ServiceDeployment) -> list[str]:
    """Return the stages that a service deployment goes through. RECONCILE_SERVICE needs more than one source revision."""
    stages = [each for each in STAGES if each != "RECONCILE_SERVICE" or len(current.source_revision_arns) > 1]
    if current.shifts_traffic:
        return stages
    with_hooks = [each for each in ROLLING_HOOK_STAGES if hooks_at(current.configuration, each)]
    watch = ["BAKE_TIME"] if has_alarms(current.configuration) else []
    return [each for each in stages if each in (*with_hooks, "SCALE_UP", *watch, "CLEAN_UP")]


def start_stages(service: Service, current: ServiceDeployment, now: float) -> None:
    enter_stage(service, current, stages_of(current)[0], now)


def advance_stage(service: Service, current: ServiceDeployment, now: float) -> str:
    """Move a service deployment to its next stage if the current one is over.

    Returns why the service deployment must be rolled back, or an empty string.
    """
    cause = advance_hooks(current, service.primary.faults, now)
    if cause:
        return cause
    if current.shifts_traffic and now >= (current.started_at or now) + LONGEST_DEPLOYMENT_SECONDS:
        return "the service deployment timed out"
    if has_open_hooks(current):
        return ""
    if is_stage_over(service, current, now):
        enter_next_stage(service, current, now)
        return ""
    is_limited = current.shifts_traffic and current.lifecycle_stage != "BAKE_TIME"
    if is_limited and now >= current.stage_since + LONGEST_STAGE_SECONDS + stage_seconds(current):
        return f"the lifecycle stage {current.lifecycle_stage} timed out"
    return ""


def is_stage_over(service: Service, current: ServiceDeployment, now: float) -> bool:
    if current.lifecycle_stage == "CLEAN_UP":
        return False
    if current.lifecycle_stage == "SCALE_UP":
        return count_healthy(service) >= healthy_needed(service, current)
    return now >= current.stage_since + stage_seconds(current)


def count_healthy(service: Service) -> int:
    return sum(task.healthy for task in service.tasks if task.deployment_id == service.primary.id)


def healthy_needed(service: Service, current: ServiceDeployment) -> int:
    """Return how many tasks of the target must be healthy at the end of SCALE_UP: all, or a part with early success."""
    criteria = early_success(current.configuration)
    return math.ceil(service.desired * criteria["healthyPercent"] / 100) if criteria else service.desired


def stage_seconds(current: ServiceDeployment) -> float:
    """Return how long the current stage lasts at least."""
    stage, configuration = current.lifecycle_stage, current.configuration
    if stage == "BAKE_TIME":
        return float(configuration.get("bakeTimeInMinutes") or 0) * 60 if current.shifts_traffic else PACE.alarm_watch
    if stage == "PRODUCTION_TRAFFIC_SHIFT":
        is_last = current.step >= len(production_steps(configuration)) - 1
        return PACE.shift + (0 if is_last else step_bake_seconds(configuration))
    if stage == "TEST_TRAFFIC_SHIFT":
        return PACE.shift
    return 0.0 if stage in ("SCALE_UP", "CLEAN_UP") or not current.shifts_traffic else PACE.stage


def enter_next_stage(service: Service, current: ServiceDeployment, now: float) -> None:
    """Enter the next stage. Each shift of production traffic but the last is followed by the stage before the next one."""
    steps = production_steps(current.configuration)
    if current.lifecycle_stage == "PRODUCTION_TRAFFIC_SHIFT" and current.step < len(steps) - 1:
        current.step += 1
        enter_stage(service, current, "PRE_PRODUCTION_TRAFFIC_SHIFT", now)
        return
    stages = stages_of(current)
    enter_stage(service, current, stages[stages.index(current.lifecycle_stage) + 1], now)


def enter_stage(service: Service, current: ServiceDeployment, stage: str, now: float) -> None:
    current.lifecycle_stage, current.stage_since, current.updated_at = stage, now, now
    if stage == "TEST_TRAFFIC_SHIFT":
        current.test_weight = 100.0
    if stage == "PRODUCTION_TRAFFIC_SHIFT":
        current.production_weight = production_steps(current.configuration)[current.step]
    start_hooks(current, now)
    service.needs_tick = True


def next_stage_times(current: ServiceDeployment) -> list[float]:
    """Return when the current stage may change by itself. Times that have passed wait for another condition."""
    if current.status != "IN_PROGRESS":
        return []
    own = current.stage_since + stage_seconds(current)
    limits = [own + LONGEST_STAGE_SECONDS, (current.started_at or own) + LONGEST_DEPLOYMENT_SECONDS]
    return [own, *next_hook_times(current), *(limits if current.shifts_traffic else [])]


def serving_revision(service: Service) -> str:
    """Return the revision that serves production when a new service deployment starts, or an empty string.

    Assumed: if a deployment that shifts traffic is superseded or stopped, the revision with the larger weight serves.
    """
    live = [task.revision_arn for task in service.tasks if task.is_live]
    newest = service.service_deployments[0] if service.service_deployments else None
    is_unfinished = newest is not None and (newest.is_open or newest.status == "STOPPED")
    if newest and is_unfinished and newest.shifts_traffic and not newest.rollback:
        arn = newest.target_revision_arn if newest.production_weight > 50 else newest.serving_revision_arn
        return arn if arn in live else ""
    completed = [revision_arn for revision_arn, _deployment_id in reversed(service.completed)]
    return next((arn for arn in completed if arn in live), live[0] if live else "")
