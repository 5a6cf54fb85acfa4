"""The overview: running services, open and recent upgrades, and the live block."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import Heartbeat, Organization, User
from portal.tasks import record_heartbeat
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, VERSIONS, make_upgrade
from upgrades.inventory.running import FAILED_SECONDS, FRESH_SECONDS, LONGEST_WAIT_SECONDS, Reading, refresh_reading
from upgrades.states import Status

SignIn = Callable[[User], Client]

URL, LIVE = "/o/acme/", "/o/acme/services/"
HTMX = {"HX-Request": "true"}


def test_it_shows_what_ecs_runs(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    text = client_for(cast.viewer).get(URL).content.decode()

    for said in ("Acme Robotics", f"{cast.acme.deployment_stack}-agent-service", "4 of 4", "v9.9.0", "Steady"):
        assert said in text
    assert "No upgrades yet." in text


def test_it_shows_open_and_recent_upgrades(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    past = [make_upgrade(cast.acme, by=cast.operator) for _ in range(6)]
    now = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.IN_PROGRESS])
    foreign = make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.IN_PROGRESS])

    text = client_for(cast.viewer).get(URL).content.decode()

    assert "Happening now" in text
    assert now.upgrade_id in text
    assert past[-1].upgrade_id in text
    assert past[0].upgrade_id not in text
    assert foreign.upgrade_id not in text


def test_the_live_block_polls_itself(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    response = client_for(cast.viewer).get(LIVE, headers=HTMX)

    text = response.content.decode()
    assert "<!doctype html>" not in text
    assert f'hx-get="{LIVE}"' in text


def test_the_block_without_htmx_redirects_to_its_page(cast: Cast, client_for: SignIn) -> None:
    assert client_for(cast.viewer).get(LIVE).headers["Location"] == URL


def test_when_aws_is_down_the_last_rows_stay_with_their_age(
    cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any
) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client.get(LIVE, headers=HTMX)
    platform.fault("access_denied", action="*", account="111111111111")

    time_machine.shift(FRESH_SECONDS + 60)
    text = client.get(LIVE, headers=HTMX).content.decode()

    assert "could not be read" in text
    assert "12:00:00 UTC" in text
    assert "4 of 4" in text


def test_if_aws_never_answered_nothing_is_invented(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    platform.fault("access_denied", action="*", account="111111111111")

    text = client_for(cast.viewer).get(URL).content.decode()

    assert "what runs now is not known" in text
    assert "Steady" not in text


def test_a_hanging_ecs_is_waited_for_briefly_and_only_once(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    platform.fault("delay", action="DescribeServices", account="111111111111", seconds=30)

    seconds = []
    for _ in range(2):
        began = time.monotonic()
        text = client.get(LIVE, headers=HTMX).content.decode()
        seconds.append(time.monotonic() - began)
        assert "what runs now is not known" in text

    assert seconds[0] < LONGEST_WAIT_SECONDS + 1
    assert seconds[1] < 1


def test_a_failed_read_expires(cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    platform.fault("access_denied", action="*", account="111111111111")
    client.get(LIVE, headers=HTMX)
    platform.clear_faults()

    assert "could not be read" in client.get(LIVE, headers=HTMX).content.decode()
    time_machine.shift(FAILED_SECONDS)
    assert "could not be read" not in client.get(LIVE, headers=HTMX).content.decode()


def test_while_one_request_reads_others_get_the_cached_rows(
    cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any
) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client.get(LIVE, headers=HTMX)
    time_machine.shift(FRESH_SECONDS)
    platform.fault("delay", action="DescribeServices", account="111111111111", seconds=2)

    slow = threading.Thread(target=read_platform_elsewhere, args=(cast.acme,))
    slow.start()
    time.sleep(0.3)
    began = time.monotonic()
    text = client.get(LIVE, headers=HTMX).content.decode()
    seconds = time.monotonic() - began
    slow.join()

    assert seconds < 1
    assert "4 of 4" in text


def read_platform_elsewhere(organization: Organization) -> None:
    refresh_reading(organization, str(organization.cluster), Reading([], read_at=None), {})


def test_viewers_see_the_call_and_code_but_no_principal(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    platform.fault("access_denied", action="DescribeServices", account="111111111111")

    text = client_for(cast.viewer).get(URL).content.decode()

    assert "ecs:DescribeServices: AccessDenied" in text
    assert "arn:aws:iam" not in text


@pytest.mark.parametrize("url", [URL, LIVE, "/o/acme/upgrades/new", VERSIONS])
def test_pages_work_while_the_cache_is_down(
    cast: Cast, platform: LocalAws, client_for: SignIn, cache_down: None, url: str
) -> None:
    response = client_for(cast.operator).get(url, headers=HTMX)

    assert response.status_code == 200
    assert "v9.9.0" in response.content.decode()


def test_without_a_cluster_the_page_says_what_comes_next(cast: Cast, client_for: SignIn) -> None:
    assert "has no ECS cluster yet" in client_for(cast.newcomer).get("/o/initech/").content.decode()


def test_a_silent_runner_is_shown_on_every_page(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    silent = client.get(URL).content.decode()
    record_heartbeat("scheduler")
    record_heartbeat("worker")

    assert "The upgrade runner (scheduler and worker) has not been seen" in silent
    assert "has not been seen" not in client.get(URL).content.decode()
    assert Heartbeat.objects.count() == 2


def test_viewers_share_one_reading_of_ecs(
    cast: Cast, platform: LocalAws, client_for: SignIn, django_assert_num_queries: Any
) -> None:
    client = client_for(cast.viewer)
    client.get(URL)
    platform.fault("access_denied", action="*", account="111111111111")

    text = client.get(LIVE, headers=HTMX).content.decode()

    assert "could not be read" not in text


@pytest.mark.parametrize("rows", [0, 5])
def test_its_queries_do_not_grow_with_the_upgrades(
    cast: Cast, platform: LocalAws, client_for: SignIn, django_assert_num_queries: Any, rows: int
) -> None:
    for _ in range(rows):
        make_upgrade(cast.acme, by=cast.operator, target="all")
    client = client_for(cast.viewer)
    client.get(URL)

    with django_assert_num_queries(SIGNED_IN_QUERIES + 2):  # the frame; the rows of all apps
        client.get(URL)


@pytest.mark.parametrize("url", [URL, LIVE])
@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str, url: str, headers: dict[str, str]) -> None:
    response = client_for(getattr(cast, person)).get(url, headers=headers)

    assert response.status_code == 404
    assert "Acme" not in response.content.decode()


@pytest.mark.parametrize("url", [URL, LIVE])
def test_anonymous_is_sent_to_sign_in(cast: Cast, url: str) -> None:
    page, fragment = Client().get(url), Client().get(url, headers=HTMX)

    assert (page.status_code, page.headers["Location"].partition("?")[0]) == (302, "/accounts/login/")
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")


@pytest.mark.parametrize("url", [URL, LIVE])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, url: str, method: str) -> None:
    assert getattr(client_for(cast.admin), method)(url).status_code == 405
