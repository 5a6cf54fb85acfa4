"""The journey of an operator through a blue/green upgrade: approve at the pause and bake, then stop during a bake."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Guard, OpenPage
from tests.browser.test_upgrade_journey import GAVE_WAY, fill_trigger_form
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.test_strategies import configure, is_baking, is_rolling_back, is_waiting, pause, run_until
from upgrades.models import Upgrade
from upgrades.states import Outcome

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

DETECTION = {"alarmNames": ["errors-high"], "enable": True, "rollback": True}


def start_upgrade(page: Page) -> Locator:
    """Start the upgrade by the form and return the card of its service."""
    fill_trigger_form(page, service="Agent service")
    card = page.get_by_role("region", name="Agent service")
    expect(card).to_be_visible()
    return card


def test_approve_at_the_pause_and_watch_the_bake_end(
    cast: Cast, engine: Engine, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = GAVE_WAY
    hooks = [pause("POST_TEST_TRAFFIC_SHIFT")]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=5, lifecycleHooks=hooks, alarms=DETECTION)
    page = open_page("/o/acme/upgrades/new?service=agent&force=1", cast.operator)
    expect(page.locator("#plan")).to_contain_text("waits for a decision at POST_TEST_TRAFFIC_SHIFT")
    card = start_upgrade(page)
    upgrade = Upgrade.objects.get()
    announcer, production = page.locator("#announcer"), card.get_by_role("list", name="Production traffic")

    run_until(engine, upgrade, is_waiting)
    expect(card).to_contain_text("Stage 5 of 10: Test traffic has moved")
    expect(production).to_contain_text("0 % new")
    expect(announcer).to_contain_text("In progress: agent service. Agent service: Waiting for a decision.")

    decide = page.get_by_role("link", name="Continue or roll back")
    decide.focus()
    # Without its tag the next refresh brings the block again, as when something has changed.
    page.evaluate("const live = document.getElementById('live'); live.contentTag = ''; live.dataset.old = ''")
    expect(page.locator("#live[data-old]")).to_have_count(0)
    expect(decide).to_be_focused()
    page.goto("/o/acme/")
    page.get_by_role("link", name="Decide:").click()
    decide.click()
    expect(page.get_by_text("Next, all production traffic moves to the new tasks")).to_be_visible()
    page.get_by_label("Reason").fill("OPS-412: checked on the test port")
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(page.get_by_text("Decided: continue. The portal sends it to ECS.")).to_be_visible()
    run_until(engine, upgrade, is_baking)
    expect(card).to_contain_text("Stage 9 of 10: Bake")
    expect(card).to_contain_text("Bakes until about")
    expect(production).to_contain_text("100 % new")
    expect(page.get_by_text("left, based on the bake time.")).to_be_visible()
    expect(announcer).to_contain_text("In progress: agent service. Agent service: Serving and baking.")

    engine.run(upgrade, seconds=60)
    expect(card).to_contain_text("Rolled out: 4 of 4 tasks running.")
    expect(page.get_by_role("link", name="Stop upgrade")).to_be_hidden()


def test_roll_back_during_the_bake(
    cast: Cast, engine: Engine, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = GAVE_WAY
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=5, alarms=DETECTION)
    page = open_page("/o/acme/upgrades/new?service=agent&force=1", cast.operator)
    card = start_upgrade(page)
    upgrade = Upgrade.objects.get()
    run_until(engine, upgrade, is_baking)
    expect(card).to_contain_text("Serving and baking")

    page.get_by_role("link", name="Stop upgrade").click()
    expect(page.get_by_text("ECS moves the traffic back within seconds")).to_be_visible()
    page.get_by_role("button", name="Stop and roll back").click()
    expect(page.get_by_text("Stop requested. ECS will roll back the running rollout.")).to_be_visible()
    run_until(engine, upgrade, is_rolling_back, seconds=1)
    expect(card).to_contain_text("Rolling back")
    expect(card).not_to_contain_text("Bakes until")

    engine.run(upgrade)
    expect(card).to_contain_text("Stopped by operator@example.com.")
    expect(card).to_contain_text("Only the earlier tasks run.")
    expect(card.get_by_role("list", name="Tasks")).to_contain_text("4 old running")
    assert upgrade.rollouts.get().outcome == Outcome.STOPPED_BY_USER
