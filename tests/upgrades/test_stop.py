"""Stopping an upgrade: first through both page and API, then what only one of them has."""

from collections.abc import Callable

import pytest
from django.test import Client

from portal.errors import PortalError
from portal.models import AuditEvent, Membership, User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, Door, assert_refused, make_upgrade
from upgrades.commands.stop import stop_upgrade
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]


@pytest.fixture
def running(cast: Cast) -> Upgrade:
    """Return an upgrade of acme's three services, of which the first is rolling."""
    return make_upgrade(
        cast.acme, by=cast.operator, target="all", statuses=[Status.IN_PROGRESS, Status.PENDING, Status.PENDING]
    )


def assert_untouched(upgrade: Upgrade) -> None:
    upgrade.refresh_from_db()
    assert (upgrade.stop_requested_at, upgrade.stop_requested_by) == (None, None)
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("person", ["operator", "admin", "consultant"])
def test_a_stop_is_marked_with_who_and_when(
    cast: Cast, running: Upgrade, client_for: SignIn, door: Door, person: str
) -> None:
    actor = getattr(cast, person)

    response = door.stop(client_for(actor), cast.acme, running.upgrade_id)

    assert response.status_code == door.accepted
    running.refresh_from_db()
    assert running.stop_requested_by == actor
    assert running.stop_requested_at is not None
    assert running.status == Status.IN_PROGRESS  # until ECS has rolled back


def test_a_rolling_service_becomes_due_immediately(
    cast: Cast, running: Upgrade, client_for: SignIn, door: Door
) -> None:
    door.stop(client_for(cast.operator), cast.acme, running.upgrade_id)

    due = running.rollouts.filter(next_check_at__isnull=False).values_list("service", flat=True)
    assert list(due) == ["agent"]


def test_a_second_stop_request_is_harmless(cast: Cast, running: Upgrade, client_for: SignIn, door: Door) -> None:
    door.stop(client_for(cast.operator), cast.acme, running.upgrade_id)

    again = door.stop(client_for(cast.admin), cast.acme, running.upgrade_id)

    assert again.status_code == door.accepted
    running.refresh_from_db()
    assert running.stop_requested_by == cast.operator
    assert AuditEvent.objects.count() == 1


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404_as_for_a_random_id(
    cast: Cast, running: Upgrade, client_for: SignIn, door: Door, person: str
) -> None:
    client = client_for(getattr(cast, person))

    response = door.stop(client, cast.acme, running.upgrade_id)

    assert response.status_code == 404
    assert running.upgrade_id not in door.get_text(response)
    assert_untouched(running)


def test_viewer_gets_403(cast: Cast, running: Upgrade, client_for: SignIn, door: Door) -> None:
    response = door.stop(client_for(cast.viewer), cast.acme, running.upgrade_id)

    assert response.status_code == 403
    assert_untouched(running)


def test_a_removed_member_gets_404(cast: Cast, running: Upgrade, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    Membership.objects.filter(user=cast.operator).delete()

    assert door.stop(client, cast.acme, running.upgrade_id).status_code == 404
    assert_untouched(running)


@pytest.mark.parametrize(("person", "status"), [("outsider", 404), ("stranger", 404), ("viewer", 403)])
def test_the_command_refuses_by_itself(cast: Cast, running: Upgrade, person: str, status: int) -> None:
    with pytest.raises(PortalError) as refused:
        stop_upgrade(running, actor=getattr(cast, person))

    assert refused.value.status == status
    assert_untouched(running)


# --- wrong state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED])
def test_an_ended_upgrade_cannot_be_stopped(cast: Cast, client_for: SignIn, door: Door, status: Status) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator, statuses=[status])

    response = door.stop(client_for(cast.operator), cast.acme, ended.upgrade_id)

    assert response.status_code == 409
    assert f"{ended.upgrade_id} has ended {status}" in door.get_text(response)
    assert_untouched(ended)


# --- the audit row -------------------------------------------------------------------------------------------------


def test_the_stop_is_audited(cast: Cast, running: Upgrade, client_for: SignIn, door: Door) -> None:
    door.stop(client_for(cast.operator), cast.acme, running.upgrade_id)

    event = AuditEvent.objects.get()
    assert (event.kind, event.organization, event.actor) == ("upgrade.stop_requested", cast.acme, cast.operator)
    assert event.subject == running.upgrade_id


# --- the API's own -------------------------------------------------------------------------------------------------


def test_the_api_answers_202_with_the_record(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    response = client.post(f"{UPGRADE}/{running.upgrade_id}/stop", content_type="application/json")

    assert response.status_code == 202
    assert response.json() == client.get(f"{UPGRADE}/{running.upgrade_id}").json()


def test_the_api_takes_an_empty_object_and_nothing_else(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    client, url = client_for(cast.operator), f"{UPGRADE}/{running.upgrade_id}/stop"

    unknown = client.post(url, '{"force": true}', content_type="application/json")
    form = client.post(url, "force=1", content_type="application/x-www-form-urlencoded")
    query = client.post(f"{url}?force=1", content_type="application/json")

    assert list(assert_refused(unknown, 400, "invalid")["errors"]) == ["force"]
    assert_refused(form, 415, "unsupported_media_type")
    assert list(assert_refused(query, 400, "invalid")["errors"]) == ["force"]
    assert_untouched(running)
    assert client.post(url, "{}", content_type="application/json").status_code == 202


@pytest.mark.parametrize("upgrade_id", ["upgrade-2026-0101-000000-abcdef", "1", "%2e%2e", "'--", "é"])
def test_the_api_answers_an_unknown_id_like_a_foreign_one(
    cast: Cast, running: Upgrade, client_for: SignIn, upgrade_id: str
) -> None:
    client = client_for(cast.outsider)

    unknown = client.post(f"{UPGRADE}/{upgrade_id}/stop", content_type="application/json")
    foreign = client.post(f"{UPGRADE}/{running.upgrade_id}/stop", content_type="application/json")

    assert_refused(unknown, 404, "not_found")
    assert unknown.content == foreign.content


def test_the_api_answers_anonymous_401_and_another_method_405(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    url = f"{UPGRADE}/{running.upgrade_id}/stop"

    assert_refused(Client().post(url), 401, "not_authenticated")
    assert_refused(client_for(cast.operator).get(url), 405, "method_not_allowed")
    assert_refused(client_for(cast.operator).post(f"{url}/", content_type="application/json"), 404, "not_found")
    assert_untouched(running)


def test_without_csrf_token_nothing_is_stopped(cast: Cast, running: Upgrade, door: Door) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.operator, backend="portal.accounts.person.AuthenticationBackend")

    assert door.stop(client, cast.acme, running.upgrade_id).status_code == 403
    assert_untouched(running)


# --- the page's own ------------------------------------------------------------------------------------------------


def test_the_page_says_what_a_stop_does_before_it_acts(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.operator).get(f"/o/acme/upgrades/{running.upgrade_id}/stop")

    text = response.content.decode()
    assert response.status_code == 200
    assert "Stop and roll back" in text
    assert "has not started: it will not be touched." in text
    assert_untouched(running)


@pytest.mark.parametrize("person", ["viewer", "operator"])
def test_the_page_says_why_there_is_nothing_to_stop(cast: Cast, client_for: SignIn, person: str) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator)

    text = client_for(getattr(cast, person)).get(f"/o/acme/upgrades/{ended.upgrade_id}/stop").content.decode()

    assert "It has already ended with status SUCCESS." in text
    assert "Stop and roll back" not in text


@pytest.mark.parametrize(("first", "ends"), [(Status.SUCCESS, "Partial"), (Status.FAILED, "Failed")])
def test_the_page_says_how_the_upgrade_would_end(cast: Cast, client_for: SignIn, first: Status, ends: str) -> None:
    upgrade = make_upgrade(
        cast.acme, by=cast.operator, target="all", statuses=[first, Status.IN_PROGRESS, Status.PENDING]
    )

    text = client_for(cast.operator).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop").content.decode()

    assert f"Failed (stopped by you), and the upgrade as {ends}." in text


def test_a_stop_that_comes_too_late_shows_the_page_again(cast: Cast, client_for: SignIn) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator)

    response = client_for(cast.operator).post(f"/o/acme/upgrades/{ended.upgrade_id}/stop")

    text = response.content.decode()
    assert response.status_code == 409
    assert f"This upgrade cannot be stopped. {ended.upgrade_id} has ended SUCCESS" in text
    assert "Back to the upgrade" in text
    assert "Stop and roll back" not in text


def test_after_a_stop_the_page_of_the_upgrade_confirms_it(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.operator).post(f"/o/acme/upgrades/{running.upgrade_id}/stop", follow=True)

    assert response.redirect_chain == [(f"/o/acme/upgrades/{running.upgrade_id}/", 302)]
    assert "Stop requested." in response.content.decode()


def test_the_page_sends_anonymous_to_sign_in(cast: Cast, running: Upgrade) -> None:
    url = f"/o/acme/upgrades/{running.upgrade_id}/stop"

    page, fragment = Client().post(url), Client().post(url, headers={"HX-Request": "true"})

    assert (page.status_code, page.headers["Location"]) == (302, f"/accounts/login/?next={url.replace('/', '%2F')}")
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")
    assert_untouched(running)


# --- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_stopped_upgrade_is_rolled_back_by_ecs(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    started = client.post(UPGRADE, {"service": "agent", "force_new_deployment": True}, content_type="application/json")
    upgrade = Upgrade.objects.get(upgrade_id=started.json()["upgrade_id"])
    engine.start(upgrade)
    platform.advance(5)

    client.post(f"{UPGRADE}/{upgrade.upgrade_id}/stop", content_type="application/json")
    engine.run(upgrade)

    (entry,) = client.get(started.json()["status_url"]).json()["services"]
    assert (entry["status"], entry["outcome"]) == ("FAILED", "stopped_by_user")
    assert cast.operator.email in entry["rollout_reason"]
