"""How service deployments end: completion, early success, and the counts that ECS keeps of that moment.

States: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html
"""

from portal.sandbox.deployment_configuration import early_success
from portal.sandbox.records import Deployment, Service, ServiceDeployment
from portal.sandbox.scheduler import PACE, add_event

COMPLETED_KEPT = 20


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
