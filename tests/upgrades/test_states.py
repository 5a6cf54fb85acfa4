"""The state machine is pure: properties by Hypothesis, and a table of what each ECS status means."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.aws.ecs import Deployment, DeploymentConfiguration, LifecycleHook, Service, ServiceDeployment, ServiceEvent
from upgrades.states import (
    OPEN,
    TERMINAL,
    UPGRADE_STATUSES,
    CheckResult,
    CheckStatus,
    Outcome,
    Status,
    Validation,
    describe_upgrade,
    get_services,
    judge_validation,
    overall_status,
)
from upgrades.verdicts import judge, judge_by_id

ROLLOUT_STATUSES = [status for status in Status if status != Status.PARTIAL]
rollouts = st.lists(st.sampled_from(ROLLOUT_STATUSES), min_size=1, max_size=3)

# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceDeployment.html
ECS_STATUSES = [
    "PENDING",
    "SUCCESSFUL",
    "STOPPED",
    "STOP_REQUESTED",
    "IN_PROGRESS",
    "ROLLBACK_REQUESTED",
    "ROLLBACK_IN_PROGRESS",
    "ROLLBACK_SUCCESSFUL",
    "ROLLBACK_FAILED",
]
AT = datetime(2026, 5, 1, tzinfo=UTC)


# --- the upgrade ---------------------------------------------------------------------------------------------------


@given(rollouts)
def test_five_rules_decide_the_upgrades_status(statuses: list[Status]) -> None:
    counted = [status for status in statuses if status != Status.SKIPPED]
    succeeded = counted.count(Status.SUCCESS)

    overall = overall_status(statuses)

    if all(status == Status.PENDING for status in statuses):
        assert overall == Status.PENDING
    elif any(status in OPEN for status in statuses):
        assert overall == Status.IN_PROGRESS
    elif succeeded == 0:
        assert overall == Status.FAILED
    elif succeeded == len(counted):
        assert overall == Status.SUCCESS
    else:
        assert overall == Status.PARTIAL


@given(rollouts, st.randoms())
def test_the_status_does_not_depend_on_the_order(statuses: list[Status], random: Any) -> None:
    shuffled = list(statuses)
    random.shuffle(shuffled)

    assert overall_status(shuffled) == overall_status(statuses)


@given(rollouts)
def test_an_upgrade_is_terminal_when_all_rollouts_are(statuses: list[Status]) -> None:
    overall = overall_status(statuses)

    assert overall in UPGRADE_STATUSES
    assert (overall in TERMINAL) == all(status in TERMINAL for status in statuses)


@given(rollouts)
def test_disabled_counts_as_neither_success_nor_failure(statuses: list[Status]) -> None:
    ended = [status for status in statuses if status in TERMINAL]

    if set(ended) - {Status.SKIPPED}:
        assert overall_status([*ended, Status.SKIPPED]) == overall_status(ended)


@given(rollouts, st.lists(st.sampled_from(get_services("all")), min_size=3, max_size=3), st.sampled_from(Status))
def test_every_upgrade_can_be_described(statuses: list[Status], names: list[str], shown: Status) -> None:
    parts = [(name, status, None) for name, status in zip(names, statuses, strict=False)]

    for status in (overall_status(statuses), shown):
        sentence = describe_upgrade(status, parts)
        assert sentence.endswith(".")
        assert "None" not in sentence


@pytest.mark.parametrize(
    ("status", "ends", "sentence"),
    [
        (Status.SUCCESS, ["completed"], "Rolled out: agent service."),
        (Status.SUCCESS, ["no_change"], "Nothing was rolled. Nothing to change: agent service."),
        (
            Status.SUCCESS,
            ["completed", "no_change", "disabled"],
            "Rolled out: agent service. Nothing to change: orchestrator. Skipped, disabled: customer portal.",
        ),
        (
            Status.PARTIAL,
            ["completed", "rolled_back", "not_attempted"],
            "Partial: agent service advanced, orchestrator did not. Not attempted: customer portal.",
        ),
        (
            Status.PARTIAL,
            ["no_change", "rolled_back", "not_attempted"],
            "Partial: orchestrator did not advance. Nothing to change: agent service. Not attempted: customer portal.",
        ),
        (
            Status.PARTIAL,
            ["completed", "not_attempted", "not_attempted"],
            "Partial: agent service advanced. Not attempted: orchestrator, customer portal.",
        ),
        (Status.FAILED, ["rolled_back", "not_attempted"], "Failed: agent service. Not attempted: orchestrator."),
        (Status.FAILED, ["not_attempted"], "Nothing was rolled. Not attempted: agent service."),
        (Status.FAILED, ["disabled"], "Nothing was rolled. Skipped, disabled: agent service."),
    ],
)
def test_the_description_covers_each_service(status: Status, ends: list[str], sentence: str) -> None:
    of_end = {"completed": Status.SUCCESS, "no_change": Status.SUCCESS, "disabled": Status.SKIPPED}
    parts = [
        (service, of_end.get(end, Status.FAILED), end) for service, end in zip(get_services("all"), ends, strict=False)
    ]

    assert describe_upgrade(status, parts) == sentence
    assert describe_upgrade(status, parts, is_rollback=True) == sentence.replace("Rolled out", "Rolled back").replace(
        "advanced", "went back"
    ).replace("not advance", "not go back")


# --- a rollout, by the status of its own deployment ------------------------------------------------------------------


def own_deployment(status: str, **fields: Any) -> ServiceDeployment:
    made = ServiceDeployment(
        arn="arn:own",
        status=status,
        status_reason=None,
        created_at=AT,
        finished_at=None,
        target_revision=None,
        target_running=0,
        target_pending=0,
        source_running=0,
        breaker_status="MONITORING",
        breaker_failures=0,
        breaker_threshold=3,
        triggered_alarms=(),
        rollback_reason=None,
    )
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("status", "evidence", "expected"),
    [
        ("PENDING", {}, (Status.PENDING, None)),
        ("IN_PROGRESS", {}, (Status.IN_PROGRESS, None)),
        ("STOP_REQUESTED", {}, (Status.IN_PROGRESS, None)),
        ("SUCCESSFUL", {}, (Status.SUCCESS, Outcome.COMPLETED)),
        ("STOPPED", {"superseded_by": "arn:later"}, (Status.FAILED, Outcome.SUPERSEDED)),
        ("STOPPED", {"breaker_status": "TRIGGERED"}, (Status.FAILED, Outcome.CIRCUIT_BREAKER)),
        ("STOPPED", {"triggered_alarms": ("5xx",)}, (Status.FAILED, Outcome.ALARM)),
        ("STOPPED", {"stopped_by": "ann@example.com"}, (Status.FAILED, Outcome.STOPPED_BY_USER)),
        ("STOPPED", {}, (Status.FAILED, Outcome.STOPPED)),
        ("ROLLBACK_REQUESTED", {}, (Status.IN_PROGRESS, Outcome.ROLLING_BACK)),
        ("ROLLBACK_IN_PROGRESS", {}, (Status.IN_PROGRESS, Outcome.ROLLING_BACK)),
        ("ROLLBACK_SUCCESSFUL", {}, (Status.FAILED, Outcome.ROLLED_BACK)),
        ("ROLLBACK_SUCCESSFUL", {"stopped_by": "ann@example.com"}, (Status.FAILED, Outcome.STOPPED_BY_USER)),
        ("ROLLBACK_FAILED", {}, (Status.FAILED, Outcome.ROLLBACK_FAILED)),
        ("WHATEVER_ECS_ADDS", {}, (Status.IN_PROGRESS, None)),
    ],
)
@pytest.mark.parametrize(("running", "reason"), [(0, None), (4, "ECS says why.")])
def test_each_ecs_status_has_its_verdict(
    status: str, evidence: dict[str, Any], expected: tuple[Status, Outcome | None], running: int, reason: str | None
) -> None:
    said = {name: evidence[name] for name in ("superseded_by", "stopped_by") if name in evidence}
    seen = {name: value for name, value in evidence.items() if name not in said}

    verdict = judge(own_deployment(status, target_running=running, status_reason=reason, **seen), **said)

    assert (verdict.status, verdict.outcome) == expected


@pytest.mark.parametrize(
    ("status", "stage", "weight", "rests"),
    [
        ("IN_PROGRESS", "SCALE_UP", 0.0, False),
        ("IN_PROGRESS", "PRODUCTION_TRAFFIC_SHIFT", 0.0, True),
        ("IN_PROGRESS", "PRE_PRODUCTION_TRAFFIC_SHIFT", 0.0, False),
        ("IN_PROGRESS", "PRE_PRODUCTION_TRAFFIC_SHIFT", 40.0, True),
        ("IN_PROGRESS", "POST_PRODUCTION_TRAFFIC_SHIFT", 100.0, False),
        ("IN_PROGRESS", "PRE_COFFEE", None, True),
        ("WHATEVER_ECS_ADDS", None, None, True),
    ],
)
def test_a_step_and_what_is_unknown_never_stall(
    status: str, stage: str | None, weight: float | None, rests: bool
) -> None:
    """With a part of the traffic on each version, a step of LINEAR or CANARY bakes."""
    verdict = judge(own_deployment(status, lifecycle_stage=stage, production_weight=weight))

    assert verdict.is_resting == rests
    assert (stage or status) in (verdict.reason or "")


@pytest.mark.parametrize(
    ("action", "expected"), [("CONTINUE", Outcome.STOPPED_BY_USER), ("ROLLBACK", Outcome.ROLLED_BACK)]
)
def test_a_hook_that_ecs_passed_over_is_no_cause(action: str, expected: Outcome) -> None:
    hook = LifecycleHook("h-1", "PAUSE", None, status="TIMED_OUT", expires_at=AT, timeout_action=action)

    verdict = judge(own_deployment("ROLLBACK_SUCCESSFUL", hooks=(hook,)), stopped_by="ann@example.com")

    assert verdict.outcome == expected
    assert ("timed out" in (verdict.reason or "")) == (action == "ROLLBACK")


def test_an_unknown_status_of_a_hook_is_shown_by_its_name() -> None:
    hook = LifecycleHook("h-1", "PAUSE", None, status="UNDER_REVIEW", expires_at=AT, timeout_action="ROLLBACK")

    verdict = judge(own_deployment("IN_PROGRESS", lifecycle_stage="POST_SCALE_UP", hooks=(hook,)))

    assert (verdict.status, verdict.outcome, verdict.is_resting) == (Status.IN_PROGRESS, None, True)
    assert verdict.reason == "Stage POST_SCALE_UP. ECS reports the status UNDER_REVIEW of the hook h-1."


def test_the_person_or_deployment_that_ended_it_is_named() -> None:
    superseded = judge(own_deployment("STOPPED"), superseded_by="arn:later")
    stopped = judge(own_deployment("ROLLBACK_SUCCESSFUL"), stopped_by="ann@example.com")

    assert superseded.reason == "Replaced by arn:later."
    assert stopped.reason == "Stopped by ann@example.com."


@given(
    status=st.sampled_from([*ECS_STATUSES, "NEW", ""]),
    breaker=st.sampled_from(["TRIGGERED", "MONITORING", "MONITORING_COMPLETE", "DISABLED", None]),
    alarms=st.sampled_from([(), ("a",), ("a", "b")]),
    running=st.integers(0, 5),
    superseded_by=st.sampled_from([None, "arn:later"]),
    stopped_by=st.sampled_from([None, "ann@example.com"]),
)
def test_only_the_deployments_own_success_is_a_success(
    status: str, breaker: Any, alarms: tuple[str, ...], running: int, superseded_by: str | None, stopped_by: str | None
) -> None:
    seen = own_deployment(status, breaker_status=breaker, triggered_alarms=alarms, target_running=running)

    verdict = judge(seen, superseded_by=superseded_by, stopped_by=stopped_by)

    assert (verdict.status == Status.SUCCESS) == (status == "SUCCESSFUL")
    assert verdict.is_terminal == (status in ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"))
    assert not verdict.is_terminal or verdict.outcome is not None


# --- a rollout, if ECS gives no service deployments ----------------------------------------------------------------


def entry(entry_id: str, *, primary: bool, state: str, rollback: bool = False, reason: str | None = None) -> Deployment:
    rolls_back = "ECS deployment circuit breaker: rolling back to deploymentId before."
    return Deployment(
        id=entry_id,
        status="PRIMARY" if primary else "ACTIVE",
        task_definition="td:1",
        desired_count=2,
        running_count=2,
        pending_count=0,
        failed_tasks=0,
        rollout_state=state,
        rollout_state_reason=rolls_back if rollback else reason,
        created_at=AT,
    )


def gone(deployment: Deployment) -> Deployment:
    """Return the deployment without running tasks."""
    return replace(deployment, running_count=0)


def service_with(*deployments: Deployment, said: Sequence[str] = ()) -> Service:
    """`said`: ECS's events, oldest first, one a second."""
    events = [ServiceEvent(str(at), AT + timedelta(seconds=at), f"(service s) {text}") for at, text in enumerate(said)]
    return Service(
        name="s",
        arn="arn:s",
        status="ACTIVE",
        task_definition="td:1",
        desired_count=2,
        running_count=2,
        pending_count=0,
        deployments=deployments,
        current_service_deployment=None,
        events=tuple(reversed(events)),
    )


def judged(*deployments: Deployment, said: Sequence[str] = (), **seen: Any) -> tuple[Status, Outcome | None]:
    """Return the verdict on the deployment `mine`. The deployment `before` existed before the call."""
    seen = {"baseline": ["before"], "since": AT} | seen
    verdict = judge_by_id(service_with(*deployments, said=said), "mine", **seen)
    return verdict.status, verdict.outcome


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"state": "COMPLETED"}, id="completed"),
        pytest.param({"state": "IN_PROGRESS", "rollback": True}, id="ECS rolls back to it"),
    ],
)
def test_the_configuration_shows_an_early_success(own: dict[str, Any]) -> None:
    configuration = DeploymentConfiguration(early_success=True, source_cleanup="DEFERRED")

    found = judged(entry("mine", primary=True, **own), configuration=configuration)

    assert found == (Status.SUCCESS, Outcome.COMPLETED_EARLY)


def test_a_replaced_rollback_has_failed() -> None:
    """Another person deployed over ECS's rollback, and that deployment has completed."""
    said = [FELL, "rolling back to deployment ecs-svc/1.", "(deployment ecs-svc/3) deployment completed."]
    other = replace(entry("ecs-svc/3", primary=True, state="COMPLETED"), created_at=AT + timedelta(seconds=9))

    assert judged(other, MINE_FELL, said=said, baseline=["ecs-svc/1"]) == ROLLBACK_FAILED


FELL = "(deployment mine) deployment failed: tasks failed to start."
BACK = "rolling back to deployment before."
RESTORED = "(deployment before) deployment completed."
MINE_ROLLS = entry("mine", primary=False, state="IN_PROGRESS")
MINE_FELL = entry(
    "mine", primary=False, state="FAILED", reason="ECS deployment circuit breaker: tasks failed to start."
)
ROLLS_BACK = entry("before", primary=True, state="IN_PROGRESS", rollback=True)
WENT_BACK = entry("before", primary=True, state="COMPLETED")
CANNOT_GO_BACK = entry("before", primary=True, state="FAILED")

GOES_ON = (Status.IN_PROGRESS, None)
ROLLING_BACK = (Status.IN_PROGRESS, Outcome.ROLLING_BACK)
ROLLED_BACK = (Status.FAILED, Outcome.ROLLED_BACK)
ROLLBACK_FAILED = (Status.FAILED, Outcome.ROLLBACK_FAILED)
SUPERSEDED = (Status.FAILED, Outcome.SUPERSEDED)
COMPLETED = (Status.SUCCESS, Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("deployments", "expected"),
    [
        ([entry("mine", primary=True, state="IN_PROGRESS")], GOES_ON),
        ([entry("mine", primary=True, state="COMPLETED")], COMPLETED),
        ([entry("mine", primary=True, state="FAILED")], (Status.FAILED, Outcome.CIRCUIT_BREAKER)),
        ([entry("back", primary=True, state="IN_PROGRESS", rollback=True), MINE_FELL], ROLLING_BACK),
        ([entry("back", primary=True, state="COMPLETED", rollback=True)], ROLLED_BACK),
        ([entry("back", primary=True, state="FAILED", rollback=True), MINE_FELL], ROLLBACK_FAILED),
        ([entry("other", primary=True, state="COMPLETED")], SUPERSEDED),
        ([entry("other", primary=True, state="IN_PROGRESS")], SUPERSEDED),
        ([], GOES_ON),
    ],
)
def test_the_rollouts_own_entry_is_judged(
    deployments: list[Deployment], expected: tuple[Status, Outcome | None]
) -> None:
    assert judged(*deployments) == expected


@pytest.mark.parametrize(
    ("deployments", "said", "seen", "expected"),
    [
        ([ROLLS_BACK, MINE_ROLLS], [], {}, ROLLING_BACK),
        ([ROLLS_BACK, MINE_FELL], [FELL, BACK], {}, ROLLING_BACK),
        ([ROLLS_BACK], [FELL, BACK], {}, ROLLING_BACK),
        ([WENT_BACK, MINE_FELL], [], {}, ROLLED_BACK),
        ([WENT_BACK], [FELL, BACK, RESTORED], {}, ROLLED_BACK),
        ([WENT_BACK], [FELL], {}, ROLLED_BACK),
        ([WENT_BACK], [], {"was_rolling_back": True}, ROLLED_BACK),
        ([WENT_BACK], [FELL, BACK, RESTORED], {"stopped_by": "ann@example.com"}, ROLLED_BACK),
        ([WENT_BACK, MINE_FELL], [], {"stopped_by": "ann@example.com"}, ROLLED_BACK),
        (
            [WENT_BACK],
            [BACK, RESTORED],
            {"stopped_by": "ann@example.com"},
            (Status.FAILED, Outcome.STOPPED_BY_USER),
        ),
        ([WENT_BACK], [BACK, RESTORED], {}, ROLLED_BACK),  # requested outside, in ECS
        ([CANNOT_GO_BACK, MINE_FELL], [FELL, BACK], {}, ROLLBACK_FAILED),
        ([CANNOT_GO_BACK], [], {"was_rolling_back": True}, ROLLBACK_FAILED),
        # Deployed outside since: during the rollback, after its end, after its failure.
        ([entry("other", primary=True, state="IN_PROGRESS")], [FELL, BACK], {}, ROLLBACK_FAILED),
        ([entry("other", primary=True, state="IN_PROGRESS")], [], {"was_rolling_back": True}, ROLLBACK_FAILED),
        ([entry("other", primary=True, state="IN_PROGRESS")], [FELL, BACK, RESTORED], {}, ROLLED_BACK),
        (
            [entry("other", primary=True, state="COMPLETED")],
            [FELL, BACK, "(deployment before) deployment failed: tasks failed to start."],
            {},
            ROLLBACK_FAILED,
        ),
    ],
)
def test_an_earlier_deployment_that_is_primary_is_a_rollback(
    deployments: list[Deployment], said: list[str], seen: dict[str, Any], expected: tuple[Status, Outcome | None]
) -> None:
    assert judged(*deployments, said=said, **seen) == expected


OTHER_FELL = "(deployment other) deployment failed: tasks failed to start."


@pytest.mark.parametrize(
    ("deployments", "said", "expected"),
    [
        # A stale read from before the call. It shows the rollback of another deployment.
        ([WENT_BACK], [], GOES_ON),
        ([ROLLS_BACK], [], GOES_ON),
        ([ROLLS_BACK], ["(deployment before) deployment failed: alarm detected.", BACK], GOES_ON),
        # A later deployment superseded the rollout's own one and was itself rolled back.
        ([ROLLS_BACK, entry("other", primary=False, state="FAILED"), MINE_ROLLS], [OTHER_FELL, BACK], SUPERSEDED),
        ([WENT_BACK], [OTHER_FELL, BACK, RESTORED], SUPERSEDED),
        # Rolled back to the rollout's own deployment, so that one had completed.
        ([entry("mine", primary=True, state="IN_PROGRESS", rollback=True)], [], COMPLETED),
        ([entry("mine", primary=True, state="FAILED")], ["(deployment mine) deployment completed."], COMPLETED),
    ],
)
def test_the_rollback_of_another_deployment_is_ignored(
    deployments: list[Deployment], said: list[str], expected: tuple[Status, Outcome | None]
) -> None:
    assert judged(*deployments, said=said) == expected


def test_a_rollback_from_before_the_call_is_ignored() -> None:
    later = AT + timedelta(seconds=30)

    assert judged(WENT_BACK, said=[BACK, RESTORED], since=later) == GOES_ON


def test_a_missing_entry_is_never_a_success() -> None:
    for state, rollback, baseline in product(("COMPLETED", "IN_PROGRESS", "FAILED"), (True, False), ([], ["other"])):
        other = entry("other", primary=True, state=state, rollback=rollback)

        assert judged(other, baseline=baseline)[0] != Status.SUCCESS


def test_an_observed_rollback_stays_one_after_it_ended() -> None:
    assert judged(entry("other", primary=True, state="COMPLETED"), was_rolling_back=True) == ROLLED_BACK


# --- whether the newest deployment has ended well ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deployments", "expected"),
    [
        ([entry("new", primary=True, state="COMPLETED")], True),
        ([entry("new", primary=True, state="IN_PROGRESS")], False),
        ([entry("new", primary=True, state="FAILED")], False),
        ([entry("new", primary=True, state="IN_PROGRESS", rollback=True)], False),
        ([entry("new", primary=True, state="COMPLETED"), entry("old", primary=False, state="COMPLETED")], False),
        ([entry("new", primary=True, state="COMPLETED"), gone(entry("old", primary=False, state="FAILED"))], True),
        (
            [entry("new", primary=True, state="COMPLETED"), gone(entry("old", primary=False, state="IN_PROGRESS"))],
            False,
        ),
        ([replace(entry("new", primary=True, state="COMPLETED"), task_definition="td:2")], False),
        ([], False),
        # With a Classic Load Balancer, ECS gives no state.
        ([replace(entry("new", primary=True, state="-"), rollout_state=None)], True),
        ([replace(entry("new", primary=True, state="-"), rollout_state=None, running_count=1)], False),
        ([replace(entry("new", primary=True, state="-"), rollout_state=None, pending_count=1)], False),
        (
            [
                replace(entry("new", primary=True, state="-"), rollout_state=None),
                gone(entry("old", primary=False, state="-")),
            ],
            False,
        ),
    ],
)
def test_a_deployment_ends_well_when_ecs_has_finished_it(deployments: list[Deployment], expected: bool) -> None:
    assert service_with(*deployments).has_ended_well(None) is expected


UNSTATED = replace(entry("new", primary=True, state="-"), rollout_state=None)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (own_deployment("SUCCESSFUL", target_revision="r:2"), True),
        (own_deployment("SUCCESSFUL"), True),
        (own_deployment("SUCCESSFUL", target_revision="r:1"), False),
        (own_deployment("ROLLBACK_SUCCESSFUL", target_revision="r:1", rollback_revision="r:2"), True),
        (own_deployment("ROLLBACK_SUCCESSFUL", target_revision="r:2", rollback_revision="r:1"), False),
        (own_deployment("IN_PROGRESS", target_revision="r:2", lifecycle_stage="CLEAN_UP"), False),
        (own_deployment("STOPPED", target_revision="r:2"), False),
        (own_deployment("ROLLBACK_FAILED", target_revision="r:2"), False),
        (None, False),
    ],
)
def test_without_a_rollout_state_its_own_record_decides(own: ServiceDeployment | None, expected: bool) -> None:
    """All tasks run in each of these cases."""
    configuration = DeploymentConfiguration(strategy="BLUE_GREEN")
    service = replace(service_with(UNSTATED), configuration=configuration, current_revisions=("r:2",))

    assert service.has_ended_well(own) is expected


# --- validation ------------------------------------------------------------------------------------------------------

RESULTS = st.lists(st.builds(CheckResult, status=st.sampled_from(CheckStatus), is_signed=st.booleans()), max_size=8)


@given(RESULTS, st.booleans())
def test_validation_is_a_pure_function_of_the_matrix(rows: list[CheckResult], is_probing: bool) -> None:
    validation = judge_validation(rows, is_probing=is_probing)

    statuses = {row.status for row in rows}
    signed_fail = any(row.status == CheckStatus.FAIL and row.is_signed for row in rows)
    assert (validation == Validation.NONE) is (not rows)
    assert (validation == Validation.PASSED) is (statuses == {CheckStatus.PASS})
    assert (validation == Validation.FAILED) is (signed_fail or (CheckStatus.FAIL in statuses and not is_probing))
    assert judge_validation(rows[::-1], is_probing=is_probing) == validation


@given(RESULTS)
def test_unknown_never_passes_and_failures_count_after_probing(rows: list[CheckResult]) -> None:
    during, after = judge_validation(rows, is_probing=True), judge_validation(rows, is_probing=False)

    if any(row.status == CheckStatus.UNKNOWN for row in rows):
        assert Validation.PASSED not in (during, after)
    assert during == after or (during, after) == (Validation.NEEDED, Validation.FAILED)
