"""Clusters and services of ECS, as DescribeClusters and DescribeServices return them."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from portal.aws.credentials import AwsTarget
from portal.aws.ecs.calls import answered_at, batches, is_named_in, last_part, masked, read
from portal.aws.ecs.configuration import (
    ROLLING,
    DeploymentConfiguration,
    LoadBalancer,
    parse_configuration,
    parse_load_balancer,
)
from portal.aws.ecs.service_deployment import ROLLBACK_SUCCESSFUL, SUCCESSFUL, ServiceDeployment
from portal.aws.errors import AwsMissing, complete, incomplete, need
from portal.credential_shapes import mask_credentials

SERVICES_PER_CALL = 10
# The deployment controller of services that UpdateService can roll out, and our name for services that ECS manages itself.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentController.html
OWN_CONTROLLER = "ECS"
EXPRESS_MODE = "Express Mode"
DAEMON = "DAEMON"


@dataclass(frozen=True)
class Cluster:
    name: str
    arn: str
    status: str
    active_services: int
    running_tasks: int


@dataclass(frozen=True)
class Deployment:
    """One entry of a service's `deployments[]`. `id` is `ecs-svc/<number>`."""

    id: str
    status: str
    task_definition: str
    desired_count: int
    running_count: int
    pending_count: int
    failed_tasks: int
    rollout_state: str | None
    rollout_state_reason: str | None
    created_at: datetime

    @property
    def is_rollback(self) -> bool:
        """Return whether ECS is rolling back to this deployment. Only the reason's text shows it, while it rolls back."""
        return "rolling back" in (self.rollout_state_reason or "").lower()


@dataclass(frozen=True)
class ServiceEvent:
    id: str
    created_at: datetime
    message: str


@dataclass(frozen=True)
class Service:
    """A service. `controller` is OWN_CONTROLLER, EXTERNAL, CODE_DEPLOY or EXPRESS_MODE.

    A service with an EXTERNAL controller has no task definition, one in Express Mode may have none. `scheduling` is REPLICA
    or DAEMON.
    """

    name: str
    arn: str
    status: str
    desired_count: int
    running_count: int
    pending_count: int
    task_definition: str | None
    deployments: tuple[Deployment, ...]
    current_service_deployment: str | None
    events: tuple[ServiceEvent, ...]
    controller: str = OWN_CONTROLLER
    configuration: DeploymentConfiguration = field(default_factory=DeploymentConfiguration)
    created_at: datetime | None = None
    scheduling: str = "REPLICA"
    current_revisions: tuple[str, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()

    @property
    def is_daemon(self) -> bool:
        """Return whether ECS runs one task on each matching container instance, so that nobody sets the desired count."""
        return self.scheduling == DAEMON

    @property
    def is_switched_off(self) -> bool:
        """Return whether a person set the desired count to 0."""
        return self.desired_count == 0 and not self.is_daemon

    @property
    def is_idle(self) -> bool:
        """Return whether the service runs no task and should run none, also as a DAEMON without a container instance."""
        return self.desired_count == 0 == self.running_count

    @property
    def is_foreign(self) -> bool:
        """Return whether only another controller may deploy the service."""
        return self.controller != OWN_CONTROLLER

    @property
    def primary(self) -> Deployment | None:
        return next((deployment for deployment in self.deployments if deployment.status == "PRIMARY"), None)

    @property
    def has_rollout_state(self) -> bool:
        """Return whether ECS says here how the newest deployment goes; otherwise only its service deployment says it.

        ECS returns no rolloutState for services with a Classic Load Balancer and for deployments other than rolling ones:
        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html.
        """
        return self.primary is not None and self.primary.rollout_state is not None

    def has_ended_well(self, current: ServiceDeployment | None) -> bool:
        """Return whether the newest deployment has completed and no other one is in progress or has tasks left.

        `current`: the current service deployment, None if it was not read. It decides if there is no rolloutState. Running
        tasks prove nothing: all new ones run during a clean-up, and after an alarm without rollback too. Only for a rolling
        service whose service deployment cannot be read, one deployment with all its desired tasks is taken as completed.
        """
        newest = self.primary
        if newest is None or newest.task_definition != self.task_definition:
            return False
        others = [deployment for deployment in self.deployments if deployment is not newest]
        if newest.rollout_state is None and current is None:
            is_whole = newest.pending_count == 0 and newest.running_count == self.desired_count
            return self.configuration.strategy == ROLLING and not others and is_whole
        if any(other.rollout_state == "IN_PROGRESS" or other.running_count or other.pending_count for other in others):
            return False
        if newest.rollout_state is None:
            return current is not None and self._is_left_by(current)
        return newest.rollout_state == "COMPLETED"

    def _is_left_by(self, ended: ServiceDeployment) -> bool:
        """Return whether the service deployment ended well, and with a revision that the service still has."""
        is_known = bool(ended.settled_revision and self.current_revisions)
        is_left = not is_known or ended.settled_revision in self.current_revisions
        return ended.status in (SUCCESSFUL, ROLLBACK_SUCCESSFUL) and is_left

    @property
    def earlier_tasks(self) -> int:
        """Return how many tasks of all deployments but the newest still run or start."""
        others = [deployment for deployment in self.deployments if deployment is not self.primary]
        return sum(other.running_count + other.pending_count for other in others)

    @property
    def draining_count(self) -> int:
        """Return how many tasks of earlier deployments still run although the newest deployment has completed.

        After early success, ECS removes them in the background: API_DeploymentEarlySuccessCriteria.
        """
        if self.primary is None or self.primary.rollout_state != "COMPLETED":
            return 0
        is_in_progress = any(deployment.rollout_state == "IN_PROGRESS" for deployment in self.deployments)
        return 0 if is_in_progress else self.earlier_tasks

    def deployment(self, deployment_id: str) -> Deployment | None:
        return next((deployment for deployment in self.deployments if deployment.id == deployment_id), None)


@dataclass(frozen=True)
class ServicesReading:
    """The result of DescribeServices. A service that is in neither dictionary does not exist or is INACTIVE.

    `left_out`: services with an incomplete entry, with the name of the missing member.
    `answered_at`: the time of the reply by AWS's clock (its Date header). Later deployments have a later `created_at`.
    """

    services: dict[str, Service]
    answered_at: datetime
    left_out: dict[str, str] = field(default_factory=dict)

    def service(self, name: str) -> Service | None:
        """Return the service; None if it does not exist. Raises AwsUnavailable if its entry is incomplete."""
        if name in self.left_out:
            raise incomplete(self.left_out[name], "ecs:DescribeServices")
        return self.services.get(name)


def describe_cluster(target: AwsTarget, name: str) -> Cluster:
    """Read a cluster with one call. Raises AwsMissing if it does not exist or is not ACTIVE."""
    action = "ecs:DescribeClusters"
    reply = read(target, action, "describe_clusters", clusters=[name])
    with complete(action):
        for raw in reply["clusters"]:
            if need(raw, "status") == "ACTIVE":
                return Cluster(
                    name=raw.get("clusterName") or name,
                    arn=need(raw, "clusterArn"),
                    status=raw["status"],
                    active_services=raw.get("activeServicesCount", 0),
                    running_tasks=raw.get("runningTasksCount", 0),
                )
    if not reply["clusters"] and not is_named_in(reply, name):
        raise incomplete("clusters", action)
    # ECS answers 200 with the name among `failures`.
    why = f"there is no active cluster {name} in {target.region}"
    raise AwsMissing("ClusterNotFoundException", action=action, why=why)


def describe_services(target: AwsTarget, cluster: str, names: list[str]) -> ServicesReading:
    """Read services with one call per ten names. Raises AwsMissing if the cluster does not exist."""
    reading = ServicesReading(services={}, answered_at=datetime.max.replace(tzinfo=UTC))
    for batch in batches(names, SERVICES_PER_CALL):
        reply = read(target, "ecs:DescribeServices", "describe_services", cluster=cluster, services=batch)
        reading = replace(reading, answered_at=min(reading.answered_at, answered_at(reply)))
        # ECS lists a service that does not exist in `failures`. A service that the reply does not name may exist.
        unnamed = set(batch) - {last_part(each.get("arn")) for each in reply.get("failures", [])}
        for raw in reply.get("services", []):
            unnamed.discard(_add_service(raw, reading))
        reading.left_out.update(dict.fromkeys(unnamed, "services"))
    return reading


def _add_service(raw: dict[str, Any], reading: ServicesReading) -> str:
    """Add an entry of DescribeServices to the reading, and return the service's name."""
    name = raw.get("serviceName") or last_part(raw.get("serviceArn"))
    try:
        if need(raw, "status") != "INACTIVE":
            reading.services[name] = parse_service(raw)
    except KeyError as error:
        reading.left_out[name] = str(error.args[0])
    return name


def parse_service(raw: dict[str, Any]) -> Service:
    """Convert a service. Raises KeyError if a member that the portal needs is missing."""
    configuration = parse_configuration(raw.get("deploymentConfiguration") or {})
    controller = find_controller(raw)
    # A service that another controller deploys may have none of these. Only its controller matters to an upgrade.
    own = raw
    if controller != OWN_CONTROLLER:
        counts = {name: raw.get(name) or 0 for name in ("desiredCount", "runningCount", "pendingCount")}
        own = {**raw, **counts, "taskDefinition": raw.get("taskDefinition") or None, "deployments": []}
    elif raw["status"] == "ACTIVE" and not raw["deployments"]:
        raise KeyError("deployments")  # every service that ECS deploys has one
    return Service(
        name=raw.get("serviceName") or last_part(raw["serviceArn"]),
        arn=need(raw, "serviceArn"),
        status=need(raw, "status"),
        desired_count=own["desiredCount"],
        running_count=own["runningCount"],
        pending_count=own["pendingCount"],
        task_definition=need(own, "taskDefinition"),
        deployments=tuple(_deployment(entry) for entry in own["deployments"]),
        current_service_deployment=raw.get("currentServiceDeployment") or None,
        current_revisions=tuple(each["arn"] for each in raw.get("currentServiceRevisions") or [] if each.get("arn")),
        events=tuple(
            ServiceEvent(id=event["id"], created_at=event["createdAt"], message=mask_credentials(event["message"]))
            for event in raw.get("events", [])
            if {"id", "createdAt", "message"} <= event.keys()
        ),
        controller=controller,
        configuration=configuration,
        created_at=raw.get("createdAt") or None,
        scheduling=raw.get("schedulingStrategy") or "REPLICA",
        load_balancers=tuple(parse_load_balancer(each) for each in raw.get("loadBalancers") or []),
    )


def find_controller(raw: dict[str, Any]) -> str:
    """Return the service's deployment controller. A reply without one means ECS itself."""
    if raw.get("resourceManagementType") == "ECS":
        return EXPRESS_MODE
    return str(raw.get("deploymentController", {}).get("type") or OWN_CONTROLLER)


def _deployment(raw: dict[str, Any]) -> Deployment:
    return Deployment(
        id=need(raw, "id"),
        status=need(raw, "status"),
        task_definition=need(raw, "taskDefinition"),
        desired_count=raw["desiredCount"],
        running_count=raw["runningCount"],
        pending_count=raw["pendingCount"],
        failed_tasks=raw.get("failedTasks", 0),
        rollout_state=raw.get("rolloutState") or None,
        rollout_state_reason=masked(raw.get("rolloutStateReason")),
        created_at=raw["createdAt"],
    )
