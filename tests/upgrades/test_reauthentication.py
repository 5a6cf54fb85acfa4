"""Where an organization requires re-authentication: what asks for it, through page and API alike."""

from typing import Any

import pytest
from django.test import Client

from tests.conftest import Cast, sign_in
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, Door, make_upgrade, post_json, upgraded
from tests.upgrades.test_decisions import CONTINUE, ROLL_BACK, set_pause
from upgrades.models import Decision, Upgrade
from upgrades.states import Status

RISKY = [{"service": "all"}, {"force_new_deployment": True}]


@pytest.fixture
def required(cast: Cast) -> None:
    cast.acme.requires_reauthentication = True
    cast.acme.save()


@pytest.fixture
def stale(cast: Cast) -> Client:
    """Return a client of the operator, who has not re-authenticated."""
    return sign_in(Client(), cast.operator, is_fresh=False)


def is_asked(response: Any, door: Door) -> bool:
    if door.name == "page":
        return response.status_code == 302 and response["Location"].startswith("/accounts/reauthenticate/")
    return response.status_code == 403 and response.json()["code"] == "reauthentication_required"


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("asked", RISKY)
def test_a_risky_trigger_asks(cast: Cast, platform: LocalAws, stale: Client, door: Door, asked: Any) -> None:
    assert is_asked(door.trigger(stale, cast.acme, **asked), door)
    assert not Upgrade.objects.exists()

    fresh = door.trigger(sign_in(Client(), cast.operator), cast.acme, **asked)

    assert (fresh.status_code, is_asked(fresh, door)) == (door.accepted, False)
    assert Upgrade.objects.count() == 1


@pytest.mark.usefixtures("required")
def test_an_ordinary_trigger_does_not_ask(cast: Cast, platform: LocalAws, stale: Client, door: Door) -> None:
    assert not is_asked(door.trigger(stale, cast.acme, service="agent"), door)
    assert Upgrade.objects.count() == 1


@pytest.mark.parametrize("asked", RISKY)
def test_nothing_asks_unless_it_is_required(
    cast: Cast, platform: LocalAws, stale: Client, door: Door, asked: Any
) -> None:
    response = door.trigger(stale, cast.acme, **asked)

    assert (response.status_code, is_asked(response, door)) == (door.accepted, False)


@pytest.mark.usefixtures("required")
def test_continuing_asks_and_rolling_back_does_not(cast: Cast, stale: Client, door: Door) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    set_pause(upgrade)

    assert is_asked(door.decide(stale, cast.acme, upgrade.upgrade_id, **CONTINUE), door)
    assert not Decision.objects.exists()
    assert not is_asked(door.decide(stale, cast.acme, upgrade.upgrade_id, **ROLL_BACK), door)
    assert Decision.objects.get().action == "rollback"


@pytest.mark.usefixtures("required")
def test_stop_and_rollback_never_ask(cast: Cast, platform: LocalAws, stale: Client, door: Door) -> None:
    upgrade = upgraded(cast, platform, "all")

    rollback = door.rollback(stale, cast.acme, upgrade.upgrade_id)
    stop = door.stop(stale, cast.acme, door.find_upgrade(rollback).upgrade_id)

    assert (rollback.status_code, stop.status_code) == (door.accepted, door.accepted)
    assert not is_asked(rollback, door)
    assert not is_asked(stop, door)


@pytest.mark.usefixtures("required")
def test_a_client_confirms_and_sends_it_again(cast: Cast, platform: LocalAws, stale: Client) -> None:
    body = {"service": "all"}
    refused = post_json(stale, UPGRADE, body)
    confirmed = post_json(stale, "/api/v1/auth/reauthenticate", {"password": cast.password})
    accepted = post_json(stale, UPGRADE, body)

    assert [each.status_code for each in (refused, confirmed, accepted)] == [403, 204, 202]


@pytest.mark.usefixtures("required")
def test_the_page_starts_what_was_typed(cast: Cast, platform: LocalAws, stale: Client) -> None:
    form = {"service": "all", "version": "latest", "confirmation": "acme", "idempotency_key": "1", "reason": "OPS-9"}
    asked = stale.post("/o/acme/upgrades/new", form)

    then = stale.get(asked["Location"]).context["redirect_field_value"]
    done = stale.post("/accounts/reauthenticate/", {"password": cast.password, "next": then})

    upgrade = Upgrade.objects.get()
    assert (upgrade.target, upgrade.reason) == ("all", "OPS-9")
    assert done["Location"] == f"/o/acme/upgrades/{upgrade.upgrade_id}/"
