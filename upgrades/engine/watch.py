"""Watches a rollout's own deployment: reads and judges it, and sends a decision or a stop that a person requested."""

import logging
from typing import Any

from django.db.models.functions import Now

from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing, AwsUnavailable, summarize_error
from portal.leases import get_lease_duration
from upgrades.engine.deadline import is_past_ecs_limit
from upgrades.engine.decide import find_decider, send_decisions
from upgrades.engine.finish import (
    build_created_again_verdict,
    build_service_missing_verdict,
    build_timed_out_verdict,
    finish_rollout,
    get_stopper_email,
)
from upgrades.engine.lease import RolloutLease
from upgrades.engine.next_poll import finish_when_confirmed, record_progress
from upgrades.engine.observe import (
    build_observed_fields,
    copy_ecs_events,
    find_started_deployment,
    find_stopped_tasks,
    find_successor,
    is_created_again,
    is_verified,
    later_than_baseline,
    read_new_digest,
    read_service,
    read_service_deployment,
)
from upgrades.engine.stages import recall_configuration
from upgrades.models import Rollout
from upgrades.states import Outcome, Status
from upgrades.verdicts import ROLLBACK_STATUSES, Verdict, find_failure, judge, judge_by_id

logger = logging.getLogger(__name__)

# Statuses that a person may have caused, by a stop or by rolling back at a pause.
ENDED_BY_PERSON = ROLLBACK_STATUSES | {"STOPPED"}


def watch(lease: RolloutLease) -> None:
    """Watch the deployment: observe, send a decision or a stop if a person requested one, judge, then write or finish.

    If DescribeServices fails, the deployment is still asked for by its ARN, and only its own status decides.
    """
    rollout = lease.rollout
    service, error = observe_service(lease)
    is_other = is_created_again(lease, service)
    if rollout.service_deployment_arn is None and service is not None and not is_other:
        find_service_deployment_arn(lease)
    deployment = read_own_deployment(lease)
    if deployment is None and error is not None:
        raise error
    if deployment is None and is_other:
        return finish_when_confirmed(lease, build_created_again_verdict())
    if deployment is None and (service is None or service.status != "ACTIVE"):
        return finish_when_confirmed(lease, build_service_missing_verdict(rollout))
    is_decided = send_decisions(lease, deployment)
    verdict = judge_deployment(lease, service, deployment)
    note = request_stop(lease, deployment, verdict) if rollout.upgrade.stop_requested_at else None
    observed = build_observed_fields(lease, service, deployment, verdict) | {"stop_error": note}
    observed["check_error"] = summarize_error(error) if error else None
    if verdict.status == Status.SUCCESS and rollout.to_digest is None:
        observed |= {"to_digest": read_new_digest(lease)}
    has_news = copy_ecs_events(lease, service) or service is None
    observed["stopped_tasks"] = find_stopped_tasks(lease, observed, has_news=has_news or verdict.is_terminal)
    if verdict.is_terminal:
        is_gone = service is None and error is None
        return end_watch(lease, verdict, observed, is_described=deployment is not None, is_gone=is_gone)
    is_open = is_reported_open(rollout, service, deployment, verdict)
    if is_past_ecs_limit(rollout, lease.now) or (observed["is_overdue"] and not is_open):
        last_state = verdict.reason or "ECS still reports it in progress."
        return finish_when_confirmed(lease, build_timed_out_verdict(rollout, last_state), **observed)
    record_progress(lease, verdict, observed, is_decided=is_decided)


def observe_service(lease: RolloutLease) -> tuple[ecs.Service | None, AwsError | None]:
    """Return the service, None if it does not exist, or the error if it could not be read."""
    try:
        return read_service(lease).service(lease.rollout.service_name), None
    except AwsMissing:
        return None, None
    except AwsError as error:
        return None, error


def read_own_deployment(lease: RolloutLease) -> ecs.ServiceDeployment | None:
    """Read the rollout's service deployment. Drop one that UpdateService's reply named but that is not the rollout's."""
    deployment = read_service_deployment(lease)
    if deployment is None or is_verified(lease, deployment):
        return deployment
    logger.warning("rollout %s: %s is another deployment", lease.rollout.pk, deployment.arn)
    lease.write(service_deployment_arn=None)
    find_service_deployment_arn(lease)
    return read_service_deployment(lease)


def end_watch(
    lease: RolloutLease, verdict: Verdict, observed: dict[str, Any], *, is_described: bool, is_gone: bool
) -> None:
    """Finish, after a second observation if a stale read could show the same.

    `is_described`: the verdict is from the service deployment. `is_gone`: the service does not exist any more.
    """
    if verdict.outcome == Outcome.STOPPED and is_gone:
        return finish_when_confirmed(lease, build_service_missing_verdict(lease.rollout))
    is_doubtful = verdict.outcome == Outcome.STOPPED or (verdict.status == Status.FAILED and not is_described)
    if is_doubtful or verdict.needs_confirmation:
        return finish_when_confirmed(lease, verdict, **observed)
    finish_rollout(lease, verdict, **observed)


def is_reported_open(
    rollout: Rollout, service: ecs.Service | None, deployment: ecs.ServiceDeployment | None, verdict: Verdict
) -> bool:
    """Return whether ECS still reports the deployment as open, so that it may end by itself.

    Without the service deployment, only the service's entry about a rolling one, or about its rollback, shows it.
    """
    if deployment is not None or verdict.outcome == Outcome.ROLLING_BACK:
        return True
    if service is None or rollout.strategy not in (None, ecs.ROLLING):
        return False
    entry = service.deployment(rollout.deployment_id) if rollout.deployment_id else None
    return entry is not None and entry.rollout_state not in ("COMPLETED", "FAILED")


def find_service_deployment_arn(lease: RolloutLease) -> None:
    """Find the service deployment by its time and task definition, because UpdateService's reply did not name it."""
    found = find_started_deployment(lease)
    if found and found.arn:
        lease.write(service_deployment_arn=found.arn)


def request_stop(lease: RolloutLease, deployment: ecs.ServiceDeployment | None, verdict: Verdict) -> str | None:
    """Call StopServiceDeployment if the deployment can be stopped. Return a note for the page if that failed.

    If ECS does not describe the deployment, a stop that ECS accepted is not sent again: only the rollback shows it.
    """
    rollout = lease.rollout
    arn = deployment.arn if deployment else rollout.service_deployment_arn
    if arn is None:
        return "The stop cannot be sent: ECS does not give the ARN of this deployment (ecs:ListServiceDeployments)."
    if deployment:
        rolls = deployment.status in ("PENDING", "IN_PROGRESS")
    else:
        was_taken = rollout.stop_sent_at is not None and rollout.stop_error is None
        rolls = not (was_taken or verdict.is_terminal or verdict.outcome == Outcome.ROLLING_BACK)
    if not rolls:
        return None
    # Written before the call: if the reply is lost, the rollback that follows is still known to come from this stop.
    sent_before = rollout.stop_sent_at
    unanswered = "AWS has not answered the stop request yet. If no answer comes, the portal sends it again."
    lease.write(lease_until=Now() + get_lease_duration(), stop_sent_at=lease.now, stop_error=unanswered)
    try:
        ecs.stop_service_deployment(rollout.upgrade.aws_target, arn, before_call=lease.renew)
    except AwsUnavailable as error:
        if not error.may_have_happened:
            lease.write(stop_sent_at=sent_before)
        return f"{unanswered} {summarize_error(error)}"
    except AwsError as error:
        # The role lacks the permission, or the deployment has ended meanwhile. The next observation shows how.
        logger.info("rollout %s: stop refused: %s", rollout.pk, error)
        lease.write(stop_sent_at=sent_before)
        return f"The stop was refused. {summarize_error(error)}"
    return None


def judge_deployment(
    lease: RolloutLease, service: ecs.Service | None, deployment: ecs.ServiceDeployment | None
) -> Verdict:
    rollout = lease.rollout
    by = get_stopper_email(rollout) if rollout.stop_sent_at else None
    if by is None and (deployment is None or deployment.status in ENDED_BY_PERSON):
        by = find_decider(rollout)
    has_run = rollout.has_run or rollout.target_running > 0  # the previous release does not write has_run
    if deployment is not None:
        is_stopped = deployment.status == "STOPPED"
        later = find_successor(lease, service, deployment) if is_stopped else None
        return judge(
            deployment,
            superseded_by=later,
            stopped_by=by,
            shifted_at=rollout.traffic_shifted_at,
            has_run=has_run,
            is_idle=service is not None and service.is_idle,
            failure=read_failure(lease, service) if is_stopped else None,
        )
    if service is not None and rollout.deployment_id:
        return judge_by_id(
            service,
            rollout.deployment_id,
            baseline=rollout.baseline["deployment_ids"],
            since=later_than_baseline(lease),
            strategy=rollout.strategy or service.configuration.strategy,
            configuration=recall_configuration(rollout),
            was_rolling_back=rollout.outcome == Outcome.ROLLING_BACK,
            has_run=has_run,
            stopped_by=by,
        )
    # ECS reports neither its ARN nor its id. That proves nothing, so only the deadline ends the rollout.
    return Verdict(Status.IN_PROGRESS, None, "ECS did not report this deployment at the last check.")


def read_failure(lease: RolloutLease, service: ecs.Service | None) -> str | None:
    """Return why the service's entries and events say that the rollout's deployment failed; None if they do not."""
    rollout = lease.rollout
    if service is None or rollout.deployment_id is None:
        return None
    ids = rollout.baseline["deployment_ids"]
    return find_failure(service, rollout.deployment_id, baseline=ids, since=later_than_baseline(lease))
