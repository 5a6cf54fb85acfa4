"""Which tasks of a service are started and stopped: by a rolling deployment, and by one that runs both revisions.

Minimum and maximum percent follow https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html.
"""

import math
from collections.abc import Iterable

from portal.sandbox.deployment_configuration import early_success
from portal.sandbox.records import Deployment, Service, ServiceDeployment, Task
from portal.sandbox.scheduler import PACE, start_tasks, stop_tasks
from portal.sandbox.stages import STAGES_BEFORE_TASKS


def place_tasks(service: Service, now: float) -> None:
    """Start and stop tasks as the state of the service deployment asks for."""
    primary = service.primary
    current = service.find_service_deployment(primary.service_deployment_arn)
    is_going = current is not None and current.is_open and not primary.is_rollback
    if primary.rollout_state == "FAILED":
        # No more tasks are started, but the service can still be scaled down.
        for tasks in (live_tasks(service, primary), replaced_tasks(service)):
            stop_tasks(service, tasks[service.desired :], now, reason=scaling_reason(service))
    elif current and is_going and current.shifts_traffic:
        place_beside(service, current, now)
    elif current and is_going and current.lifecycle_stage in STAGES_BEFORE_TASKS:
        keep_serving(service, current, now)
    else:
        replace_tasks(service, now)


def live_tasks(service: Service, deployment: Deployment) -> list[Task]:
    return [task for task in service.tasks if task.is_live and task.deployment_id == deployment.id]


def replaced_tasks(service: Service) -> list[Task]:
    """Return the live tasks of all deployments but the PRIMARY one."""
    return [task for task in service.tasks if task.is_live and task.deployment_id != service.primary.id]


def scaling_reason(service: Service) -> str:
    return f"Scaling activity initiated by (deployment {service.primary.id})"


# Both revisions side by side


def place_beside(service: Service, current: ServiceDeployment, now: float) -> None:
    """Run the desired count of the new revision beside the serving one, whose tasks stop in CLEAN_UP.

    Tasks of revisions that do not serve, left by an earlier deployment, stop when this one begins (assumed; the page names
    RECONCILE_SERVICE without saying what it does).
    """
    primary = service.primary
    if current.lifecycle_stage not in STAGES_BEFORE_TASKS:
        keep_count(service, primary, now)
    if current.lifecycle_stage == "CLEAN_UP":
        stop_tasks(service, replaced_tasks(service), now, reason=scaling_reason(service))
        return
    idle = [task for task in replaced_tasks(service) if task.revision_arn != current.serving_revision_arn]
    stop_tasks(service, idle, now, reason=scaling_reason(service))
    keep_serving(service, current, now)


def keep_serving(service: Service, current: ServiceDeployment, now: float) -> None:
    """Keep the serving revision at the desired count. Its tasks are replaced by tasks of their own revision."""
    for each in service.deployments[1:]:
        if each.revision_arn == current.serving_revision_arn:
            keep_count(service, each, now)
            return


def keep_count(service: Service, deployment: Deployment, now: float) -> None:
    """Start or stop tasks of one deployment until it has the desired count."""
    tasks = live_tasks(service, deployment)
    missing = service.desired - len(tasks)
    if missing > 0 and now >= deployment.launch_after:
        start_tasks(service, deployment, now, count=min(missing, wave_room(service, tasks)))
    if missing < 0:
        stop_tasks(service, surplus(tasks, -missing), now, reason=scaling_reason(service))


def surplus(tasks: list[Task], count: int) -> list[Task]:
    return sorted(tasks, key=lambda task: (task.healthy, -task.created_at))[:count]


# Rolling


def replace_tasks(service: Service, now: float) -> None:
    """Start new tasks and stop old ones, within minimumHealthyPercent and maximumPercent of the desired count."""
    primary = service.primary
    primary_tasks, old = live_tasks(service, primary), replaced_tasks(service)
    upper = math.floor(service.desired * service.configuration["maximumPercent"] / 100)
    lower = math.ceil(service.desired * service.configuration["minimumHealthyPercent"] / 100)
    missing = service.desired - len(primary_tasks)
    room = max(0, upper - len(primary_tasks) - len(old))
    started = 0
    if missing > 0 and now >= primary.launch_after:
        started = start_tasks(service, primary, now, count=min(missing, room, wave_room(service, primary_tasks)))
    if missing < 0:
        stop_tasks(service, surplus(primary_tasks, -missing), now, reason=scaling_reason(service))
    never_healthy = [task for task in old if not task.healthy]
    healthy_old = [task for task in old if task.healthy]
    healthy_new = sum(task.healthy for task in primary_tasks)
    unneeded = len(healthy_old) - max(0, service.desired - healthy_new)
    if cleanup_at(service) > now:
        unneeded = 0
    in_the_way = missing - started if missing > room else 0
    allowed = max(0, healthy_new + len(healthy_old) - lower)
    if is_cleaning_up_early(service):
        unneeded = allowed = len(healthy_old)
    going = never_healthy + healthy_old[: max(0, min(allowed, max(unneeded, in_the_way)))]
    stop_tasks(service, going, now, reason=scaling_reason(service))


def wave_room(service: Service, running: Iterable[Task]) -> int:
    """Return how many tasks may start in this tick. At most half the desired count may be starting at the same time.

    ECS itself places tasks in small batches. Two waves make the progress of a small service visible.
    """
    return max(0, max(1, math.ceil(service.desired / 2)) - sum(not task.healthy for task in running))


def cleanup_at(service: Service) -> float:
    """Return from when old tasks may stop that are not in the way of new ones: 0 unless clean-up is DEFERRED.

    ECS "marks the deployment successful, and then removes the previous tasks in the background"
    (API_DeploymentEarlySuccessCriteria). The delay is ours, to make the time visible in which both revisions serve.
    """
    newest = service.service_deployments[0] if service.service_deployments else None
    criteria = early_success(newest.configuration) if newest else None
    if newest is None or criteria is None or newest.rollback or len(service.deployments) == 1:
        return 0.0
    if criteria["sourceServiceRevisionCleanup"] != "DEFERRED":
        return 0.0
    if newest.is_open:
        return math.inf
    return (newest.finished_at or 0.0) + PACE.deferred_cleanup if newest.status == "SUCCESSFUL" else 0.0


def is_cleaning_up_early(service: Service) -> bool:
    """Return whether an early success with BLOCKING clean-up waits for the old tasks to stop.

    API_DeploymentEarlySuccessCriteria: ECS "removes the previous tasks before it marks the deployment as successful".
    healthyPercent is at least minimumHealthyPercent, so that all old tasks may go.
    """
    newest = service.open_service_deployment
    criteria = early_success(newest.configuration) if newest else None
    if newest is None or criteria is None or newest.rollback:
        return False
    return criteria["sourceServiceRevisionCleanup"] == "BLOCKING" and newest.lifecycle_stage == "CLEAN_UP"
