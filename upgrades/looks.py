"""Looking at ECS for one rollout: which deployment is mine, how far it is, why its tasks stop. Reads only.

Each look renews the lease first; each costs the AWS calls that its docstring names and raises AwsError.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from portal.aws import ecs
from portal.aws.errors import AwsError
from upgrades.claims import Claim
from upgrades.models import Rollout, RolloutEvent
from upgrades.states import Verdict

logger = logging.getLogger(__name__)

# AWS's Date header counts whole seconds, so "created after the baseline" needs this much slack.
DATE_SLACK = timedelta(seconds=2)
# How much later than my end a deployment may have been created and still be what superseded mine.
SUPERSESSION_SLACK = timedelta(seconds=60)
STOPPED_TASKS_KEPT = 5


def read_service(claim: Claim) -> ecs.ServicesReading:
    claim.renew()
    rollout = claim.rollout
    return ecs.describe_services(rollout.organization.aws_target, cluster_of(rollout), [rollout.service_name])


def read_mine(claim: Claim) -> ecs.ServiceDeployment | None:
    arn = claim.rollout.service_deployment_arn
    if arn is None:
        return None
    claim.renew()
    return ecs.describe_service_deployments(claim.rollout.organization.aws_target, [arn]).get(arn)


@dataclass(frozen=True)
class Found:
    deployment_id: str | None
    arn: str | None
    note: str | None


def find_mine(claim: Claim) -> Found | None:
    """The deployment that my call started: new since the baseline, to my task definition, the oldest such, no rollback.

    The oldest, because whatever superseded mine came after it. Three AWS calls.
    """
    rollout = claim.rollout
    target = rollout.organization.aws_target
    baseline = rollout.baseline
    since = datetime.fromisoformat(baseline["answered_at"]) - DATE_SLACK
    claim.renew()
    briefs = [
        brief
        for brief in ecs.list_service_deployments(
            target, cluster_of(rollout), rollout.service_name, created_after=since
        )
        if brief.arn != baseline["service_deployment"]
    ]
    revisions = [brief.target_revision for brief in briefs if brief.target_revision]
    definitions = ecs.revision_task_definitions(target, revisions) if revisions else {}
    mine = [
        brief
        for brief in briefs
        if definitions.get(brief.target_revision or "", rollout.task_definition) == rollout.task_definition
    ]
    service = read_service(claim).services.get(rollout.service_name)
    ids = [
        deployment.id
        for deployment in sorted(service.deployments if service else (), key=lambda deployment: deployment.created_at)
        if deployment.id not in baseline["deployment_ids"]
        and deployment.task_definition == rollout.task_definition
        and not deployment.is_rollback
    ]
    if not mine and not ids:
        return None
    several = (
        f"{len(mine)} deployments started at the time of the call; the first is followed." if len(mine) > 1 else None
    )
    return Found(deployment_id=ids[0] if ids else None, arn=mine[0].arn if mine else None, note=several)


def find_successor(rollout: Rollout, mine: ecs.ServiceDeployment) -> str | None:
    """The ARN of the deployment that somebody started over mine; None when there is none to be seen."""
    ended_at = mine.finished_at or datetime.max.replace(tzinfo=mine.created_at.tzinfo) - SUPERSESSION_SLACK
    for brief in ecs.list_service_deployments(
        rollout.organization.aws_target, cluster_of(rollout), rollout.service_name, created_after=mine.created_at
    ):
        if brief.arn != mine.arn and mine.created_at <= brief.created_at <= ended_at + SUPERSESSION_SLACK:
            return brief.arn
    return None


def seen_of(
    claim: Claim, service: ecs.Service | None, mine: ecs.ServiceDeployment | None, verdict: Verdict
) -> dict[str, Any]:
    """The fields that one look fills: counts, breaker, reasons, whether it moves."""
    rollout = claim.rollout
    seen: dict[str, Any] = {
        "last_checked_at": claim.now,
        "check_error": None,
        "doubted_at": None,
        "rollout_reason": verdict.reason or rollout.rollout_reason,
    }
    if service is not None:
        seen |= counts_of(service)
        entry = service.deployment(rollout.deployment_id) if rollout.deployment_id else None
        seen["failed_tasks"] = max(entry.failed_tasks if entry else 0, rollout.failed_tasks or 0)
    if mine is not None:
        seen |= {
            "target_running": mine.target_running,
            "target_pending": mine.target_pending,
            "source_running": mine.source_running,
            "breaker_failures": max(mine.breaker_failures, rollout.breaker_failures),
            "breaker_threshold": mine.breaker_threshold,
        }
        seen["failed_tasks"] = max(seen.get("failed_tasks", 0), mine.breaker_failures)
    if seen.get("failed_tasks"):
        seen["stopped_tasks"] = read_stopped_tasks(claim) or rollout.stopped_tasks
    return seen | progress_of(claim, seen, verdict)


def progress_of(claim: Claim, seen: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """`progressed_at` moves when tasks did; a rollout without progress past the stall limit is flagged."""
    rollout = claim.rollout
    moved = (
        seen.get("target_running", 0) > rollout.target_running
        or seen.get("source_running", 0) < rollout.source_running
        or verdict.outcome != rollout.outcome
        or rollout.progressed_at is None
    )
    progressed_at = claim.now if moved else rollout.progressed_at
    still_for = claim.now - progressed_at if progressed_at else timedelta(0)
    stalled = not verdict.is_terminal and still_for > timedelta(seconds=settings.UPGRADE_STALL_SECONDS)
    return {"progressed_at": progressed_at, "is_stalled": stalled}


def read_stopped_tasks(claim: Claim) -> list[dict[str, Any]]:
    """Why tasks of mine stopped. Helps people; a failure to read it must not touch the verdict."""
    rollout = claim.rollout
    if not rollout.deployment_id:
        return []
    claim.renew()
    try:
        tasks = ecs.stopped_tasks(
            rollout.organization.aws_target,
            cluster_of(rollout),
            rollout.service_name,
            started_by=rollout.deployment_id,
        )
    except AwsError as error:
        logger.info("rollout %s: stopped tasks not read: %s", rollout.pk, error)
        return []
    return [
        {**asdict(task), "stopped_at": task.stopped_at.isoformat() if task.stopped_at else None}
        for task in tasks[:STOPPED_TASKS_KEPT]
    ]


def keep_events(rollout: Rollout, service: ecs.Service | None) -> None:
    """Copy ECS's events since my baseline; ECS forgets all but the newest hundred."""
    if service is None:
        return
    since = datetime.fromisoformat(rollout.baseline["answered_at"]) - DATE_SLACK
    RolloutEvent.objects.bulk_create(
        [
            RolloutEvent(
                organization=rollout.organization,
                rollout=rollout,
                ecs_event_id=event.id,
                message=event.message,
                created_at=event.created_at,
            )
            for event in service.events
            if event.created_at >= since
        ],
        ignore_conflicts=True,
    )


def cluster_of(rollout: Rollout) -> str:
    cluster = rollout.organization.cluster
    # The trigger refuses an organization without one, and its record may be emptied afterwards.
    return cluster or "no-cluster-configured"


def counts_of(service: ecs.Service) -> dict[str, Any]:
    return {
        "desired_count": service.desired_count,
        "running_count": service.running_count,
        "pending_count": service.pending_count,
    }


def version_of(definition: ecs.TaskDefinition, service: str) -> str | None:
    """The image tag of the service's own container; of the only container where it is named otherwise."""
    image = definition.images.get(service) or next(iter(definition.images.values()), "")
    return ecs.image_tag(image)
