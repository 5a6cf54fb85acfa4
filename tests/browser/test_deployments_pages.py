"""Deployments in a real browser: no full reloads, no lost input, everything usable by keyboard."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.core.cache import cache
from playwright.sync_api import Page, expect

from deployments.commands import create_deployment
from deployments.models import Deployment
from tests.browser.conftest import OF_COLOUR, Guard, OpenPage, scrolls_sideways, violations
from tests.browser.test_upgrade_journey import sign_in
from tests.conftest import Cast
from tests.deployments.conftest import Runtime, make_agent
from tests.local_aws import LocalAws

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LIST = "/o/acme/deployments/"


@pytest.fixture
def engine_room(platform: LocalAws, settings: Any) -> Runtime:
    settings.DEPLOYMENTS_LAG_SECONDS = -60
    settings.DEPLOYMENTS_READS_PER_MINUTE = 10_000_000
    return Runtime(platform)


@pytest.fixture
def ready(cast: Cast, engine_room: Runtime) -> Deployment:
    """Return a deployment with two running tasks and some log lines."""
    deployment = create_deployment(make_agent(cast), actor=cast.operator, replicas=2)
    engine_room.run(deployment, "ready")
    cache.clear()
    return deployment


@pytest.fixture
def measured(ready: Deployment, engine_room: Runtime) -> Iterator[Deployment]:
    """Return it ten minutes later, on the clocks of AWS and of the portal."""
    engine_room.local_aws.advance(600)
    with time_machine.travel(engine_room.local_aws.now()):
        yield ready


def address(deployment: Deployment) -> str:
    return f"{LIST}{deployment.pk}/"


def whole_window(deployment: Deployment) -> str:
    day = f"{deployment.created_at:%Y-%m-%d}"
    hour = deployment.created_at.hour
    return f"?since={day}T{hour:02}:00:00Z&until={day}T{min(hour + 2, 23):02}:59:00Z"


def stay(page: Page) -> None:
    page.evaluate("window.isSamePage = true")


def stayed(page: Page) -> bool:
    return bool(page.evaluate("window.isSamePage === true"))


def test_list_filters_keep_page_and_selection(cast: Cast, engine_room: Runtime, open_page: OpenPage) -> None:
    for name in ("Order triage", "Invoice reader", "Fraud watch"):
        create_deployment(make_agent(cast, name), actor=cast.operator)
    page = open_page(LIST, cast.operator)
    stay(page)
    rows = page.locator("tbody tr")
    page.get_by_role("checkbox", name=re.compile("Fraud watch")).check()
    page.locator("#rows").evaluate("block => { block.dataset.first = ''; }")
    Deployment.objects.update(error_message="exit code 1")

    expect(page.locator("#rows[data-first]")).to_have_count(0)  # the poll has replaced it
    expect(page.get_by_role("checkbox", name=re.compile("Fraud watch"))).to_be_checked()
    expect(page.get_by_text("1 selected:")).to_be_visible()

    page.locator("#filter-q").fill("invoice")
    expect(rows).to_have_count(1)
    page.get_by_role("link", name=re.compile("^Deploying")).click()
    expect(page).to_have_url(re.compile(r"\?.*status=deploying"))
    expect(page).to_have_url(re.compile("q=invoice"))
    page.locator("#filter-q").fill("")
    expect(rows).to_have_count(3)
    expect(page).to_have_url(re.compile(r"status=deploying"))
    assert stayed(page)

    rows.first.get_by_role("link").first.click()
    page.get_by_role("main").get_by_role("link", name="Deployments").click()
    expect(page).to_have_url(re.compile("status=deploying"))


def test_bulk_confirms_acts_and_returns_the_focus(cast: Cast, engine_room: Runtime, open_page: OpenPage) -> None:
    for name in ("Order triage", "Invoice reader"):
        create_deployment(make_agent(cast, name), actor=cast.operator)
    page = open_page(LIST, cast.operator)
    stay(page)

    page.get_by_role("checkbox", name="Select all rows").check()
    page.get_by_role("button", name="Kill").click()
    expect(page.get_by_role("heading", name="Kill 2 deployments?")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#act")).to_be_empty()
    expect(page.locator("#bulk-kill")).to_be_focused()

    page.get_by_role("button", name="Kill").click()
    page.get_by_label("Type kill 2 to confirm").fill("kill 2")
    page.get_by_role("button", name="Kill 2 deployments").click()

    expect(page.locator("#act .outcome.done")).to_have_count(2)
    expect(page.locator("#rows .chip.killed")).to_have_count(2)
    assert stayed(page)


def test_a_form_sent_after_the_session_ended_leads_back(
    cast: Cast, engine_room: Runtime, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["401 (Unauthorized)", "Response Status Error Code 401"]
    create_deployment(make_agent(cast, "Order triage"), actor=cast.operator)
    page = open_page(f"{LIST}?q=order&sort=agent", cast.operator)
    page.get_by_role("checkbox", name=re.compile("Order triage")).check()

    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Kill").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, cast)

    expect(page.get_by_role("checkbox", name=re.compile("Order triage"))).to_be_visible()
    expect(page).to_have_url(re.compile(re.escape(f"{LIST}?q=order&sort=agent") + "$"))


def test_one_window_moves_timeline_metrics_and_logs(cast: Cast, measured: Deployment, open_page: OpenPage) -> None:
    page = open_page(address(measured) + whole_window(measured), cast.operator)
    stay(page)
    expect(page.locator("#log-lines .log-record").first).to_be_visible()
    expect(page.locator("#metrics figure")).to_have_count(3)

    page.get_by_label("Level").select_option("INFO")
    expect(page).to_have_url(re.compile("level=INFO"))
    moment = page.locator(".event-time").last
    moment.click()

    expect(page).to_have_url(re.compile("level=INFO.*at="))
    expect(page.locator(".events > .here")).to_have_count(1)
    expect(page.get_by_label("Level")).to_have_value("INFO")
    since = page.locator(".window-words .mono").first.inner_text()
    expect(page.locator("#custom-since")).to_have_value(re.compile(since.replace(" ", "T")))
    page.get_by_role("link", name="6h").click()
    expect(page).to_have_url(re.compile(r"level=INFO&range=6h$"))
    assert stayed(page)


def test_cursor_reads_all_charts_by_keyboard_and_pointer(cast: Cast, measured: Deployment, open_page: OpenPage) -> None:
    page = open_page(address(measured) + whole_window(measured), cast.operator)
    slider = page.get_by_role("slider", name="Cursor over all charts")
    slider.focus()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")

    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"\d\d:\d\d:\d\d: CPU .* %, Memory .* %, Running"))
    expect(page.locator("[data-charts][data-cursor] [data-crosshair]")).to_have_count(3)
    before = page.locator("[data-cursor-time]").inner_text()
    page.locator(".plot").first.hover(position={"x": 5, "y": 20})
    expect(page.locator("[data-cursor-time]")).not_to_have_text(before)


def expect_zoom(page: Page) -> int:
    """Wait until the charts show the window of the URL, and return its length in seconds."""
    expect(page).to_have_url(re.compile("since=.*until="))
    query = parse_qs(urlsplit(page.url).query)
    since, until = (
        int(datetime.fromisoformat(query[name][0].removesuffix("Z") + "Z").timestamp()) for name in ("since", "until")
    )
    expect(page.locator("[data-charts]")).to_have_attribute("data-since", str(since))
    return until - since


def test_a_drag_over_a_chart_zooms_the_whole_page(cast: Cast, measured: Deployment, open_page: OpenPage) -> None:
    page = open_page(address(measured), cast.operator)
    stay(page)
    plot = page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40)
    expect(page.locator("[data-selection]").last).to_have_attribute("width", re.compile(r"^2[45]"))
    page.mouse.up()

    assert 14 * 60 < expect_zoom(page) < 16 * 60
    expect(page.locator(".window-bar [aria-current]")).to_have_count(0)
    assert stayed(page)


def test_the_keyboard_zooms_in_and_out_and_says_so(cast: Cast, measured: Deployment, open_page: OpenPage) -> None:
    page = open_page(address(measured), cast.operator)
    stay(page)
    slider = page.get_by_role("slider", name="Cursor over all charts")
    slider.focus()
    slider.press("Enter")
    expect(page.locator("[data-cursor-time]")).to_have_text(re.compile(r"The range begins at .*\d\d:00\."))
    for _ in range(5):
        slider.press("ArrowLeft")
    slider.press("Enter")

    near = expect_zoom(page)
    assert near == pytest.approx(5 * 60, abs=1)
    expect(page.locator("#announcer")).to_have_text(re.compile(r"log records?, .* to \d\d"), timeout=10_000)
    expect(slider).to_be_focused()
    inside = page.url
    slider.press("Escape")
    expect(page).not_to_have_url(inside)
    assert expect_zoom(page) == pytest.approx(2 * near, abs=2)
    assert stayed(page)


def test_follow_appends_pauses_and_counts(
    cast: Cast, ready: Deployment, engine_room: Runtime, open_page: OpenPage
) -> None:
    page = open_page(f"{address(ready)}?follow=1", cast.operator)
    lines = page.locator("#log-lines .log-record")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    count = lines.count()

    engine_room.local_aws.freeze(False)
    expect(lines.nth(count)).to_be_attached(timeout=20_000)
    page.get_by_role("button", name="Pause", exact=True).click()
    held = lines.count()
    expect(page.locator("[data-log-waiting]")).to_have_text(re.compile(r"\d+ new records?\. Paused\."), timeout=20_000)
    assert lines.count() == held
    page.get_by_role("button", name="Resume", exact=True).click()

    expect(lines.nth(held)).to_be_attached()
    ids = lines.evaluate_all("lines => lines.map((line) => line.id)")
    assert len(ids) == len(set(ids))


def test_link_to_a_line_shows_it_with_the_lines_around(cast: Cast, ready: Deployment, open_page: OpenPage) -> None:
    page = open_page(address(ready), cast.operator)
    line = page.locator("#log-lines .log-record").nth(5)
    wanted = line.get_attribute("id")

    line.locator(".log-time").click()

    expect(page.locator(".log-record.here")).to_have_attribute("id", wanted or "")
    page.reload()
    expect(page.locator(".log-record.here")).to_be_in_viewport()


def test_confirmation_in_the_page_refuses_and_acts(
    cast: Cast, ready: Deployment, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["422 (Unprocessable", "Response Status Error Code 422"]
    page = open_page(address(ready), cast.operator)
    stay(page)

    page.get_by_role("link", name="Kill").click()
    page.locator("#act").get_by_role("button", name="Kill").click()
    expect(page.locator("#act")).to_contain_text("The text does not match. Type Support agent to confirm.")
    page.get_by_role("link", name="Keep it").click()
    expect(page.get_by_role("link", name="Kill")).to_be_focused()

    page.get_by_role("link", name="Scale").click()
    page.get_by_label("Replicas").fill("3")
    page.locator("#act").get_by_role("button", name="Scale").click()
    expect(page.locator("#act")).to_contain_text("Scale requested")
    expect(page.locator("#timeline")).to_contain_text("from 2 to 3")
    assert stayed(page)


def test_a_region_that_fails_to_load_says_so(cast: Cast, ready: Deployment, guard: Guard, open_page: OpenPage) -> None:
    guard.expected = ["net::ERR_FAILED", "htmx:sendError", "htmx:afterRequest"]
    page = open_page(LIST, cast.operator)
    page.route(
        f"**{address(ready)}",
        lambda route: route.abort() if route.request.headers.get("hx-target") == "logs" else route.continue_(),
    )

    page.goto(address(ready))

    expect(page.locator("#logs")).to_contain_text("The logs could not be loaded because the portal did not answer.")
    expect(page.locator("#metrics")).to_contain_text("CPU")


def test_one_dot_and_one_pause_stand_for_the_whole_page(
    cast: Cast, measured: Deployment, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["net::ERR_FAILED", "htmx:sendError", "htmx:afterRequest"]
    page = open_page(address(measured), cast.operator)
    expect(page.locator("#metrics figure")).to_have_count(3)
    expect(page.locator(".freshness .dot")).to_have_count(1)
    expect(page.get_by_role("button", name="Pause refreshing")).to_have_count(1)

    page.route(
        f"**{address(measured)}",
        lambda route: route.abort() if route.request.headers.get("hx-target") == "metrics" else route.continue_(),
    )
    page.evaluate("htmx.trigger('#metrics', 'refresh')")

    expect(page.locator("#state .freshness")).to_have_class("freshness failing")


def test_everything_works_without_javascript(cast: Cast, ready: Deployment, open_page: OpenPage) -> None:
    page = open_page(LIST, cast.operator, javascript=False)
    page.get_by_role("link", name=ready.short_id).click()
    page.get_by_role("link", name="Show metrics and logs").first.click()
    expect(page.locator("#logs")).to_contain_text("Level")
    page.get_by_role("link", name="Scale").click()
    page.get_by_label("Replicas").fill("3")
    page.get_by_role("button", name="Scale").click()

    expect(page.get_by_text("Scale requested: Support agent to 3.")).to_be_visible()
    expect(page.locator("#timeline")).to_contain_text("from 2 to 3")


def wrong_with(page: Page, name: str) -> list[str]:
    """Return the problems of the current page in both themes and at 320 px."""
    wrong = []
    page.emulate_media(color_scheme="light")
    wrong += [f"{name}, light: {each}" for each in violations(page)]
    page.emulate_media(color_scheme="dark")
    wrong += [f"{name}, dark: {each}" for each in violations(page, rules=OF_COLOUR)]
    page.set_viewport_size({"width": 320, "height": 640})
    if scrolls_sideways(page):
        wrong.append(f"{name}: scrolls sideways at 320 px")
    wrong += [f"{name}, 320 px: {each}" for each in violations(page)]
    page.set_viewport_size({"width": 1280, "height": 800})
    if page.get_by_role("heading", level=1).count() != 1:
        wrong.append(f"{name}: not one h1")
    return wrong


@pytest.mark.pages
def test_pages_meet_wcag_in_both_themes_and_reflow(cast: Cast, measured: Deployment, open_page: OpenPage) -> None:
    agent = f"/o/acme/agents/{measured.agent_id}/"
    page = open_page(LIST, cast.operator)
    wrong = []
    for path in (
        LIST,
        f"{LIST}?q=nothing",
        f"{LIST}new",
        address(measured) + whole_window(measured),
        f"{address(measured)}?follow=1",
        f"{address(measured)}kill",
        f"{address(measured)}restart",
        "/o/acme/agents/",
        agent,
        f"{agent}edit",
        f"{agent}versions",
        f"{agent}revisions/",
        f"{agent}revisions/1/",
        f"{agent}revisions/1/restore",
    ):
        page.goto(path)
        page.wait_for_load_state("networkidle" if "follow" not in path else "load")
        wrong += wrong_with(page, path)
    viewer = open_page(address(measured), cast.viewer)
    wrong += wrong_with(viewer, "as a viewer")

    assert wrong == []
