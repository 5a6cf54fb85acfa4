"""Amazon ECS: reads, and the writes of upgrades. The rest of the portal imports from here.

Field names are ECS's own. Each docstring names the number of AWS calls. All functions raise AwsError, and AwsUnavailable if
a reply lacks a member that the portal needs. ECS's model marks few members as required, so any other may be absent.
Reference: docs.aws.amazon.com/AmazonECS/latest/APIReference.
"""

from portal.aws.ecs.configuration import (
    DEFAULT_STEP_PERCENT,
    PAUSE_HOOK,
    ROLLING,
    SHIFTING,
    ConfiguredHook,
    DeploymentConfiguration,
    LoadBalancer,
)
from portal.aws.ecs.service import (
    Cluster,
    Deployment,
    Service,
    ServiceEvent,
    ServicesReading,
    describe_cluster,
    describe_services,
)
from portal.aws.ecs.service_deployment import (
    LifecycleHook,
    ServiceDeployment,
    ServiceDeploymentBrief,
    as_service_deployment,
    continue_service_deployment,
    describe_service_deployments,
    list_service_deployments,
    revision_task_definitions,
    stop_service_deployment,
)
from portal.aws.ecs.tasks import (
    LogPlace,
    RunningTask,
    StoppedTask,
    TaskDefinition,
    describe_task_definition,
    describe_tasks,
    list_tasks,
    log_places,
    running_tasks,
    stopped_tasks,
)
from portal.aws.ecs.update import SENT_WITHIN_SECONDS, update_service

__all__ = [
    "DEFAULT_STEP_PERCENT",
    "PAUSE_HOOK",
    "ROLLING",
    "SENT_WITHIN_SECONDS",
    "SHIFTING",
    "Cluster",
    "ConfiguredHook",
    "Deployment",
    "DeploymentConfiguration",
    "LifecycleHook",
    "LoadBalancer",
    "LogPlace",
    "RunningTask",
    "Service",
    "ServiceDeployment",
    "ServiceDeploymentBrief",
    "ServiceEvent",
    "ServicesReading",
    "StoppedTask",
    "TaskDefinition",
    "as_service_deployment",
    "continue_service_deployment",
    "describe_cluster",
    "describe_service_deployments",
    "describe_services",
    "describe_task_definition",
    "describe_tasks",
    "list_service_deployments",
    "list_tasks",
    "log_places",
    "revision_task_definitions",
    "running_tasks",
    "stop_service_deployment",
    "stopped_tasks",
    "update_service",
]
