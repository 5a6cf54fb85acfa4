"""The page of one upgrade: whole, as a live fragment, and after the upgrade has ended."""

import html
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from portal.models import Membership, User
from portal.tasks import record_heartbeat
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade
from upgrades.outcome_texts import OUTCOME_TEXTS
from upgrades.states import Outcome, Status

SignIn = Callable[[User], Client]

HTMX = {"HX-Request": "true"}


def get_url(upgrade: Upgrade) -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/"


@pytest.fixture
def running(cast: Cast) -> Upgrade:
    return make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS], reason="OPS-1 <b>")


def test_the_page_shows_the_upgrade(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.viewer).get(get_url(running))

    text = response.content.decode()
    assert response.status_code == 200
    expected = [running.upgrade_id, "In progress: agent service.", cast.operator.email, "OPS-1 &lt;b&gt;"]
    for said in (*expected, "<!doctype html>"):
        assert said in text
    assert "HX-Request" in response.headers["Vary"]


def test_the_fragment_polls_while_the_upgrade_is_open(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    response = client_for(cast.viewer).get(get_url(running), headers=HTMX)

    text = response.content.decode()
    assert "<!doctype html>" not in text
    assert f'hx-get="{get_url(running)}"' in text
    assert 'data-live="2"' in text


def test_the_polling_ends_with_the_upgrade(cast: Cast, client_for: SignIn) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)

    for text in (
        client.get(get_url(ended), headers=HTMX).content.decode(),
        client.get(get_url(ended)).content.decode(),
    ):
        assert 'data-live="2"' not in text
        assert f'hx-get="{get_url(ended)}"' not in text


def test_a_silent_runner_is_shown_on_page_and_fragment(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.viewer)

    page, fragment = client.get(get_url(running)), client.get(get_url(running), headers=HTMX)

    for response in (page, fragment):
        assert response.content.decode().count("The upgrade runner (scheduler and worker) has not been seen") == 1
    record_heartbeat("scheduler")
    record_heartbeat("worker")
    assert "has not been seen" not in client.get(get_url(running), headers=HTMX).content.decode()


@pytest.mark.parametrize("name", ["HX-Boosted", "HX-History-Restore-Request"])
def test_a_boosted_or_restored_visit_gets_the_page(cast: Cast, running: Upgrade, client_for: SignIn, name: str) -> None:
    response = client_for(cast.viewer).get(get_url(running), headers=HTMX | {name: "true"})

    assert "<!doctype html>" in response.content.decode()


def test_an_unchanged_fragment_costs_a_304(cast: Cast, client_for: SignIn, time_machine: Any) -> None:
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    ended = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(cast.viewer)
    first = client.get(get_url(ended), headers=HTMX)

    again = client.get(get_url(ended), headers=HTMX | {"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    Upgrade.objects.update(reason="another")
    assert client.get(get_url(ended), headers=HTMX | {"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_an_unchanged_poll_gets_a_304_with_its_age(
    cast: Cast, running: Upgrade, client_for: SignIn, time_machine: Any
) -> None:
    running.rollouts.update(last_checked_at=running.created_at)
    time_machine.move_to(running.created_at + timedelta(seconds=40), tick=False)
    client = client_for(cast.viewer)
    first = client.get(get_url(running), headers=HTMX)

    time_machine.shift(2)
    again = client.get(get_url(running), headers=HTMX | {"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    age = datetime.fromisoformat(again.headers["X-As-Of"]) - datetime.fromisoformat(first.headers["X-As-Of"])
    assert age == timedelta(seconds=2)
    running.rollouts.update(last_checked_at=running.created_at + timedelta(seconds=41))
    checked = client.get(get_url(running), headers=HTMX | {"If-None-Match": first.headers["ETag"]})
    at = running.created_at + timedelta(seconds=41)
    assert (checked.status_code, checked.headers["X-Times"]) == (304, f"agent={at:%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.parametrize(
    ("person", "statuses", "offered"),
    [
        ("operator", [Status.IN_PROGRESS], True),
        ("viewer", [Status.IN_PROGRESS], False),
        ("operator", [Status.FAILED], False),
    ],
)
def test_stop_is_offered_only_if_role_and_state_allow_it(
    cast: Cast, client_for: SignIn, person: str, statuses: list[Status], offered: bool
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=statuses)

    text = client_for(getattr(cast, person)).get(get_url(upgrade)).content.decode()

    assert (f'href="{get_url(upgrade)}stop"' in text) is offered


@pytest.mark.django_db(transaction=True)
def test_it_shows_ecs_tasks_and_events(cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    platform.advance(20)
    engine.step()

    text = client_for(cast.viewer).get(get_url(upgrade), headers=HTMX).content.decode()

    rollout = upgrade.rollouts.get()
    assert rollout.deployment_id
    assert rollout.deployment_id in text
    assert f"{rollout.target_running} of 4 new tasks run" in text
    assert "has started" in text


@pytest.mark.parametrize("target", ["agent", "all"])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_its_queries_do_not_grow_with_the_services(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, target: str, headers: dict[str, str]
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target=target)
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    # The frame with the revisions; the upgrade with its run, rollouts, rollbacks, checks and entries.
    with django_assert_num_queries(SIGNED_IN_QUERIES + 2):
        client.get(get_url(upgrade), headers=headers)


# --- every outcome is explained ------------------------------------------------------------------------------------

SUCCESSES = [Outcome.COMPLETED, Outcome.NO_CHANGE]
FAILURES = [outcome for outcome in Outcome if outcome not in (*SUCCESSES, Outcome.ROLLING_BACK, Outcome.DISABLED)]


def ended(cast: Cast, outcome: Outcome, status: Status) -> Upgrade:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[status])
    error = f"{outcome.label}. As ECS says." if status == Status.FAILED else None
    upgrade.rollouts.update(outcome=outcome, error_message=error, running_count=3, desired_count=3, target_running=3)
    return upgrade


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failure_says_what_happened_and_what_to_do(cast: Cast, client_for: SignIn, outcome: Outcome) -> None:
    upgrade = ended(cast, outcome, Status.FAILED)

    text = html.unescape(client_for(cast.operator).get(get_url(upgrade)).content.decode())

    assert f"{outcome.label}. As ECS says." in text
    assert OUTCOME_TEXTS[outcome].state in text
    assert OUTCOME_TEXTS[outcome].hint in text
    assert "Not rolled out" in text
    assert 'data-live="2"' not in text


@pytest.mark.parametrize(
    ("outcome", "status", "message", "headline"),
    [
        (Outcome.COMPLETED, Status.SUCCESS, "Rolled out: orchestrator.", "Rolled out: 3 of 3 tasks running."),
        (
            Outcome.NO_CHANGE,
            Status.SUCCESS,
            "Nothing was rolled. Nothing to change: orchestrator.",
            "No task was replaced.",
        ),
        (
            Outcome.DISABLED,
            Status.SKIPPED,
            "Nothing was rolled. Skipped, disabled: orchestrator.",
            "Nothing was changed.",
        ),
    ],
)
def test_an_end_without_failure_says_whether_anything_was_rolled(
    cast: Cast, client_for: SignIn, outcome: Outcome, status: Status, message: str, headline: str
) -> None:
    text = client_for(cast.operator).get(get_url(ended(cast, outcome, status))).content.decode()

    assert message in text
    assert headline in text
    assert ("Nothing to roll out" in text) is (outcome == Outcome.NO_CHANGE)


def test_a_rollback_by_ecs_under_way_says_why(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    running.rollouts.update(outcome=Outcome.ROLLING_BACK, rollout_reason="The circuit breaker went off.")

    text = client_for(cast.operator).get(get_url(running)).content.decode()

    assert "Rolling back. The circuit breaker went off." in text
    assert 'data-live="2"' in text
    assert 'id="next"' not in text


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(
    cast: Cast, running: Upgrade, client_for: SignIn, person: str, headers: dict[str, str]
) -> None:
    response = client_for(getattr(cast, person)).get(get_url(running), headers=headers)

    assert response.status_code == 404
    assert running.upgrade_id not in response.content.decode().replace(get_url(running), "")
    assert "OPS-1" not in response.content.decode()


def test_an_upgrade_is_not_found_below_another_organization(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.consultant)

    assert client.get(f"/o/globex/upgrades/{running.upgrade_id}/").status_code == 404
    assert client.get(get_url(running)).status_code == 200


def test_a_removed_member_gets_404_at_the_next_poll(cast: Cast, running: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    assert client.get(get_url(running), headers=HTMX).status_code == 200

    Membership.objects.filter(user=cast.viewer).delete()

    assert client.get(get_url(running), headers=HTMX).status_code == 404


def test_anonymous_is_sent_to_sign_in(cast: Cast, running: Upgrade) -> None:
    page, fragment = Client().get(get_url(running)), Client().get(get_url(running), headers=HTMX)

    assert (page.status_code, page.headers["Location"].partition("?")[0]) == (302, "/accounts/login/")
    assert (fragment.status_code, fragment.headers["HX-Redirect"], fragment.content) == (401, "/accounts/login/", b"")


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("upgrade_id", "status"), [("nothing", 404), ("x" * 3000, 404), ("%00", 400), ("'--", 404)])
def test_an_invalid_id_is_refused(cast: Cast, client_for: SignIn, upgrade_id: str, status: int) -> None:
    assert client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade_id}/").status_code == status


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_another_method_is_405(cast: Cast, running: Upgrade, client_for: SignIn, method: str) -> None:
    assert getattr(client_for(cast.admin), method)(get_url(running)).status_code == 405
