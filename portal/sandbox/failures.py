"""Failure detection by circuit breaker and alarms, and the rollback to the last deployment that completed.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
"""

import math
from collections.abc import Callable
from typing import Any

from portal.sandbox.deployment_configuration import breaker_threshold, has_alarms
from portal.sandbox.endings import finish
from portal.sandbox.records import Deployment, Service, ServiceDeployment, ServiceKey
from portal.sandbox.scheduler import PACE, add_event, find_fault

# Returns the rollout faults of a deployment that starts. The flag is true for a rollback.
RolloutFaults = Callable[[ServiceKey, bool], list[dict[str, Any]]]


def detect_failure(service: Service, now: float, rollout_faults: RolloutFaults) -> None:
    """Trip the circuit breaker or the alarm of the PRIMARY deployment, and act on it."""
    primary = service.primary
    current = service.find_service_deployment(primary.service_deployment_arn)
    if primary.rollout_state != "IN_PROGRESS" or current is None or not current.is_open:
        return
    current.threshold = breaker_threshold(current.configuration, service.desired)
    if primary.is_rollback:
        if primary.failed_tasks >= current.threshold:
            fail_deployment(service, primary, now, why="tasks failed to start")
            finish(
                service, current, now, status="ROLLBACK_FAILED", reason="The rollback failed: tasks failed to start."
            )
        return
    if current.status != "IN_PROGRESS":
        return
    if current.breaker_status == "MONITORING" and current.failure_count >= current.threshold:
        current.breaker_status = "TRIGGERED"
        fail_deployment(service, primary, now, why="tasks failed to start")
        give_up(service, current, now, rollout_faults, cause="the circuit breaker threshold was exceeded")
        return
    alarm_time = alarm_at(service, current)
    if alarm_time is not None and now >= alarm_time:
        alarm = pending_alarm(primary) or {}
        alarm["used"] = True
        current.alarm_status = "TRIGGERED"
        current.triggered_alarms = list(alarm.get("alarm_names") or [f"{service.key.name}-5xx"])
        fail_deployment(service, primary, now, why="alarm detected")
        give_up(service, current, now, rollout_faults, cause="a CloudWatch alarm was in the ALARM state")


def alarm_at(service: Service, current: ServiceDeployment) -> float | None:
    """Return when the alarm of a fault goes off: after the first task has started, or within the fault's `stage`."""
    alarm = pending_alarm(service.primary)
    if alarm is None:
        return None
    if alarm.get("stage"):
        return current.stage_since + PACE.alarm_after if current.lifecycle_stage == alarm["stage"] else None
    first = service.primary.first_running_at
    return first + PACE.alarm_after if first is not None else None


def pending_alarm(deployment: Deployment) -> dict[str, Any] | None:
    fault = find_fault(deployment, "alarm")
    return fault if fault and not fault.get("used") and deployment.rollout_state == "IN_PROGRESS" else None


def fail_deployment(service: Service, deployment: Deployment, now: float, *, why: str) -> None:
    watcher = "circuit breaker: " if why.startswith("tasks") else "failed: "
    deployment.rollout_state, deployment.updated_at = "FAILED", now
    deployment.rollout_state_reason = f"ECS deployment {watcher}{why}."
    add_event(service, now, f"(deployment {deployment.id}) deployment failed: {why}.")


def give_up(
    service: Service, service_deployment: ServiceDeployment, now: float, rollout_faults: RolloutFaults, *, cause: str
) -> None:
    """Roll back if that is enabled and possible. Otherwise stop, and leave the service on the failed revision.

    An alarm fault on a service without alarms follows the circuit breaker's setting, where the strategy has a breaker.
    """
    configuration = service_deployment.configuration
    by_alarm = service_deployment.alarm_status == "TRIGGERED" and has_alarms(configuration)
    if by_alarm:
        wants_rollback = configuration["alarms"].get("rollback")
    else:
        breaker = configuration.get("deploymentCircuitBreaker") or {}
        wants_rollback = breaker.get("rollback") or service_deployment.shifts_traffic
    if wants_rollback and rollback_target(service, service_deployment):
        cause = f"Service deployment rolled back because {cause}."
        start_rollback(service, service_deployment, now, rollout_faults, cause=cause)
        return
    service_deployment.status, service_deployment.updated_at = "STOP_REQUESTED", now
    service_deployment.stop_reason = f"Service deployment was stopped because {cause}."


def start_rollback(
    service: Service, service_deployment: ServiceDeployment, now: float, rollout_faults: RolloutFaults, *, cause: str
) -> None:
    """Make the last deployment that completed PRIMARY again; without one the service deployment just stops.

    Traffic goes back before tasks stop. `lifecycleStage` stays at the stage that was left (assumed).
    """
    service_deployment.production_weight = service_deployment.test_weight = 0.0
    failed = service.primary
    if failed.rollout_state == "IN_PROGRESS":
        failed.rollout_state, failed.updated_at = "FAILED", now
        failed.rollout_state_reason = "ECS deployment stopped: the service deployment is rolled back."
    target = rollback_target(service, service_deployment)
    if target is None:
        finish(service, service_deployment, now, status="STOPPED", reason=f"{cause} No earlier completed revision.")
        return
    revision_arn, earlier_id = target
    service_deployment.status, service_deployment.updated_at = "ROLLBACK_IN_PROGRESS", now
    service_deployment.status_reason = cause
    service_deployment.rollback = {"reason": cause, "startedAt": now, "serviceRevisionArn": revision_arn}
    by_breaker = "circuit breaker" if service_deployment.breaker_status == "TRIGGERED" else "rollback"
    restored = Deployment(
        id=earlier_id,
        service_deployment_arn=service_deployment.arn,
        revision_arn=revision_arn,
        created_at=now,
        updated_at=now,
        rollout_state_reason=f"ECS deployment {by_breaker}: rolling back to deploymentId {earlier_id}.",
        is_rollback=True,
        faults=rollout_faults(service.key, True),
    )
    restore_deployment(service, restored, now)
    add_event(service, now, f"rolling back to deployment {earlier_id}.")


def restore_deployment(service: Service, restored: Deployment, now: float) -> None:
    """Put the earlier deployment, under its own id, in place of its old entry; its tasks that still run stay its own.

    An assumption, for AWS does not name the id. Its guide calls it the same deployment
    (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html), and outputs of real
    services show the earlier id: IN_PROGRESS with "rolling back to deploymentId <that id>" and a new `createdAt`, at its
    end "ECS deployment <that id> completed."
    (https://github.com/sevenwestmedia-labs/pulumi-components/tree/HEAD/libs/wait-for-ecs-deploy).
    A fault that makes tasks crash also meets half of those that still run, or nothing would be left to fail.
    """
    service.deployments = [each for each in service.deployments if each.id != restored.id]
    add_deployment(service, restored)
    if find_fault(restored, "crash"):
        running = [task for task in service.tasks_for(restored.id) if task.is_running]
        for task in running[: math.ceil(len(running) / 2)]:
            task.next_at = now + PACE.crash_after


def rollback_target(service: Service, service_deployment: ServiceDeployment) -> tuple[str, str] | None:
    """Return the last revision that completed before this service deployment, with its deployment id."""
    for revision_arn, deployment_id in reversed(service.completed):
        if revision_arn != service_deployment.target_revision_arn and revision_arn in service.revisions:
            return revision_arn, deployment_id
    return None


def add_deployment(service: Service, deployment: Deployment) -> None:
    """Make a deployment the PRIMARY one. The previous one becomes ACTIVE and will be drained."""
    for each in service.deployments:
        each.status = "ACTIVE"
    service.deployments.insert(0, deployment)
    service.task_definition = service.revisions[deployment.revision_arn].task_definition
    service.steady = False
