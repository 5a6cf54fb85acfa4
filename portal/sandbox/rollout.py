"""The state machine of one service's rollout. It advances in ticks of one sandbox second.

Depends only on the records and the time passed in; it changes the records in place. Its parts: tasks in `scheduler.py` and
`placement.py`, lifecycle stages in `stages.py`, rollbacks in `failures.py`, ends in `endings.py`.
"""

import math
import secrets

from portal.sandbox.endings import detect_early_success, detect_steady_state, finish, retire_deployments
from portal.sandbox.failures import RolloutFaults, alarm_at, detect_failure, start_rollback
from portal.sandbox.history import keep_past_tasks, record_counts
from portal.sandbox.placement import cleanup_at, place_tasks
from portal.sandbox.records import Service
from portal.sandbox.scheduler import PACE, STOPPED_TASKS_KEPT_SECONDS, advance_tasks, find_fault
from portal.sandbox.stages import advance_stage, next_stage_times, start_stages

HISTORY_KEPT_SECONDS = 90 * 86400.0  # .../developerguide/service-deployment.html: "the most recent 90-day history"
PRUNE_EVERY_TICKS = 200  # each tick costs time in proportion to the tasks kept


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
        at = service.advanced_to + math.ceil((wake - service.advanced_to) / PACE.tick) * PACE.tick
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
    soon = service.advanced_to + PACE.tick
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
