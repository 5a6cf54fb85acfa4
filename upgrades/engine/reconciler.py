"""Advances one service's rollout: claim it, run the step for its phase, write the result.

    due -> start() -> calling -> watching -> done          states.py explains the phases
             '-- call() --'  '-- resolve() after an ambiguous end

Never lost: a rollout that is not done becomes due again, even if a worker dies. Never doubled: the baseline is committed
before UpdateService is called, and the call is made once. After an ambiguous end, resolve() first searches for the
deployment that the call started. Only then may UpdateService be called again.

No AWS call is made inside a transaction. Every write checks the lease's epoch, so a worker that lost its lease changes
nothing.
"""

import logging
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from portal.access import get_role
from portal.aws import ecs
from portal.aws.credentials import drop_session
from portal.aws.errors import EXPIRED, AwsError, AwsMissing, AwsUnavailable, summarize_error
from portal.database.identity import DatabaseIdentity
from portal.leases import get_lease_duration, kept, run_guarded
from portal.models import Role
from portal.request_id import carrying
from portal.tenancy import organizations
from upgrades.engine.deadline import build_allowance_fields, is_past_deadline, is_past_ecs_limit
from upgrades.engine.decide import find_decider, send_decisions
from upgrades.engine.desired import ensure_revision, find_desired, read_running_version, read_version
from upgrades.engine.finish import (
    build_changed_since_verdict,
    build_created_again_verdict,
    build_refused_verdict,
    build_service_missing_verdict,
    build_superseded_verdict,
    build_timed_out_verdict,
    finish_rollout,
    get_stopper_email,
    other_controller,
    refresh_upgrade,
)
from upgrades.engine.lease import RolloutLease, claim_rollout, poll_seconds
from upgrades.engine.observe import (
    StartedDeployment,
    as_baseline,
    build_counts,
    build_observed_fields,
    copy_ecs_events,
    find_started_deployment,
    find_stopped_tasks,
    find_successor,
    get_baseline_time,
    is_created_again,
    is_of_call,
    is_verified,
    later_than_baseline,
    list_since,
    read_new_digest,
    read_service,
    read_service_deployment,
)
from upgrades.engine.restored import NOTE, build_baseline, build_deployed_since_verdict, may_have_been_called
from upgrades.engine.stages import recall_configuration
from upgrades.estimates import stall_seconds
from upgrades.events import describe_revision, describe_start, record_event, record_overdue, record_progress_events
from upgrades.inventory.images import VersionMissing
from upgrades.models import Rollout, Upgrade
from upgrades.states import EventKind, Outcome, Phase, Status
from upgrades.verdicts import ROLLBACK_STATUSES, Verdict, find_failure, judge, judge_by_id

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# Minimum number of searches for a lost call's deployment before the call is assumed to have started nothing.
OBSERVATIONS_BEFORE_RETRY = 3
# Statuses that a person may have caused, by a stop or by rolling back at a pause.
ENDED_BY_PERSON = ROLLBACK_STATUSES | {"STOPPED"}
CHANGED_MEANWHILE = "The service changed while the upgrade was prepared. The portal reads it again."


def advance(rollout_id: int) -> bool:
    """Run the next step of the rollout if it is due and no other worker holds it. Return whether a step ran.

    Safe to call at any time, any number of times, from any process. Costs about ten AWS calls at most.
    """
    lease = claim_rollout(rollout_id)
    if lease is None:
        return False
    crash = "The portal could not process this rollout. See the worker's log for the error."
    with organizations(lease.rollout.organization_id), carrying(lease.rollout.upgrade.request_id), kept(lease):
        run_guarded(
            f"rollout {rollout_id} in {lease.rollout.phase}",
            lambda: run_step(lease),
            record_crash=lambda: record_failed_observation(lease, crash),
        )
    return True


def run_step(lease: RolloutLease) -> None:
    """Run the step for the rollout's phase. Record in the row that AWS failed, if it did."""
    step = {Phase.DUE: start, Phase.CALLING: resolve, Phase.WATCHING: watch}[Phase(lease.rollout.phase)]
    try:
        step(lease)
    except AwsError as error:
        logger.warning("rollout %s in %s: %s", lease.rollout.pk, lease.rollout.phase, error)
        if error.code in EXPIRED:
            drop_session(lease.rollout.upgrade.aws_target)
        record_failed_observation(lease, summarize_error(error), error)


# --- due: observe, decide whether anything must change, commit the baseline, call -----------------------------------


def start(lease: RolloutLease) -> None:
    """Start the rollout: observe, find the desired revision, commit the baseline, call UpdateService.

    1. Observe the service. 2. Find the desired task definition or image. 3. Finish immediately if nothing must change, or
    if a rollback would undo a later change. 4. Find or register the revision. 5. Observe the service again: if anyone
    deployed it meanwhile, start over. 6. Commit the baseline. 7. Call.

    If the worker is killed before 6, the step starts over and finds the revision that it registered.
    """
    rollout = lease.rollout
    if may_have_been_called(rollout):
        return search_restored(lease)
    why_not = find_reason_not_to_start(rollout)
    if why_not:
        return finish_rollout(lease, Verdict(Status.FAILED, Outcome.NOT_ATTEMPTED, why_not))
    if is_past_deadline(rollout, lease.now):
        return finish_rollout(lease, build_timed_out_verdict(rollout, "not started."))
    try:
        service = read_service(lease).service(rollout.service_name)
        if service is None or service.status != "ACTIVE":
            return finish_rollout(lease, build_service_missing_verdict(rollout))
        verdict, observed = prepare_call(lease, service)
        reading = None if verdict else read_service(lease)
    except AwsUnavailable:
        raise
    except VersionMissing as error:
        reason = f"{rollout.wanted_version} is not available: {error}. Nothing was changed."
        return finish_rollout(lease, Verdict(Status.FAILED, Outcome.NOT_ATTEMPTED, reason))
    except AwsError as error:
        return finish_rollout(lease, build_refused_verdict(rollout, error))
    if verdict or reading is None:
        return finish_rollout(lease, verdict or build_service_missing_verdict(rollout), **observed)
    latest = reading.service(rollout.service_name)
    if latest is None or has_changed(service, latest):
        return lease.release(seconds=poll_seconds(), check_error=CHANGED_MEANWHILE)
    commit_baseline(lease, latest, reading, observed)
    call_update_service(lease)


def search_restored(lease: RolloutLease) -> None:
    """Adopt the deployment that a call after the backup started. If none is found in time, the rollout starts as usual.

    A deployment to the desired revision that anyone started since the request counts as the rollout's own.
    """
    rollout = lease.rollout
    reading = read_service(lease)
    service = reading.service(rollout.service_name)
    if service is None or service.status != "ACTIVE":
        return finish_when_confirmed(lease, build_service_missing_verdict(rollout))
    try:
        _, observed = prepare_call(lease, service)
    except AwsUnavailable:
        raise
    except (AwsError, VersionMissing):
        return end_search(lease)  # start() gives the reason
    if "task_definition" not in observed:
        return end_search(lease)
    baseline = rollout.baseline or build_baseline(lease, service, reading.answered_at)
    lease.write(**observed, baseline=baseline)
    found = find_started_deployment(lease)
    if found is not None:
        return follow_restored(lease, service, found)
    if is_searched_again(lease):
        return None
    if was_deployed_since(lease, service):
        return finish_rollout(lease, build_deployed_since_verdict(str(service.task_definition)))
    end_search(lease)


def was_deployed_since(lease: RolloutLease, service: ecs.Service) -> bool:
    """Return whether anyone has deployed another revision since the request. The portal must not call over it."""
    since = get_baseline_time(lease)
    return any(each.created_at >= since for each in service.deployments) or bool(list_since(lease, since))


def end_search(lease: RolloutLease) -> None:
    """Let the rollout start as usual: nothing was started before this database answered."""
    found = {"task_definition": None, "previous_task_definition": None, "to_version": None, "to_digest": None}
    lease.release(seconds=0, database=DatabaseIdentity(), baseline={}, **found)


def follow_restored(lease: RolloutLease, service: ecs.Service, found: StartedDeployment) -> None:
    """Follow the deployment. What ran before it is not known if the service already has the desired revision."""
    rollout = lease.rollout
    fields: dict[str, Any] = {}
    if rollout.wanted_image and rollout.previous_task_definition == rollout.task_definition:
        fields = {"previous_task_definition": None, "from_version": None, "from_digest": None}
    lease.write(
        **fields,
        attempts=1,
        started_at=rollout.started_at or lease.now,
        progressed_at=lease.now,
        **build_configuration_fields(rollout, service),
        stall_seconds=stall_seconds(rollout.organization, rollout.service),
        database=DatabaseIdentity(),
    )
    follow(lease, replace(found, note=NOTE))


def has_changed(service: ecs.Service, latest: ecs.Service) -> bool:
    """Return whether anyone deployed the service, or switched it off or on, since it was read for the decision."""
    before, after = ({each.id for each in read.deployments} for read in (service, latest))
    is_deployed = service.task_definition != latest.task_definition or bool(after - before)
    return is_deployed or service.is_switched_off != latest.is_switched_off


def prepare_call(lease: RolloutLease, service: ecs.Service) -> tuple[Verdict | None, dict[str, Any]]:
    """Find or register the revision to call UpdateService with.

    *Returns* the verdict if the rollout ends without a call, otherwise None, and the rollout's fields to write.
    """
    rollout = lease.rollout
    counts = build_counts(service)
    if service.is_foreign:
        return other_controller(rollout, service.controller), counts
    definition = read_definition(lease, str(service.task_definition))
    before = {**counts, "previous_task_definition": definition.arn}
    if service.is_switched_off:
        reason = f"{service.name} is disabled (desired count is 0), so there was nothing to roll."
        verdict = Verdict(Status.SKIPPED, Outcome.DISABLED, reason)
        return verdict, {**before, "from_version": read_version(lease, definition)}
    running = read_running_version(lease, service, definition)
    desired = find_desired(lease, definition, running)
    before = {**before, "from_version": running.version, "from_digest": running.digest}
    if desired.is_no_change and not rollout.upgrade.force_new_deployment:
        name = running.version or "this image"
        reason = f"{service.name} already runs {name} and no new deployment was forced, so there was nothing to change."
        digest = running.digest or desired.digest
        unchanged = {"to_version": desired.version, "to_digest": digest, "task_definition": definition.arn}
        return Verdict(Status.SUCCESS, Outcome.NO_CHANGE, reason), before | unchanged
    if rollout.wanted_task_definition and definition.arn not in (
        find_left_task_definition(rollout),
        desired.task_definition,
    ):
        return build_changed_since_verdict(rollout, definition.arn, running.version), before
    arn = ensure_revision(lease, definition, desired)
    return None, {**before, "to_version": desired.version, "to_digest": desired.digest, "task_definition": arn}


def read_definition(lease: RolloutLease, arn: str) -> ecs.TaskDefinition:
    lease.renew()
    return ecs.describe_task_definition(lease.rollout.upgrade.aws_target, arn)


def find_left_task_definition(rollout: Rollout) -> str | None:
    """Return the task definition that the upgrade to roll back left the service with, if known."""
    original = Rollout.objects.filter(upgrade=rollout.upgrade.rolls_back_id, service=rollout.service).first()
    return original.task_definition if original else None


def find_reason_not_to_start(rollout: Rollout) -> str | None:
    """Return why the rollout may no longer write to AWS since the trigger, or None.

    A deployment that is already rolling is watched to its end anyway.
    """
    upgrade = rollout.upgrade
    if upgrade.stop_requested_at:
        return f"{get_stopper_email(rollout)} stopped the upgrade."
    if not rollout.organization.is_active:
        return f"{rollout.organization.name} was suspended after the upgrade was triggered."
    role = get_role(upgrade.initiated_by, rollout.organization)
    if role is None or not role.includes(Role.OPERATOR):
        return f"{upgrade.initiated_by_email} may no longer upgrade services of {rollout.organization.name}."
    return None


def commit_baseline(
    lease: RolloutLease, service: ecs.Service, reading: ecs.ServicesReading, observed: dict[str, Any]
) -> None:
    """Commit the deployments that exist before the call, so that any worker can identify the one that the call starts."""
    rollout = lease.rollout
    is_new = not rollout.wanted_task_definition and is_newly_registered(rollout, observed)
    with transaction.atomic():
        lease.write(
            **observed,
            phase=Phase.CALLING,
            attempts=rollout.attempts + 1,
            started_at=rollout.started_at or lease.now,
            progressed_at=lease.now,
            **build_configuration_fields(rollout, service),
            stall_seconds=stall_seconds(rollout.organization, rollout.service),
            check_error=None,
            baseline={
                "deployment_ids": [deployment.id for deployment in service.deployments],
                "service_deployment": service.current_service_deployment,
                "answered_at": reading.answered_at.isoformat(),
                **as_baseline(service.created_at),
            },
        )
        if is_new:
            record_event(rollout.upgrade, EventKind.REVISION_REGISTERED, describe_revision(rollout), rollout=rollout)


def build_configuration_fields(rollout: Rollout, service: ecs.Service) -> dict[str, Any]:
    """Return the fields for how ECS deploys: it copies the service's configuration into the deployment at the call.

    The deployment's own copy replaces them once it is read. A role may not be able to read it.
    """
    configuration = service.configuration
    fields = {"strategy": configuration.strategy, "configuration": asdict(configuration)}
    return fields | build_allowance_fields(rollout, configuration)


def is_newly_registered(rollout: Rollout, observed: dict[str, Any]) -> bool:
    """Return whether the revision was registered for this rollout.

    That is so if the service did not run it and no earlier rollout names it.
    """
    arn = observed["task_definition"]
    if arn == observed["previous_task_definition"]:
        return False
    rolled = Rollout.objects.filter(organization=rollout.organization_id, service=rollout.service)
    return not rolled.filter(Q(task_definition=arn) | Q(previous_task_definition=arn)).exists()


def call_update_service(lease: RolloutLease) -> None:
    """Call UpdateService once. A definite refusal ends the rollout. After an ambiguous end, resolve() takes over.

    Also forces a new deployment if the task definition stays the same: without force ECS would start nothing. Then the
    tasks run another image than it names, or its deployment has not ended well.
    """
    rollout = lease.rollout
    stays = rollout.task_definition == rollout.previous_task_definition
    target = rollout.upgrade.aws_target
    lease.renew()
    try:
        service = ecs.update_service(
            target,
            rollout.upgrade.cluster,
            rollout.service_name,
            task_definition=str(rollout.task_definition),
            force_new_deployment=rollout.upgrade.force_new_deployment or stays,
            before_call=lease.renew,
        )
    except AwsUnavailable as error:
        logger.warning("rollout %s attempt %s: %s", rollout.pk, rollout.attempts, error)
        if error.code in EXPIRED:
            drop_session(target)
        if error.may_have_happened:
            return lease.release(seconds=poll_seconds(), check_error=summarize_error(error))
        # Not executed (throttled, not connected). The first attempt starts over. A later one keeps the baseline of the
        # first, because the deployment of the first attempt's lost call may still appear.
        fields = {"attempts": rollout.attempts - 1, "check_error": summarize_error(error)}
        fields |= {"phase": Phase.DUE, "to_digest": None} if rollout.attempts == 1 else {}
        return lease.release(seconds=2 * poll_seconds(), **fields)
    except AwsError as error:
        return finish_rollout(lease, build_refused_verdict(rollout, error))
    follow_reply(lease, service)


def follow_reply(lease: RolloutLease, service: ecs.Service) -> None:
    """Follow the deployment that UpdateService's reply names if it is new and ours. Otherwise resolve() finds it."""
    baseline = lease.rollout.baseline
    primary = service.primary
    if primary is None or primary.id in baseline["deployment_ids"] or not is_of_call(lease, primary):
        return lease.release(seconds=poll_seconds())
    arn = service.current_service_deployment
    new_arn = arn if arn != baseline["service_deployment"] else None
    follow(lease, StartedDeployment(primary.id, new_arn, None, service.created_at))


def follow(lease: RolloutLease, started: StartedDeployment) -> None:
    """Watch the deployment from now on. The call may have reached a service that was created after the baseline."""
    rollout = lease.rollout
    logger.info("rollout %s follows %s %s", rollout.pk, started.deployment_id, started.arn)
    with transaction.atomic():
        lease.release(
            seconds=0,
            phase=Phase.WATCHING,
            deployment_id=started.deployment_id,
            service_deployment_arn=started.arn,
            attribution_note=started.note,
            baseline=rollout.baseline | as_baseline(started.service_created_at),
            check_error=None,
        )
        record_event(rollout.upgrade, EventKind.ROLLOUT_STARTED, describe_start(rollout), rollout=rollout)


# --- calling: the result of the call is not known, search for its deployment before calling again --------------------


def resolve(lease: RolloutLease) -> None:
    """Adopt the deployment that a lost call started. Call again only if none appears in time.

    The time counts from the first observation after the call and takes several observations, because reads may lag behind
    the call. UpdateService is not called again over a deployment from outside. The baseline of the first attempt stays, so
    that a deployment of any attempt is recognized as the rollout's own.
    """
    rollout = lease.rollout
    try:
        found = find_started_deployment(lease)
    except AwsMissing:
        return finish_when_confirmed(lease, build_service_missing_verdict(rollout))
    if found is not None:
        return follow(lease, found)
    service = read_service(lease).service(rollout.service_name)
    if is_created_again(lease, service):
        return finish_when_confirmed(lease, build_created_again_verdict())
    if is_past_deadline(rollout, lease.now):
        last_state = "the reply to UpdateService was lost and no deployment was found."
        return finish_when_confirmed(lease, build_timed_out_verdict(rollout, last_state))
    if is_searched_again(lease):
        return None
    why_not = find_reason_not_to_start(rollout)
    if why_not:
        return finish_rollout(lease, Verdict(Status.FAILED, Outcome.NOT_ATTEMPTED, f"No deployment started. {why_not}"))
    if rollout.attempts >= MAX_ATTEMPTS:
        reason = (
            f"No reply to {rollout.attempts} UpdateService calls, and no deployment started. Check ECS, then retry."
        )
        return finish_rollout(lease, Verdict(Status.FAILED, Outcome.REFUSED, reason))
    known = (None, rollout.previous_task_definition, rollout.task_definition)
    if service and service.task_definition not in known:
        return finish_rollout(lease, build_superseded_verdict(str(service.task_definition)))
    logger.warning("rollout %s: attempt %s started nothing, calling again", rollout.pk, rollout.attempts)
    baseline = {name: value for name, value in rollout.baseline.items() if name not in ("looks", "looked_at")}
    lease.write(attempts=rollout.attempts + 1, baseline=baseline)
    call_update_service(lease)


def is_searched_again(lease: RolloutLease) -> bool:
    """Release the rollout for another search and return True, unless the search has lasted long enough."""
    rollout = lease.rollout
    observations = rollout.baseline.get("looks", 0) + 1
    first_observed_at = rollout.baseline.get("looked_at") or lease.now.isoformat()
    waited = lease.now - datetime.fromisoformat(first_observed_at)
    if observations < OBSERVATIONS_BEFORE_RETRY or waited < timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS):
        baseline = rollout.baseline | {"looks": observations, "looked_at": first_observed_at}
        lease.release(seconds=poll_seconds(), baseline=baseline)
        return True
    return False


# --- watching: judge the rollout's own deployment --------------------------------------------------------------------


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
    has_run = rollout.target_running > 0
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


# --- between two observations -----------------------------------------------------------------------------------


def record_progress(
    lease: RolloutLease, verdict: Verdict, observed: dict[str, Any], *, is_decided: bool = False
) -> None:
    """Write the progress of a rollout that still runs. After a decision, ECS is read again soon.

    A status never goes back from IN_PROGRESS to PENDING, because the read may be stale.
    """
    rollout = lease.rollout
    status = rollout.status if verdict.status == Status.PENDING else verdict.status
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(rollout.upgrade_id)
        record_progress_events(upgrade, rollout, verdict, observed)
        if observed["is_overdue"] and rollout.overdue_notified_at is None:
            record_overdue(upgrade, rollout, verdict.reason or "ECS still reports it in progress.")
            observed |= {"overdue_notified_at": lease.now}
        seconds = poll_seconds() if is_decided else seconds_to_next_poll(lease)
        lease.release(seconds=seconds, status=status, outcome=verdict.outcome, **observed)
        refresh_upgrade(upgrade)


def finish_when_confirmed(lease: RolloutLease, verdict: Verdict, **observed: Any) -> None:
    """Finish with a verdict that a stale read could fake only if a second read confirms it after the read lag."""
    rollout = lease.rollout
    lag = timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS)
    if rollout.doubted_at is not None and lease.now - rollout.doubted_at >= lag:
        return finish_rollout(lease, verdict, **observed)
    fields = observed | {"doubted_at": rollout.doubted_at or lease.now, "rollout_reason": verdict.reason}
    lease.release(seconds=poll_seconds(), **fields)


def record_failed_observation(lease: RolloutLease, why: str, error: AwsError | None = None) -> None:
    """Record that ECS could not be read. The state stays unchanged, and the page shows since when.

    Past the deadline, only a definite refusal ends the rollout: if AWS does not answer, ECS may still be rolling. Before
    the call, nothing can be rolling.
    """
    rollout = lease.rollout
    if not is_past_deadline(rollout, lease.now):
        return lease.release(seconds=5 * poll_seconds(), check_error=why)
    verdict = build_timed_out_verdict(rollout, f"AWS could not be read. {why}")
    is_not_called = rollout.phase == Phase.DUE and not may_have_been_called(rollout)
    if is_not_called or is_past_ecs_limit(rollout, lease.now):
        return finish_rollout(lease, verdict)
    if error is not None and not isinstance(error, AwsUnavailable):
        return finish_when_confirmed(lease, verdict, check_error=why)
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(rollout.upgrade_id)
        fields: dict[str, Any] = {"check_error": why, "is_overdue": True}
        if rollout.overdue_notified_at is None:
            record_overdue(upgrade, rollout, f"AWS could not be read. {why}")
            fields["overdue_notified_at"] = lease.now
        lease.release(seconds=8 * poll_seconds(), **fields)


def seconds_to_next_poll(lease: RolloutLease) -> float:
    """Return the polling interval: short for a young rollout, longer later, so that a stalled one spares AWS's limits."""
    age = lease.now - (lease.rollout.started_at or lease.now)
    if age < timedelta(minutes=2):
        return poll_seconds()
    return poll_seconds() * (3 if age < timedelta(minutes=10) else 8)
