"""The lifecycle hooks of a service deployment's current stage: Lambda functions and pauses.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html. Details are kept in the shape
of the API, for the current stage only, because the API describes hooks that are "active". Assumed: a pause that is rolled
back by a person ends FAILED, and the last stage's hooks stay in the reply after a rollback.
"""

import secrets
from typing import Any

from portal.sandbox.deployment_configuration import hook_timeout, hook_type, hooks_at
from portal.sandbox.records import ServiceDeployment
from portal.sandbox.scheduler import PACE

OPEN_STATUSES = ("AWAITING_ACTION", "IN_PROGRESS")


def start_hooks(current: ServiceDeployment, now: float) -> None:
    """Start the hooks of the stage that begins, each with a new id. Those of the last stage are forgotten."""
    current.hooks = []
    current.hooks_started_at = now
    for hook in hooks_at(current.configuration, current.lifecycle_stage):
        kind = hook_type(hook)
        minutes, action = hook_timeout(hook)
        detail = {
            "hookId": f"ecs-{'pause' if kind == 'PAUSE' else 'lambda'}-{secrets.token_urlsafe(32)}",
            "targetType": kind,
            "status": "AWAITING_ACTION" if kind == "PAUSE" else "IN_PROGRESS",
            "expiresAt": now + minutes * 60,
            "timeoutAction": action,
        }
        if kind == "AWS_LAMBDA":
            detail["targetArn"] = hook["hookTargetArn"]
        current.hooks.append(detail)


def has_open_hooks(current: ServiceDeployment) -> bool:
    return any(each["status"] in OPEN_STATUSES for each in current.hooks)


def next_hook_times(current: ServiceDeployment) -> list[float]:
    """Return when the open hooks may change by themselves."""
    times = [float(each["expiresAt"]) for each in current.hooks if each["status"] in OPEN_STATUSES]
    return [*times, current.hooks_started_at + PACE.hook] if times else []


def advance_hooks(current: ServiceDeployment, faults: list[dict[str, Any]], now: float) -> str:
    """End the Lambda functions that have run and the hooks that have expired.

    Returns why the service deployment must be rolled back, or an empty string.
    """
    for hook in current.hooks:
        if hook["status"] not in OPEN_STATUSES:
            continue
        if hook["status"] == "IN_PROGRESS" and now >= current.hooks_started_at + PACE.hook:
            if has_fault(current, faults, "hook_fails"):
                hook["status"] = "FAILED"
                return f"the lifecycle hook at {current.lifecycle_stage} failed"
            if not has_fault(current, faults, "hook_hangs"):
                hook["status"], current.updated_at = "SUCCEEDED", now
                continue
        if now >= hook["expiresAt"]:
            hook["status"], current.updated_at = "TIMED_OUT", now
            if hook["timeoutAction"] == "ROLLBACK":
                return f"the lifecycle hook at {current.lifecycle_stage} timed out"
    return ""


def has_fault(current: ServiceDeployment, faults: list[dict[str, Any]], kind: str) -> bool:
    return any(each["kind"] == kind and each.get("stage") in (None, current.lifecycle_stage) for each in faults)


def find_pause(current: ServiceDeployment, hook_id: str) -> dict[str, Any] | None:
    """Return the pause with this id if it waits for an action."""
    for hook in current.hooks:
        if hook["hookId"] == hook_id and hook["status"] == "AWAITING_ACTION":
            return hook
    return None
