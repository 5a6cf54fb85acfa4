"""A rollout's deadline: what the deployment's own configuration adds to it, and what stops its clock. Pure.

    deadline = start + settings.UPGRADE_DEADLINE_SECONDS + bake + steps * (step bake + 10 min) + time-outs of Lambda hooks

A pause that waits for a decision stops the clock. Past its deadline, a rollout that ECS still has open is overdue: it is
watched further and may be stopped. It has timed out only if ECS can no longer be asked about it, or after ECS's own limit.
"""

import math
from datetime import datetime, timedelta
from typing import Any

from portal.aws import ecs
from upgrades.models import Rollout
from upgrades.states import Outcome
from upgrades.verdicts import Verdict, find_open_hook

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
STAGE_LIMIT = timedelta(hours=24)
PAUSE_LIMIT = timedelta(days=14)
DEPLOYMENT_LIMIT = timedelta(days=30)
# A Network Load Balancer takes up to ten minutes longer for each shift of traffic.
SHIFT = timedelta(minutes=10)
REPEATED_STAGES = ("PRE_PRODUCTION_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT")


def find_allowance(configuration: ecs.DeploymentConfiguration) -> timedelta:
    """Return the time that a deployment may take by its own configuration, besides starting and stopping tasks."""
    steps = count_steps(configuration)
    step = min(timedelta(minutes=configuration.step_bake_minutes) + SHIFT, STAGE_LIMIT)
    bake = min(timedelta(minutes=configuration.bake_minutes), STAGE_LIMIT)
    hooks = sum((find_hook_allowance(hook, steps) for hook in configuration.hooks), timedelta(0))
    return min(bake + steps * step + hooks, DEPLOYMENT_LIMIT)


def count_steps(configuration: ecs.DeploymentConfiguration) -> int:
    """Return the number of traffic shifts: 0 for ROLLING, 1 for BLUE_GREEN, 2 for CANARY."""
    if configuration.strategy == ecs.ROLLING:
        return 0
    if configuration.strategy == "LINEAR":
        return math.ceil(100 / (configuration.step_percent or ecs.DEFAULT_STEP_PERCENT))
    return 2 if configuration.strategy == "CANARY" else 1


def find_hook_allowance(hook: ecs.ConfiguredHook, steps: int) -> timedelta:
    """Return the time that a hook may take at all its stages. A pause takes none, because it stops the clock."""
    if hook.target_type == ecs.PAUSE_HOOK:
        return timedelta(0)
    runs = sum(max(steps, 1) if stage in REPEATED_STAGES else 1 for stage in hook.stages)
    return runs * min(timedelta(minutes=hook.timeout_minutes), STAGE_LIMIT)


def build_allowance_fields(rollout: Rollout, configuration: ecs.DeploymentConfiguration) -> dict[str, Any]:
    """Return the fields for what the configuration adds to the deadline; empty if `rollout` has it already."""
    seconds = int(find_allowance(configuration).total_seconds())
    if rollout.deadline_at is None or seconds == rollout.allowed_seconds:
        return {}
    more = timedelta(seconds=seconds - (rollout.allowed_seconds or 0))
    return {"allowed_seconds": seconds, "deadline_at": rollout.deadline_at + more}


def build_deadline_fields(
    rollout: Rollout, deployment: ecs.ServiceDeployment | None, verdict: Verdict, *, now: datetime
) -> dict[str, Any]:
    """Return the fields about the deadline after one observation. `rollout` holds the previous one.

    If the deployment could not be read, the clock goes on as it did.
    """
    deadline_at, waiting_since = rollout.deadline_at, rollout.waiting_since
    fields: dict[str, Any] = {}
    if deployment is None or deadline_at is None:
        return {"is_overdue": is_past_deadline(rollout, now)}
    if deployment.configuration is not None:
        fields = build_allowance_fields(rollout, deployment.configuration)
        deadline_at = fields.get("deadline_at", deadline_at)
    if verdict.outcome == Outcome.WAITING_FOR_DECISION:
        waiting_since = waiting_since or find_wait_start(deployment, now)
    elif waiting_since is not None:
        deadline_at += now - waiting_since
        waiting_since = None
    deadline_at = min(deadline_at, deployment.created_at + DEPLOYMENT_LIMIT)
    is_overdue = waiting_since is None and now >= deadline_at and not verdict.is_terminal
    return fields | {"deadline_at": deadline_at, "waiting_since": waiting_since, "is_overdue": is_overdue}


def find_wait_start(deployment: ecs.ServiceDeployment, now: datetime) -> datetime:
    """Return when the pause began, which may be long before it was first observed: its end without its time-out."""
    hook, configuration = find_open_hook(deployment), deployment.configuration
    if hook is None or hook.expires_at is None or configuration is None:
        return now
    limits = {each.timeout_minutes for each in configuration.hooks if each.target_type == ecs.PAUSE_HOOK}
    if len(limits) != 1:
        return now
    return min(now, max(deployment.created_at, hook.expires_at - timedelta(minutes=limits.pop())))


def is_past_deadline(rollout: Rollout, now: datetime) -> bool:
    """Return whether the deadline has passed. A pause stops the clock until ECS ends the pause by itself."""
    if rollout.deadline_at is None:
        return False
    if rollout.waiting_since is None:
        return now >= rollout.deadline_at
    pause_ends_at = rollout.hook_expires_at or rollout.waiting_since + PAUSE_LIMIT
    waited = max(min(now, pause_ends_at) - rollout.waiting_since, timedelta(0))
    return now >= rollout.deadline_at + waited


def is_past_ecs_limit(rollout: Rollout, now: datetime) -> bool:
    """Return whether ECS itself must have ended the deployment."""
    return rollout.started_at is not None and now >= rollout.started_at + DEPLOYMENT_LIMIT
