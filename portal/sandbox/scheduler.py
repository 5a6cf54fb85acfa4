"""The life cycle of a service's tasks, and the scheduler that starts and stops them.

Depends only on the records and the time passed in; it changes the records in place. Minimum and maximum percent follow
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html.
"""

import math
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from portal.sandbox.records import Deployment, Event, Service, Task

EVENTS_KEPT = 100  # DescribeServices: "The event stream for your service. A maximum of 100 of the latest events"
STOPPED_TASKS_KEPT_SECONDS = 3600.0
PLACEMENT_EVENT_EVERY_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 60.0

TROUBLESHOOTING = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."


@dataclass(frozen=True)
class Pace:
    """Durations of the stages of tasks and deployments in sandbox seconds. A rollout in two waves takes about 40."""

    provision: float = 2.0
    pull: float = 5.0
    become_healthy: float = 7.0
    crash_after: float = 2.0
    drain: float = 6.0
    settle: float = 4.0
    alarm_after: float = 5.0


PACE = Pace()


# Tasks


def advance_tasks(service: Service, now: float) -> None:
    for task in service.tasks:
        if task.next_at is not None and task.next_at <= now:
            task.next_at = None
            deployment = next((each for each in service.deployments if each.id == task.deployment_id), None)
            advance_task(service, deployment, task, now)


def advance_task(service: Service, deployment: Deployment | None, task: Task, now: float) -> None:
    """Advance a task by one stage: PROVISIONING, PENDING, RUNNING, healthy; or DEACTIVATING, STOPPED."""
    if task.status == "DEACTIVATING":
        task.status, task.stopped_at, task.healthy = "STOPPED", now, False
    elif deployment is None:
        stop_task(task, now, code="ServiceSchedulerInitiated", reason="Scaling activity initiated by deployment")
    elif task.status == "PROVISIONING":
        task.status, task.pull_started_at = "PENDING", now
        task.next_at = now + PACE.pull * slowness(deployment)
    elif task.status == "PENDING":
        start_or_fail_to_pull(service, deployment, task, now)
    elif (fault := use_up(find_fault(deployment, "crash"))) or service.revisions[task.revision_arn].crashes:
        fault = fault or {}
        task.exit_code = int(fault.get("exit_code", 1))
        fail_task(
            service,
            deployment,
            task,
            now,
            code="EssentialContainerExited",
            reason=fault.get("reason") or "Essential container in task exited",
        )
    else:
        task.healthy = True
        deployment.failed_tasks = 0
        count_failures(service, deployment)


def start_or_fail_to_pull(service: Service, deployment: Deployment, task: Task, now: float) -> None:
    error = service.revisions[task.revision_arn].pull_error
    if fault := use_up(find_fault(deployment, "image_pull")):
        error = fault.get("reason") or (
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref "
            f"{service.revisions[task.revision_arn].containers[0]['image']}: not found"
        )
    if error:
        task.container_reason = error
        fail_task(service, deployment, task, now, code="TaskFailedToStart", reason=error)
        return
    task.status, task.started_at = "RUNNING", now
    if deployment.first_running_at is None:
        deployment.first_running_at = now
    if find_fault(deployment, "crash") or service.revisions[task.revision_arn].crashes:
        task.next_at = now + PACE.crash_after
    elif not find_fault(deployment, "stuck"):
        task.next_at = now + PACE.become_healthy * slowness(deployment)


def fail_task(service: Service, deployment: Deployment, task: Task, now: float, *, code: str, reason: str) -> None:
    task.status, task.healthy, task.next_at = "STOPPED", False, None
    task.stopping_at = task.stopped_at = now
    task.stop_code, task.stopped_reason = code, reason
    deployment.failed_tasks += 1
    deployment.launch_after = now + min(float(deployment.failed_tasks), LONGEST_BACKOFF_SECONDS)
    deployment.updated_at = now
    count_failures(service, deployment)
    if deployment.failed_tasks % 10 == 0:
        add_event(service, now, f"is unable to consistently start tasks successfully. {TROUBLESHOOTING}")


def count_failures(service: Service, deployment: Deployment) -> None:
    """Set the circuit breaker's count to the number of the deployment's consecutive failed tasks."""
    service_deployment = service.find_service_deployment(deployment.service_deployment_arn)
    if service_deployment and service_deployment.is_open and not deployment.is_rollback:
        service_deployment.failure_count = deployment.failed_tasks


def stop_task(task: Task, now: float, *, code: str, reason: str) -> None:
    """Stop a task. It drains for some seconds before it is STOPPED."""
    task.status, task.healthy = "DEACTIVATING", False
    task.stopping_at, task.next_at = now, now + PACE.drain
    task.stop_code, task.stopped_reason, task.exit_code = code, reason, 0


# Placement


def place_tasks(service: Service, now: float) -> None:
    """Start new tasks and stop old ones, within minimumHealthyPercent and maximumPercent of the desired count."""
    primary = service.primary
    primary_tasks = [task for task in service.tasks if task.is_live and task.deployment_id == primary.id]
    old = [task for task in service.tasks if task.is_live and task.deployment_id != primary.id]
    upper = math.floor(service.desired * service.configuration["maximumPercent"] / 100)
    lower = math.ceil(service.desired * service.configuration["minimumHealthyPercent"] / 100)
    if primary.rollout_state == "FAILED":
        # No more tasks are started, but the service can still be scaled down.
        surplus = [*primary_tasks[service.desired :], *old[service.desired :]]
        stop_tasks(service, surplus, now, reason=f"Scaling activity initiated by (deployment {primary.id})")
        return
    missing = service.desired - len(primary_tasks)
    room = max(0, upper - len(primary_tasks) - len(old))
    started = 0
    if missing > 0 and now >= primary.launch_after:
        started = start_tasks(service, primary, now, count=min(missing, room, wave_room(service, primary_tasks)))
    if missing < 0:
        surplus = sorted(primary_tasks, key=lambda task: (task.healthy, -task.created_at))[:-missing]
        stop_tasks(service, surplus, now, reason=f"Scaling activity initiated by (deployment {primary.id})")
    never_healthy = [task for task in old if not task.healthy]
    healthy_old = [task for task in old if task.healthy]
    healthy_new = sum(task.healthy for task in primary_tasks)
    unneeded = len(healthy_old) - max(0, service.desired - healthy_new)
    in_the_way = missing - started if missing > room else 0
    allowed = max(0, healthy_new + len(healthy_old) - lower)
    going = never_healthy + healthy_old[: max(0, min(allowed, max(unneeded, in_the_way)))]
    stop_tasks(service, going, now, reason=f"Scaling activity initiated by (deployment {primary.id})")


def wave_room(service: Service, running: Iterable[Task]) -> int:
    """Return how many tasks may start in this tick. At most half the desired count may be starting at the same time.

    ECS itself places tasks in small batches. Two waves make the progress of a small service visible.
    """
    return max(0, max(1, math.ceil(service.desired / 2)) - sum(not task.healthy for task in running))


def start_tasks(service: Service, deployment: Deployment, now: float, *, count: int) -> int:
    """Start `count` tasks and return the number started. Without capacity none starts, and an event is added."""
    if count <= 0:
        return 0
    if find_fault(deployment, "no_capacity"):
        if now >= service.next_place_event_at:
            service.next_place_event_at = now + PLACEMENT_EVENT_EVERY_SECONDS
            add_event(
                service,
                now,
                "was unable to place a task. Reason: Capacity is unavailable at this time. Please try again later or "
                f"in a different availability zone. {TROUBLESHOOTING}",
            )
        return 0
    tasks = [new_task(deployment, now=now, next_at=now + PACE.provision * slowness(deployment)) for _ in range(count)]
    service.tasks.extend(tasks)
    service.steady, service.needs_tick = False, True
    deployment.updated_at, deployment.steady_since = now, None
    add_event(service, now, f"has started {count} tasks: {' '.join(f'(task {task.id})' for task in tasks)}.")
    return count


def new_task(deployment: Deployment, *, now: float, next_at: float | None) -> Task:
    number = secrets.randbelow(60000)
    return Task(
        id=uuid.uuid4().hex,
        deployment_id=deployment.id,
        revision_arn=deployment.revision_arn,
        created_at=now,
        next_at=next_at,
        private_ip=f"10.0.{1 + number // 250}.{4 + number % 250}",
    )


def stop_tasks(service: Service, tasks: list[Task], now: float, *, reason: str) -> None:
    if not tasks:
        return
    for task in tasks:
        stop_task(task, now, code="ServiceSchedulerInitiated", reason=reason)
    service.steady, service.needs_tick = False, True
    add_event(
        service, now, f"has stopped {len(tasks)} running tasks: {' '.join(f'(task {task.id})' for task in tasks)}."
    )


# Faults bound to a deployment at its start


def find_fault(deployment: Deployment, kind: str) -> dict[str, Any] | None:
    return next((fault for fault in deployment.faults if fault["kind"] == kind), None)


def pending_alarm(deployment: Deployment) -> dict[str, Any] | None:
    fault = find_fault(deployment, "alarm")
    return fault if fault and not fault.get("used") and deployment.rollout_state == "IN_PROGRESS" else None


def use_up(fault: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the fault if it applies to this task, and count it. `task_count` limits the number of tasks."""
    if fault is None or fault.get("task_count") is None:
        return fault
    fault["task_count"] -= 1
    return fault if fault["task_count"] >= 0 else None


def slowness(deployment: Deployment) -> float:
    fault = find_fault(deployment, "slow")
    return float(fault.get("factor") or 1.0) if fault else 1.0


def add_event(service: Service, now: float, text: str) -> None:
    """Add a service event, newest first."""
    event = Event(id=str(uuid.uuid4()), created_at=now, message=f"(service {service.key.name}) {text}")
    service.events = [event, *service.events[: EVENTS_KEPT - 1]]
