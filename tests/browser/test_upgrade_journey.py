"""The journey of an operator from sign-in to the end of an upgrade, with and without JavaScript."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Guard, OpenPage
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import at_local_aws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.inventory.running import FRESH_SECONDS
from upgrades.models import Upgrade, ValidationRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


# What htmx logs when the request of a plan is cancelled by that of the next choice.
GAVE_WAY = ["htmx:afterRequest", "htmx:sendAbort"]


def sign_in(page: Page, cast: Cast) -> None:
    page.get_by_label("E-mail").fill(cast.operator.email)
    page.get_by_label("Password").fill(cast.password)
    page.get_by_role("main").get_by_role("button", name="Sign in", exact=True).click()


def fill_trigger_form(page: Page, *, service: str, javascript: bool = True) -> None:
    page.get_by_role("radio", name=service).check()
    page.get_by_label("Force new deployment").check()
    if not javascript:
        page.get_by_role("button", name="Show plan").click()
    page.get_by_label("Reason").fill("OPS-412: pick up the connector fix")
    page.get_by_label("Type acme to confirm").fill("acme")
    page.get_by_role("button", name="Start upgrade").click()


def test_sign_in_trigger_and_watch_to_the_end(cast: Cast, engine: Engine, guard: Guard, open_page: OpenPage) -> None:
    guard.expected = GAVE_WAY
    page = open_page("/")
    sign_in(page, cast)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("row", name="Agent service")).to_contain_text("4 of 4 running")

    page.get_by_role("main").get_by_role("link", name="Upgrade services").click()
    fill_trigger_form(page, service="Agent service")
    upgrade = Upgrade.objects.get()
    card = page.get_by_role("region", name="Agent service")
    expect(page.get_by_text(upgrade.upgrade_id).first).to_be_visible()
    page.evaluate("window.isSamePage = true")

    engine.start(upgrade)
    engine.local_aws.advance(10)
    engine.step()
    running = upgrade.rollouts.get().target_running
    expect(card.get_by_role("list", name="Tasks")).to_contain_text(f"{running} new running")
    expect(page).to_have_title("In progress: Agent service to v9.9.0 · Acme Robotics · Operations portal")
    engine.run(upgrade, seconds=15)
    expect(card).to_contain_text("Rolled out: 4 of 4 tasks running.")
    expect(page.get_by_role("region", name="Validation", exact=True)).to_contain_text("Needs validation")
    expect(page.locator("#announcer")).to_have_text("Rolled out: agent service. Needs validation.")
    assert page.evaluate("window.isSamePage")

    # When the portal's own checks are done, the page stops polling.
    ValidationRun.objects.update(is_done=True)
    expect(page.get_by_role("button", name="Check again")).to_be_visible(timeout=10_000)
    expect(page.get_by_role("link", name="Stop upgrade")).to_be_hidden()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == []


def test_trigger_watch_and_stop_without_javascript(cast: Cast, engine: Engine, open_page: OpenPage) -> None:
    page = open_page("/", javascript=False)
    sign_in(page, cast)
    page.get_by_role("main").get_by_role("link", name="Upgrade services").click()
    fill_trigger_form(page, service="Orchestrator", javascript=False)
    upgrade = Upgrade.objects.get()
    expect(page.locator("head meta[http-equiv=refresh]")).to_have_attribute("content", "5")

    page.get_by_role("link", name="Stop refreshing").click()
    expect(page.locator("head meta[http-equiv=refresh]")).to_have_count(0)
    engine.start(upgrade)
    page.get_by_role("link", name="Refresh", exact=True).click()
    expect(page.get_by_role("region", name="Orchestrator")).to_contain_text("of 3 new tasks running")

    page.get_by_role("link", name="Stop upgrade").click()
    expect(page.get_by_role("main")).to_contain_text(
        "Orchestrator: ECS rolls it back and starts tasks of v9.9.0 again."
    )
    page.get_by_role("button", name="Stop and roll back").click()
    engine.run(upgrade, seconds=15)
    page.goto(page.url)
    expect(page.get_by_role("region", name="Orchestrator")).to_contain_text("Stopped by operator@example.com.")


def test_a_target_in_use_is_disabled_with_its_reason(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    page = open_page("/o/acme/upgrades/new", cast.operator)

    expect(page.get_by_role("radio", name="Agent service")).to_be_disabled()
    expect(page.get_by_role("radio", name="All three")).to_be_disabled()
    expect(page.get_by_role("radio", name="Orchestrator")).to_be_enabled()
    page.get_by_role("link", name="Agent service to latest").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Agent service to latest")


def test_the_plan_follows_the_choices_and_keeps_what_was_typed(
    cast: Cast, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = GAVE_WAY
    page = open_page("/o/acme/upgrades/new", cast.operator)
    plan, confirmation = page.locator("#plan"), page.get_by_label("Type acme to confirm")

    page.get_by_label("Connector execution").check()
    expect(page.get_by_role("radio", name="Agent service")).to_be_checked()
    expect(plan.locator("#start")).to_have_text("Start upgrade of agent service")
    expect(page).to_have_url(re.compile(r"\?changed=connectors$"))
    expect(page.locator("#announcer")).to_contain_text("Pre-flight: No check failed.")
    expect(confirmation).to_have_count(0)

    page.get_by_label("Reason").fill("OPS-412")
    page.get_by_label("Force new deployment").check()
    expect(confirmation).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("Plan for agent service: replaces 4 tasks, takes 2-5 minutes.")
    expect(page.get_by_label("Force new deployment")).to_be_focused()
    page.get_by_label("LLM providers").check()
    expect(page.get_by_role("radio", name="All three")).to_be_checked()
    page.get_by_role("link", name="Choose the orchestrator").click()
    expect(page.get_by_role("radio", name="Orchestrator")).to_be_checked()
    expect(plan.locator("#start")).to_have_text("Start upgrade of orchestrator")
    expect(page.get_by_label("Reason")).to_have_value("OPS-412")

    page.go_back()
    expect(page.get_by_role("radio", name="All three")).to_be_checked()
    expect(plan.locator("#start")).to_have_text("Start upgrade of all three services")


def test_only_the_plan_that_is_shown_can_be_started(
    cast: Cast, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["ERR_FAILED", "htmx:sendError", *GAVE_WAY]
    page = open_page("/o/acme/upgrades/new?service=agent&force=1", cast.operator)
    start = page.get_by_role("button", name="Start upgrade")
    expect(start).to_be_enabled()

    page.route("**/upgrades/new?*", lambda route: route.abort())
    page.get_by_role("radio", name="Orchestrator").check()
    expect(page.get_by_text("this plan does not match your choices")).to_be_visible()
    expect(start).to_be_disabled()

    page.unroute("**/upgrades/new?*")
    page.get_by_role("radio", name="Customer portal").check()
    expect(start).to_have_text("Start upgrade of customer portal")
    expect(start).to_be_enabled()


def test_pre_flight_loads_later_and_may_ask_for_a_reason(
    cast: Cast, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = GAVE_WAY
    at_local_aws(platform, cast.acme)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")
    page = open_page("/o/acme/upgrades/new?service=orchestrator", cast.operator)
    checks, override = page.get_by_role("region", name="Pre-flight"), page.get_by_label("Reason to start despite")
    expect(checks).to_contain_text("1 of 10 checks failed.")
    expect(page.locator("#announcer")).to_contain_text("Pre-flight: 1 of 10 checks failed.")

    # It survives a change of the plan that keeps the target, with its typed text and open details.
    override.fill("the vendor asked for it")
    checks.get_by_text("Evidence").first.click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Force new deployment").check()
    expect(page.get_by_label("Type acme to confirm")).to_be_visible()
    expect(override).to_have_value("the vendor asked for it")
    expect(checks.locator("details[open] dt").first).to_be_visible()
    assert [url for url in asked if "preflight" in url] == []

    # The browser does not submit the form without a reason.
    override.fill("")
    page.get_by_label("Reason", exact=True).fill("OPS-413")
    page.get_by_label("Type acme to confirm").fill("acme")
    page.get_by_role("button", name="Start upgrade").click()
    expect(override).to_be_focused()
    assert not Upgrade.objects.exists()

    platform.clear_platform()
    page.wait_for_timeout(FRESH_SECONDS * 1000)
    page.get_by_role("link", name="Check again").click()
    expect(checks).to_contain_text("No check failed.")
    expect(override).to_have_count(0)
    page.get_by_role("button", name="Start upgrade").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Orchestrator to latest")


@pytest.mark.usefixtures("registry")
def test_a_version_up_and_back_down_by_its_page(cast: Cast, engine: Engine, guard: Guard, open_page: OpenPage) -> None:
    guard.expected = ["422 (Unprocessable"]
    upgrade = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="all", version="v9.9.1"), seconds=15)
    page = open_page(f"/o/acme/upgrades/{upgrade.upgrade_id}/", cast.operator)

    page.get_by_role("link", name="Roll back").click()
    row = page.get_by_role("row", name="Orchestrator")
    expect(row).to_contain_text("v9.9.1")
    expect(row).to_contain_text("v9.9.0")
    button = page.get_by_role("button", name="Roll back agent service, orchestrator and customer portal")
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("Type acme to confirm")
    page.get_by_label("Reason", exact=True).fill("OPS-413: sign-in fails")
    page.get_by_label("Type acme to confirm").fill("acme")
    button.click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Rollback of all three to v9.9.0")
    rollback = Upgrade.objects.get(kind="rollback")
    engine.run(rollback, seconds=15)
    expect(page.get_by_text("Rolled back: agent service, orchestrator, customer portal.").first).to_be_visible()
    page.get_by_role("link", name="All three to v9.9.1").click()
    expect(page.get_by_text("Rolled back: agent service, orchestrator, customer portal.")).to_be_visible()
    expect(page.get_by_role("link", name="Roll back", exact=True)).to_have_count(0)


def test_after_a_partial_upgrade_the_next_step_is_filled_in(
    cast: Cast, engine: Engine, platform: LocalAws, open_page: OpenPage
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-orchestrator-service")
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="all", force_new_deployment=True, reason="OPS-7")
    engine.run(upgrade, seconds=15)
    page = open_page(f"/o/acme/upgrades/{upgrade.upgrade_id}/", cast.operator)

    page.get_by_role("link", name="Retry the orchestrator").click()

    expect(page.get_by_role("radio", name="Orchestrator")).to_be_checked()
    expect(page.get_by_label("Force new deployment")).to_be_checked()
    expect(page.get_by_label("Reason", exact=True)).to_have_value("OPS-7")
    expect(page.get_by_role("button", name="Start upgrade")).to_have_text("Start upgrade of orchestrator")
