"""What the pages say about a stop before it happens: which of the three ways back it is, and about how long."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.upgrades.conftest import make_upgrade
from tests.upgrades.test_decisions import set_pause
from upgrades.models import Upgrade
from upgrades.states import Outcome, Status

SignIn = Callable[[User], Client]

BLUE_GREEN = {"strategy": "BLUE_GREEN", "from_version": "v9.9.0", "source_running": 4, "target_running": 4}


def get_stop_page(client: Client, upgrade: Upgrade) -> str:
    return " ".join(client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop").content.decode().split())


def get_page(client: Client, upgrade: Upgrade) -> str:
    return " ".join(client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode().split())


def make_rolling(cast: Cast, **fields: Any) -> Upgrade:
    """Return an upgrade of the agent service that rolls, after one that took 3 minutes."""
    past = make_upgrade(cast.acme, by=cast.operator)
    past.rollouts.update(started_at=Now() - timedelta(minutes=3))
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    upgrade.rollouts.update(**fields)
    return upgrade


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            BLUE_GREEN | {"lifecycle_stage": "BAKE_TIME", "production_weight": 100.0},
            "ECS moves the traffic back within seconds: the earlier tasks (v9.9.0) still run.",
        ),
        (
            BLUE_GREEN | {"lifecycle_stage": "BAKE_TIME", "production_weight": None, "traffic_shifted_at": Now()},
            "ECS moves the traffic back within seconds: the earlier tasks (v9.9.0) still run.",
        ),
        (
            BLUE_GREEN | {"lifecycle_stage": "POST_TEST_TRAFFIC_SHIFT", "production_weight": 0.0},
            "no production traffic has moved, and the earlier tasks (v9.9.0) still run.",
        ),
        (
            BLUE_GREEN | {"lifecycle_stage": "CLEAN_UP", "production_weight": 100.0},
            "The earlier tasks are already being stopped.",
        ),
        (
            {"strategy": "ROLLING", "from_version": "v9.9.0", "source_running": 2},
            "ECS rolls it back and starts tasks of v9.9.0 again. Rollouts of this service usually take about 3 minutes.",
        ),
        ({"outcome": Outcome.ROLLING_BACK}, "ECS is already rolling it back."),
    ],
    ids=["baking", "bake without weights", "before the shift", "clean-up", "rolling", "rolling back"],
)
def test_both_pages_say_what_a_stop_does(cast: Cast, client_for: SignIn, fields: dict[str, Any], says: str) -> None:
    upgrade, client = make_rolling(cast, **fields), client_for(cast.operator)

    assert says in get_stop_page(client, upgrade)
    assert says in get_page(client, upgrade)


def test_without_a_past_rollout_no_time_is_promised(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    text = get_stop_page(client_for(cast.operator), upgrade)

    assert "There is no past rollout to estimate the time from." in text


def test_after_success_only_a_new_deployment_undoes_it(cast: Cast, client_for: SignIn) -> None:
    statuses = [Status.SUCCESS, Status.IN_PROGRESS, Status.PENDING]
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=statuses)
    upgrade.rollouts.filter(service="agent").update(strategy="BLUE_GREEN", configuration={"bake_minutes": 15})

    text = get_stop_page(client_for(cast.operator), upgrade)

    assert "a stop does not change it. Roll back starts a new deployment once the upgrade has ended." in text
    assert "It bakes for 15 min again." in text
    assert "It has not started: it will not be touched." in text


def test_at_a_pause_the_exact_button_is_named(cast: Cast, client_for: SignIn) -> None:
    upgrade, client = make_rolling(cast, **BLUE_GREEN), client_for(cast.operator)
    set_pause(upgrade)

    stop_page = get_stop_page(client, upgrade)

    assert f'<a href="/o/acme/upgrades/{upgrade.upgrade_id}/decide">Roll back</a> on the page of the pause' in stop_page
    assert "At this pause, <strong>Roll back</strong> does the same." in get_page(client, upgrade)


def test_viewer_sees_nothing_about_a_stop(cast: Cast, client_for: SignIn) -> None:
    assert "If you stop it" not in get_page(client_for(cast.viewer), make_rolling(cast, **BLUE_GREEN))
