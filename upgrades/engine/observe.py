"""Observes ECS for one rollout: its own deployment, the progress, why its tasks stop. Reads only.

Each read renews the lease before every AWS call and may raise AwsError. Docstrings name the AWS calls.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings

from portal.aws import ecs
from portal.aws.errors import AwsDenied, AwsError, AwsMissing, AwsRefused
from portal.times import utc
from upgrades.engine.deadline import STAGE_LIMIT, build_deadline_fields
from upgrades.engine.lease import RolloutLease
from upgrades.engine.stages import build_stage_fields, has_moved, recall_configuration
from upgrades.inventory.images import running_digests
from upgrades.models import Rollout, UpgradeEvent
from upgrades.states import Outcome
from upgrades.verdicts import Verdict

logger = logging.getLogger(__name__)

# AWS's Date header counts whole seconds, so "created after the baseline" needs this much slack.
DATE_SLACK = timedelta(seconds=2)
# ECS creates a service and its first deployment at one moment. The local AWS reads its clock for each.
SAME_MOMENT = timedelta(milliseconds=100)
# A deployment created up to this long after the end of the rollout's own one may still have superseded it.
SUPERSESSION_SLACK = timedelta(seconds=5)
STOPPED_TASKS_KEPT = 5


Answer = TypeVar("Answer")


def read_service(lease: RolloutLease) -> ecs.ServicesReading:
    lease.renew()
    rollout = lease.rollout
    return ecs.describe_services(rollout.upgrade.aws_target, rollout.upgrade.cluster, [rollout.service_name])


def read_digests(lease: RolloutLease, definition: ecs.TaskDefinition, *, started_by: str | None = None) -> set[str]:
    """Return the digests of the service's running tasks, or of one deployment's tasks (`started_by`).

    An empty set means that they are not known. Digests are exact where a task definition names only a tag. A failure to
    read them must not delay the rollout.
    """
    rollout = lease.rollout
    lease.renew()
    try:
        tasks = ecs.running_tasks(rollout.upgrade.aws_target, rollout.upgrade.cluster, rollout.service_name)
    except AwsError as error:
        logger.info("rollout %s: running tasks not read: %s", rollout.pk, error)
        return set()
    own_tasks = [task for task in tasks if started_by is None or task.started_by == started_by]
    return set(running_digests(definition, own_tasks, rollout.service))


def read_new_digest(lease: RolloutLease) -> str | None:
    """Return the one digest that all tasks of the rollout's own deployment run, or None.

    For a task definition that names no digest.
    """
    rollout = lease.rollout
    lease.renew()
    try:
        definition = ecs.describe_task_definition(rollout.upgrade.aws_target, str(rollout.task_definition))
    except AwsError as error:
        logger.info("rollout %s: task definition not read: %s", rollout.pk, error)
        return None
    digests = read_digests(lease, definition, started_by=rollout.deployment_id)
    return next(iter(digests)) if len(digests) == 1 else None


def read_service_deployment(lease: RolloutLease) -> ecs.ServiceDeployment | None:
    """Return the rollout's own service deployment, or None if its ARN is not known or ECS does not return it."""
    arn = lease.rollout.service_deployment_arn
    if arn is None:
        return None
    lease.renew()
    target = lease.rollout.upgrade.aws_target
    known = read_or_none(lambda: ecs.describe_service_deployments(target, [arn]))
    if known is not None:
        own = known.get(arn)
        # A reply may leave the configuration out. It never changes, so an earlier reply counts.
        return replace(own, configuration=own.configuration or recall_configuration(lease.rollout)) if own else None
    listed = list_since(lease, get_baseline_time(lease))
    own_brief = next((brief for brief in listed if brief.arn == arn), None)
    if own_brief is None:
        return None
    return replace(ecs.as_service_deployment(own_brief), configuration=recall_configuration(lease.rollout))


def read_current_deployment(lease: RolloutLease, service: ecs.Service) -> ecs.ServiceDeployment | None:
    """Return the service's current service deployment if only it says how the newest deployment ended.

    None if ECS does not return it or the service's entry says it. *Costs* one AWS call, none for ROLLING.
    """
    arn = service.current_service_deployment
    if arn is None or service.has_rollout_state:
        return None
    lease.renew()
    found = read_or_none(lambda: ecs.describe_service_deployments(lease.rollout.upgrade.aws_target, [arn]))
    return (found or {}).get(arn)


def read_or_none(read: Callable[[], Answer]) -> Answer | None:
    """Return the result of a read of service deployments, or None if AWS refuses it.

    These API actions are newer than the others, so a role or a region may not have them. The service or the cluster may
    also be gone. The caller then uses only DescribeServices (verdicts.judge_by_id). Raises AwsUnavailable if AWS does not
    answer.
    """
    try:
        return read()
    except (AwsDenied, AwsMissing, AwsRefused) as error:
        logger.info("service deployments not read: %s", error)
        return None


@dataclass(frozen=True)
class StartedDeployment:
    deployment_id: str | None
    arn: str | None
    note: str | None
    service_created_at: datetime | None


def find_started_deployment(lease: RolloutLease) -> StartedDeployment | None:
    """Return the deployment that UpdateService has started for the rollout, None if there is none.

    It is the oldest deployment to the rollout's task definition that is new since the baseline and is not a rollback.
    A deployment that superseded it is newer. If there are several, the note says so. A service's first deployment is never
    it: CreateService started that one, even if somebody has just created the service again with this task definition.

    Costs three AWS calls.
    """
    rollout = lease.rollout
    listed = find_new_service_deployments(lease)
    service = read_service(lease).service(rollout.service_name)
    created_at = service.created_at if service else None
    arns = [brief for brief in listed if not is_first(brief.created_at, of_service=created_at)]
    ids = [
        deployment
        for deployment in (service.deployments if service else ())
        if deployment.id not in rollout.baseline["deployment_ids"]
        and is_of_call(lease, deployment)
        and not deployment.is_rollback
        and not is_first(deployment.created_at, of_service=created_at)
    ]
    if not arns and not ids:
        return None
    note = None
    if max(len(arns), len(ids)) > 1:
        note = "The reply to UpdateService was lost. Several deployments started at that time. The first was followed."
    if not arns:
        return StartedDeployment(min(ids, key=lambda each: each.created_at).id, None, note, created_at)
    started = arns[0]
    # No documented field links the id and the ARN of a deployment. Both are created at the same moment.
    near = min(ids, key=lambda each: abs(each.created_at - started.created_at), default=None)
    return StartedDeployment(near.id if near else None, started.arn, note, created_at)


def is_first(created_at: datetime, *, of_service: datetime | None) -> bool:
    """Return whether a deployment that was created then came with the service. False if the service's time is not known."""
    return of_service is not None and abs(created_at - of_service) <= SAME_MOMENT


def is_created_again(lease: RolloutLease, service: ecs.Service | None) -> bool:
    """Return whether the service was deleted and created again, so that it has no deployment of the rollout."""
    if service is None or service.created_at is None:
        return False
    created_at = lease.rollout.baseline.get("service_created_at")
    known = datetime.fromisoformat(created_at) if created_at else later_than_baseline(lease)
    return service.created_at > known


def as_baseline(service_created_at: datetime | None) -> dict[str, str]:
    """Return the part of the baseline that tells the service from a later one of the same name."""
    return {"service_created_at": service_created_at.isoformat()} if service_created_at else {}


def is_of_call(lease: RolloutLease, deployment: ecs.Deployment) -> bool:
    """Return whether the rollout's call may have started the deployment, by its task definition and its time.

    Another person's deployment to the same task definition may appear late in the reads, but is older than the call.
    """
    is_wanted = deployment.task_definition == lease.rollout.task_definition
    return is_wanted and deployment.created_at >= get_baseline_time(lease)


def is_verified(lease: RolloutLease, deployment: ecs.ServiceDeployment) -> bool:
    """Return whether the service deployment is the rollout's own, by its time and its target's task definition.

    UpdateService's reply names the service's current deployment, which may be one from outside while reads lag. If AWS
    does not give its task definition, it counts as the rollout's own. Costs one AWS call, once for each deployment.
    """
    rollout = lease.rollout
    if rollout.baseline.get("verified") == deployment.arn:
        return True
    if deployment.created_at < get_baseline_time(lease):
        return False
    revision = deployment.target_revision
    if revision is not None:
        lease.renew()
        target = rollout.upgrade.aws_target
        found = read_or_none(lambda: ecs.revision_task_definitions(target, [revision])) or {}
        if found.get(revision, rollout.task_definition) != rollout.task_definition:
            return False
    lease.write(baseline=rollout.baseline | {"verified": deployment.arn})
    return True


def find_new_service_deployments(lease: RolloutLease) -> list[ecs.ServiceDeploymentBrief]:
    """Return the service deployments since the baseline to the rollout's task definition, oldest first."""
    rollout = lease.rollout
    listed = list_since(lease, get_baseline_time(lease))
    briefs = [brief for brief in listed if brief.arn != rollout.baseline["service_deployment"]]
    revisions = [brief.target_revision for brief in briefs if brief.target_revision]
    if not revisions:
        return briefs
    lease.renew()
    target, desired = rollout.upgrade.aws_target, rollout.task_definition
    definitions = read_or_none(lambda: ecs.revision_task_definitions(target, revisions)) or {}
    return [brief for brief in briefs if definitions.get(brief.target_revision or "", desired) == desired]


def get_baseline_time(lease: RolloutLease) -> datetime:
    """Return AWS's time just before the rollout's UpdateService call."""
    return datetime.fromisoformat(lease.rollout.baseline["answered_at"]) - DATE_SLACK


def later_than_baseline(lease: RolloutLease) -> datetime:
    """Return AWS's time from which on an event is certainly later than the baseline; its Date header drops fractions."""
    return datetime.fromisoformat(lease.rollout.baseline["answered_at"]) + timedelta(seconds=1)


def list_since(lease: RolloutLease, since: datetime) -> list[ecs.ServiceDeploymentBrief]:
    """Return the service deployments created since then, oldest first. Empty if ECS does not list them."""
    rollout = lease.rollout
    target, cluster, name = rollout.upgrade.aws_target, rollout.upgrade.cluster, rollout.service_name
    lease.renew()
    return read_or_none(lambda: ecs.list_service_deployments(target, cluster, name, created_after=since)) or []


def find_successor(lease: RolloutLease, service: ecs.Service | None, deployment: ecs.ServiceDeployment) -> str | None:
    """Return the ARN of the deployment that superseded the rollout's own one, or None if none is visible.

    If ECS does not list service deployments, return its id instead. Costs one AWS call.
    """

    def was_started_over_it(created_at: datetime) -> bool:
        ended_before = deployment.finished_at is not None and created_at > deployment.finished_at + SUPERSESSION_SLACK
        return created_at >= deployment.created_at and not ended_before

    rollout = lease.rollout
    not_later = (deployment.arn, rollout.baseline["service_deployment"])
    for brief in list_since(lease, deployment.created_at):
        if brief.arn not in not_later and was_started_over_it(brief.created_at):
            return brief.arn
    if service is None or rollout.deployment_id is None:
        return None
    known = {rollout.deployment_id, *rollout.baseline["deployment_ids"]}
    later = [
        entry
        for entry in service.deployments
        if entry.id not in known and not entry.is_rollback and was_started_over_it(entry.created_at)
    ]
    return min(later, key=lambda entry: (entry.created_at, entry.id)).id if later else None


def build_observed_fields(
    lease: RolloutLease, service: ecs.Service | None, deployment: ecs.ServiceDeployment | None, verdict: Verdict
) -> dict[str, Any]:
    """Return the fields to write after one observation: counts, circuit breaker, reasons, progress."""
    rollout = lease.rollout
    observed: dict[str, Any] = {
        "last_checked_at": lease.now,
        "check_error": None,
        "doubted_at": None,
        "rollout_reason": verdict.reason or (rollout.rollout_reason if verdict.outcome == rollout.outcome else None),
    }
    if service is not None:
        observed |= build_counts(service)
        entry = service.deployment(rollout.deployment_id) if rollout.deployment_id else None
        observed["failed_tasks"] = max(entry.failed_tasks if entry else 0, rollout.failed_tasks or 0)
        if entry is not None and (deployment is None or not deployment.has_counts):
            observed |= {
                "target_running": entry.running_count,
                "target_pending": entry.pending_count,
                "source_running": service.running_count - entry.running_count,
            }
    if deployment is not None and deployment.has_counts:
        observed |= {
            "target_running": deployment.target_running,
            "target_pending": deployment.target_pending,
            "source_running": deployment.source_running,
            "breaker_failures": max(deployment.breaker_failures, rollout.breaker_failures),
            "breaker_threshold": deployment.breaker_threshold,
        }
        observed["failed_tasks"] = max(observed.get("failed_tasks", 0), deployment.breaker_failures)
    observed["has_run"] = rollout.has_run or observed.get("target_running", 0) > 0
    if deployment is not None:
        observed |= build_stage_fields(rollout, deployment, now=deployment.answered_at or lease.now)
    observed |= build_deadline_fields(rollout, deployment, verdict, now=lease.now)
    return observed | build_progress_fields(lease, observed, verdict)


def build_progress_fields(lease: RolloutLease, observed: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """Return `progressed_at`, updated if anything progressed, and `is_stalled`, true past the stall limit without progress.

    Progress is a change of counts, stage, weights or hook. While ECS waits on purpose, nothing needs to progress.
    """
    rollout = lease.rollout
    rolling_back = verdict.outcome == Outcome.ROLLING_BACK
    source, target = observed.get("source_running", rollout.source_running), observed.get("target_running", 0)
    moved = (
        (source > rollout.source_running if rolling_back else source < rollout.source_running)
        or (target < rollout.target_running if rolling_back else target > rollout.target_running)
        or verdict.outcome != rollout.outcome
        or has_moved(rollout, observed)
        or rollout.progressed_at is None
    )
    rests = verdict.is_resting and verdict.outcome != Outcome.HOOK_RUNNING
    progressed_at = lease.now if moved or rests else rollout.progressed_at
    still_for = lease.now - progressed_at if progressed_at else timedelta(0)
    stalled = not verdict.is_terminal and still_for > find_stall_limit(rollout, verdict)
    return {"progressed_at": progressed_at, "is_stalled": stalled}


def find_stall_limit(rollout: Rollout, verdict: Verdict) -> timedelta:
    """Return after how long without progress the rollout has stalled. A hook may take as long as ECS allows a stage."""
    if verdict.outcome == Outcome.HOOK_RUNNING:
        return STAGE_LIMIT
    seconds = settings.UPGRADE_STALL_SECONDS if rollout.stall_seconds is None else rollout.stall_seconds
    return timedelta(seconds=seconds)


def find_stopped_tasks(lease: RolloutLease, observed: dict[str, Any], *, has_news: bool) -> list[dict[str, Any]]:
    """Return why tasks of the rollout's own deployment stopped, newest first. Two AWS calls, if more may have stopped.

    `has_news`: ECS has written events of the service since the last observation. It writes some whenever a task stops.
    """
    rollout = lease.rollout
    failed = observed.get("failed_tasks")
    known: list[dict[str, Any]] = rollout.stopped_tasks
    is_complete = bool(known) and all(task["stopped_at"] for task in known)
    if not failed or (is_complete and failed == rollout.failed_tasks and not has_news):
        return known
    return read_stopped_tasks(lease) or known


def read_stopped_tasks(lease: RolloutLease) -> list[dict[str, Any]]:
    """Read why tasks stopped, none if ECS refuses. For people: a failed read must not affect the verdict."""
    rollout = lease.rollout
    if not rollout.deployment_id:
        return []
    lease.renew()
    try:
        tasks = ecs.stopped_tasks(
            rollout.upgrade.aws_target,
            rollout.upgrade.cluster,
            rollout.service_name,
            started_by=rollout.deployment_id,
        )
    except AwsError as error:
        logger.info("rollout %s: stopped tasks not read: %s", rollout.pk, error)
        return []
    return [{**asdict(task), "stopped_at": utc(task.stopped_at)} for task in tasks[:STOPPED_TASKS_KEPT]]


def copy_ecs_events(lease: RolloutLease, service: ecs.Service | None) -> bool:
    """Copy ECS's events since the baseline, and return whether any was new. ECS keeps only the newest hundred."""
    if service is None:
        return False
    rollout = lease.rollout
    since = get_baseline_time(lease)
    found = {event.id: event for event in service.events if event.created_at >= since}
    copied = UpgradeEvent.objects.filter(rollout=rollout, ecs_event_id__in=list(found)).values_list("ecs_event_id")
    for (known,) in copied:
        del found[str(known)]
    UpgradeEvent.objects.bulk_create(
        [
            UpgradeEvent(
                organization=rollout.organization,
                rollout=rollout,
                ecs_event_id=event.id,
                message=event.message,
                created_at=event.created_at,
            )
            for event in found.values()
        ],
        ignore_conflicts=True,
    )
    return bool(found)


def build_counts(service: ecs.Service) -> dict[str, Any]:
    return {
        "desired_count": service.desired_count,
        "running_count": service.running_count,
        "pending_count": service.pending_count,
    }
