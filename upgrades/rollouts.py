"""One service's rollout, step by step: claim it, do the one thing that its phase asks for, write what came of it.

    due -> start() -> calling -> watching -> done          states.py says what each phase means
             '-- call() --'  '-- resolve() after an ambiguous end

Never lost: a rollout that is not done is due again and again, whoever dies. Never doubled: the baseline is committed
before UpdateService is called, the call is made once, and after an ambiguous end resolve() looks for the deployment that
the call started before anybody calls again. No AWS call is made inside a transaction. Every write carries the lease's
epoch, so a worker that lost its lease changes nothing. Rules: spec/upgrade-semantics.md.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction

from portal.aws import ecs
from portal.aws.credentials import forget
from portal.aws.errors import EXPIRED, AwsDenied, AwsError, AwsMissing, AwsUnavailable
from upgrades.claims import Claim, LeaseLost, is_past_deadline, poll_seconds, take
from upgrades.endings import finish, lock_upgrade, refresh_upgrade, refused, service_missing, stopped_by, timed_out
from upgrades.looks import (
    cluster_of,
    counts_of,
    find_mine,
    find_successor,
    keep_events,
    read_mine,
    read_service,
    seen_of,
    version_of,
)
from upgrades.states import Outcome, Phase, Status, Verdict, judge, judge_by_id

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3


def advance(rollout_id: int) -> bool:
    """Do the one next step of the rollout, if it is due and nobody else does. Returns whether a step was made.

    Safe to call at any time, any number of times, from any process. At most five AWS calls.
    """
    claim = take(rollout_id)
    if claim is None:
        return False
    step = {Phase.DUE: start, Phase.CALLING: resolve, Phase.WATCHING: watch}[Phase(claim.rollout.phase)]
    try:
        try:
            step(claim)
        except AwsError as error:
            logger.warning("rollout %s in %s: %s", rollout_id, claim.rollout.phase, error)
            note_failed_look(claim, f"{error.action}: {error.message}")
        except (DatabaseError, LeaseLost):
            raise
        except Exception:
            # A row that no step can handle must neither stop the others nor stay open beyond its deadline.
            logger.exception("rollout %s in %s failed", rollout_id, claim.rollout.phase)
            note_failed_look(claim, "The portal failed to handle this rollout; its log says why.")
    except LeaseLost:
        logger.warning("rollout %s: lease lost, nothing written", rollout_id)
    return True


# --- due: look, decide whether there is anything to do, commit the baseline, call -----------------------------------


def start(claim: Claim) -> None:
    """1. Look. 2. End at once where there is nothing to roll. 3. Commit the baseline. 4. Call."""
    rollout = claim.rollout
    if rollout.upgrade.stop_requested_at:
        return finish(
            claim, Verdict(Status.FAILED, Outcome.NOT_ATTEMPTED, f"{stopped_by(rollout)} stopped the upgrade.")
        )
    if is_past_deadline(claim):
        return finish(claim, timed_out(rollout, "It was never started."))
    try:
        reading = read_service(claim)
        service = reading.services.get(rollout.service_name)
        if service is None or service.status != "ACTIVE":
            return finish(claim, service_missing(rollout))
        claim.renew()
        definition = ecs.describe_task_definition(rollout.organization.aws_target, service.task_definition)
    except AwsUnavailable:
        raise
    except AwsError as error:
        return finish(claim, refused(rollout, error))
    version = version_of(definition, rollout.service)
    seen = {**counts_of(service), "from_version": version, "previous_task_definition": service.task_definition}
    if service.desired_count == 0:
        reason = f"{service.name} has a desired count of 0: it is disabled, there is nothing to roll."
        return finish(claim, Verdict(Status.SKIPPED, Outcome.DISABLED, reason), **seen)
    if not rollout.upgrade.force_new_deployment:
        reason = (
            f"{service.name} already runs {version or 'this image'} and the rollout was not forced: nothing to change."
        )
        unchanged = {"to_version": version, "task_definition": service.task_definition}
        return finish(claim, Verdict(Status.SUCCESS, Outcome.NO_CHANGE, reason), **seen, **unchanged)
    commit_baseline(claim, service, reading, {**seen, "to_version": version})
    call(claim)


def commit_baseline(claim: Claim, service: ecs.Service, reading: ecs.ServicesReading, seen: dict[str, Any]) -> None:
    """What there was before my call, so that whoever comes next can tell my deployment from all others."""
    rollout = claim.rollout
    claim.write(
        **seen,
        phase=Phase.CALLING,
        attempts=rollout.attempts + 1,
        task_definition=service.task_definition,
        started_at=rollout.started_at or claim.now,
        progressed_at=claim.now,
        check_error=None,
        baseline={
            "deployment_ids": [deployment.id for deployment in service.deployments],
            "service_deployment": service.current_service_deployment,
            "answered_at": reading.answered_at.isoformat(),
            "called_at": claim.now.isoformat(),
        },
    )


def call(claim: Claim) -> None:
    """UpdateService, once. A definite refusal ends the rollout; an ambiguous end leaves it to resolve()."""
    rollout = claim.rollout
    target = rollout.organization.aws_target
    claim.renew()
    try:
        service = ecs.update_service(
            target,
            cluster_of(rollout),
            rollout.service_name,
            task_definition=str(rollout.task_definition),
            force_new_deployment=rollout.upgrade.force_new_deployment,
        )
    except AwsUnavailable as error:
        logger.warning("rollout %s attempt %s: %s", rollout.pk, rollout.attempts, error)
        if error.code in EXPIRED:
            forget(target)
        if error.may_have_happened:
            return claim.release(seconds=poll_seconds(), check_error=error.message)
        # Refused at the door (throttled, not connected): nothing happened, so the next turn begins anew.
        fields = {"phase": Phase.DUE, "attempts": rollout.attempts - 1, "check_error": error.message}
        return claim.release(seconds=2 * poll_seconds(), **fields)
    except AwsError as error:
        return finish(claim, refused(rollout, error))
    follow_reply(claim, service)


def follow_reply(claim: Claim, service: ecs.Service) -> None:
    """Record the deployment that UpdateService's own reply names, if it is new; else resolve() finds it."""
    baseline = claim.rollout.baseline
    primary = service.primary
    if primary is None or primary.id in baseline["deployment_ids"]:
        return claim.release(seconds=poll_seconds())
    arn = service.current_service_deployment
    follow(claim, deployment_id=primary.id, arn=arn if arn != baseline["service_deployment"] else None)


def follow(claim: Claim, *, deployment_id: str | None, arn: str | None, note: str | None = None) -> None:
    logger.info("rollout %s follows %s %s", claim.rollout.pk, deployment_id, arn)
    claim.release(
        seconds=0,
        phase=Phase.WATCHING,
        deployment_id=deployment_id,
        service_deployment_arn=arn,
        rollout_reason=note,
        check_error=None,
    )


# --- calling: the call's end is not known; look before anybody calls again ------------------------------------------


def resolve(claim: Claim) -> None:
    """Adopt the deployment that my lost call started; call again only when none became visible in time."""
    rollout = claim.rollout
    if is_past_deadline(claim):
        return finish(
            claim, timed_out(rollout, "UpdateService was called; its answer was lost and no deployment seen.")
        )
    found = find_mine(claim)
    if found is not None:
        return follow(claim, deployment_id=found.deployment_id, arn=found.arn, note=found.note)
    waited = claim.now - datetime.fromisoformat(rollout.baseline["called_at"])
    if waited < timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS):
        return claim.release(seconds=poll_seconds())
    if rollout.attempts >= MAX_ATTEMPTS:
        reason = f"UpdateService was called {rollout.attempts} times; no answer came and no deployment started."
        return finish(claim, Verdict(Status.FAILED, Outcome.REFUSED, reason))
    logger.warning("rollout %s: attempt %s started nothing, calling again", rollout.pk, rollout.attempts)
    claim.write(phase=Phase.DUE)
    start(claim)


# --- watching: judge the deployment that is mine ---------------------------------------------------------------------


def watch(claim: Claim) -> None:
    """1. Look. 2. Ask ECS to stop, if a person asked us to. 3. Judge. 4. Write what was seen, or end."""
    rollout = claim.rollout
    try:
        reading = read_service(claim)
    except AwsMissing:
        reading = None
    service = reading.services.get(rollout.service_name) if reading else None
    if rollout.service_deployment_arn is None and service is not None:
        look_up_arn(claim)
    mine = read_mine(claim)
    if mine is None and (service is None or service.status != "ACTIVE"):
        return doubt(claim, service_missing(rollout))
    if mine is not None and mine.status in ("PENDING", "IN_PROGRESS") and rollout.upgrade.stop_requested_at:
        claim.renew()
        request_stop(claim, mine.arn)
    verdict = judge_mine(claim, service, mine)
    seen = seen_of(claim, service, mine, verdict)
    keep_events(rollout, service)
    if verdict.outcome == Outcome.STOPPED and service is None:
        return doubt(claim, service_missing(rollout))
    if verdict.outcome == Outcome.STOPPED:
        return doubt(claim, verdict, **seen)
    if verdict.is_terminal:
        return finish(claim, verdict, **seen)
    if is_past_deadline(claim):
        return finish(claim, timed_out(rollout, verdict.reason or "ECS still reports it in progress."), **seen)
    go_on(claim, verdict, seen)


def look_up_arn(claim: Claim) -> None:
    """UpdateService's reply named no new service deployment: find it by its time and task definition."""
    try:
        found = find_mine(claim)
    except AwsDenied:
        return  # DescribeServices alone must do: judge_by_id
    if found and found.arn:
        claim.write(service_deployment_arn=found.arn)


def request_stop(claim: Claim, arn: str) -> None:
    """StopServiceDeployment; a refusal only means that the deployment ended meanwhile, and the next look says how."""
    try:
        ecs.stop_service_deployment(claim.rollout.organization.aws_target, arn)
    except (AwsUnavailable, AwsDenied):
        raise
    except AwsError as error:
        logger.info("rollout %s: stop refused: %s", claim.rollout.pk, error)


def judge_mine(claim: Claim, service: ecs.Service | None, mine: ecs.ServiceDeployment | None) -> Verdict:
    rollout = claim.rollout
    if mine is not None:
        later = None
        if mine.status == "STOPPED":
            claim.renew()
            later = find_successor(rollout, mine)
        by = stopped_by(rollout) if rollout.upgrade.stop_requested_at else None
        return judge(mine, superseded_by=later, stopped_by=by)
    if service is not None and rollout.deployment_id and rollout.service_deployment_arn is None:
        return judge_by_id(service, rollout.deployment_id)
    # ECS did not name it this time. Nothing is concluded from what is absent; the deadline ends it.
    return Verdict(Status.IN_PROGRESS, None, "ECS did not report this deployment at the newest look.")


# --- between two looks ------------------------------------------------------------------------------------------


def go_on(claim: Claim, verdict: Verdict, seen: dict[str, Any]) -> None:
    """Still running: write what was seen. A status never goes back from IN_PROGRESS to PENDING (a read may be stale)."""
    rollout = claim.rollout
    status = rollout.status if verdict.status == Status.PENDING else verdict.status
    with transaction.atomic():
        upgrade = lock_upgrade(rollout)
        claim.release(seconds=seconds_to_next_look(claim), status=status, outcome=verdict.outcome, **seen)
        refresh_upgrade(upgrade)


def doubt(claim: Claim, verdict: Verdict, **seen: Any) -> None:
    """A verdict that a stale read could fake is believed when it was seen twice, with the time between that reads lag."""
    rollout = claim.rollout
    lag = timedelta(seconds=settings.UPGRADE_ADOPT_SECONDS)
    if rollout.doubted_at is not None and claim.now - rollout.doubted_at >= lag:
        return finish(claim, verdict, **seen)
    fields = seen | {"doubted_at": rollout.doubted_at or claim.now, "rollout_reason": verdict.reason}
    claim.release(seconds=poll_seconds(), **fields)


def note_failed_look(claim: Claim, why: str) -> None:
    """Throttled, refused or unreachable: the state stays as it was, and the page says since when."""
    if is_past_deadline(claim):
        return finish(claim, timed_out(claim.rollout, f"AWS could not be asked. {why}"))
    claim.release(seconds=5 * poll_seconds(), check_error=why)


def seconds_to_next_look(claim: Claim) -> float:
    """Often while young, less often when old: a stalled rollout must not eat AWS's limits."""
    age = claim.now - (claim.rollout.started_at or claim.now)
    if age < timedelta(minutes=2):
        return poll_seconds()
    return poll_seconds() * (3 if age < timedelta(minutes=10) else 8)
