"""What a deployment reports beyond counts: its own configuration, stage, weights, hooks, and since when. Pure.

The stage and the weights only explain a rollout. The deployment's status decides it (verdicts.judge).
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from portal.aws import ecs
from portal.times import utc
from upgrades.models import Rollout
from upgrades.verdicts import find_open_hook, is_rolling_back, is_shifted

WATCHED = ("lifecycle_stage", "production_weight", "test_weight", "source_weight", "hook")
NO_STAGE = {"lifecycle_stage": None, "stage_began_at": None, "bake_ends_at": None, "hook": None}


def build_stage_fields(rollout: Rollout, deployment: ecs.ServiceDeployment, *, now: datetime) -> dict[str, Any]:
    """Return the rollout's fields for its strategy, stage, weights and hook. `rollout` holds the previous observation.

    `now`: AWS's time of the observation, because ECS's own times are compared with it.
    While ECS rolls back, the stage may still be that of the way forward, so it is left out.
    """
    configuration = deployment.configuration
    fields: dict[str, Any] = {
        "production_weight": deployment.production_weight,
        "test_weight": deployment.test_weight,
        "source_weight": deployment.source_production_weight,
    }
    if configuration is not None:
        fields |= {"strategy": configuration.strategy, "configuration": asdict(configuration)}
    if is_rolling_back(deployment):
        return fields | NO_STAGE
    stage = deployment.lifecycle_stage
    began_at = rollout.stage_began_at if stage == rollout.lifecycle_stage else now
    shifted_at = rollout.traffic_shifted_at or (now if is_shifted(deployment) else None)
    return fields | {
        "lifecycle_stage": stage,
        "stage_began_at": began_at if stage else None,
        "traffic_shifted_at": shifted_at,
        "bake_ends_at": find_bake_end(deployment, began_at),
        "hook": describe_hook(deployment),
    }


def find_bake_end(deployment: ecs.ServiceDeployment, began_at: datetime | None) -> datetime | None:
    """Return about when the bake ends: its first observation plus the bake time. ECS itself does not report it."""
    if deployment.lifecycle_stage != "BAKE_TIME" or deployment.configuration is None or began_at is None:
        return None
    return began_at + timedelta(minutes=deployment.configuration.bake_minutes)


def describe_hook(deployment: ecs.ServiceDeployment) -> dict[str, Any] | None:
    """Return the hook that waits for a decision or runs, as the API shows it. None if there is none."""
    hook = find_open_hook(deployment)
    if hook is None:
        return None
    return {
        "id": hook.id,
        "type": hook.target_type,
        "stage": deployment.lifecycle_stage,
        "status": hook.status,
        "expires_at": utc(hook.expires_at) if hook.expires_at else None,
        "timeout_action": hook.timeout_action,
        "target": hook.target_arn,
    }


def has_moved(rollout: Rollout, observed: dict[str, Any]) -> bool:
    """Return whether stage, weights or hook differ from the previous observation, which `rollout` holds."""
    return any(observed[name] != getattr(rollout, name) for name in WATCHED if name in observed)


def recall_configuration(rollout: Rollout) -> ecs.DeploymentConfiguration | None:
    """Return the deployment's own configuration as it was read earlier; None if it was never read."""
    if rollout.configuration is None:
        return None
    return ecs.DeploymentConfiguration.from_data(rollout.configuration)
