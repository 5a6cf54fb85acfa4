"""The first step of a rollout: decide whether anything must change, commit the baseline, call UpdateService once.

If the end of the call is not known, `resolve` searches for its deployment before it calls again.
"""

import logging
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from portal.access import get_role
from portal.aws import ecs
from portal.aws.credentials import drop_session
from portal.aws.errors import EXPIRED, AwsError, AwsMissing, AwsUnavailable, summarize_error
from portal.database.identity import DatabaseIdentity
from portal.models import Role
from upgrades.engine.deadline import build_allowance_fields, is_past_deadline
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
)
from upgrades.engine.lease import RolloutLease, poll_seconds
from upgrades.engine.next_poll import finish_when_confirmed
from upgrades.engine.observe import (
    StartedDeployment,
    as_baseline,
    build_counts,
    find_started_deployment,
    get_baseline_time,
    is_created_again,
    is_of_call,
    list_since,
    read_service,
)
from upgrades.engine.restored import NOTE, build_baseline, build_deployed_since_verdict, may_have_been_called
from upgrades.estimates import stall_seconds
from upgrades.events import describe_revision, describe_start, record_event
from upgrades.inventory.images import VersionMissing
from upgrades.models import Rollout
from upgrades.states import EventKind, Outcome, Phase, Status
from upgrades.verdicts import Verdict

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# Minimum number of searches for a lost call's deployment before the call is assumed to have started nothing.
OBSERVATIONS_BEFORE_RETRY = 3
CHANGED_MEANWHILE = "The service changed while the upgrade was prepared. The portal reads it again."


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
