"""Keyboard shortcuts: their list, single keys and the switch for them, and the palette by keyboard only."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OF_COLOUR, OpenPage, scrolls_sideways, violations
from tests.browser.test_history_page import record_past_upgrades
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HISTORY = "/o/acme/upgrades/"


def wrong_with(page: Page, name: str) -> list[str]:
    """Return axe's violations in the open dialog, light and dark, narrow and wide."""
    wrong = []
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="light")
        wrong += [f"{name}, light, {width}: {each}" for each in violations(page)]
        page.emulate_media(color_scheme="dark")
        wrong += [f"{name}, dark, {width}: {each}" for each in violations(page, rules=OF_COLOUR)]
        if scrolls_sideways(page):
            wrong.append(f"{name} scrolls sideways at {width} px")
    return wrong


def test_a_key_opens_the_list_and_escape_restores_the_focus(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.operator)
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    page.get_by_role("link", name="Clear").focus()

    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    page.keyboard.press("d")
    expect(page).to_have_url(re.compile(f"{HISTORY}$"))
    assert wrong_with(page, "keys") == []

    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("link", name="Clear")).to_be_focused()

    page.get_by_role("button", name="Keys").click()
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


def test_two_keys_navigate_but_one_does_not(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.operator)

    page.keyboard.press("/")
    expect(page.get_by_label("Requested version")).to_be_focused()
    page.keyboard.type("dv?/")
    expect(page.get_by_label("Requested version")).to_have_value("dv?/")
    expect(page.get_by_role("dialog")).to_be_hidden()

    page.get_by_role("heading", level=1).click()
    page.keyboard.press("Control+d")
    page.keyboard.press("Shift+D")
    expect(page).to_have_url(re.compile(r"/upgrades/"))
    page.keyboard.press("d")
    expect(page).to_have_url(re.compile(r"/upgrades/"))
    for key, title in (("d", "Deployments"), ("a", "Activity"), ("h", "History"), ("o", "Overview")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page).to_have_title(re.compile(f"^{title} · Acme"))
        page.wait_for_load_state()


def test_a_key_refreshes_live_blocks(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    page = open_page("/o/acme/versions/", cast.operator)

    with page.expect_response(re.compile("/versions/")):
        page.keyboard.press("r")


def test_single_keys_switched_off_stay_off(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.operator)
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Letter shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.reload()

    page.keyboard.press("?")
    page.keyboard.press("d")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page).to_have_url(re.compile(f"{HISTORY}$"))

    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Letter shortcuts").check()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


def test_without_javascript_dead_buttons_are_hidden(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.operator, javascript=False)

    expect(page.get_by_role("button", name="Keys")).to_be_hidden()
    expect(page.get_by_role("button", name="Go to")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("link", name="Search").click()
    page.get_by_label("Agent, deployment").fill("upgrade services")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("main").get_by_role("link")).to_have_text("Upgrade services")


def test_the_palette_follows_links_by_keyboard(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.consultant)
    palette = page.get_by_role("dialog", name="Go to")
    field, options = palette.get_by_role("combobox"), palette.get_by_role("option")

    page.keyboard.press("Control+k")
    expect(field).to_be_focused()
    expect(options.first).to_have_text("Upgrade services On this page ")
    expect(palette.get_by_role("option", name="Acme Robotics")).to_have_count(0)
    assert wrong_with(page, "palette") == []

    page.keyboard.type("nothing of this name")
    expect(options).to_have_count(0)
    expect(field).to_have_attribute("aria-expanded", "false")
    expect(palette.get_by_role("status")).to_have_text("No matches.")
    assert wrong_with(page, "palette without entries") == []
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(palette).to_be_hidden()

    page.keyboard.press("Control+k")
    page.keyboard.type("page vers")
    expect(options).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page).to_have_title(re.compile("^Versions"))
    page.wait_for_load_state()

    page.keyboard.press("Control+k")
    page.keyboard.type("globex")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/o/globex/$"))


def test_arrows_cycle_through_the_palette(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.operator)
    page.get_by_role("button", name="Go to").click()
    palette = page.get_by_role("dialog", name="Go to")
    options, selected = palette.get_by_role("option"), palette.locator("[aria-selected=true]")

    page.keyboard.press("ArrowUp")
    expect(selected).to_have_text(re.compile("^Account and sign-in"))
    expect(palette.get_by_role("combobox")).to_have_attribute("aria-activedescendant", f"palette-{options.count() - 1}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(selected).to_have_text(re.compile("^Overview"))
    expect(selected).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page).to_have_title(re.compile("^Overview"))


@pytest.mark.parametrize("typed", [" upgrade-2026-0101-000000-000000 ", "0101-000000 failed"])
def test_a_part_of_an_id_opens_its_page(cast: Cast, open_page: OpenPage, typed: str) -> None:
    record_past_upgrades(cast, failed=1, succeeded=0)
    page = open_page("/o/acme/activity/", cast.viewer)

    page.keyboard.press("Meta+k")
    page.keyboard.type(typed)
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile("/o/acme/upgrades/upgrade-2026-0101-000000-000000/$"))


def test_a_command_in_the_palette_opens_its_form(cast: Cast, open_page: OpenPage) -> None:
    deployment = make_deployment(cast, make_agent(cast, "Triage agent"))
    page = open_page("/o/acme/activity/", cast.operator)
    palette = page.get_by_role("dialog", name="Go to")

    page.keyboard.press("Control+k")
    page.keyboard.type("stop tri")
    expect(palette.get_by_role("option")).to_have_count(1)
    assert wrong_with(page, "palette with a command") == []
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(f"/o/acme/deployments/{deployment.pk}/stop$"))


def test_j_and_k_move_through_rows_and_enter_opens(cast: Cast, open_page: OpenPage) -> None:
    record_past_upgrades(cast, failed=2, succeeded=0)
    page = open_page(HISTORY, cast.viewer)
    rows = page.locator("tbody th a")

    for key, focused in (("j", 0), ("j", 1), ("j", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(rows.nth(focused)).to_be_focused()
    opens = rows.first.get_attribute("href")
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(re.escape(str(opens)) + "$"))


def test_anonymous_pages_have_keys_but_no_palette(cast: Cast, open_page: OpenPage) -> None:
    page = open_page("/accounts/login/")
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()

    page.keyboard.press("Control+k")
    expect(page.locator("#palette")).to_have_count(0)


def test_a_command_is_copied_or_shown_for_copying(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(f"{HISTORY}?status=FAILED", cast.operator)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy, shown = page.locator("[data-copy]"), page.locator("#curl-get-upgrade-history-text")

    copy.click()
    expect(copy).to_have_text("Copied")
    expect(page.locator("#announcer")).to_have_text("Copied.")
    expect(shown).to_be_hidden()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == shown.text_content()
    assert copied.endswith("/api/v1/deployments/upgrades?status=FAILED'")

    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    copy.click()
    expect(shown).to_be_visible()
    assert page.evaluate("document.getSelection().toString()") == copied
    assert wrong_with(page, "command") == []


def test_a_command_is_shown_without_javascript(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(HISTORY, cast.viewer, javascript=False)
    expect(page.get_by_role("button", name="Copy as curl")).to_be_hidden()

    page.get_by_text("Show the command").click()

    expect(page.locator("#curl-get-upgrade-history-text")).to_contain_text(
        "curl -b cookies.txt -H 'X-Organization: acme'"
    )
