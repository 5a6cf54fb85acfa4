"""GET .../upgrade/{id}?wait=: the answer is held, but not for ever, and not at the cost of others."""

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from portal.models import User
from tests.conftest import Cast, sign_in
from tests.upgrades.conftest import UPGRADE, assert_refused, make_upgrade, post_json
from upgrades.models import Upgrade
from upgrades.states import Outcome, Status, Validation


def get_wait(user: User, upgrade: Upgrade, until: str, timeout: int) -> Any:
    """Send the request in a thread of its own and return the response."""
    try:
        return sign_in(Client(), user).get(f"{UPGRADE}/{upgrade.upgrade_id}?wait={until}&timeout={timeout}")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("until", "status", "outcome", "validation"),
    [
        ("serving", Status.IN_PROGRESS, Outcome.BAKING, Validation.NONE),
        ("serving", Status.FAILED, Outcome.ROLLED_BACK, Validation.NONE),
        ("done", Status.SUCCESS, Outcome.COMPLETED, Validation.NEEDED),
        ("done", Status.FAILED, Outcome.ROLLED_BACK, Validation.NONE),
        ("validated", Status.SUCCESS, Outcome.COMPLETED, Validation.PASSED),
        ("validated", Status.SUCCESS, Outcome.COMPLETED, Validation.FAILED),
        ("validated", Status.FAILED, Outcome.ROLLED_BACK, Validation.NONE),
    ],
)
def test_what_is_reached_is_answered_immediately(
    cast: Cast, client: Client, until: str, status: Status, outcome: Outcome, validation: Validation
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[status], validation=validation)
    upgrade.rollouts.update(outcome=outcome)

    response = sign_in(client, cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}?wait={until}")

    assert (response.status_code, response.json()["status"]) == (200, status)
    assert "Retry-After" not in response


@pytest.mark.parametrize(
    ("until", "status", "validation"),
    [
        ("serving", Status.IN_PROGRESS, Validation.NONE),
        ("validated", Status.SUCCESS, Validation.NEEDED),
    ],
)
def test_after_the_time_it_is_the_present_state(
    cast: Cast, client: Client, until: str, status: Status, validation: Validation
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[status], validation=validation)

    response = sign_in(client, cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}?wait={until}&timeout=1")

    assert (response.status_code, response.json()["status"], response["Retry-After"]) == (200, status, "1")


def test_what_runs_says_when_to_ask_again(cast: Cast, client: Client) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    sign_in(client, cast.operator)

    running = client.get(f"{UPGRADE}/{upgrade.upgrade_id}")
    stopped = post_json(client, f"{UPGRADE}/{upgrade.upgrade_id}/stop", {})
    Upgrade.objects.update(status=Status.FAILED)
    ended = client.get(f"{UPGRADE}/{upgrade.upgrade_id}")

    assert (running["Retry-After"], stopped.status_code, stopped["Retry-After"]) == ("2", 202, "2")
    assert "Retry-After" not in ended


@pytest.mark.parametrize("query", ["wait=ended", "wait=done&timeout=26", "wait=done&timeout=0", "timeout=5", "wait="])
def test_other_waits_are_refused(cast: Cast, client: Client, query: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    assert_refused(sign_in(client, cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}?{query}"), 400, "invalid")


def test_waiting_for_a_foreign_upgrade_is_a_404(cast: Cast, client: Client) -> None:
    upgrade = make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.IN_PROGRESS])

    response = sign_in(client, cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}?wait=done")

    assert_refused(response, 404, "not_found")


@pytest.mark.django_db(transaction=True)
def test_a_third_request_does_not_wait(cast: Cast) -> None:
    """The waiting ones hold no transaction and no lock meanwhile: the upgrade ends, and they are answered."""
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(get_wait, cast.viewer, upgrade, "done", 20) for _ in range(3)]
        refused, waiting = wait(asked, return_when=FIRST_COMPLETED)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state ~ 'in transaction'"
            )
            in_transaction = cursor.fetchone()
        Upgrade.objects.filter(pk=upgrade.pk).update(status=Status.SUCCESS)
        answers = [each.result() for each in waiting]

    assert in_transaction == (0,)
    assert [(each.result().json()["status"], each.result()["Retry-After"]) for each in refused] == [
        ("IN_PROGRESS", "5")
    ]
    assert [each.json()["status"] for each in answers] == ["SUCCESS", "SUCCESS"]
    assert not any("Retry-After" in each for each in answers)
