"""Converts the engine's records to the shapes of the ECS API.

Shapes: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Types.html. Times are seconds since the epoch, as in
JSON 1.1. Fields without a value are omitted, as AWS does.
"""

import zlib
from typing import Any

from portal.sandbox.deployment_configuration import strategy_of
from portal.sandbox.endings import keeps_source, revision_counts
from portal.sandbox.records import Deployment, Revision, Service, ServiceDeployment, Task

Json = dict[str, Any]


def service_reply(service: Service, *, with_tags: bool = True) -> Json:
    live = [task for task in service.tasks if task.is_live]
    current = service.service_deployments[0] if service.service_deployments else None
    is_foreign, is_express = service.controller != "ECS", service.controller == "EXPRESS"
    return present(
        {
            "serviceArn": service.key.service_arn,
            "serviceName": service.key.name,
            "clusterArn": service.key.cluster_arn,
            "loadBalancers": [],
            "serviceRegistries": [],
            "status": service.status,
            "desiredCount": service.desired,
            "runningCount": sum(task.is_running for task in live),
            "pendingCount": sum(task.is_pending for task in live),
            "launchType": "FARGATE",
            "platformVersion": "LATEST",
            "platformFamily": "Linux",
            "taskDefinition": None if service.controller in ("EXTERNAL", "EXPRESS") else service.task_definition,
            "deploymentConfiguration": service.configuration,
            "taskSets": [task_set(service, each) for each in service.deployments]
            if is_foreign and not is_express
            else None,
            "resourceManagementType": "ECS" if is_express else "CUSTOMER",
            "deployments": [] if is_foreign else [deployment_reply(service, each) for each in service.deployments],
            "events": [
                {"id": each.id, "createdAt": each.created_at, "message": each.message} for each in service.events
            ],
            "createdAt": service.created_at,
            "createdBy": service.created_by,
            "currentServiceDeployment": current.arn if current and not is_foreign else None,
            "currentServiceRevisions": None if is_foreign else current_revisions(service),
            "placementConstraints": [],
            "placementStrategy": [],
            "schedulingStrategy": "REPLICA",
            "deploymentController": {"type": "ECS"},
            "enableECSManagedTags": False,
            "propagateTags": "NONE",
            "enableExecuteCommand": False,
            "availabilityZoneRebalancing": "DISABLED",
            "tags": service.tags if with_tags else None,
            **{name: value for name, value in service.settings.items() if name in SERVICE_FIELDS},
            **({"deploymentController": {"type": "ECS"}} if is_express else {}),
        }
    )


# The request's fields that the Service shape also has.
SERVICE_FIELDS = frozenset(
    {
        "availabilityZoneRebalancing",
        "capacityProviderStrategy",
        "deploymentController",
        "enableECSManagedTags",
        "enableExecuteCommand",
        "healthCheckGracePeriodSeconds",
        "launchType",
        "loadBalancers",
        "networkConfiguration",
        "placementConstraints",
        "placementStrategy",
        "platformVersion",
        "propagateTags",
        "schedulingStrategy",
        "serviceRegistries",
    }
)


def current_revisions(service: Service) -> list[Json]:
    """List the revisions with tasks and that of the PRIMARY deployment, newest deployment first."""
    summaries: dict[str, Json] = {}
    for deployment in service.deployments:
        own_tasks = [task for task in service.tasks if task.is_live and task.deployment_id == deployment.id]
        if deployment.status == "INACTIVE":
            continue
        summary = summaries.setdefault(deployment.revision_arn, revision_summary(deployment.revision_arn, [0, 0, 0]))
        summary["requestedTaskCount"] += wanted_tasks(service, deployment)
        summary["runningTaskCount"] += sum(task.is_running for task in own_tasks)
        summary["pendingTaskCount"] += sum(task.is_pending for task in own_tasks)
    return list(summaries.values())


def wanted_tasks(service: Service, deployment: Deployment) -> int:
    """Return the desired count of a deployment: 0 when it is replaced, unless both revisions run side by side."""
    current = service.open_service_deployment
    is_kept = current and keeps_source(current) and deployment.revision_arn == current.serving_revision_arn
    return service.desired if deployment.status == "PRIMARY" or is_kept else 0


def is_rolling(service: Service, deployment: Deployment) -> bool:
    own = service.find_service_deployment(deployment.service_deployment_arn)
    return strategy_of(own.configuration if own else service.configuration) == "ROLLING"


def deployment_reply(service: Service, deployment: Deployment) -> Json:
    """Return an entry of `deployments`. "The rolloutState is only returned for services that use the rolling update"."""
    revision = service.revisions[deployment.revision_arn]
    own_tasks = [task for task in service.tasks if task.is_live and task.deployment_id == deployment.id]
    has_state = is_rolling(service, deployment)
    return present(
        {
            "id": deployment.id,
            "status": deployment.status,
            "taskDefinition": revision.task_definition,
            "desiredCount": wanted_tasks(service, deployment),
            "pendingCount": sum(task.is_pending for task in own_tasks),
            "runningCount": sum(task.is_running for task in own_tasks),
            "failedTasks": deployment.failed_tasks,
            "createdAt": deployment.created_at,
            "updatedAt": deployment.updated_at,
            "launchType": revision.settings.get("launchType", "FARGATE"),
            "platformVersion": "1.4.0",
            "platformFamily": "Linux",
            "networkConfiguration": revision.settings.get("networkConfiguration"),
            "rolloutState": deployment.rollout_state if has_state else None,
            "rolloutStateReason": deployment.rollout_state_reason if has_state else None,
        }
    )


def task_set(service: Service, deployment: Deployment) -> Json:
    """Return the task set of a deployment by a controller other than ECS."""
    running = deployment_reply(service, deployment)
    shared = ("id", "status", "taskDefinition", "pendingCount", "runningCount", "createdAt", "updatedAt", "launchType")
    number = deployment.id.rpartition("/")[2]
    return {name: running[name] for name in shared} | {
        "taskSetArn": f"{service.key.prefix}:task-set/{service.key.cluster}/{service.key.name}/ecs-svc/{number}",
        "serviceArn": service.key.service_arn,
        "clusterArn": service.key.cluster_arn,
        "startedBy": service.controller,
        "computedDesiredCount": service.desired,
        "scale": {"value": 100.0, "unit": "PERCENT"},
        "stabilityStatus": "STEADY_STATE" if service.steady else "STABILIZING",
    }


def brief_reply(service: Service, deployment: ServiceDeployment) -> Json:
    """Return an entry of ListServiceDeployments."""
    return present(
        {
            "serviceDeploymentArn": deployment.arn,
            "serviceArn": service.key.service_arn,
            "clusterArn": service.key.cluster_arn,
            "createdAt": deployment.created_at,
            "startedAt": deployment.started_at,
            "finishedAt": deployment.finished_at,
            "targetServiceRevisionArn": deployment.target_revision_arn,
            "status": deployment.status,
            "statusReason": deployment.status_reason or None,
        }
    )


def service_deployment_reply(service: Service, deployment: ServiceDeployment) -> Json:
    """Return an entry of DescribeServiceDeployments."""
    counts = revision_counts(service, deployment)
    alarms = deployment.configuration.get("alarms") or {}
    return present(
        {
            **{
                key: value
                for key, value in brief_reply(service, deployment).items()
                if key != "targetServiceRevisionArn"
            },
            "stoppedAt": deployment.stopped_at,
            "updatedAt": deployment.updated_at,
            "lifecycleStage": deployment.lifecycle_stage if deployment.shifts_traffic else None,
            "lifecycleHookDetails": deployment.hooks or None,
            "deploymentConfiguration": deployment.configuration,
            "sourceServiceRevisions": [
                revision_summary(arn, counts.get(arn, [0, 0, 0])) | traffic_weights(deployment, arn)
                for arn in deployment.source_revision_arns
            ],
            "targetServiceRevision": revision_summary(
                deployment.target_revision_arn, counts.get(deployment.target_revision_arn, [0, 0, 0])
            )
            | traffic_weights(deployment, deployment.target_revision_arn),
            "rollback": deployment.rollback,
            "deploymentCircuitBreaker": {
                "status": deployment.breaker_status,
                "failureCount": deployment.failure_count,
                "threshold": deployment.threshold,
            },
            "alarms": {
                "status": deployment.alarm_status,
                "alarmNames": list(alarms.get("alarmNames") or []),
                "triggeredAlarmNames": deployment.triggered_alarms,
            },
        }
    )


def traffic_weights(deployment: ServiceDeployment, arn: str) -> Json:
    """Return the weights of a target or source revision: none where no traffic is shifted.

    Assumed: the serving revision has what the target has not, of test traffic too; other sources have nothing.
    """
    if not deployment.shifts_traffic:
        return {}
    production, test = deployment.production_weight, deployment.test_weight
    if arn == deployment.serving_revision_arn:
        production, test = 100.0 - production, 100.0 - test
    elif arn != deployment.target_revision_arn:
        production = test = 0.0
    return {
        "requestedProductionTrafficWeight": round(production, 1),
        "requestedTestTrafficWeight": round(test, 1),
    }


def revision_summary(arn: str, counts: list[int]) -> Json:
    return {
        "arn": arn,
        "requestedTaskCount": counts[0],
        "runningTaskCount": counts[1],
        "pendingTaskCount": counts[2],
    }


def revision_reply(service: Service, revision: Revision) -> Json:
    """Return an entry of DescribeServiceRevisions."""
    return present(
        {
            "serviceRevisionArn": revision.arn,
            "serviceArn": service.key.service_arn,
            "clusterArn": service.key.cluster_arn,
            "taskDefinition": revision.task_definition,
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "platformFamily": "Linux",
            "containerImages": [
                {"containerName": each["name"], "image": each["image"], "imageDigest": each["imageDigest"]}
                for each in revision.containers
            ],
            "guardDutyEnabled": False,
            "createdAt": revision.created_at,
            **{
                name: value
                for name, value in revision.settings.items()
                if name in ("capacityProviderStrategy", "launchType", "loadBalancers", "networkConfiguration")
            },
        }
    )


def task_arn(service: Service, task: Task) -> str:
    return f"{service.key.prefix}:task/{service.key.cluster}/{task.id}"


def task_reply(service: Service, task: Task) -> Json:
    """Return an entry of DescribeTasks."""
    revision = service.revisions[task.revision_arn]
    return present(
        {
            "taskArn": task_arn(service, task),
            "clusterArn": service.key.cluster_arn,
            "taskDefinitionArn": revision.task_definition,
            "group": f"service:{service.key.name}",
            "startedBy": task.deployment_id,
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "platformFamily": "Linux",
            "availabilityZone": f"{service.key.region}{'abc'[int(task.id[0], 16) % 3]}",
            "cpu": revision.cpu,
            "memory": revision.memory,
            "desiredStatus": "RUNNING" if task.is_live else "STOPPED",
            "lastStatus": task.status,
            "healthStatus": get_health(task),
            "connectivity": "CONNECTED",
            "connectivityAt": task.pull_started_at,
            "createdAt": task.created_at,
            "pullStartedAt": task.pull_started_at,
            "pullStoppedAt": task.started_at,
            "startedAt": task.started_at,
            "stoppingAt": task.stopping_at,
            "executionStoppedAt": task.stopping_at if task.status == "STOPPED" else None,
            "stoppedAt": task.stopped_at,
            "stopCode": task.stop_code or None,
            "stoppedReason": task.stopped_reason or None,
            "version": 1,
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": []},
            "tags": [],
            "attributes": [],
            "attachments": [attachment(service, task)],
            "containers": [container_reply(service, task, each) for each in revision.containers],
        }
    )


def get_health(task: Task) -> str:
    return "HEALTHY" if task.healthy else "UNKNOWN"


def attachment(service: Service, task: Task) -> Json:
    subnets = (
        service.revisions[task.revision_arn]
        .settings.get("networkConfiguration", {})
        .get("awsvpcConfiguration", {})
        .get("subnets")
    )
    return {
        "id": f"{task.id[:8]}-{task.id[8:12]}-{task.id[12:16]}-{task.id[16:20]}-{task.id[20:32]}",
        "type": "ElasticNetworkInterface",
        "status": "ATTACHED" if task.is_live else "DELETED",
        "details": [
            {"name": "subnetId", "value": (subnets or ["subnet-00000000000000001"])[0]},
            {"name": "networkInterfaceId", "value": f"eni-{task.id[:17]}"},
            {"name": "privateIPv4Address", "value": task.private_ip},
        ],
    }


def container_reply(service: Service, task: Task, container: Json) -> Json:
    has_exited = container["name"] in task.exit_codes
    stopped = task.status == "STOPPED" or has_exited
    last_status = "RUNNING" if task.status == "DEACTIVATING" else task.status
    pulled = task.started_at is not None
    return present(
        {
            "containerArn": f"{service.key.prefix}:container/{service.key.cluster}/{task.id}/{container['name']}",
            "taskArn": task_arn(service, task),
            "name": container["name"],
            "image": container["image"],
            "imageDigest": container["imageDigest"] if pulled else None,
            "runtimeId": f"{task.id}-{zlib.crc32(container['name'].encode()):010d}" if pulled else None,
            "lastStatus": "STOPPED" if stopped else "PENDING" if last_status == "PROVISIONING" else last_status,
            "exitCode": task.exit_codes.get(container["name"], task.exit_code) if stopped and pulled else None,
            "reason": container_reason(service, task, container),
            "healthStatus": "UNKNOWN" if has_exited else get_health(task),
            "networkBindings": [],
            "networkInterfaces": [{"attachmentId": task.id[:36], "privateIpv4Address": task.private_ip}],
            "cpu": container["cpu"],
            "memory": container["memory"] or None,
        }
    )


def container_reason(service: Service, task: Task, container: Json) -> str | None:
    """Return why the container did not start: only for the one whose image the reason names, or the first."""
    containers = service.revisions[task.revision_arn].containers
    named = [each["name"] for each in containers if each["image"] in task.container_reason]
    is_meant = container["name"] == (named or [containers[0]["name"]])[0]
    return task.container_reason if task.container_reason and is_meant else None


def present(fields: Json) -> Json:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
