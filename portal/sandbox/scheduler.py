"""The life cycle of a service's tasks: how they start, fail and stop. How many run is decided in `placement.py`.

Depends only on the records and the time passed in; it changes the records in place.
"""

import secrets
import uuid
from dataclasses import dataclass, fields
from typing import Any

from portal.sandbox.records import Deployment, Event, Revision, Service, ServiceDeployment, Task

EVENTS_KEPT = 100  # DescribeServices: "The event stream for your service. A maximum of 100 of the latest events"
STOPPED_TASKS_KEPT_SECONDS = 3600.0
PLACEMENT_EVENT_EVERY_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 60.0
SIGTERM_EXIT_CODE = 143

TROUBLESHOOTING = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."


@dataclass
class Pace:
    """Durations of the stages of tasks and deployments in sandbox seconds. A rollout in two waves takes about 40."""

    tick: float = 1.0  # how often a service that moves is looked at
    provision: float = 2.0
    pull: float = 5.0
    become_healthy: float = 7.0
    crash_after: float = 2.0
    drain: float = 6.0
    settle: float = 4.0
    alarm_after: float = 5.0
    alarm_watch: float = 20.0  # after a rolling deployment with alarms; ECS computes it and does not show it
    stage: float = 2.0  # a lifecycle stage that only waits for its hooks
    shift: float = 4.0  # of test or production traffic
    hook: float = 4.0  # a Lambda function
    deferred_cleanup: float = 30.0

    def hasten(self, factor: float) -> None:
        """Divide all durations by the factor. The clock goes on as it did, so that times stay those of the portal."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) / factor)


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
    elif exit_containers(service, deployment, task):
        reason = (find_fault(deployment, "crash") or {}).get("reason") or "Essential container in task exited"
        fail_task(service, deployment, task, now, code="EssentialContainerExited", reason=reason)
    else:
        task.healthy = True
        deployment.failed_tasks = 0
        reset_failures(service, deployment)


def exit_containers(service: Service, deployment: Deployment, task: Task) -> bool:
    """Let the containers exit that crash, and return whether one of them was essential, which stops the others.

    The others end with 143, the code of a process that SIGTERM has stopped.
    """
    revision = service.revisions[task.revision_arn]
    codes = dict.fromkeys(crashing_containers(revision), 1)
    fault = use_up(find_fault(deployment, "crash"))
    if fault and (name := faulty_container(revision, fault)):
        codes[name] = int(fault.get("exit_code", 1))
    task.exit_codes = codes
    is_fatal = any(each["name"] in codes for each in revision.containers if each.get("essential", True))
    task.exit_code = SIGTERM_EXIT_CODE if is_fatal else None
    return is_fatal


def crashing_containers(revision: Revision) -> list[str]:
    names = [each["name"] for each in revision.containers if each.get("crashes")]
    return names or ([revision.containers[0]["name"]] if revision.crashes else [])


def faulty_container(revision: Revision, fault: dict[str, Any]) -> str | None:
    """Return the container that a `crash` fault names, or the first essential one; None if the task lacks it."""
    wanted = fault.get("container")
    for each in revision.containers:
        if each["name"] == wanted or (not wanted and each.get("essential", True)):
            return str(each["name"])
    return None


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
    count_failure(service, deployment)
    deployment.launch_after = now + min(float(deployment.failed_tasks), LONGEST_BACKOFF_SECONDS)
    deployment.updated_at = now
    if deployment.failed_tasks % 10 == 0:
        add_event(service, now, f"is unable to consistently start tasks successfully. {TROUBLESHOOTING}")


def count_failure(service: Service, deployment: Deployment) -> None:
    """Add a failed task to the circuit breaker's count. Failures of a rollback are not in it."""
    current = counting_service_deployment(service, deployment)
    if current:
        current.failure_count += 1


def reset_failures(service: Service, deployment: Deployment) -> None:
    """Reset the circuit breaker's count when a task has become healthy, unless `resetOnHealthyTask` is false."""
    current = counting_service_deployment(service, deployment)
    breaker = current.configuration.get("deploymentCircuitBreaker") or {} if current else {}
    if current and breaker.get("resetOnHealthyTask", True):
        current.failure_count = 0


def counting_service_deployment(service: Service, deployment: Deployment) -> ServiceDeployment | None:
    current = service.find_service_deployment(deployment.service_deployment_arn)
    return current if current and current.is_open and not deployment.is_rollback else None


def stop_task(task: Task, now: float, *, code: str, reason: str) -> None:
    """Stop a task. It drains for some seconds before it is STOPPED."""
    task.status, task.healthy = "DEACTIVATING", False
    task.stopping_at, task.next_at = now, now + PACE.drain
    task.stop_code, task.stopped_reason, task.exit_code = code, reason, 0


# Starts and stops


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
