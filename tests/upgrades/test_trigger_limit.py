"""An organization triggers at most so many upgrades an hour; stop and rollbacks are not limited."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client
from django.utils import timezone

from portal.models import Organization
from tests.conftest import Cast, sign_in
from tests.local_aws import LocalAws
from tests.upgrades.conftest import Door, make_upgrade, upgraded
from upgrades.models import Kind, Upgrade
from upgrades.states import Status


@pytest.fixture
def client(cast: Cast) -> Client:
    cast.acme.upgrade_trigger_limit = 2
    cast.acme.save()
    return sign_in(Client(), cast.operator)


def make_old(upgrade: Upgrade, **age: int) -> None:
    Upgrade.objects.filter(pk=upgrade.pk).update(created_at=timezone.now() - timedelta(**age))


def test_the_limit_is_sixty_an_hour(cast: Cast) -> None:
    assert Organization.objects.get(pk=cast.acme.pk).upgrade_trigger_limit == 60


def test_a_trigger_over_the_limit_is_429(cast: Cast, platform: LocalAws, client: Client, door: Door) -> None:
    for minutes in (50, 20):
        make_old(make_upgrade(cast.acme, by=cast.admin), minutes=minutes)
    make_old(make_upgrade(cast.acme, by=cast.admin), minutes=10)
    Upgrade.objects.filter(created_at__gt=timezone.now() - timedelta(minutes=15)).update(kind=Kind.ROLLBACK)
    make_upgrade(cast.globex, by=cast.outsider)

    refused = door.trigger(client, cast.acme)
    Upgrade.objects.update(created_at=F("created_at") - timedelta(minutes=11))
    accepted = door.trigger(client, cast.acme)

    assert (refused.status_code, accepted.status_code) == (429, door.accepted)
    assert 590 <= int(refused["Retry-After"]) <= 600
    assert "Acme Robotics has triggered 2 upgrades within an hour, its limit." in door.get_text(refused)


def test_the_api_says_how_many_upgrades_are_left(cast: Cast, platform: LocalAws, client: Client) -> None:
    path, body = "/api/v1/deployments/upgrade", {"service": "agent"}
    headers = {"X-Organization": "acme", "Idempotency-Key": "once"}
    make_upgrade(cast.acme, by=cast.admin, target="orchestrator")
    most = cast.acme.upgrade_trigger_limit

    answers = [client.post(path, body, content_type="application/json", headers=headers) for _ in range(2)]
    refused = client.post(path, {"service": "all"}, content_type="application/json")

    assert answers[0].headers["RateLimit-Policy"] == f'"upgrades";q={most};w=3600'
    assert answers[0].headers["RateLimit"] == f'"upgrades";r={most - 2}'
    assert (answers[1].status_code, "RateLimit" in answers[1].headers) == (202, False)
    assert refused.headers["RateLimit"] == f'"upgrades";r=0;t={refused.headers["Retry-After"]}'


def test_a_repeated_request_is_answered_as_before(cast: Cast, platform: LocalAws, client: Client, door: Door) -> None:
    first = door.trigger(client, cast.acme, key="once")
    make_upgrade(cast.acme, by=cast.admin, target="orchestrator")

    again = door.trigger(client, cast.acme, key="once")

    assert (again.status_code, door.find_upgrade(again)) == (door.accepted, door.find_upgrade(first))


def test_stop_and_rollback_are_not_limited(cast: Cast, platform: LocalAws, client: Client, door: Door) -> None:
    ended = upgraded(cast, platform, "agent")
    running = make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.IN_PROGRESS])

    stopped = door.stop(client, cast.acme, running.upgrade_id)
    rolled_back = door.rollback(client, cast.acme, ended.upgrade_id)

    assert (stopped.status_code, rolled_back.status_code) == (door.accepted, door.accepted)
