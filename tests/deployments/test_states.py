"""The state machine: allowed commands, and the status that follows from ECS's report."""

from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.states import Command, EventType, Status, allowed, event_type_for, judge
from portal.aws.ecs import Deployment, Service

AT = datetime(2026, 11, 21, tzinfo=UTC)


def entry(rollout: str | None = "COMPLETED", **fields: Any) -> Deployment:
    values: dict[str, Any] = {
        "id": "ecs-svc/1",
        "status": "PRIMARY",
        "task_definition": "td:1",
        "desired_count": 2,
        "running_count": 2,
        "pending_count": 0,
        "failed_tasks": 0,
        "rollout_state": rollout,
        "rollout_state_reason": f"ECS deployment {rollout}.",
        "created_at": AT,
    }
    return Deployment(**values | fields)


def service(desired: int = 2, running: int = 2, pending: int = 0, *deployments: Deployment) -> Service:
    return Service(
        name="s",
        arn="arn",
        status="ACTIVE",
        desired_count=desired,
        running_count=running,
        pending_count=pending,
        task_definition="td:1",
        deployments=deployments or (entry(),),
        current_service_deployment=None,
        events=(),
    )


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (service(2, 2), "ready"),
        (service(2, 3), "ready"),
        (service(2, 1), "running"),
        (service(2, 2, 0, entry("IN_PROGRESS")), "running"),
        (service(2, 0, 2, entry("IN_PROGRESS")), "deploying"),
        (service(2, 0, 0), "deploying"),
        (service(2, 0, 0, entry("FAILED")), "failed"),
        (service(2, 2, 0, entry("FAILED"), entry("COMPLETED", status="ACTIVE")), "failed"),
        (service(0, 0), "stopped"),
        (service(0, 0, 0, entry("FAILED")), "stopped"),
        (service(0, 1), None),
        (service(0, 0, 1), None),
        (service(2, 2, 0, entry(None)), "ready"),
        (service(2, 2, 0, entry(None), entry(None, status="ACTIVE")), "running"),
    ],
)
def test_what_ecs_reports_is_the_status(seen: Service, status: str | None) -> None:
    assert judge(seen).status == status


def test_overdue_means_failed_only_while_nothing_runs() -> None:
    assert judge(service(2, 0, 2, entry("IN_PROGRESS")), is_overdue=True).status == Status.FAILED
    assert judge(service(2, 1, 1, entry("IN_PROGRESS")), is_overdue=True).status == Status.RUNNING


def test_a_failure_has_the_reason_of_ecs() -> None:
    assert judge(service(2, 0, 0, entry("FAILED"))).reason == "ECS deployment FAILED."


@pytest.mark.parametrize("status", Status.values)
def test_every_status_but_killed_has_a_reported_event(status: str) -> None:
    if status == "killed":
        with pytest.raises(ValueError, match="killed"):
            event_type_for(Status.KILLED)
    else:
        assert event_type_for(Status(status)) in EventType


@pytest.mark.parametrize("command", Command.values)
@pytest.mark.parametrize("status", Status.values)
def test_a_refusal_has_the_message_of_the_api(command: str, status: str) -> None:
    refusal = allowed(command, status)

    if command == "kill":
        assert refusal is None
    elif refusal:
        assert refusal.message.startswith("Can only ")
        assert str(refusal) == refusal.message


def test_while_it_stops_only_stop_and_kill_are_possible() -> None:
    assert [command for command in Command.values if allowed(command, "ready", is_stopping=True) is None] == [
        "stop",
        "kill",
    ]
