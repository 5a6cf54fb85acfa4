"""The state machine of one service's rollout. It advances in ticks of one sandbox second.

Depends only on the records and the time passed in; it changes the records in place. The rules follow
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html (threshold, rollback) and
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html (states). Tasks are in `scheduler.py`
and `placement.py`, lifecycle stages in `stages.py`.
"""

import math
import secrets
from collections.abc import Callable
from typing import Any

from portal.sandbox.deployment_configuration import breaker_threshold, early_success, has_alarms
from portal.sandbox.history import keep_past_tasks, record_counts
from portal.sandbox.placement import cleanup_at, place_tasks
from portal.sandbox.records import Deployment, Service, ServiceDeployment, ServiceKey
from portal.sandbox.scheduler import (
    PACE,
    STOPPED_TASKS_KEPT_SECONDS,
    add_event,
    advance_tasks,
    find_fault,
)
from portal.sandbox.stages import advance_stage, next_stage_times, start_stages

TICK_SECONDS = 1.0
HISTORY_KEPT_SECONDS = 90 * 86400.0  # .../developerguide/service-deployment.html: "the most recent 90-day history"
COMPLETED_KEPT = 20
PRUNE_EVERY_TICKS = 200  # each tick costs time in proportion to the tasks kept

# Returns the rollout faults of a deployment that starts. The flag is true for a rollback.
RolloutFaults = Callable[[ServiceKey, bool], list[dict[str, Any]]]


def new_deployment_id() -> str:
    return f"ecs-svc/{secrets.randbelow(9 * 10**18) + 10**18}"


def advance(service: Service, now: float, rollout_faults: RolloutFaults) -> int:
    """Advance a service to `now`, skip times at which nothing can happen, and return the number of ticks run."""
    ticks = 0
    if not service.deployments:
        # Another controller deploys this service and has not created a task set, so nothing changes by itself.
        service.status = "INACTIVE" if service.status == "DRAINING" else service.status
        service.advanced_to = max(service.advanced_to, now)
        return ticks
    while service.status != "INACTIVE":
        wake = next_wake(service)
        if wake is None:
            service.advanced_to = max(service.advanced_to, now)
            break
        at = service.advanced_to + math.ceil((wake - service.advanced_to) / TICK_SECONDS) * TICK_SECONDS
        if at > now:
            break
        service.advanced_to = at
        step(service, at, rollout_faults)
        ticks += 1
        if ticks % PRUNE_EVERY_TICKS == 0:
            prune(service, at)
    prune(service, now)
    return ticks


def next_wake(service: Service) -> float | None:
    """Return the time of the next possible automatic change, or None if only a call can change the service."""
    soon = service.advanced_to + TICK_SECONDS
    if service.needs_tick:
        return soon
    times = [task.next_at for task in service.tasks if task.next_at is not None]
    if any(each.status in ("PENDING", "STOP_REQUESTED", "ROLLBACK_REQUESTED") for each in service.service_deployments):
        times.append(soon)
    primary = service.primary
    if primary.launch_after > service.advanced_to:
        times.append(primary.launch_after)
    if primary.steady_since is not None:
        times.append(primary.steady_since + PACE.settle)
    current = service.open_service_deployment
    if current:
        waits = [*next_stage_times(current), alarm_at(service, current)]
        times.extend(each for each in waits if each is not None and each > service.advanced_to)
    if service.advanced_to < cleanup_at(service) < math.inf:
        times.append(cleanup_at(service))
    if find_fault(primary, "no_capacity") and primary.rollout_state == "IN_PROGRESS":
        times.append(service.next_place_event_at)
    return max(min(times), soon) if times else None


def step(service: Service, now: float, rollout_faults: RolloutFaults) -> None:
    """Run one tick: tasks first, then service deployments, failure detection, placement and completion."""
    service.needs_tick = False
    service.changes += 1
    advance_tasks(service, now)
    if service.status == "DRAINING":
        finish_deletion(service)
    else:
        advance_service_deployments(service, now, rollout_faults)
        detect_failure(service, now, rollout_faults)
        place_tasks(service, now)
        retire_deployments(service)
        detect_early_success(service, now)
        detect_steady_state(service, now)
    record_counts(service, now)


# Service deployments


def advance_service_deployments(service: Service, now: float, rollout_faults: RolloutFaults) -> None:
    for each in service.service_deployments:
        if each.status == "PENDING":
            each.status, each.started_at = "IN_PROGRESS", now
            start_stages(service, each, now)
        elif each.status == "IN_PROGRESS":
            cause = advance_stage(service, each, now)
            if cause:
                cause = f"Service deployment rolled back because {cause}."
                start_rollback(service, each, now, rollout_faults, cause=cause)
        elif each.status == "STOP_REQUESTED":
            finish(service, each, now, status="STOPPED", reason=each.stop_reason)
        elif each.status == "ROLLBACK_REQUESTED":
            start_rollback(
                service, each, now, rollout_faults, cause="Service deployment rolled back because of a user request."
            )


def finish(service: Service, service_deployment: ServiceDeployment, now: float, *, status: str, reason: str) -> None:
    """End a service deployment and freeze its counts."""
    service_deployment.final_counts = revision_counts(service, service_deployment)
    service_deployment.status, service_deployment.status_reason = status, reason
    if status == "SUCCESSFUL":
        service_deployment.lifecycle_stage = "CLEAN_UP"
        service_deployment.production_weight = service_deployment.test_weight = 100.0
    service_deployment.finished_at = service_deployment.updated_at = now
    if status == "STOPPED":
        service_deployment.stopped_at = now
    if service_deployment.breaker_status == "MONITORING":
        service_deployment.breaker_status = "MONITORING_COMPLETE"
    if service_deployment.alarm_status == "MONITORING":
        service_deployment.alarm_status = "MONITORING_COMPLETE"


def revision_counts(service: Service, service_deployment: ServiceDeployment) -> dict[str, list[int]]:
    """Return the requested, running and pending tasks of the target and each source revision, by revision ARN."""
    if not service_deployment.is_open:
        return service_deployment.final_counts
    rolled_back_to = (service_deployment.rollback or {}).get("serviceRevisionArn")
    wanted = rolled_back_to or service_deployment.target_revision_arn
    counts = {
        arn: [0, 0, 0] for arn in (service_deployment.target_revision_arn, *service_deployment.source_revision_arns)
    }
    counts.setdefault(wanted, [0, 0, 0])[0] = service.desired
    if keeps_source(service_deployment):
        counts.setdefault(service_deployment.serving_revision_arn, [0, 0, 0])[0] = service.desired
    for task in service.tasks:
        if task.revision_arn in counts and task.is_live:
            counts[task.revision_arn][1 if task.is_running else 2] += 1
    return counts


def keeps_source(service_deployment: ServiceDeployment) -> bool:
    """Return whether the serving revision still has to run beside the target."""
    is_going = service_deployment.is_open and service_deployment.rollback is None
    has_both = service_deployment.shifts_traffic and bool(service_deployment.serving_revision_arn)
    return is_going and has_both and service_deployment.lifecycle_stage != "CLEAN_UP"


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


# Failure detection


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


# Ends


def retire_deployments(service: Service) -> None:
    """Mark replaced deployments without tasks as INACTIVE. They leave the list when the PRIMARY one has completed.

    A failed deployment stays ACTIVE until then. After an early success, the others leave when their tasks have stopped.
    """
    for each in service.deployments[1:]:
        is_kept = each.rollout_state == "FAILED" or service.tasks_for(each.id)
        each.status = "ACTIVE" if is_kept else "INACTIVE"
    if service.primary.rollout_state == "COMPLETED":
        service.deployments = [each for each in service.deployments if each.status != "INACTIVE"]


def detect_early_success(service: Service, now: float) -> None:
    """Complete a rolling deployment whose early success criteria are met, with the counts of that moment.

    With BLOCKING clean-up, the old tasks must have stopped first; with DEFERRED they go on.
    """
    primary, current = service.primary, service.open_service_deployment
    criteria = early_success(current.configuration) if current else None
    if current is None or criteria is None or current.status != "IN_PROGRESS" or primary.rollout_state == "FAILED":
        return
    if current.lifecycle_stage != "CLEAN_UP":
        return
    old = [task for task in service.tasks if task.status != "STOPPED" and task.deployment_id != primary.id]
    if not old or criteria["sourceServiceRevisionCleanup"] == "DEFERRED":
        complete(service, primary, now)
        service.needs_tick = True


def is_in_last_stage(service: Service) -> bool:
    """Return whether nothing but the tasks holds up the PRIMARY deployment."""
    current = service.open_service_deployment
    is_before = current is not None and current.lifecycle_stage != "CLEAN_UP" and current.rollback is None
    return not (is_before and service.primary.rollout_state == "IN_PROGRESS")


def detect_steady_state(service: Service, now: float) -> None:
    """Complete the PRIMARY deployment after all its tasks are healthy, the old ones have stopped, and it has settled."""
    primary = service.primary
    remaining = [task for task in service.tasks if task.status != "STOPPED"]
    is_whole = is_in_last_stage(service) and len(remaining) == service.desired
    is_whole = is_whole and all(task.deployment_id == primary.id and task.healthy for task in remaining)
    if not is_whole or primary.rollout_state == "FAILED" or service.steady:
        primary.steady_since = None
        return
    if primary.steady_since is None:
        primary.steady_since = now
    if now < primary.steady_since + PACE.settle:
        return
    primary.steady_since = None
    if primary.rollout_state == "IN_PROGRESS":
        complete(service, primary, now)
    service.steady = True
    add_event(service, now, "has reached a steady state.")


def complete(service: Service, deployment: Deployment, now: float) -> None:
    deployment.rollout_state, deployment.updated_at = "COMPLETED", now
    deployment.rollout_state_reason = f"ECS deployment {deployment.id} completed."
    service.completed = [*service.completed, [deployment.revision_arn, deployment.id]][-COMPLETED_KEPT:]
    add_event(service, now, f"(deployment {deployment.id}) deployment completed.")
    current = service.find_service_deployment(deployment.service_deployment_arn)
    if current and current.is_open:
        status = "ROLLBACK_SUCCESSFUL" if deployment.is_rollback else "SUCCESSFUL"
        finish(service, current, now, status=status, reason=current.status_reason)
    draining = [each for each in service.deployments if each is not deployment and service.tasks_for(each.id)]
    service.deployments = [deployment, *draining]


def finish_deletion(service: Service) -> None:
    if all(task.status == "STOPPED" for task in service.tasks):
        service.status = "INACTIVE"
        service.primary.status = "INACTIVE"
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html:
        # "Amazon ECS deletes the service deployment when you delete a service."
        service.service_deployments = []


def prune(service: Service, now: float) -> None:
    oldest = now - STOPPED_TASKS_KEPT_SECONDS
    gone = [task for task in service.tasks if task.stopped_at is not None and task.stopped_at <= oldest]
    if gone:
        keep_past_tasks(service, gone, now)
        service.tasks = [task for task in service.tasks if task.stopped_at is None or task.stopped_at > oldest]
    service.service_deployments = [
        each for each in service.service_deployments if each.is_open or each.created_at > now - HISTORY_KEPT_SECONDS
    ]
