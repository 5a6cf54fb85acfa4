"""The state machine is pure: properties by hypothesis, and what each word of ECS amounts to, row by row."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.aws.ecs import Deployment, Service, ServiceDeployment, ServiceEvent
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
    judge,
    judge_by_id,
    overall_status,
    services_of,
    validation_of,
)

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


# --- the whole -----------------------------------------------------------------------------------------------------


@given(rollouts)
def test_the_five_rules_decide_the_whole(statuses: list[Status]) -> None:
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
def test_the_whole_does_not_depend_on_the_order(statuses: list[Status], random: Any) -> None:
    shuffled = list(statuses)
    random.shuffle(shuffled)

    assert overall_status(shuffled) == overall_status(statuses)


@given(rollouts)
def test_the_whole_is_terminal_exactly_when_every_rollout_is(statuses: list[Status]) -> None:
    overall = overall_status(statuses)

    assert overall in UPGRADE_STATUSES
    assert (overall in TERMINAL) == all(status in TERMINAL for status in statuses)


@given(rollouts)
def test_disabled_counts_as_neither(statuses: list[Status]) -> None:
    ended = [status for status in statuses if status in TERMINAL]

    if set(ended) - {Status.SKIPPED}:
        assert overall_status([*ended, Status.SKIPPED]) == overall_status(ended)


@given(rollouts, st.lists(st.sampled_from(services_of("all")), min_size=3, max_size=3), st.sampled_from(Status))
def test_every_upgrade_can_be_told_in_one_sentence(statuses: list[Status], names: list[str], shown: Status) -> None:
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
def test_the_sentence_says_what_became_of_each_service(status: Status, ends: list[str], sentence: str) -> None:
    of_end = {"completed": Status.SUCCESS, "no_change": Status.SUCCESS, "disabled": Status.SKIPPED}
    parts = [
        (service, of_end.get(end, Status.FAILED), end) for service, end in zip(services_of("all"), ends, strict=False)
    ]

    assert describe_upgrade(status, parts) == sentence
    assert describe_upgrade(status, parts, is_rollback=True) == sentence.replace("Rolled out", "Rolled back").replace(
        "advanced", "went back"
    ).replace("not advance", "not go back")


# --- mine, by its own status ---------------------------------------------------------------------------------------


def mine(status: str, **fields: Any) -> ServiceDeployment:
    made = ServiceDeployment(
        arn="arn:mine",
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
def test_the_table_of_the_semantics(
    status: str, evidence: dict[str, Any], expected: tuple[Status, Outcome | None], running: int, reason: str | None
) -> None:
    said = {name: evidence[name] for name in ("superseded_by", "stopped_by") if name in evidence}
    seen = {name: value for name, value in evidence.items() if name not in said}

    verdict = judge(mine(status, target_running=running, status_reason=reason, **seen), **said)

    assert (verdict.status, verdict.outcome) == expected


def test_a_person_or_deployment_behind_the_end_is_named() -> None:
    superseded = judge(mine("STOPPED"), superseded_by="arn:later")
    stopped = judge(mine("ROLLBACK_SUCCESSFUL"), stopped_by="ann@example.com")

    assert superseded.reason == "arn:later took its place."
    assert stopped.reason == "Stopped by ann@example.com."


@given(
    status=st.sampled_from([*ECS_STATUSES, "NEW", ""]),
    breaker=st.sampled_from(["TRIGGERED", "MONITORING", "MONITORING_COMPLETE", "DISABLED", None]),
    alarms=st.sampled_from([(), ("a",), ("a", "b")]),
    running=st.integers(0, 5),
    superseded_by=st.sampled_from([None, "arn:later"]),
    stopped_by=st.sampled_from([None, "ann@example.com"]),
)
def test_only_its_own_success_is_a_success_whatever_else_is_seen(
    status: str, breaker: Any, alarms: tuple[str, ...], running: int, superseded_by: str | None, stopped_by: str | None
) -> None:
    seen = mine(status, breaker_status=breaker, triggered_alarms=alarms, target_running=running)

    verdict = judge(seen, superseded_by=superseded_by, stopped_by=stopped_by)

    assert (verdict.status == Status.SUCCESS) == (status == "SUCCESSFUL")
    assert verdict.is_terminal == (status in ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"))
    assert not verdict.is_terminal or verdict.outcome is not None


# --- mine, where ECS gives no service deployments ------------------------------------------------------------------


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
    """The deployment once its tasks are gone."""
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
        breaker_enabled=True,
        breaker_rolls_back=True,
    )


def judged(*deployments: Deployment, said: Sequence[str] = (), **seen: Any) -> tuple[Status, Outcome | None]:
    """The verdict on `mine`; `before` was there before the call."""
    seen = {"baseline": ["before"], "since": AT} | seen
    verdict = judge_by_id(service_with(*deployments, said=said), "mine", **seen)
    return verdict.status, verdict.outcome


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
def test_my_entry_among_the_services_deployments(
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
        ([WENT_BACK], [BACK, RESTORED], {}, ROLLED_BACK),  # others asked for it in ECS
        ([CANNOT_GO_BACK, MINE_FELL], [FELL, BACK], {}, ROLLBACK_FAILED),
        ([CANNOT_GO_BACK], [], {"was_rolling_back": True}, ROLLBACK_FAILED),
        # Others deployed since: during the rollback, after its end, after its failure.
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
def test_an_earlier_deployment_that_is_primary_again_is_a_rollback(
    deployments: list[Deployment], said: list[str], seen: dict[str, Any], expected: tuple[Status, Outcome | None]
) -> None:
    assert judged(*deployments, said=said, **seen) == expected


OTHER_FELL = "(deployment other) deployment failed: tasks failed to start."


@pytest.mark.parametrize(
    ("deployments", "said", "expected"),
    [
        # A stale read, from before the call. What was rolled back then was not mine.
        ([WENT_BACK], [], GOES_ON),
        ([ROLLS_BACK], [], GOES_ON),
        ([ROLLS_BACK], ["(deployment before) deployment failed: alarm detected.", BACK], GOES_ON),
        # A later deployment took the place of mine, and was rolled back itself.
        ([ROLLS_BACK, entry("other", primary=False, state="FAILED"), MINE_ROLLS], [OTHER_FELL, BACK], SUPERSEDED),
        ([WENT_BACK], [OTHER_FELL, BACK, RESTORED], SUPERSEDED),
        # To mine: so mine had completed.
        ([entry("mine", primary=True, state="IN_PROGRESS", rollback=True)], [], COMPLETED),
        ([entry("mine", primary=True, state="FAILED")], ["(deployment mine) deployment completed."], COMPLETED),
    ],
)
def test_the_rollback_of_another_deployment_is_not_mine(
    deployments: list[Deployment], said: list[str], expected: tuple[Status, Outcome | None]
) -> None:
    assert judged(*deployments, said=said) == expected


def test_a_rollback_from_before_the_call_is_not_mine() -> None:
    later = AT + timedelta(seconds=30)

    assert judged(WENT_BACK, said=[BACK, RESTORED], since=later) == GOES_ON


def test_an_entry_that_is_not_there_is_never_a_success() -> None:
    for state, rollback, baseline in product(("COMPLETED", "IN_PROGRESS", "FAILED"), (True, False), ([], ["other"])):
        other = entry("other", primary=True, state=state, rollback=rollback)

        assert judged(other, baseline=baseline)[0] != Status.SUCCESS


def test_a_rollback_that_was_seen_is_still_one_when_it_has_ended() -> None:
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
        # Behind a Classic Load Balancer ECS gives no state.
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
def test_a_deployment_has_ended_well_when_ecs_is_done_with_it(deployments: list[Deployment], expected: bool) -> None:
    assert service_with(*deployments).has_ended_well is expected


# --- validation ------------------------------------------------------------------------------------------------------

RESULTS = st.lists(st.builds(CheckResult, status=st.sampled_from(CheckStatus), is_signed=st.booleans()), max_size=8)


@given(RESULTS, st.booleans())
def test_validation_is_a_pure_function_of_the_matrix(rows: list[CheckResult], is_probing: bool) -> None:
    validation = validation_of(rows, is_probing=is_probing)

    statuses = {row.status for row in rows}
    signed_fail = any(row.status == CheckStatus.FAIL and row.is_signed for row in rows)
    assert (validation == Validation.NONE) is (not rows)
    assert (validation == Validation.PASSED) is (statuses == {CheckStatus.PASS})
    assert (validation == Validation.FAILED) is (signed_fail or (CheckStatus.FAIL in statuses and not is_probing))
    assert validation_of(rows[::-1], is_probing=is_probing) == validation


@given(RESULTS)
def test_what_was_not_verified_never_passes_and_the_end_of_probing_changes_fails_alone(rows: list[CheckResult]) -> None:
    during, after = validation_of(rows, is_probing=True), validation_of(rows, is_probing=False)

    if any(row.status == CheckStatus.UNKNOWN for row in rows):
        assert Validation.PASSED not in (during, after)
    assert during == after or (during, after) == (Validation.NEEDED, Validation.FAILED)
