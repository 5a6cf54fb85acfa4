"""Live blocks while they refresh, and while refreshing fails."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Guard, OpenPage
from tests.browser.test_upgrade_journey import sign_in
from tests.conftest import Cast, Engine
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def rolling(cast: Cast, engine: Engine) -> Upgrade:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    engine.local_aws.advance(5)
    engine.step()
    return upgrade


def address(upgrade: Upgrade) -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/"


def test_a_failing_refresh_turns_amber_and_keeps_the_last_data(
    cast: Cast, rolling: Upgrade, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["net::ERR_FAILED", "htmx:sendError", "htmx:afterRequest"]
    page = open_page(address(rolling), cast.operator)
    freshness = page.locator("[data-freshness]")
    card = page.get_by_role("region", name="Agent service")
    seen = card.get_by_role("list", name="Tasks").inner_text()

    page.route(f"**{address(rolling)}", lambda route: route.abort())
    expect(freshness).to_contain_text("Cannot reach the portal. Retrying. Data from ")
    expect(freshness).to_have_class("freshness failing")
    expect(page.locator("#announcer")).to_have_text("Cannot reach the portal. The page shows the last data.")
    assert card.get_by_role("list", name="Tasks").inner_text() == seen

    page.unroute_all()
    expect(freshness).to_have_class("freshness")
    expect(page.locator("#announcer")).to_have_text("Refreshing again.")


def test_what_a_person_opened_or_selected_survives_a_refresh(
    cast: Cast, rolling: Upgrade, engine: Engine, open_page: OpenPage
) -> None:
    page = open_page(address(rolling), cast.operator)
    card = page.get_by_role("region", name="Agent service")
    page.locator("#live").evaluate("block => { block.dataset.first = ''; }")

    summary = card.locator("summary").first
    # A slow click that spans a refresh must still take effect.
    summary.hover()
    page.mouse.down()
    Upgrade.objects.update(reason="OPS-2")
    page.wait_for_timeout(2200)
    page.mouse.up()
    expect(page.locator("#live[data-first]")).to_have_count(0)
    expect(card.get_by_role("heading", name="ECS events")).to_be_visible()
    expect(summary).to_be_focused()

    page.evaluate("getSelection().selectAllChildren(document.querySelector('.headline'))")
    selected = page.evaluate("String(getSelection())")
    engine.run(rolling, seconds=15)
    page.wait_for_timeout(2500)
    assert page.evaluate("String(getSelection())") == selected
    page.evaluate("getSelection().empty()")
    expect(card).to_contain_text("Rolled out")


def test_the_comparison_is_loaded_once_however_often_the_block_refreshes(
    cast: Cast, rolling: Upgrade, engine: Engine, open_page: OpenPage
) -> None:
    page = open_page(address(rolling), cast.operator)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    engine.run(rolling, seconds=15)
    card = page.get_by_role("region", name="Before and after")
    expect(card).to_contain_text("Not enough data.", timeout=15_000)
    page.locator("#live").evaluate("block => { block.dataset.first = ''; }")
    Upgrade.objects.update(reason="OPS-3")
    page.evaluate("document.dispatchEvent(new Event('changed'))")

    expect(page.locator("#live[data-first]")).to_have_count(0, timeout=15_000)
    expect(card).to_contain_text("Not enough data.")
    assert sum(url.endswith("/before-after") for url in asked) == 1


def test_an_unchanged_block_stays_fresh_without_a_copy(cast: Cast, rolling: Upgrade, open_page: OpenPage) -> None:
    page = open_page(address(rolling), cast.operator)
    answered: list[int] = []
    page.on("response", lambda response: answered.append(response.status))
    freshness = page.locator("[data-freshness]")
    first = freshness.get_attribute("data-at")
    lasting = page.locator(".rollout-card-time time")
    words = lasting.inner_text()

    page.wait_for_timeout(6500)

    expect(freshness).to_have_class("freshness")
    assert str(freshness.get_attribute("data-at")) > str(first)
    expect(freshness).to_contain_text(re.compile("just now|[1-4] s ago"))
    assert lasting.inner_text() != words
    assert answered.count(304) >= 2


def test_refreshing_can_be_paused(cast: Cast, rolling: Upgrade, open_page: OpenPage) -> None:
    page = open_page(address(rolling), cast.operator)
    page.get_by_role("button", name="Pause refreshing").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.wait_for_timeout(2500)

    assert asked == []
    expect(page.locator("[data-freshness]")).to_contain_text("Paused. Refreshed")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause refreshing")).to_be_visible()
    assert len(asked) >= 1


def test_the_ring_does_not_turn_under_reduced_motion(cast: Cast, rolling: Upgrade, open_page: OpenPage) -> None:
    page = open_page(address(rolling), cast.operator)
    moving = "document.getAnimations().filter((animation) => animation.animationName === 'turn').length"
    assert page.evaluate(moving) > 0

    page.emulate_media(reduced_motion="reduce")

    assert page.evaluate(moving) == 0


def test_a_lost_session_leads_to_the_sign_in_and_back(
    cast: Cast, rolling: Upgrade, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["401 (Unauthorized)", "Response Status Error Code 401"]
    path = f"{address(rolling)}?kind=rollout.started"
    page = open_page(path, cast.operator)

    page.context.clear_cookies()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, cast)

    expect(page.locator("#live")).to_be_visible()
    expect(page).to_have_url(re.compile(f"{re.escape(path)}$"))


def test_the_heading_follows_the_version(cast: Cast, rolling: Upgrade, open_page: OpenPage) -> None:
    page = open_page(address(rolling), cast.operator)
    Rollout.objects.update(to_version="v9.9.1")

    expect(page.get_by_role("heading", level=1)).to_have_text("Agent service to v9.9.1")
