"""From the sign-in to an upgrade's end, as an operator does it, with JavaScript and without."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from upgrades.commands import trigger_upgrade
from upgrades.models import Upgrade

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def sign_in(page: Page, cast: Cast) -> None:
    page.get_by_label("E-mail").fill(cast.operator.email)
    page.get_by_label("Password").fill(cast.password)
    page.get_by_role("main").get_by_role("button", name="Sign in", exact=True).click()


def fill_trigger_form(page: Page, *, service: str) -> None:
    page.get_by_role("radio", name=service).check()
    page.get_by_label("Force a new rollout").check()
    page.get_by_label("Reason").fill("OPS-412: pick up the connector fix")
    page.get_by_label("Type acme to confirm").fill("acme")
    page.get_by_role("button", name="Start upgrade").click()


def test_sign_in_trigger_and_watch_to_the_end(cast: Cast, engine: Engine, open_page: OpenPage) -> None:
    page = open_page("/")
    sign_in(page, cast)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("row", name="Agent service")).to_contain_text("4 of 4 running")

    page.get_by_role("main").get_by_role("link", name="Upgrade services").click()
    fill_trigger_form(page, service="Agent service")
    upgrade = Upgrade.objects.get()
    lane = page.get_by_role("region", name="Agent service")
    expect(page.get_by_text(upgrade.upgrade_id).first).to_be_visible()
    page.evaluate("window.isSamePage = true")

    engine.start(upgrade)
    engine.local_aws.advance(10)
    engine.step()
    running = upgrade.rollouts.get().target_running
    expect(lane.get_by_role("list", name="Tasks")).to_contain_text(f"{running} new running")
    expect(page).to_have_title(f"In progress: {upgrade.upgrade_id} · Acme Robotics · Operations portal")
    engine.run(upgrade, seconds=15)
    expect(lane).to_contain_text("Rolled out: 4 of 4 tasks run.")
    expect(page.get_by_role("heading", name="Rolled out; not validated")).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("Rolled out: agent service.")
    assert page.evaluate("window.isSamePage")

    # The end state asks for nothing more.
    expect(page.get_by_role("link", name="Stop upgrade")).to_be_hidden()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == []


def test_trigger_watch_and_stop_without_javascript(cast: Cast, engine: Engine, open_page: OpenPage) -> None:
    page = open_page("/", javascript=False)
    sign_in(page, cast)
    page.get_by_role("main").get_by_role("link", name="Upgrade services").click()
    fill_trigger_form(page, service="Orchestrator")
    upgrade = Upgrade.objects.get()
    expect(page.locator("head meta[http-equiv=refresh]")).to_have_attribute("content", "5")

    page.get_by_role("link", name="Stop refreshing").click()
    expect(page.locator("head meta[http-equiv=refresh]")).to_have_count(0)
    engine.start(upgrade)
    page.get_by_role("link", name="Refresh", exact=True).click()
    expect(page.get_by_role("region", name="Orchestrator")).to_contain_text("of 3 new tasks run")

    page.get_by_role("link", name="Stop upgrade").click()
    expect(page.get_by_role("main")).to_contain_text(
        "Orchestrator is rolling: ECS rolls it back to the tasks of v9.9.0."
    )
    page.get_by_role("button", name="Stop and roll back").click()
    engine.run(upgrade, seconds=15)
    page.goto(page.url)
    expect(page.get_by_role("region", name="Orchestrator")).to_contain_text("Stopped by a person")


def test_a_target_in_use_is_disabled_with_its_reason(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    page = open_page("/o/acme/upgrades/new", cast.operator)

    expect(page.get_by_role("radio", name="Agent service")).to_be_disabled()
    expect(page.get_by_role("radio", name="All three")).to_be_disabled()
    expect(page.get_by_role("radio", name="Orchestrator")).to_be_enabled()
    page.get_by_role("link", name=upgrade.upgrade_id).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Upgrade of agent service")


def test_the_typed_confirmation_is_asked_for_only_when_needed(
    cast: Cast, platform: LocalAws, open_page: OpenPage
) -> None:
    page = open_page("/o/acme/upgrades/new", cast.operator)
    confirmation = page.get_by_label("Type acme to confirm")

    page.get_by_role("radio", name="Agent service").check()
    expect(confirmation).to_be_hidden()
    page.get_by_label("Force a new rollout").check()
    expect(confirmation).to_be_visible()
    page.get_by_label("Force a new rollout").uncheck()
    page.get_by_role("radio", name="All three").check()
    expect(confirmation).to_be_visible()
