"""Service deployments of ECS: what each rollout did, how it is stopped, and how a pause is ended."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget
from portal.aws.ecs.calls import answered_at, batches, masked, open_writer, read, scope_of
from portal.aws.ecs.configuration import DeploymentConfiguration, parse_configuration
from portal.aws.errors import complete, translated

ARNS_PER_CALL = 20
SUCCESSFUL, STOPPED = "SUCCESSFUL", "STOPPED"
ROLLBACK_SUCCESSFUL, ROLLBACK_FAILED = "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"


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
class ServiceDeployment:
    """An entry of DescribeServiceDeployments, the only source of truth about a rollout.

    ECS reports no `lifecycle_stage` and no weights for ROLLING. The weights are percentages of the traffic.
    `configuration` is the deployment's own copy, None if the reply has none. `answered_at`: as in ServicesReading.
    `has_counts`: False for an entry of ListServiceDeployments, whose counts are not known.
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
    rollback_revision: str | None = None
    alarms_status: str | None = None
    answered_at: datetime | None = None
    has_counts: bool = True

    @property
    def has_failed(self) -> bool:
        """Return whether ECS ended it and did not restore an earlier revision."""
        return self.status in (STOPPED, ROLLBACK_FAILED)

    @property
    def settled_revision(self) -> str | None:
        """Return the revision with which the service was left: the target, or what ECS rolled back to."""
        return self.rollback_revision if self.status == ROLLBACK_SUCCESSFUL else self.target_revision


@dataclass(frozen=True)
class ServiceDeploymentBrief:
    """An entry of ListServiceDeployments."""

    arn: str
    status: str
    created_at: datetime
    target_revision: str | None
    status_reason: str | None = None
    finished_at: datetime | None = None


def describe_service_deployments(target: AwsTarget, arns: list[str]) -> dict[str, ServiceDeployment]:
    """Read service deployments by ARN. Leaves out those that ECS no longer keeps. One call per twenty ARNs."""
    found: dict[str, ServiceDeployment] = {}
    for batch in batches(arns, ARNS_PER_CALL):
        action = "ecs:DescribeServiceDeployments"
        reply = read(target, action, "describe_service_deployments", serviceDeploymentArns=batch)
        with complete(action):
            for raw in reply["serviceDeployments"]:
                deployment = replace(_service_deployment(raw), answered_at=answered_at(reply))
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
        reply = read(
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
        has_counts=False,
    )


def revision_task_definitions(target: AwsTarget, revision_arns: list[str]) -> dict[str, str]:
    """Return the task definition of each service revision, which identifies the target of a service deployment.

    A revision without a task definition in the reply is left out. One call per twenty ARNs.
    """
    found: dict[str, str] = {}
    for batch in batches(revision_arns, ARNS_PER_CALL):
        reply = read(target, "ecs:DescribeServiceRevisions", "describe_service_revisions", serviceRevisionArns=batch)
        for raw in reply.get("serviceRevisions", []):
            if raw.get("serviceRevisionArn") and raw.get("taskDefinition"):
                found[raw["serviceRevisionArn"]] = raw["taskDefinition"]
    return found


def stop_service_deployment(target: AwsTarget, arn: str, *, before_call: Callable[[], None] = do_nothing) -> None:
    """Call StopServiceDeployment with a rollback. Safe to repeat: a deployment that is stopping continues to stop.

    `before_call` as for update_service.
    """
    action = "ecs:StopServiceDeployment"
    writer = open_writer(target, action, scope_of(arn))
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
    writer = open_writer(target, api_action, scope_of(arn))
    before_call()
    with translated(api_action):
        writer.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook_id, action=action)


def _service_deployment(raw: dict[str, Any]) -> ServiceDeployment:
    target, sources = raw.get("targetServiceRevision") or {}, raw.get("sourceServiceRevisions") or []
    breaker, alarms = raw.get("deploymentCircuitBreaker") or {}, raw.get("alarms") or {}
    rollback = raw.get("rollback") or {}
    configuration = raw.get("deploymentConfiguration")
    source_weights = [source["requestedProductionTrafficWeight"] for source in sources if _has_weight(source)]
    return ServiceDeployment(
        arn=raw["serviceDeploymentArn"],
        status=raw["status"],
        status_reason=masked(raw.get("statusReason")),
        created_at=raw["createdAt"],
        finished_at=raw.get("finishedAt"),
        target_revision=target.get("arn") or None,
        target_running=target.get("runningTaskCount") or 0,
        target_pending=target.get("pendingTaskCount") or 0,
        source_running=sum(source.get("runningTaskCount") or 0 for source in sources),
        breaker_status=breaker.get("status") or None,
        breaker_failures=breaker.get("failureCount") or 0,
        breaker_threshold=breaker.get("threshold") or 0,
        triggered_alarms=tuple(alarms.get("triggeredAlarmNames") or ()),
        rollback_reason=masked(rollback.get("reason")),
        target_requested=target.get("requestedTaskCount"),
        lifecycle_stage=raw.get("lifecycleStage") or None,
        hooks=tuple(_lifecycle_hook(hook) for hook in raw.get("lifecycleHookDetails") or []),
        configuration=parse_configuration(configuration) if configuration else None,
        production_weight=target.get("requestedProductionTrafficWeight"),
        test_weight=target.get("requestedTestTrafficWeight"),
        source_production_weight=sum(source_weights) if source_weights else None,
        rollback_started_at=rollback.get("startedAt"),
        rollback_revision=rollback.get("serviceRevisionArn") or None,
        alarms_status=alarms.get("status"),
    )


def _has_weight(revision: dict[str, Any]) -> bool:
    return revision.get("requestedProductionTrafficWeight") is not None


def _lifecycle_hook(raw: dict[str, Any]) -> LifecycleHook:
    return LifecycleHook(
        id=raw.get("hookId") or "",
        target_type=raw.get("targetType"),
        target_arn=raw.get("targetArn"),
        status=raw.get("status"),
        expires_at=raw.get("expiresAt"),
        timeout_action=raw.get("timeoutAction"),
    )


def _brief(raw: dict[str, Any]) -> ServiceDeploymentBrief:
    return ServiceDeploymentBrief(
        arn=raw["serviceDeploymentArn"],
        status=raw["status"],
        created_at=raw["createdAt"],
        target_revision=raw.get("targetServiceRevisionArn") or None,
        status_reason=masked(raw.get("statusReason")),
        finished_at=raw.get("finishedAt"),
    )
