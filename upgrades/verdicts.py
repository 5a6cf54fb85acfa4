"""Judges a rollout by the deployment that its own UpdateService call started. Pure: no database, no AWS, no clock.

A rollout is never judged by the newest deployment, nor by running == desired, which is also true after a rollback.
states.py holds the statuses and outcomes, and how an upgrade follows from its rollouts.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from portal.aws.ecs import (
    PAUSE_HOOK,
    ROLLING,
    Deployment,
    DeploymentConfiguration,
    LifecycleHook,
    Service,
    ServiceDeployment,
    ServiceEvent,
)
from upgrades.states import NO_TASK_HAS_RUN, NO_TASK_RUNS, TERMINAL, Outcome, Status


@dataclass(frozen=True)
class Verdict:
    """Result of judging one observation of a rollout's own deployment.

    `is_resting`: ECS waits on purpose, so a standstill is no stall. `needs_confirmation`: a stale read could show the same.
    """

    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    is_resting: bool = False
    needs_confirmation: bool = False

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


ROLLBACK_STATUSES = frozenset({"ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"})
ALL_TRAFFIC = 100.0
# Stages after the last shift: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
STAGES_AFTER_SHIFT = frozenset({"POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP"})
# At these stages something has to progress. At others ECS waits, shifts traffic, or does what the portal does not know.
STAGES_OF_PROGRESS = frozenset(
    {
        *("RECONCILE_SERVICE", "PRE_SCALE_UP", "SCALE_UP", "POST_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT"),
        *("PRE_PRODUCTION_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT", "CLEAN_UP"),
    }
)


HOOK_STATUSES = frozenset({"AWAITING_ACTION", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT"})


def is_rolling_back(deployment: ServiceDeployment) -> bool:
    """Return whether ECS rolls the deployment back or has done so. Its stage and hooks then say nothing."""
    return deployment.status in ROLLBACK_STATUSES


def is_shifted(deployment: ServiceDeployment) -> bool:
    """Return whether all production traffic goes to the new version."""
    if deployment.lifecycle_stage in STAGES_AFTER_SHIFT:
        return deployment.production_weight in (None, ALL_TRAFFIC)
    return deployment.lifecycle_stage is not None and deployment.production_weight == ALL_TRAFFIC


def may_stall(deployment: ServiceDeployment) -> bool:
    """Return whether a standstill at the deployment's stage is a stall.

    With a part of the traffic on each version, a step of LINEAR or CANARY bakes.
    """
    weight = deployment.production_weight
    bakes_step = weight is not None and 0 < weight < ALL_TRAFFIC
    return deployment.lifecycle_stage in STAGES_OF_PROGRESS and not bakes_step


def find_open_hook(deployment: ServiceDeployment) -> LifecycleHook | None:
    """Return the hook that ECS waits for: first one that awaits a person, then one that runs. None if there is none."""
    if deployment.status != "IN_PROGRESS":
        return None
    for status in ("AWAITING_ACTION", "IN_PROGRESS"):
        found = next((hook for hook in deployment.hooks if hook.status == status), None)
        if found:
            return found
    return None


def judge(
    deployment: ServiceDeployment,
    *,
    superseded_by: str | None = None,
    stopped_by: str | None = None,
    shifted_at: datetime | None = None,
    has_run: bool = False,
    is_idle: bool = False,
    failure: str | None = None,
) -> Verdict:
    """Judge a rollout by its own service deployment.

    `superseded_by`: ARN of a deployment that was started later. The caller finds it only if this one has stopped.
    `stopped_by`: the person for whom this portal sent StopServiceDeployment.
    `shifted_at`: when all traffic was first seen on the new version. `has_run`: a task of it was seen running.
    `is_idle`: the service runs no task and should run none. ECS may leave the deployment's own requested count out, or
    keep that of an earlier time. `failure`: why DescribeServices says that the deployment failed.

    Only the deployment's own status decides. Stage, weights and counts explain: after a rollback, and at most stages of
    BLUE_GREEN, LINEAR and CANARY, `running == desired` too.
    """
    state = deployment.status
    if state == "PENDING":
        return Verdict(Status.PENDING)
    if state == "SUCCESSFUL":
        return _judge_successful(deployment, has_run=has_run, is_idle=is_idle)
    if is_rolling_back(deployment):
        return _judge_rolled_back(deployment, stopped_by=stopped_by, shifted_at=shifted_at)
    if state == "STOPPED":
        return _judge_stopped(deployment, superseded_by=superseded_by, stopped_by=stopped_by, failure=failure)
    if state == "IN_PROGRESS":
        return _judge_in_progress(deployment)
    if state == "STOP_REQUESTED":
        return Verdict(Status.IN_PROGRESS, None, deployment.status_reason)
    # A status that ECS added later: neither ended nor stalled until ECS says so.
    unknown = _join(f"ECS reports the status {state}.", deployment.status_reason)
    return Verdict(Status.IN_PROGRESS, None, unknown, is_resting=True)


def _judge_successful(deployment: ServiceDeployment, *, has_run: bool, is_idle: bool) -> Verdict:
    """Judge a deployment that ECS calls successful. Early success leaves old tasks, and some new ones to start."""
    configuration = deployment.configuration
    if deployment.target_running == 0 and (deployment.target_requested == 0 or is_idle):
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, _join(_describe_no_task(has_run), deployment.status_reason))
    if configuration is None or not configuration.early_success:
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, deployment.status_reason)
    known = deployment.target_requested is not None
    ran = f"{deployment.target_running} of {deployment.target_requested} new tasks ran then. " if known else ""
    early = _describe_early_success(configuration, ran)
    return Verdict(Status.SUCCESS, Outcome.COMPLETED_EARLY, _join(early, deployment.status_reason))


def _describe_early_success(configuration: DeploymentConfiguration, ran: str = "") -> str:
    is_deferred = configuration.source_cleanup == "DEFERRED"
    then = "Old tasks may drain for up to two weeks" if is_deferred else "Others may start"
    return f"ECS ended it by early success. {ran}{then}, and neither breaker nor alarms watch them."


def _describe_no_task(has_run: bool) -> str:
    return f"{NO_TASK_RUNS if has_run else NO_TASK_HAS_RUN}: the desired count was 0 when the deployment ended."


def _judge_in_progress(deployment: ServiceDeployment) -> Verdict:
    """Judge a deployment that is in progress: what ECS waits for."""
    hook = find_open_hook(deployment)
    unknown = _describe_unknown_hooks(deployment)
    said = " ".join(part for part in (unknown, deployment.status_reason) if part) or None
    stage = deployment.lifecycle_stage
    if hook is not None:
        is_pause = hook.status == "AWAITING_ACTION"
        outcome = Outcome.WAITING_FOR_DECISION if is_pause else Outcome.HOOK_RUNNING
        return Verdict(Status.IN_PROGRESS, outcome, _describe_hook(hook, stage), is_resting=True)
    if stage == "BAKE_TIME":
        baking = "The new version serves all traffic and bakes. ECS may still roll it back."
        return Verdict(Status.IN_PROGRESS, Outcome.BAKING, _join(baking, said), is_resting=True)
    if stage is not None:
        weight = deployment.production_weight
        where = (
            f"Stage {stage}." if weight is None else f"Stage {stage}: {weight:g} % of the traffic on the new version."
        )
        return Verdict(
            Status.IN_PROGRESS, None, _join(where, said), is_resting=bool(unknown) or not may_stall(deployment)
        )
    if _watches_alarms(deployment):
        alarms = ", ".join(deployment.configuration.alarm_names) if deployment.configuration else ""
        watches = (
            f"All new tasks run. ECS watches the alarms{f' ({alarms})' if alarms else ''} before it ends the rollout."
        )
        return Verdict(Status.IN_PROGRESS, None, _join(watches, said), is_resting=True)
    if deployment.configuration is not None and deployment.configuration.strategy != ROLLING:
        # ECS may leave the stage out, and its list has none. The deployment may pause, bake or shift traffic.
        hidden = f"ECS does not say at which stage this {deployment.configuration.strategy} deployment is."
        return Verdict(Status.IN_PROGRESS, None, _join(hidden, said), is_resting=True)
    return Verdict(Status.IN_PROGRESS, None, said, is_resting=bool(unknown))


def _describe_unknown_hooks(deployment: ServiceDeployment) -> str:
    """Return the hooks whose status ECS added later. It says nothing about whether ECS waits."""
    unknown = [hook for hook in deployment.hooks if hook.status and hook.status not in HOOK_STATUSES]
    return " ".join(f"ECS reports the status {hook.status} of the hook {_name_hook(hook)}." for hook in unknown)


def _describe_hook(hook: LifecycleHook, stage: str | None) -> str:
    """Describe the hook that ECS waits for, until when, and what ECS does then."""
    action = {"ROLLBACK": "rolls back", "CONTINUE": "continues"}.get(hook.timeout_action or "")
    ends = f" until {hook.expires_at:%Y-%m-%d %H:%M} UTC" if hook.expires_at else ""
    then = f" Then ECS {action}." if action else ""
    where = f" at {stage}" if stage else ""
    if hook.status == "AWAITING_ACTION":
        return f"Paused{where}{ends}.{then}"
    name = f" {hook.target_arn.rpartition(':')[2]}" if hook.target_arn else ""
    return f"ECS waits for the hook{name}{where}{ends}.{then}"


def _watches_alarms(deployment: ServiceDeployment) -> bool:
    """Return whether only the alarms keep a rolling deployment open: all new tasks run and the old ones are gone."""
    has_moved = (
        bool(deployment.target_requested)
        and deployment.target_running >= (deployment.target_requested or 0)
        and deployment.target_pending == 0
        and deployment.source_running == 0
    )
    configured = deployment.configuration is not None and deployment.configuration.alarms_enabled
    return has_moved and (configured or deployment.alarms_status == "MONITORING")


def _judge_rolled_back(
    deployment: ServiceDeployment, *, stopped_by: str | None, shifted_at: datetime | None
) -> Verdict:
    """Judge a deployment that ECS rolls back or has rolled back. Its stage may still be that of the way forward."""
    reason = _describe_rollback(deployment, shifted_at)
    if deployment.status in ("ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"):
        return Verdict(Status.IN_PROGRESS, Outcome.ROLLING_BACK, reason)
    if deployment.status == "ROLLBACK_FAILED":
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, reason)
    # If ECS had already started to roll back, a later stop is not the reason.
    if stopped_by and not _failed_by_itself(deployment):
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", reason))
    return Verdict(Status.FAILED, Outcome.ROLLED_BACK, reason)


def _describe_rollback(deployment: ServiceDeployment, shifted_at: datetime | None) -> str | None:
    """Return ECS's reason for a rollback, the alarms and hooks behind it, and how long after the traffic shift it came."""
    reason = deployment.rollback_reason or deployment.status_reason
    alarms = [alarm for alarm in deployment.triggered_alarms if alarm not in (reason or "")]
    hooks = {"FAILED": "failed", "TIMED_OUT": "timed out"}
    parts = [
        reason or "",
        f"Triggered alarms: {', '.join(alarms)}." if alarms else "",
        *(f"The hook {_name_hook(hook)} {hooks[str(hook.status)]}." for hook in _failed_hooks(deployment)),
    ]
    began_at = deployment.rollback_started_at
    if shifted_at and began_at and began_at >= shifted_at:
        minutes = int((began_at - shifted_at).total_seconds() // 60)
        parts.append(
            f"That was {minutes or 'less than 1'} min after the traffic shift: the new version had served all traffic."
        )
    return " ".join(part for part in parts if part) or None


def _name_hook(hook: LifecycleHook) -> str:
    return hook.target_arn.rpartition(":")[2] if hook.target_arn else hook.id


def _failed_hooks(deployment: ServiceDeployment) -> list[LifecycleHook]:
    """Return the hooks that made ECS roll back.

    A pause that a person ended is none of them, nor is a hook after whose time-out ECS continued.
    """
    failed = [hook for hook in deployment.hooks if hook.status == "FAILED" and hook.target_type != PAUSE_HOOK]
    late = [hook for hook in deployment.hooks if hook.status == "TIMED_OUT" and hook.timeout_action != "CONTINUE"]
    return failed + late


def _failed_by_itself(deployment: ServiceDeployment) -> bool:
    has_alarm = bool(deployment.triggered_alarms)
    return deployment.breaker_status == "TRIGGERED" or has_alarm or bool(_failed_hooks(deployment))


def _judge_stopped(
    deployment: ServiceDeployment, *, superseded_by: str | None, stopped_by: str | None, failure: str | None
) -> Verdict:
    reason = deployment.status_reason
    if deployment.triggered_alarms:
        alarms = ", ".join(deployment.triggered_alarms)
        return Verdict(Status.FAILED, Outcome.ALARM, _join(f"Triggered alarms: {alarms}.", reason))
    if deployment.breaker_status == "TRIGGERED":
        return Verdict(Status.FAILED, Outcome.CIRCUIT_BREAKER, reason)
    # ListServiceDeployments reports neither breaker nor alarms, but DescribeServices says that one of them failed it.
    why = next((text for text in (failure, reason) if _names_a_watcher(text)), None)
    if deployment.breaker_status is None and why:
        return Verdict(Status.FAILED, _find_failure_outcome(why), why)
    if superseded_by:
        return Verdict(Status.FAILED, Outcome.SUPERSEDED, _join(f"Replaced by {superseded_by}.", reason))
    if stopped_by:
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", reason))
    return Verdict(Status.FAILED, Outcome.STOPPED, reason)


NOT_SHOWN = Verdict(Status.IN_PROGRESS, None, "ECS does not show this deployment yet.")
UNKNOWN_STRATEGY = (
    "ECS reports the end of a {strategy} deployment only by ecs:DescribeServiceDeployments, and the portal could not "
    "read it there."
)
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
ENDED = re.compile(r"\(deployment (?P<id>[^)]+)\) deployment (?P<how>completed|failed)")
ROLLING_BACK = "rolling back to deployment"
DEPLOYMENT_ID = re.compile(r"ecs-svc/\d+")
# ECS writes that a deployment failed and that it rolls back within milliseconds.
SAME_MOMENT = timedelta(minutes=1)


@dataclass(frozen=True)
class _Events:
    """What ECS's events say about one deployment, verbatim. None if they do not say it.

    `rolls_back`: ECS started to roll it back. `rolls_back_to`: the id it went back to, None if the event names none.
    `rollback_failed`: whether that failed or was replaced, None if not known.
    `other`: the id of a deployment that is new since the baseline and ended before this one failed.
    """

    completed: str | None = None
    failed: str | None = None
    rolls_back: bool = False
    rolls_back_to: str | None = None
    rollback_failed: bool | None = None
    other: str | None = None


def judge_by_id(
    service: Service,
    deployment_id: str,
    *,
    baseline: Collection[str],
    since: datetime,
    strategy: str = ROLLING,
    configuration: DeploymentConfiguration | None = None,
    was_rolling_back: bool = False,
    has_run: bool = False,
    stopped_by: str | None = None,
) -> Verdict:
    """Judge a rollout without service deployments: by the service's `ecs-svc/..` entries and its events.

    `baseline`: the ids that existed before the call. `since`: an event of this time or later is later than the baseline.
    `stopped_by` and `has_run`: as for judge. `was_rolling_back`: an earlier read saw ECS roll the deployment back.
    `configuration`: how ECS deploys it, as far as is known.

    A rollback makes an earlier deployment PRIMARY again, under its own id, which is one of the baseline. Some imitations
    of ECS give it a new id. Both are recognized. A stale read from before the call also shows the baseline. An id of the
    baseline therefore proves a rollback only if the same read shows this deployment, its failure or the rollback.
    A missing entry is never taken for a success. ECS documents rolloutState only for rolling deployments, so for any
    other `strategy` nothing is concluded:
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html.
    """
    if strategy != ROLLING:
        return Verdict(Status.IN_PROGRESS, None, UNKNOWN_STRATEGY.format(strategy=strategy), is_resting=True)
    deployment, primary = service.deployment(deployment_id), service.primary
    # A deployment that is older than the call may have been missing in the baseline, if reads lagged.
    older = {each.id for each in service.deployments if each.created_at < since and each.id != deployment_id}
    baseline = older.union(baseline)
    events = _read_events(service, deployment_id, baseline=baseline, since=since)
    if deployment is not None and deployment.rollout_state == "COMPLETED":
        return _complete(service, deployment.rollout_state_reason, configuration, has_run=has_run)
    if events.completed:
        return _complete(service, events.completed, configuration, has_run=has_run)
    if primary is None:
        return NOT_SHOWN
    if primary.id == deployment_id:
        return _judge_primary(service, primary, configuration, since=since, has_run=has_run)
    came_later = events.other or _came_later(service, deployment, known={deployment_id, primary.id, *baseline})
    if came_later and not events.failed and not was_rolling_back:
        return Verdict(Status.FAILED, Outcome.SUPERSEDED, f"Replaced by {came_later}.")
    is_restored = primary.id in baseline
    is_after_the_call = deployment is not None or events.failed is not None
    is_rollback = is_after_the_call if is_restored else primary.is_rollback
    if is_rollback or was_rolling_back or events.rolls_back:
        is_its_rollback = is_restored or primary.is_rollback
        return _judge_rollback(deployment, primary, events, is_its_rollback=is_its_rollback, stopped_by=stopped_by)
    if is_restored:
        return NOT_SHOWN
    if events.failed:
        return Verdict(Status.FAILED, _find_failure_outcome(events.failed), events.failed)
    return Verdict(Status.FAILED, Outcome.SUPERSEDED, f"Replaced by {primary.id}.")


def _complete(
    service: Service, reason: str | None, configuration: DeploymentConfiguration | None, *, has_run: bool
) -> Verdict:
    if service.is_idle:
        return Verdict(Status.SUCCESS, Outcome.COMPLETED, _join(_describe_no_task(has_run), reason))
    if configuration is not None and configuration.early_success:
        early = _describe_early_success(configuration)
        return Verdict(Status.SUCCESS, Outcome.COMPLETED_EARLY, _join(early, reason))
    return Verdict(Status.SUCCESS, Outcome.COMPLETED, reason)


def _judge_primary(
    service: Service,
    mine: Deployment,
    configuration: DeploymentConfiguration | None,
    *,
    since: datetime,
    has_run: bool,
) -> Verdict:
    """Judge the deployment while it is the PRIMARY one."""
    if mine.is_rollback:
        # A later deployment is rolled back to this one. ECS rolls back only to a completed deployment.
        return _complete(service, mine.rollout_state_reason, configuration, has_run=has_run)
    if mine.rollout_state == "FAILED":
        return Verdict(Status.FAILED, _find_failure_outcome(mine.rollout_state_reason), mine.rollout_state_reason)
    if mine.rollout_state is None and _is_steady(service, mine, since=since):
        why = "It is the only deployment, all its tasks run, and the service is steady."
        verdict = _complete(service, why, configuration, has_run=has_run)
        return replace(verdict, needs_confirmation=True)
    if mine.rollout_state in (None, "IN_PROGRESS", "COMPLETED"):
        return Verdict(Status.IN_PROGRESS, None, mine.rollout_state_reason)
    # A state that ECS added later: neither ended nor stalled until ECS says so.
    unknown = _join(f"ECS reports the state {mine.rollout_state}.", mine.rollout_state_reason)
    return Verdict(Status.IN_PROGRESS, None, unknown, is_resting=True)


def _is_steady(service: Service, mine: Deployment, *, since: datetime) -> bool:
    """Return whether a deployment without a rolloutState has ended: behind a Classic Load Balancer, ECS returns none."""
    is_steady = any("steady state" in event.message and event.created_at >= since for event in service.events)
    is_whole = mine.pending_count == 0 and mine.running_count == service.desired_count == mine.desired_count
    return is_steady and is_whole and len(service.deployments) == 1 and mine.task_definition == service.task_definition


def _came_later(service: Service, mine: Deployment | None, *, known: Collection[str]) -> str | None:
    """Return the id of a deployment that started after this one and is no longer PRIMARY, or None if none is listed."""
    return next(
        (
            other.id
            for other in service.deployments
            if other.id not in known and not other.is_rollback and (mine is None or other.created_at >= mine.created_at)
        ),
        None,
    )


def _judge_rollback(
    mine: Deployment | None, primary: Deployment, events: _Events, *, is_its_rollback: bool, stopped_by: str | None
) -> Verdict:
    """Judge a deployment that ECS is rolling back or has rolled back.

    `is_its_rollback`: the PRIMARY deployment is the rollback of this one.
    """
    why = events.failed
    if why is None and mine is not None and mine.rollout_state == "FAILED":
        why = mine.rollout_state_reason
    has_failed = events.rollback_failed
    if has_failed is None:
        has_failed = {"COMPLETED": False, "FAILED": True}.get(primary.rollout_state or "")
    if has_failed is None and is_its_rollback:
        return Verdict(Status.IN_PROGRESS, Outcome.ROLLING_BACK, primary.rollout_state_reason)
    if has_failed is None:
        cut_short = _join(f"{primary.id} replaced the rollback.", why)
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, cut_short)
    if has_failed:
        reason = primary.rollout_state_reason if is_its_rollback else why
        return Verdict(Status.FAILED, Outcome.ROLLBACK_FAILED, reason)
    # If ECS had already started to roll back, a later stop is not the reason.
    if stopped_by and not _names_a_watcher(why):
        return Verdict(Status.FAILED, Outcome.STOPPED_BY_USER, _join(f"Stopped by {stopped_by}.", why))
    return Verdict(Status.FAILED, Outcome.ROLLED_BACK, why or primary.rollout_state_reason)


def _read_events(service: Service, deployment_id: str, *, baseline: Collection[str], since: datetime) -> _Events:
    """Return what the service's events say about the deployment.

    The event of a rollback names only the deployment that ECS rolls back to. It belongs to the deployment that failed just
    before it. If none did, the rollback was requested, and belongs to this deployment unless it is older than the call.
    """
    read = _Events()
    failed_now: tuple[str, datetime] | None = None
    # ECS lists the newest first and may give several events one time. The sort is stable and keeps their order.
    oldest_first = list(reversed(service.events))
    oldest_first.sort(key=lambda event: event.created_at)
    for event in oldest_first:
        if failed_now and event.created_at - failed_now[1] > SAME_MOMENT:
            failed_now = None
        ended = ENDED.search(event.message)
        if ended and read.rolls_back:
            # Another deployment that ends now has replaced the rollback.
            is_replaced = read.rolls_back_to not in (None, ended["id"])
            return replace(read, rollback_failed=is_replaced or ended["how"] == "failed")
        if ended:
            read = _with_end(read, event, ended, deployment_id, baseline=baseline, since=since)
            failed_now = (ended["id"], event.created_at) if ended["how"] == "failed" else None
        elif ROLLING_BACK in event.message:
            is_asked_for = failed_now is None and read.failed is None and event.created_at >= since
            if is_asked_for or (failed_now and failed_now[0] == deployment_id):
                destination = DEPLOYMENT_ID.search(event.message.partition(ROLLING_BACK)[2])
                read = replace(read, rolls_back=True, rolls_back_to=destination[0] if destination else None)
            failed_now = None
    return read


def _with_end(
    read: _Events,
    event: ServiceEvent,
    ended: re.Match[str],
    deployment_id: str,
    *,
    baseline: Collection[str],
    since: datetime,
) -> _Events:
    """Add the event that a deployment completed or failed. The first end counts."""
    if read.completed or read.failed:
        return read
    if ended["id"] != deployment_id:
        is_other = ended["id"] not in baseline and event.created_at >= since
        return replace(read, other=read.other or ended["id"]) if is_other else read
    if ended["how"] == "completed":
        return replace(read, completed=event.message)
    return replace(read, failed=event.message)


def find_failure(service: Service, deployment_id: str, *, baseline: Collection[str], since: datetime) -> str | None:
    """Return why the deployment failed, by its rolloutState or the service's events. None if it did not."""
    deployment = service.deployment(deployment_id)
    if deployment is not None and deployment.rollout_state == "FAILED":
        return deployment.rollout_state_reason
    return _read_events(service, deployment_id, baseline=baseline, since=since).failed


def _names_a_watcher(reason: str | None) -> bool:
    """Return whether the circuit breaker or an alarm failed the deployment, not a person."""
    return any(word in (reason or "").lower() for word in ("circuit breaker", "alarm", "failed to start"))


def _find_failure_outcome(reason: str | None) -> Outcome:
    """Return whether the alarms or the circuit breaker failed the deployment, from ECS's reason."""
    return Outcome.ALARM if "alarm" in (reason or "").lower() else Outcome.CIRCUIT_BREAKER


def _join(own_reason: str, ecs_reason: str | None) -> str:
    return f"{own_reason} {ecs_reason}" if ecs_reason else own_reason
