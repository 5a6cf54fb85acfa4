"""Notifications about agents' deployments: sent once for each failure and recovery, in the transaction of the change."""

from typing import Any

import pytest

from deployments.commands import create_deployment, restart_deployment
from deployments.events import record_event
from deployments.models import Agent, Deployment
from deployments.notifications import notify_failed
from deployments.states import EventType
from portal.models.notifications import NotificationChannel
from tests.conftest import Cast
from tests.deployments.conftest import Runtime
from tests.local_aws import LocalAws
from tests.notifications.conftest import deliveries, make_channel
from tests.notifications.documented import assert_documented

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel(cast: Cast, settings: Any) -> NotificationChannel:
    settings.PORTAL_URL = "https://portal.example"
    make_channel(cast.globex, by=cast.outsider)
    return make_channel(cast.acme, by=cast.admin)


def kinds(channel: NotificationChannel) -> list[str]:
    return [each.kind for each in deliveries(channel)]


def test_a_failure_and_the_recovery_are_announced_once(
    cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws, channel: NotificationChannel
) -> None:
    platform.fault("image_pull", cluster=cast.acme.cluster, times=1)
    deployment = runtime.run(create_deployment(agent, actor=cast.operator), "failed")
    runtime.turn()
    restart_deployment(deployment, actor=cast.operator)
    runtime.run(deployment, "ready")
    runtime.turn()

    failed, recovered = deliveries(channel)
    assert (failed.kind, recovered.kind) == ("deployment.failed", "deployment.recovered")
    assert failed.title == "Acme Robotics (production): Support agent failed"
    assert "image pull failed: CannotPullContainerError" in failed.text
    assert (failed.data["status"], failed.subject) == ("failed", str(deployment.pk))
    assert failed.data["url"] == f"https://portal.example/o/acme/deployments/{deployment.pk}/"
    assert "is ready again: 1 of 1 tasks run." in recovered.text
    assert recovered.data["error_message"] is None
    for message in (failed, recovered):
        assert_documented(message)


def test_a_deployment_that_never_failed_announces_nothing(
    deployment: Deployment, runtime: Runtime, channel: NotificationChannel
) -> None:
    runtime.run(deployment, "ready")

    assert kinds(channel) == []


def test_a_refused_create_is_announced(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, channel: NotificationChannel
) -> None:
    platform.fault("access_denied", action="CreateService")

    runtime.run(deployment, "failed")

    (message,) = deliveries(channel)
    assert "ecs:CreateService" in message.data["error_message"]


def test_failing_again_and_again_is_announced_once(
    cast: Cast, deployment: Deployment, channel: NotificationChannel
) -> None:
    """Tasks that start and die make it fail, run and fail again. A restart by a person begins anew."""
    for event in (EventType.FAILED, EventType.RUNNING, EventType.FAILED, EventType.RESTART, EventType.FAILED):
        if event == EventType.FAILED:
            notify_failed(deployment, "exit code 1")
        record_event(deployment, event, actor="system")

    assert kinds(channel) == ["deployment.failed", "deployment.failed"]
