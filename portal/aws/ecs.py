"""Amazon ECS: reads, and the writes of upgrades. Handles the limits of its calls (10 services, 20 deployments).

Field names are ECS's own. Each docstring names the number of AWS calls. All functions raise AwsError, and AwsUnavailable if
a reply lacks a member that the portal needs. ECS's model marks few members as required, so any other may be absent.
Reference: docs.aws.amazon.com/AmazonECS/latest/APIReference.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from portal.aws.credentials import AwsTarget, client, drop_session, has_short_timeouts
from portal.aws.errors import AwsMissing, AwsUnavailable, complete, incomplete, need, retried_once, translated
from portal.aws.permissions import Scope, Use
from portal.credential_shapes import mask_credentials

SERVICES_PER_CALL = 10
SERVICE_DEPLOYMENTS_PER_CALL = 20
STOPPED_TASKS_READ = 20
# The deployment controller of services that UpdateService can roll out, and our name for services that ECS manages itself.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentController.html
OWN_CONTROLLER = "ECS"
EXPRESS_MODE = "Express Mode"
DAEMON = "DAEMON"
# Signing a call takes milliseconds. A lease outlasts this time and the call's own time-outs (portal/leases.py).
SENT_WITHIN_SECONDS = 5.0
_send_until: ContextVar[float] = ContextVar("send_until", default=math.inf)


class SentTooLate(Exception):
    """A call was about to be sent too long after its lease was renewed."""


# ECS's defaults of members that a service need not set: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
# (API_LinearConfiguration, API_CanaryConfiguration, API_DeploymentLifecycleHookTimeoutConfiguration).
ROLLING = "ROLLING"
# Strategies that shift traffic between two revisions in stages.
SHIFTING = ("BLUE_GREEN", "LINEAR", "CANARY")
DEFAULT_STEP_PERCENT, DEFAULT_STEP_BAKE_MINUTES = 10.0, 6
DEFAULT_CANARY_PERCENT, DEFAULT_CANARY_BAKE_MINUTES = 5.0, 10
DEFAULT_HOOK_MINUTES = 1440
LAMBDA_HOOK, PAUSE_HOOK = "AWS_LAMBDA", "PAUSE"


@dataclass(frozen=True)
class ConfiguredHook:
    """A lifecycle hook as it is configured. `target_type` is LAMBDA_HOOK or PAUSE_HOOK."""

    target_type: str
    target_arn: str | None
    stages: tuple[str, ...]
    timeout_minutes: int
    timeout_action: str


@dataclass(frozen=True)
class DeploymentConfiguration:
    """How ECS deploys. `strategy` is ROLLING, BLUE_GREEN, LINEAR, CANARY or one that ECS adds later.

    `step_percent` and `step_bake_minutes` are those of LINEAR or CANARY. `source_cleanup` is BLOCKING or DEFERRED, and
    None without early success. A service's present configuration may differ from that of a deployment in progress.
    """

    strategy: str = ROLLING
    bake_minutes: int = 0
    step_percent: float | None = None
    step_bake_minutes: int = 0
    hooks: tuple[ConfiguredHook, ...] = ()
    breaker_enabled: bool = False
    breaker_rolls_back: bool = False
    alarms_enabled: bool = False
    alarms_roll_back: bool = False
    alarm_names: tuple[str, ...] = ()
    early_success: bool = False
    healthy_percent: int | None = None
    source_cleanup: str | None = None

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "DeploymentConfiguration":
        """Return the configuration of a dictionary made by `asdict`, also after it was stored as JSON."""
        hooks = tuple(ConfiguredHook(**{**hook, "stages": tuple(hook["stages"])}) for hook in data["hooks"])
        return cls(**data | {"hooks": hooks, "alarm_names": tuple(data["alarm_names"])})


@dataclass(frozen=True)
class LifecycleHook:
    """A hook of a deployment. `status` is AWAITING_ACTION, IN_PROGRESS, SUCCEEDED, FAILED or TIMED_OUT.

    `timeout_action` is ROLLBACK or CONTINUE: what ECS does at `expires_at`. A later step of LINEAR has a new `id`.
    """

    id: str
    target_type: str | None
    target_arn: str | None
    status: str | None
    expires_at: datetime | None
    timeout_action: str | None


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
    configuration: DeploymentConfiguration = DeploymentConfiguration()
    created_at: datetime | None = None
    scheduling: str = "REPLICA"

    @property
    def is_daemon(self) -> bool:
        """Return whether ECS runs one task on each matching container instance, so that nobody sets the desired count."""
        return self.scheduling == DAEMON

    @property
    def is_switched_off(self) -> bool:
        """Return whether a person set the desired count to 0."""
        return self.desired_count == 0 and not self.is_daemon

    @property
    def is_foreign(self) -> bool:
        """Return whether only another controller may deploy the service."""
        return self.controller != OWN_CONTROLLER

    @property
    def primary(self) -> Deployment | None:
        return next((deployment for deployment in self.deployments if deployment.status == "PRIMARY"), None)

    @property
    def has_ended_well(self) -> bool:
        """Return whether the newest deployment has completed and no other one is in progress or has tasks left.

        ECS returns no rolloutState for services with a Classic Load Balancer and for deployments other than rolling ones:
        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html. In that case there must be exactly
        one deployment, with all its desired tasks running. While traffic shifts or bakes, ECS still lists the earlier one.
        """
        newest = self.primary
        if newest is None or newest.task_definition != self.task_definition:
            return False
        others = [deployment for deployment in self.deployments if deployment is not newest]
        if newest.rollout_state is None:
            return not others and newest.pending_count == 0 and newest.running_count == self.desired_count
        if any(other.rollout_state == "IN_PROGRESS" or other.running_count or other.pending_count for other in others):
            return False
        return newest.rollout_state == "COMPLETED"

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


@dataclass(frozen=True)
class ServiceDeployment:
    """An entry of DescribeServiceDeployments, the only source of truth about a rollout.

    ECS reports no `lifecycle_stage` and no weights for ROLLING. The weights are percentages of the traffic.
    `configuration` is the deployment's own copy, None if the reply has none. `answered_at`: as in ServicesReading.
    """

    arn: str
    status: str
    status_reason: str | None
    created_at: datetime
    finished_at: datetime | None
    target_revision: str | None
    target_running: int
    target_pending: int
    source_running: int
    breaker_status: str | None
    breaker_failures: int
    breaker_threshold: int
    triggered_alarms: tuple[str, ...]
    rollback_reason: str | None
    target_requested: int | None = None
    lifecycle_stage: str | None = None
    hooks: tuple[LifecycleHook, ...] = ()
    configuration: DeploymentConfiguration | None = None
    production_weight: float | None = None
    test_weight: float | None = None
    source_production_weight: float | None = None
    rollback_started_at: datetime | None = None
    alarms_status: str | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True)
class ServiceDeploymentBrief:
    """An entry of ListServiceDeployments."""

    arn: str
    status: str
    created_at: datetime
    target_revision: str | None
    status_reason: str | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class TaskDefinition:
    """A task definition revision. `images` are by container name. An inactive (deregistered) one cannot be deployed.

    Only `is_active` ever changes.
    """

    arn: str
    family: str
    revision: int
    images: dict[str, str]
    is_active: bool = True


@dataclass(frozen=True)
class RunningTask:
    """A running task. `digests` maps each container's name to the digest (`sha256:..`) of its image.

    `started_by` is the `ecs-svc/..` id of its deployment.
    """

    task_definition: str | None
    started_by: str | None
    digests: dict[str, str]


@dataclass(frozen=True)
class StoppedTask:
    """A stopped task. `reason` joins ECS's reason and those of its failed containers."""

    id: str
    stopped_at: datetime | None
    reason: str
    exit_code: int | None


def describe_cluster(target: AwsTarget, name: str) -> Cluster:
    """Read a cluster with one call. Raises AwsMissing if it does not exist or is not ACTIVE."""
    action = "ecs:DescribeClusters"
    reply = _read(target, action, "describe_clusters", clusters=[name])
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
    if not reply["clusters"] and not _is_named_in(reply, name):
        raise incomplete("clusters", action)
    # ECS answers 200 with the name among `failures`.
    why = f"there is no active cluster {name} in {target.region}"
    raise AwsMissing("ClusterNotFoundException", action=action, why=why)


def describe_services(target: AwsTarget, cluster: str, names: list[str]) -> ServicesReading:
    """Read services with one call per ten names. Raises AwsMissing if the cluster does not exist."""
    reading = ServicesReading(services={}, answered_at=datetime.max.replace(tzinfo=UTC))
    for batch in _batches(names, SERVICES_PER_CALL):
        reply = _read(target, "ecs:DescribeServices", "describe_services", cluster=cluster, services=batch)
        reading = replace(reading, answered_at=min(reading.answered_at, _answered_at(reply)))
        # ECS lists a service that does not exist in `failures`. A service that the reply does not name may exist.
        unnamed = set(batch) - {_last_part(each.get("arn")) for each in reply.get("failures", [])}
        for raw in reply.get("services", []):
            unnamed.discard(_add_service(raw, reading))
        reading.left_out.update(dict.fromkeys(unnamed, "services"))
    return reading


def _add_service(raw: dict[str, Any], reading: ServicesReading) -> str:
    """Add an entry of DescribeServices to the reading, and return the service's name."""
    name = raw.get("serviceName") or _last_part(raw.get("serviceArn"))
    try:
        if need(raw, "status") != "INACTIVE":
            reading.services[name] = _service(raw)
    except KeyError as error:
        reading.left_out[name] = str(error.args[0])
    return name


def do_nothing() -> None:
    pass


def update_service(
    target: AwsTarget,
    cluster: str,
    service: str,
    *,
    task_definition: str,
    force_new_deployment: bool,
    before_call: Callable[[], None] = do_nothing,
) -> Service:
    """Call UpdateService exactly once. ECS has no idempotency token for it, so callers must not retry it blindly.

    `before_call` runs after the role is assumed and directly before the call; it may renew a lease.
    Raises AwsUnavailable. Its `may_have_happened` is true if a deployment may have started anyway. It is false if this
    process was frozen between `before_call` and the sending: another worker may have called meanwhile.
    """
    action = "ecs:UpdateService"
    writer = _writer(target, action, Scope(Use.SERVICE, cluster, service))
    writer.meta.events.register("before-send.ecs.UpdateService", _refuse_late_sending, unique_id="late")
    before_call()
    token = _send_until.set(time.monotonic() + SENT_WITHIN_SECONDS)
    try:
        with translated(action):
            reply = writer.update_service(
                cluster=cluster,
                service=service,
                taskDefinition=task_definition,
                forceNewDeployment=force_new_deployment,
            )
    except SentTooLate as error:
        late = AwsUnavailable("NotSent", action=action, why="the portal's process stood still before it was sent")
        late.may_have_happened = False
        raise late from error
    finally:
        _send_until.reset(token)
    with complete(action):
        return _service(reply["service"])


def _refuse_late_sending(**_: Any) -> None:
    """Raise SentTooLate if the call's time has passed. A botocore handler that runs right before a request is sent."""
    if time.monotonic() > _send_until.get():
        raise SentTooLate


def stop_service_deployment(target: AwsTarget, arn: str, *, before_call: Callable[[], None] = do_nothing) -> None:
    """Call StopServiceDeployment with a rollback. Safe to repeat: a deployment that is stopping continues to stop.

    `before_call` as for update_service.
    """
    action = "ecs:StopServiceDeployment"
    writer = _writer(target, action, _scope_of(arn))
    before_call()
    with translated(action):
        writer.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")


def continue_service_deployment(
    target: AwsTarget, arn: str, *, hook_id: str, action: str, before_call: Callable[[], None] = do_nothing
) -> None:
    """Call ContinueServiceDeployment: `action` CONTINUE or ROLLBACK for exactly the pause with this hook id.

    `before_call` as for update_service. Raises AwsRefused if that pause no longer waits.
    """
    api_action = "ecs:ContinueServiceDeployment"
    writer = _writer(target, api_action, _scope_of(arn))
    before_call()
    with translated(api_action):
        writer.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook_id, action=action)


def describe_service_deployments(target: AwsTarget, arns: list[str]) -> dict[str, ServiceDeployment]:
    """Read service deployments by ARN. Leaves out those that ECS no longer keeps. One call per twenty ARNs."""
    found: dict[str, ServiceDeployment] = {}
    for batch in _batches(arns, SERVICE_DEPLOYMENTS_PER_CALL):
        action = "ecs:DescribeServiceDeployments"
        reply = _read(target, action, "describe_service_deployments", serviceDeploymentArns=batch)
        with complete(action):
            for raw in reply["serviceDeployments"]:
                deployment = replace(_service_deployment(raw), answered_at=_answered_at(reply))
                found[raw["serviceDeploymentArn"]] = deployment
    return found


def list_service_deployments(
    target: AwsTarget, cluster: str, service: str, *, created_after: datetime
) -> list[ServiceDeploymentBrief]:
    """List the service's deployments from `created_after` on, oldest first. One call per page of 100."""
    briefs: list[ServiceDeploymentBrief] = []
    token: str | None = None
    while True:
        page = {"nextToken": token} if token else {}
        action = "ecs:ListServiceDeployments"
        reply = _read(
            target,
            action,
            "list_service_deployments",
            cluster=cluster,
            service=service,
            createdAt={"after": created_after},
            maxResults=100,
            **page,
        )
        with complete(action):
            briefs += [_brief(raw) for raw in reply["serviceDeployments"]]
        token = reply.get("nextToken")
        if not token:
            return sorted(briefs, key=lambda brief: (brief.created_at, brief.arn))


def as_service_deployment(brief: ServiceDeploymentBrief) -> ServiceDeployment:
    """Convert an entry of ListServiceDeployments for roles that may not describe. It has no counts, stage or hooks."""
    return ServiceDeployment(
        arn=brief.arn,
        status=brief.status,
        status_reason=brief.status_reason,
        created_at=brief.created_at,
        finished_at=brief.finished_at,
        target_revision=brief.target_revision,
        target_running=0,
        target_pending=0,
        source_running=0,
        breaker_status=None,
        breaker_failures=0,
        breaker_threshold=0,
        triggered_alarms=(),
        rollback_reason=None,
    )


def describe_task_definition(target: AwsTarget, arn: str) -> TaskDefinition:
    """Read a task definition with one call. Raises AwsRefused (ClientException) if it does not exist."""
    action = "ecs:DescribeTaskDefinition"
    reply = _read(target, action, "describe_task_definition", taskDefinition=arn)
    with complete(action):
        raw = reply["taskDefinition"]
        return TaskDefinition(
            arn=need(raw, "taskDefinitionArn"),
            family=need(raw, "family"),
            revision=raw["revision"],
            images={need(each, "name"): need(each, "image") for each in raw["containerDefinitions"]},
            is_active=raw.get("status", "ACTIVE") == "ACTIVE",
        )


def revision_task_definitions(target: AwsTarget, revision_arns: list[str]) -> dict[str, str]:
    """Return the task definition of each service revision, which identifies the target of a service deployment.

    A revision without a task definition in the reply is left out. One call per twenty ARNs.
    """
    found: dict[str, str] = {}
    for batch in _batches(revision_arns, SERVICE_DEPLOYMENTS_PER_CALL):
        reply = _read(target, "ecs:DescribeServiceRevisions", "describe_service_revisions", serviceRevisionArns=batch)
        for raw in reply.get("serviceRevisions", []):
            if raw.get("serviceRevisionArn") and raw.get("taskDefinition"):
                found[raw["serviceRevisionArn"]] = raw["taskDefinition"]
    return found


def stopped_tasks(target: AwsTarget, cluster: str, service: str, *, started_by: str) -> list[StoppedTask]:
    """List the stopped tasks of one `ecs-svc/..` deployment, newest first. Two calls. ECS drops them after an hour."""
    listed = _read(
        target,
        "ecs:ListTasks",
        "list_tasks",
        cluster=cluster,
        serviceName=service,
        desiredStatus="STOPPED",
        maxResults=100,
    )
    arns = listed.get("taskArns", [])
    if not arns:
        return []
    reply = _read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    tasks = [
        _stopped_task(raw)
        for raw in reply.get("tasks", [])
        if raw.get("startedBy") == started_by and raw.get("taskArn")
    ]
    tasks.sort(key=lambda task: (task.stopped_at or datetime.min.replace(tzinfo=UTC), task.id), reverse=True)
    return tasks[:STOPPED_TASKS_READ]


def running_tasks(target: AwsTarget, cluster: str, service: str) -> list[RunningTask]:
    """List the service's running tasks, at most 100. Two calls."""
    arns = list_tasks(target, cluster, service)
    if not arns:
        return []
    reply = _read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    return [
        RunningTask(
            task_definition=raw.get("taskDefinitionArn"),
            started_by=raw.get("startedBy"),
            digests={
                each["name"]: each["imageDigest"]
                for each in raw.get("containers", [])
                if each.get("name") and each.get("imageDigest")
            },
        )
        for raw in reply.get("tasks", [])
        if raw.get("lastStatus") == "RUNNING"
    ]


def list_tasks(target: AwsTarget, cluster: str, service: str) -> list[str]:
    """List the ARNs of the service's running tasks, at most 100. One call."""
    reply = _read(target, "ecs:ListTasks", "list_tasks", cluster=cluster, serviceName=service, maxResults=100)
    return list(reply.get("taskArns", []))


def describe_tasks(target: AwsTarget, cluster: str, arns: list[str]) -> dict[str, str]:
    """Return the last status of each task that ECS still keeps, by ARN. One call for at most 100 tasks."""
    reply = _read(target, "ecs:DescribeTasks", "describe_tasks", cluster=cluster, tasks=arns)
    tasks = [raw for raw in reply.get("tasks", []) if raw.get("taskArn") and raw.get("lastStatus")]
    return {raw["taskArn"]: raw["lastStatus"] for raw in tasks}


def _read(target: AwsTarget, action: str, method: str, **parameters: Any) -> dict[str, Any]:
    """Make a read, and retry it once with a newly assumed role if the credentials had expired."""
    scope = Scope(cluster=_cluster_of(parameters) or target.cluster)

    def call() -> dict[str, Any]:
        reply: dict[str, Any] = getattr(client(target, "ecs", scope=scope), method)(**parameters)
        return reply

    with translated(action):
        reply: dict[str, Any] = retried_once(
            call, renew=partial(drop_session, target), if_throttled=has_short_timeouts()
        )
    return reply


def _cluster_of(parameters: dict[str, Any]) -> str | None:
    """Return the name of the cluster that a read names, in a parameter of its own or in an ARN."""
    named = parameters.get("cluster") or next(iter(parameters.get("clusters", [])), None)
    arns = parameters.get("serviceDeploymentArns") or parameters.get("serviceRevisionArns") or []
    return _last_part(named) if named else next((_scope_of(arn).cluster for arn in arns), None)


def _scope_of(arn: str) -> Scope:
    """Return the scope of writes to a service deployment (`arn:..:service-deployment/<cluster>/<service>/<id>`)."""
    parts = arn.split("/")
    return Scope(Use.SERVICE, parts[1], parts[2]) if len(parts) == 4 else Scope(Use.SERVICE)


def _writer(target: AwsTarget, action: str, scope: Scope) -> Any:
    """Return the client for one write, with its role assumed. If this fails, the write was not sent."""
    try:
        with translated(action):
            return client(target, "ecs", writes=True, scope=scope)
    except AwsUnavailable as error:
        error.may_have_happened = False
        raise


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _is_named_in(reply: dict[str, Any], name: str) -> bool:
    """Return whether ECS lists the name among the `failures` of the reply: it does not exist."""
    return name in {_last_part(each.get("arn")) for each in reply.get("failures", [])}


def _last_part(arn: str | None) -> str:
    return (arn or "").rpartition("/")[2]


def _answered_at(reply: dict[str, Any]) -> datetime:
    date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _service(raw: dict[str, Any]) -> Service:
    """Convert a service. Raises KeyError if a member that the portal needs is missing."""
    configuration = _configuration(raw.get("deploymentConfiguration") or {})
    controller = _controller(raw)
    # A service that another controller deploys may have neither member. Its deployments are not read.
    own = raw
    if controller != OWN_CONTROLLER:
        own = {**raw, "taskDefinition": raw.get("taskDefinition") or None, "deployments": []}
    return Service(
        name=raw.get("serviceName") or _last_part(raw["serviceArn"]),
        arn=need(raw, "serviceArn"),
        status=need(raw, "status"),
        desired_count=raw["desiredCount"],
        running_count=raw["runningCount"],
        pending_count=raw["pendingCount"],
        task_definition=need(own, "taskDefinition"),
        deployments=tuple(_deployment(entry) for entry in own["deployments"]),
        current_service_deployment=raw.get("currentServiceDeployment"),
        events=tuple(
            ServiceEvent(id=event["id"], created_at=event["createdAt"], message=mask_credentials(event["message"]))
            for event in raw.get("events", [])
            if {"id", "createdAt", "message"} <= event.keys()
        ),
        controller=controller,
        configuration=configuration,
        created_at=raw.get("createdAt") or None,
        scheduling=raw.get("schedulingStrategy") or "REPLICA",
    )


def _configuration(raw: dict[str, Any]) -> DeploymentConfiguration:
    """Convert a deploymentConfiguration, with ECS's defaults for members that are missing."""
    strategy = raw.get("strategy") or ROLLING
    breaker, alarms = raw.get("deploymentCircuitBreaker") or {}, raw.get("alarms") or {}
    early = raw.get("earlySuccessCriteria") or {}
    is_early = bool(early.get("enable")) and strategy == ROLLING
    step_percent, step_bake_minutes = _steps(strategy, raw)
    return DeploymentConfiguration(
        strategy=strategy,
        bake_minutes=raw.get("bakeTimeInMinutes") or 0,
        step_percent=step_percent,
        step_bake_minutes=step_bake_minutes,
        hooks=tuple(_configured_hook(hook) for hook in raw.get("lifecycleHooks") or []),
        breaker_enabled=bool(breaker.get("enable")),
        breaker_rolls_back=bool(breaker.get("enable") and breaker.get("rollback")),
        alarms_enabled=bool(alarms.get("enable") and alarms.get("alarmNames")),
        alarms_roll_back=bool(alarms.get("enable") and alarms.get("rollback")),
        alarm_names=tuple(alarms.get("alarmNames") or ()),
        early_success=is_early,
        healthy_percent=early.get("healthyPercent") if is_early else None,
        source_cleanup=(early.get("sourceServiceRevisionCleanup") or "BLOCKING") if is_early else None,
    )


def _steps(strategy: str, raw: dict[str, Any]) -> tuple[float | None, int]:
    """Return a step's percentage of the traffic and its bake time in minutes, for LINEAR and CANARY."""
    if strategy == "LINEAR":
        linear = raw.get("linearConfiguration") or {}
        bake = linear.get("stepBakeTimeInMinutes")
        return linear.get("stepPercent") or DEFAULT_STEP_PERCENT, DEFAULT_STEP_BAKE_MINUTES if bake is None else bake
    if strategy == "CANARY":
        canary = raw.get("canaryConfiguration") or {}
        bake = canary.get("canaryBakeTimeInMinutes")
        percent = canary.get("canaryPercent") or DEFAULT_CANARY_PERCENT
        return percent, DEFAULT_CANARY_BAKE_MINUTES if bake is None else bake
    return None, 0


def _configured_hook(raw: dict[str, Any]) -> ConfiguredHook:
    timeout = raw.get("timeoutConfiguration") or {}
    return ConfiguredHook(
        target_type=raw.get("targetType") or LAMBDA_HOOK,
        target_arn=raw.get("hookTargetArn"),
        stages=tuple(raw.get("lifecycleStages") or ()),
        timeout_minutes=timeout.get("timeoutInMinutes") or DEFAULT_HOOK_MINUTES,
        timeout_action=timeout.get("action") or "ROLLBACK",
    )


def _lifecycle_hook(raw: dict[str, Any]) -> LifecycleHook:
    return LifecycleHook(
        id=raw.get("hookId") or "",
        target_type=raw.get("targetType"),
        target_arn=raw.get("targetArn"),
        status=raw.get("status"),
        expires_at=raw.get("expiresAt"),
        timeout_action=raw.get("timeoutAction"),
    )


def _controller(raw: dict[str, Any]) -> str:
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
        rollout_state=raw.get("rolloutState"),
        rollout_state_reason=_text(raw.get("rolloutStateReason")),
        created_at=raw["createdAt"],
    )


def _service_deployment(raw: dict[str, Any]) -> ServiceDeployment:
    target, sources = raw.get("targetServiceRevision") or {}, raw.get("sourceServiceRevisions") or []
    breaker, alarms = raw.get("deploymentCircuitBreaker") or {}, raw.get("alarms") or {}
    rollback = raw.get("rollback") or {}
    configuration = raw.get("deploymentConfiguration")
    source_weights = [source["requestedProductionTrafficWeight"] for source in sources if _has_weight(source)]
    return ServiceDeployment(
        arn=raw["serviceDeploymentArn"],
        status=raw["status"],
        status_reason=_text(raw.get("statusReason")),
        created_at=raw["createdAt"],
        finished_at=raw.get("finishedAt"),
        target_revision=target.get("arn"),
        target_running=target.get("runningTaskCount") or 0,
        target_pending=target.get("pendingTaskCount") or 0,
        source_running=sum(source.get("runningTaskCount") or 0 for source in sources),
        breaker_status=breaker.get("status"),
        breaker_failures=breaker.get("failureCount") or 0,
        breaker_threshold=breaker.get("threshold") or 0,
        triggered_alarms=tuple(alarms.get("triggeredAlarmNames") or ()),
        rollback_reason=_text(rollback.get("reason")),
        target_requested=target.get("requestedTaskCount"),
        lifecycle_stage=raw.get("lifecycleStage") or None,
        hooks=tuple(_lifecycle_hook(hook) for hook in raw.get("lifecycleHookDetails") or []),
        configuration=_configuration(configuration) if configuration else None,
        production_weight=target.get("requestedProductionTrafficWeight"),
        test_weight=target.get("requestedTestTrafficWeight"),
        source_production_weight=sum(source_weights) if source_weights else None,
        rollback_started_at=rollback.get("startedAt"),
        alarms_status=alarms.get("status"),
    )


def _text(reported: str | None) -> str | None:
    """Return a text of ECS about a service, with credentials masked. Applications and registries write parts of it."""
    return mask_credentials(reported) if reported else reported


def _has_weight(revision: dict[str, Any]) -> bool:
    return revision.get("requestedProductionTrafficWeight") is not None


def _brief(raw: dict[str, Any]) -> ServiceDeploymentBrief:
    return ServiceDeploymentBrief(
        arn=raw["serviceDeploymentArn"],
        status=raw["status"],
        created_at=raw["createdAt"],
        target_revision=raw.get("targetServiceRevisionArn"),
        status_reason=_text(raw.get("statusReason")),
        finished_at=raw.get("finishedAt"),
    )


def _stopped_task(raw: dict[str, Any]) -> StoppedTask:
    containers = raw.get("containers", [])
    bad = [container for container in containers if container.get("exitCode") or container.get("reason")]
    reasons = [raw.get("stoppedReason", ""), *(container.get("reason", "") for container in bad)]
    return StoppedTask(
        id=raw["taskArn"].rpartition("/")[2],
        stopped_at=raw.get("stoppedAt"),
        reason=_text("; ".join(dict.fromkeys(reason for reason in reasons if reason))) or "ECS gave no reason.",
        exit_code=next((container["exitCode"] for container in bad if "exitCode" in container), None),
    )
