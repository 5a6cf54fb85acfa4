"""The pages of a rollback: what the form says, and what the pages of both upgrades show."""

from collections.abc import Callable

import pytest
from django.core.cache import cache
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import (
    Door,
    deploy,
    register,
    running,
    upgraded,
)
from tests.upgrades.rollbacks import get_page_url, roll_back
from tests.upgrades.versions import put_image
from upgrades.models import Kind, Upgrade
from upgrades.states import Status, get_services

SignIn = Callable[[User], Client]


# --- the page's own ------------------------------------------------------------------------------------------------


def test_the_page_says_what_it_will_do(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    partial = upgraded(cast, platform, "all", [Status.SUCCESS, Status.SUCCESS, Status.FAILED])
    deploy(platform, cast.acme, "orchestrator", register(platform, cast.acme, "orchestrator", "v9.9.2"))

    text = client_for(cast.operator).get(get_page_url(partial)).content.decode()

    assert "Roll back agent service</button>" in text
    for said in (
        "v9.9.1",
        "v9.9.0",
        "4 of 4 running",
        "(v9.9.2) now",
        "it did not advance",
        "The database is not rolled",
    ):
        assert said in text
    assert "to confirm" not in text
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("registry")
def test_the_page_warns_if_the_earlier_tag_has_moved(
    cast: Cast, engine: Engine, registry: dict[str, str], platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    done = engine.run(door.find_upgrade(door.trigger(client, cast.acme, service="agent", version="v9.9.1")))
    before = client.get(get_page_url(done)).content.decode()
    assert "Only the image changes" in before
    assert "would not run the same image as before" not in before

    moved = put_image(platform, ["rebuilt", "v9.9.0"])
    cache.clear()  # reads of the registry are cached for a minute

    text = " ".join(client.get(get_page_url(done)).content.decode().split())
    assert "Agent service would not run the same image as before." in text
    assert f'{moved[:19]}</span>, not <span class="mono">{registry["agent:v9.9.0"][:19]}</span>' in text


def test_the_page_says_that_ecs_does_not_answer(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn
) -> None:
    platform.fault("server_error", action="*", account="111111111111")

    text = client_for(cast.operator).get(get_page_url(done)).content.decode()

    assert "ECS could not be read" in text
    assert "Not known" in text
    assert "Roll back agent service</button>" in text


def test_several_services_need_the_slug_typed(cast: Cast, done_all: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    sent = {"services": "agent orchestrator customer-portal", "idempotency_key": "k"}

    refused = client.post(get_page_url(done_all), sent | {"confirmation": "globex"})
    accepted = client.post(get_page_url(done_all), sent | {"confirmation": "acme"})

    assert refused.status_code == 422
    assert "Type acme to confirm that this is the right organization." in refused.content.decode()
    assert accepted.status_code == 302


def test_a_plan_that_changed_is_shown_again(
    cast: Cast, platform: LocalAws, done_all: Upgrade, client_for: SignIn
) -> None:
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    sent = {"services": "agent orchestrator customer-portal", "idempotency_key": "k", "confirmation": "acme"}

    response = client_for(cast.operator).post(get_page_url(done_all), sent)

    text = response.content.decode()
    assert response.status_code == 409
    assert "has changed since" in text
    assert 'name="services" value="orchestrator customer-portal"' in text
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()


def test_a_viewer_reads_the_plan_and_why_not(cast: Cast, done: Upgrade, client_for: SignIn) -> None:
    text = client_for(cast.viewer).get(get_page_url(done)).content.decode()

    assert "You can view this plan, but not roll back." in text
    assert "Rolls back" in text
    assert "</button>" not in text.partition('<h2 id="start-title">')[2].partition("</section>")[0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("registry")
def test_from_a_version_up_and_back_down_again(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    before = {service: running(platform, cast.acme, service) for service in get_services("all")}
    up = engine.run(door.find_upgrade(door.trigger(client, cast.acme, service="all", version="v9.9.1")))

    down = engine.run(door.find_upgrade(door.rollback(client, cast.acme, up.upgrade_id)))

    assert (up.status, down.status, down.version) == (Status.SUCCESS, Status.SUCCESS, "v9.9.0")
    assert [(rollout.from_version, rollout.to_version) for rollout in down.rollouts.all()] == [("v9.9.1", "v9.9.0")] * 3
    assert {service: running(platform, cast.acme, service) for service in get_services("all")} == before


# --- both upgrades' pages -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_two_pages_link_to_each_other(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    rollback = roll_back(cast, done)
    under_way = client.get(get_page_url(done).removesuffix("rollback")).content.decode()
    engine.run(rollback)

    original = client.get(get_page_url(done).removesuffix("rollback")).content.decode()
    its_own = client.get(get_page_url(rollback).removesuffix("rollback")).content.decode()

    assert "Recorded. No service has started yet." in under_way
    assert "Rolled back: agent service." in original
    assert f'href="/o/acme/upgrades/{rollback.upgrade_id}/"' in original
    assert f'href="/o/acme/upgrades/{done.upgrade_id}/"' in its_own


@pytest.mark.parametrize(
    ("person", "statuses", "offered"),
    [
        ("operator", [Status.SUCCESS], True),
        ("viewer", [Status.SUCCESS], False),
        ("operator", [Status.IN_PROGRESS], False),
        ("operator", [Status.FAILED], False),
    ],
)
def test_rollback_is_offered_only_if_role_and_state_allow_it(
    cast: Cast, platform: LocalAws, client_for: SignIn, person: str, statuses: list[Status], offered: bool
) -> None:
    upgrade = upgraded(cast, platform, "agent", statuses)

    text = client_for(getattr(cast, person)).get(get_page_url(upgrade).removesuffix("rollback")).content.decode()

    assert (f'href="{get_page_url(upgrade)}"' in text) is offered
