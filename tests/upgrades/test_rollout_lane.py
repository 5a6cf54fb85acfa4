"""A rollout's lane on the page and in the API: strategy, stage, weights, tasks, bake, hook, and the five states."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from portal import tenancy
from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, make_upgrade
from tests.upgrades.test_states import entry, service_with
from tests.upgrades.test_strategies import configure, decide, function, is_baking, is_waiting, pause, run_until, trigger
from upgrades.checks.draining import count_draining, refresh_draining
from upgrades.commands.stop import stop_upgrade
from upgrades.models import Rollout, Upgrade, ValidationRun
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)

SignIn = Callable[[User], Client]

HTMX = {"HX-Request": "true"}
STEP = re.compile(r'<li class="(?P<position>\w+)" title="(?P<name>[A-Z_]+)"')
TAG = re.compile(r"<[^>]+>")


def get_url(upgrade: Upgrade) -> str:
    return f"/o/{upgrade.organization.slug}/upgrades/{upgrade.upgrade_id}/"


def read_markup(client: Client, upgrade: Upgrade) -> str:
    """Return the markup of the only rollout's card."""
    page = client.get(get_url(upgrade), headers=HTMX).content.decode()
    return page[page.index('<section class="rollout-card') :].partition("</section>")[0]


def read_text(markup: str) -> str:
    return " ".join(html.unescape(TAG.sub("", markup)).split())


def read_entry(client: Client, upgrade: Upgrade) -> dict[str, Any]:
    entry: dict[str, Any] = client.get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["services"][0]
    return entry


def get_positions(markup: str) -> dict[str, str]:
    return {found["name"]: found["position"] for found in STEP.finditer(markup)}


def set_watching(upgrade: Upgrade, **fields: Any) -> None:
    """Write the open rollout as the engine does after an observation."""
    Rollout.objects.filter(upgrade=upgrade).update(desired_count=4, last_checked_at=Now(), **fields)


@pytest.fixture
def viewer(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.viewer)


@pytest.fixture
def running(cast: Cast) -> Upgrade:
    return make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])


def test_blue_green_goes_through_its_stages_to_done(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=30)
    upgrade = trigger(cast)

    run_until(engine, upgrade, lambda rollout: rollout.lifecycle_stage == "SCALE_UP", seconds=2)
    markup = read_markup(viewer, upgrade)
    assert "Blue/green: bake of 30 min" in read_text(markup)
    assert "Stage 2 of 10: New tasks start SCALE_UP" in read_text(markup)
    assert get_positions(markup)["PRE_SCALE_UP"] == "done"
    assert get_positions(markup)["SCALE_UP"] == "present"
    assert get_positions(markup)["BAKE_TIME"] == "ahead"
    assert "RECONCILE_SERVICE" not in get_positions(markup)
    assert 'class="chip in_progress"' in markup
    assert "Production traffic: 0 % new 100 % old" in read_text(markup)

    rollout = run_until(engine, upgrade, is_baking, seconds=4)
    markup = read_markup(viewer, upgrade)
    assert rollout.bake_ends_at is not None
    assert 'class="chip baking"' in markup
    assert f"Bakes until about {rollout.bake_ends_at:%H:%M} UTC, in " in read_text(markup)
    assert "Production traffic: 100 % new 0 % old" in read_text(markup)
    assert "All traffic is on the new version. ECS may still roll it back." in read_text(markup)

    engine.run(upgrade, seconds=120)
    markup = read_markup(viewer, upgrade)
    assert set(get_positions(markup).values()) == {"done"}
    assert 'class="chip success"' in markup
    assert "Bakes until" not in markup
    assert "Production traffic:" not in read_text(markup)


def test_linear_shows_weights_and_shifts(cast: Cast, engine: Engine, platform: LocalAws, viewer: Client) -> None:
    steps = {"stepPercent": 25.0, "stepBakeTimeInMinutes": 2}
    configure(platform, cast, strategy="LINEAR", bakeTimeInMinutes=10, linearConfiguration=steps)
    upgrade = trigger(cast)

    run_until(engine, upgrade, lambda rollout: rollout.production_weight == 50, seconds=5)

    markup, entry = read_markup(viewer, upgrade), read_entry(viewer, upgrade)
    assert "Linear: 25 % every 2 min, bake of 10 min" in read_text(markup)
    assert "Production traffic: 50 % new 50 % old 2 of 4 shifts done" in read_text(markup)
    assert 'fill="url(#tasks-new)" x="0" width="50.0%"' in markup
    assert (entry["strategy"], entry["production_weight"], entry["source_weight"]) == ("LINEAR", 50.0, 50.0)


def test_a_pause_says_until_when_and_what_then(cast: Cast, engine: Engine, platform: LocalAws, viewer: Client) -> None:
    hooks = [pause("POST_TEST_TRAFFIC_SHIFT", timeoutInMinutes=600, action="CONTINUE")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    rollout = run_until(engine, upgrade, is_waiting)

    markup = read_markup(viewer, upgrade)
    assert 'class="chip waiting_for_decision"' in markup
    assert "ECS waits for a decision. Nothing moves meanwhile." in read_text(markup)
    assert "Stage Test traffic has moved POST_TEST_TRAFFIC_SHIFT Until 20" in read_text(markup)
    assert "If no one decides by then ECS continues with the rollout" in read_text(markup)
    assert get_positions(markup)["POST_TEST_TRAFFIC_SHIFT"] == "present"
    for path in ("/o/acme/upgrades/", "/o/acme/"):
        assert 'class="chip waiting_for_decision"' in viewer.get(path).content.decode()
    decide(platform, rollout, "ROLLBACK")
    engine.run(upgrade)
    assert "ECS waits for a decision" not in read_markup(viewer, upgrade)


def test_a_function_says_since_when_and_its_limit(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    platform.fault("hook_hangs", cluster=cast.acme.cluster)
    hooks = [function("POST_SCALE_UP")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)

    run_until(engine, upgrade, lambda rollout: rollout.outcome == Outcome.HOOK_RUNNING)

    markup = read_markup(viewer, upgrade)
    assert 'class="chip hook_running"' in markup
    assert "A lifecycle hook is running. If it fails, ECS rolls back. Function validate" in read_text(markup)
    assert re.search(r"Since about \d\d:\d\d:\d\d UTC, \S+.* Until 20", read_text(markup))
    assert "If it has not answered by then ECS rolls back" in read_text(markup)


def test_a_rollback_shows_no_stage(cast: Cast, engine: Engine, platform: LocalAws, viewer: Client) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=30)
    upgrade = trigger(cast)
    run_until(engine, upgrade, is_baking, seconds=4)

    stop_upgrade(upgrade, actor=cast.operator)
    run_until(engine, upgrade, lambda rollout: rollout.outcome == Outcome.ROLLING_BACK, seconds=1)

    markup = read_markup(viewer, upgrade)
    assert 'class="chip rolling_back"' in markup
    assert get_positions(markup) == {}
    assert "Bakes until" not in markup


def end_early(cast: Cast, engine: Engine, platform: LocalAws) -> Upgrade:
    """Run an upgrade that ECS ends by early success while the old tasks drain."""
    criteria = {"enable": True, "healthyPercent": 100, "sourceServiceRevisionCleanup": "DEFERRED"}
    configure(platform, cast, strategy="ROLLING", earlySuccessCriteria=criteria, maximumPercent=200)
    return engine.run(trigger(cast), seconds=2)


def test_early_success_shows_until_old_tasks_are_gone(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    upgrade = end_early(cast, engine, platform)

    fragment, entry = viewer.get(get_url(upgrade), headers=HTMX).content.decode(), read_entry(viewer, upgrade)
    left = entry["source_running"]
    assert (entry["outcome"], entry["is_draining"], left > 0) == ("completed_early", True, True)
    assert f"Old tasks still drain: {left}." in read_text(fragment)
    assert "DEFERRED: ECS called the rollout a success first" in read_text(fragment)
    assert f'hx-get="{get_url(upgrade)}"' in fragment
    platform.advance(60)
    count_again(upgrade)
    entry = read_entry(viewer, upgrade)
    assert (entry["is_draining"], entry["source_running"]) == (False, 0)
    assert "Old tasks still drain" not in read_markup(viewer, upgrade)


def test_new_tasks_that_still_start_are_no_old_ones(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "BLOCKING"}
    configure(platform, cast, minimumHealthyPercent=50, earlySuccessCriteria=criteria)
    upgrade = engine.run(trigger(cast), seconds=2)

    early = read_text(read_markup(viewer, upgrade))
    upgrade.rollouts.update(target_running=4, source_running=0)
    uncounted = read_text(read_markup(viewer, upgrade))

    assert "New tasks start" in early
    assert "Old tasks drain" not in early
    assert "New tasks that still have to start: 2." in early
    assert "Neither the circuit breaker nor alarms watch them." in early
    assert "Early success" in uncounted
    assert "watch them" not in uncounted


def test_counts_after_the_end_are_not_those_of_the_end(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    upgrade = end_early(cast, engine, platform)
    platform.advance(60)

    count_again(upgrade)

    text = read_text(read_markup(viewer, upgrade))
    assert "Rolled out early: 4 of 4 new tasks running." in text
    assert "when ECS ended it" not in text


@pytest.mark.parametrize("state", ["IN_PROGRESS", "COMPLETED"])
def test_a_late_read_does_not_end_the_draining(state: str) -> None:
    """DescribeServices may still show the deployment in progress when its own record is already SUCCESSFUL."""
    service = service_with(entry("mine", primary=True, state=state), entry("before", primary=False, state="COMPLETED"))

    counted = count_draining(Rollout(deployment_id="mine"), service)

    assert counted is not None
    assert (counted.old_tasks, counted.is_over) == (2, False)


def count_again(upgrade: Upgrade) -> None:
    """Let the sweep count the tasks that an early success left, as it does once a minute."""
    ValidationRun.objects.update(is_done=True)
    upgrade.rollouts.update(last_checked_at=Now() - timedelta(minutes=2))
    rollout = upgrade.rollouts.get()
    with tenancy.inside(tenancy.NOTHING):
        refresh_draining(rollout.pk)


def test_without_ecs_the_last_count_stays_with_its_time(
    cast: Cast, engine: Engine, platform: LocalAws, viewer: Client
) -> None:
    upgrade = end_early(cast, engine, platform)

    platform.fault("access_denied", action="DescribeServices", account="111111111111")
    count_again(upgrade)

    assert "Old tasks still drain" in read_text(read_markup(viewer, upgrade))
    assert read_entry(viewer, upgrade)["is_draining"]


def test_an_early_success_from_before_is_over(cast: Cast, engine: Engine, platform: LocalAws, viewer: Client) -> None:
    earlier = end_early(cast, engine, platform)

    platform.advance(60)
    engine.run(trigger(cast), seconds=2)
    count_again(earlier)

    assert "Old tasks still drain" not in read_markup(viewer, earlier)
    assert not read_entry(viewer, earlier)["is_draining"]


def test_an_unknown_stage_is_shown_by_its_name(running: Upgrade, viewer: Client) -> None:
    set_watching(running, strategy="BLUE_GREEN", lifecycle_stage="PRE_COFFEE")

    markup = read_markup(viewer, running)

    assert "Stage: not known to the portal, PRE_COFFEE" in read_text(markup)
    assert set(get_positions(markup).values()) == {"ahead"}


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("ECS reports the status HIBERNATING.", "ECS reports the status HIBERNATING."),
        ("Stage SCALE_UP. ECS reports the status X of the hook h-1.", "ECS reports the status X of the hook h-1."),
        ("Stage SCALE_UP: 12.5 % of the traffic on the new version.", None),
    ],
)
def test_what_ecs_reports_beyond_the_stage_is_shown(
    running: Upgrade, viewer: Client, reason: str, shown: str | None
) -> None:
    set_watching(running, strategy="BLUE_GREEN", lifecycle_stage="SCALE_UP", rollout_reason=reason)

    text = read_text(read_markup(viewer, running))

    assert "Stage SCALE_UP" not in text
    assert shown is None or shown in text


def test_an_unknown_strategy_is_shown_by_its_name(running: Upgrade, viewer: Client) -> None:
    set_watching(running, strategy="MAGENTA", lifecycle_stage="BAKE_TIME")

    markup = read_markup(viewer, running)

    assert "MAGENTA" in read_text(markup)
    assert "Stage: Bake BAKE_TIME" in read_text(markup)
    assert get_positions(markup) == {}


def test_rolling_has_no_stages_and_no_weights(cast: Cast, engine: Engine, platform: LocalAws, viewer: Client) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.advance(5)
    engine.step()

    markup = read_markup(viewer, upgrade)

    assert "Rolling" in read_text(markup)
    assert get_positions(markup) == {}
    assert "traffic" not in read_text(markup)


def test_overdue_and_stalled_read_differently(running: Upgrade, viewer: Client) -> None:
    set_watching(running, is_overdue=True, deadline_at=Now() - timedelta(minutes=1))
    overdue = read_markup(viewer, running)
    set_watching(running, is_overdue=False, is_stalled=True, progressed_at=Now() - timedelta(minutes=9))
    stalled = read_markup(viewer, running)

    assert ('class="chip overdue"' in overdue, 'class="chip stalled"' in overdue) == (True, False)
    assert "The portal watches it further, and it can be stopped." in read_text(overdue)
    assert ('class="chip overdue"' in stalled, 'class="chip stalled"' in stalled) == (False, True)
    assert "Stalled. No progress since" in read_text(stalled)


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        ({"seconds": -5}, "any moment now"),
        ({"seconds": 42}, "in 42 s"),
        ({"minutes": 12, "seconds": 30}, "in 12 min"),
        ({"hours": 2, "minutes": 10}, "in 2 h 10 min"),
        ({"days": 13, "hours": 5}, "in 13 d"),
    ],
)
def test_a_bake_counts_down(
    running: Upgrade, viewer: Client, time_machine: Any, left: dict[str, int], shown: str
) -> None:
    time_machine.move_to(running.created_at, tick=False)
    ends_at = running.created_at + timedelta(**left)
    set_watching(running, strategy="BLUE_GREEN", outcome="baking", lifecycle_stage="BAKE_TIME", bake_ends_at=ends_at)

    assert f"{ends_at:%H:%M} UTC, {shown} by the portal's count" in read_text(read_markup(viewer, running))


@pytest.mark.parametrize("outcome", ["waiting_for_decision", "baking", "hook_running"])
def test_an_unchanged_lane_is_answered_304(running: Upgrade, viewer: Client, outcome: str, time_machine: Any) -> None:
    hook = {
        "id": "hook-1",
        "type": "PAUSE",
        "stage": "BAKE_TIME",
        "status": "AWAITING_ACTION" if outcome == "waiting_for_decision" else "IN_PROGRESS",
        "expires_at": "2126-01-01T00:00:00Z",
        "timeout_action": "ROLLBACK",
        "target": None,
    }
    times = {"stage_began_at": Now(), "bake_ends_at": Now() + timedelta(minutes=12)}
    set_watching(running, strategy="BLUE_GREEN", lifecycle_stage="BAKE_TIME", outcome=outcome, hook=hook, **times)
    time_machine.move_to(running.created_at + timedelta(seconds=2), tick=False)
    first = viewer.get(get_url(running), headers=HTMX)

    time_machine.shift(25)
    second = viewer.get(get_url(running), headers=HTMX | {"If-None-Match": first.headers["ETag"]})

    assert second.status_code == 304


def test_without_desired_tasks_no_count_is_claimed(cast: Cast, viewer: Client) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    upgrade.rollouts.update(desired_count=0, running_count=0)

    text = read_text(read_markup(viewer, upgrade))

    assert "Rolled out. No task runs, because none is desired." in text
