"""Stops of rollouts: what ends them, who is named, and stops that do not arrive."""

from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.rollouts import (
    deployments_started,
    get_service_name,
    trigger,
    verdicts,
)
from upgrades.commands.stop import stop_upgrade
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_stop_rolls_back_and_names_the_person(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, "all")
    engine.start(upgrade)
    platform.advance(5)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)

    assert upgrade.status == Status.FAILED
    assert verdicts(upgrade) == {
        "agent": (Status.FAILED, Outcome.STOPPED_BY_USER),
        "orchestrator": (Status.FAILED, Outcome.NOT_ATTEMPTED),
        "customer-portal": (Status.FAILED, Outcome.NOT_ATTEMPTED),
    }
    assert cast.admin.email in (upgrade.rollouts.get(service="agent").rollout_reason or "")
    assert len(platform.ledger(action="StopServiceDeployment", cluster=cast.acme.cluster, effect=True)) == 1


def test_a_stop_in_ecs_with_no_earlier_revision_is_stopped(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    client, name = platform.client(), get_service_name(cast)
    definition = client.describe_services(cluster=cast.acme.cluster, services=[name])["services"][0]["taskDefinition"]
    client.delete_service(cluster=cast.acme.cluster, service=name, force=True)
    platform.advance(600)
    platform.fault("stuck", cluster=cast.acme.cluster)
    client.create_service(cluster=cast.acme.cluster, serviceName=name, taskDefinition=definition, desiredCount=4)
    upgrade = trigger(cast, override_reason="it was created again just now")
    mine = engine.start(upgrade)
    client.stop_service_deployment(serviceDeploymentArn=mine.service_deployment_arn)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED)}
    assert "No earlier completed revision" in (upgrade.error_message or "")


def test_a_stop_before_the_start_changes_nothing_in_ecs(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    stop_upgrade(upgrade, actor=cast.operator)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.NOT_ATTEMPTED)}
    assert deployments_started(platform, cast.acme) == 0


def test_a_stop_after_ecs_rolled_back_is_not_the_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=get_service_name(cast))
    upgrade = trigger(cast)
    engine.start(upgrade)
    for _ in range(120):
        engine.step()
        if upgrade.rollouts.get().outcome == Outcome.ROLLING_BACK:
            break
        platform.advance(1)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.ROLLED_BACK)}
    assert cast.admin.email not in (upgrade.error_message or "")


def test_a_throttled_stop_is_not_recorded_as_sent(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("throttle", action="StopServiceDeployment")
    upgrade = trigger(cast)
    engine.start(upgrade)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.step()

    assert upgrade.rollouts.get().stop_sent_at is None


def test_a_stop_names_the_person_even_if_its_repeat_is_refused(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """A stale read still shows the deployment in progress."""
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(20)
    stop_upgrade(upgrade, actor=cast.admin)
    platform.fault("stale_reads", seconds=10)
    engine.step()
    platform.fault("error", action="StopServiceDeployment", code="ConflictException", status=400)
    engine.step()

    engine.run(upgrade)

    assert verdicts(upgrade) == {"agent": (Status.FAILED, Outcome.STOPPED_BY_USER)}


def test_a_denied_stop_is_shown_and_does_not_stop_reads(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    platform.fault("access_denied", action="StopServiceDeployment", account="111111111111")
    upgrade = trigger(cast)
    engine.start(upgrade)
    engine.step()
    before = upgrade.rollouts.get().last_checked_at
    stop_upgrade(upgrade, actor=cast.admin)

    engine.step()

    rollout = upgrade.rollouts.get()
    refusal = "The stop was refused. ecs:StopServiceDeployment: AccessDeniedException (AWS request "
    assert (rollout.stop_error or "").startswith(refusal)
    assert rollout.check_error is None
    assert rollout.last_checked_at != before
    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert "The stop request has not succeeded yet" in page
    assert str(rollout.stop_error) in page
    assert "AWS has not answered" not in page
    assert engine.run(upgrade).status == Status.SUCCESS
