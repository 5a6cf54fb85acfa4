"""Notifications about upgrades: sent once, in the transaction of the change, with what to do next."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.errors import PortalError
from portal.models import Organization, User
from portal.models.notifications import NotificationDelivery
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.notifications.conftest import make_channel
from tests.notifications.documented import assert_documented
from tests.upgrades.conftest import Door, make_upgrade, upgraded
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade
from upgrades.states import EventKind, Status

SignIn = Callable[[User], Client]
transactional = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def channels(cast: Cast, settings: Any) -> None:
    settings.PORTAL_URL = "https://portal.example"
    make_channel(cast.acme, by=cast.admin)
    make_channel(cast.globex, by=cast.outsider)


def trigger(cast: Cast, service: str = "agent", **asked: Any) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, force_new_deployment=True, **asked)


def announced(organization: Organization) -> list[NotificationDelivery]:
    """Return the organization's notifications, oldest first."""
    return list(NotificationDelivery.objects.filter(organization=organization).order_by("created_at"))


def kinds(organization: Organization) -> list[str]:
    return [each.kind for each in announced(organization)]


def test_a_start_is_announced_from_api_and_page(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    response = door.trigger(
        client_for(cast.operator), cast.acme, service="all", force_new_deployment=True, reason="OPS-1 <b>"
    )

    upgrade = door.find_upgrade(response)
    (message,) = announced(cast.acme)
    assert (message.kind, message.subject) == ("upgrade.started", upgrade.upgrade_id)
    assert message.title == "Acme Robotics (production): upgrade started"
    assert message.text == (
        f"{cast.operator.email} started {upgrade.upgrade_id}: agent service, then orchestrator, then customer portal "
        "to latest, forced.\nReason: OPS-1 <b>"
    )
    expected = {
        "organization": "acme",
        "upgrade_id": upgrade.upgrade_id,
        "kind": "upgrade",
        "status": "PENDING",
        "version": "latest",
        "force_new_deployment": True,
        "reason": "OPS-1 <b>",
        "override_reason": "",
        "rolls_back": None,
        "actor": cast.operator.email,
        "url": f"https://portal.example/o/acme/upgrades/{upgrade.upgrade_id}/",
    }
    assert {name: message.data[name] for name in expected} == expected
    assert [each["service"] for each in message.data["services"]] == ["agent", "orchestrator", "customer-portal"]
    assert_documented(message)
    assert announced(cast.globex) == []


def test_the_same_request_again_announces_nothing_more(cast: Cast, platform: LocalAws) -> None:
    for _ in range(2):
        trigger(cast, idempotency_key="once")

    assert kinds(cast.acme) == ["upgrade.started"]


def test_a_refused_request_announces_nothing(cast: Cast, platform: LocalAws) -> None:
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    with pytest.raises(PortalError):
        trigger(cast)

    assert announced(cast.acme) == []


@transactional
def test_an_end_lists_each_service_and_the_next_step(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-orchestrator-service")

    upgrade = engine.run(trigger(cast, "all"), seconds=15)

    assert kinds(cast.acme) == ["upgrade.started", "upgrade.ended"]
    message = announced(cast.acme)[1]
    assert message.title == "Acme Robotics (production): upgrade ended PARTIAL"
    summary, agent, orchestrator, portal, following = message.text.split("\n")
    assert summary == upgrade.message
    assert agent == "Agent service: Success. Completed."
    assert orchestrator.startswith("Orchestrator: Failed. Rolled back by ECS.")
    assert "exit code" in orchestrator
    assert portal == "Customer portal: Failed. Not attempted because an earlier service failed. Nothing was changed."
    assert following == (
        "Next: Find out why its new tasks stopped and fix the cause. The upgrade's page offers the safe next step."
    )
    assert message.data["status"] == "PARTIAL"
    assert_documented(message)
    outcomes = [(each["service"], each["status"], each["outcome"]) for each in message.data["services"]]
    assert outcomes == [
        ("agent", "SUCCESS", "completed"),
        ("orchestrator", "FAILED", "rolled_back"),
        ("customer-portal", "FAILED", "not_attempted"),
    ]


@transactional
def test_a_success_asks_for_its_validation(cast: Cast, engine: Engine) -> None:
    engine.run(trigger(cast))

    assert announced(cast.acme)[-1].text.endswith("Next: Validate it. Rolled out does not mean working.")


@transactional
def test_a_stopped_upgrade_is_announced_once(cast: Cast, engine: Engine) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    stop_upgrade(upgrade, actor=cast.admin)

    engine.run(upgrade)
    engine.step()

    assert kinds(cast.acme) == ["upgrade.started", "upgrade.ended"]
    assert f"Stopped by {cast.admin.email}" in announced(cast.acme)[1].text
    ended = upgrade.rollouts.get().events.filter(kind=EventKind.ROLLOUT_ENDED).values_list("message", flat=True)
    assert [text.count("Stopped by") for text in ended] == [1]


@transactional
def test_a_rollout_that_stalls_twice_is_announced_once(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any
) -> None:
    upgrade = trigger(cast, reason="OPS-2")
    engine.start(upgrade)
    for seconds in (0, 300, 0):
        settings.UPGRADE_STALL_SECONDS = seconds
        Rollout.objects.update(stall_seconds=None)
        engine.step()
        engine.step()

    assert kinds(cast.acme) == ["upgrade.started", "upgrade.stalled"]
    message = announced(cast.acme)[1]
    assert message.title == "Acme Robotics (production): rollout of agent service stalled"
    assert "No progress since" in message.text
    assert message.data["reason"] == "OPS-2"


def test_a_rollback_says_what_it_undoes(cast: Cast, platform: LocalAws) -> None:
    done = upgraded(cast, platform, "agent")

    upgrade = rollback_upgrade(done, actor=cast.operator)

    (message,) = announced(cast.acme)
    assert message.title == "Acme Robotics (production): rollback started"
    assert f"agent service back to v9.9.0, rolling back {done.upgrade_id}" in message.text
    assert (message.subject, message.data["rolls_back"]) == (upgrade.upgrade_id, done.upgrade_id)


def test_a_suspended_organization_gets_no_announcement(cast: Cast, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    NotificationDelivery.objects.all().delete()

    Engine(platform).run(upgrade)

    assert upgrade.status == Status.FAILED
    assert announced(cast.acme) == []
