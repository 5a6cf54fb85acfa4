"""WCAG 2.2 AA on every page, light and dark, from 320 px up, and checks beyond axe: reflow, focus, the theme."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from portal.models import SavedView
from tests.browser.conftest import OF_COLOUR, Guard, OpenPage, keep_screenshot, scrolls_sideways, violations
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import push_untagged
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# WCAG 1.4.12, as a user style sheet would set it.
SPACE_TEXT = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }"
    + " p { margin-block-end: 2em !important }");
  document.adoptedStyleSheets = [sheet];
}"""
FOCUS_IS_SEEN = """() => {
  const element = document.activeElement;
  if (element === document.body) return true;
  const box = element.getBoundingClientRect();
  const atCentre = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height / 2, 20));
  const style = getComputedStyle(element);
  return Boolean(atCentre) && (element.contains(atCentre) || atCentre.contains(element))
    && style.outlineStyle !== "none" || element.matches("main");
}"""


@pytest.fixture
def partial(cast: Cast, engine: Engine, platform: LocalAws) -> Upgrade:
    """Run an upgrade whose orchestrator crashes: agent advanced, orchestrator rolled back, portal not attempted."""
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-orchestrator-service")
    upgrade = trigger_upgrade(
        cast.acme, actor=cast.operator, service="all", force_new_deployment=True, reason="A coordinated rollout"
    )
    return engine.run(upgrade, seconds=15)


@pytest.fixture
def rolling(cast: Cast, engine: Engine) -> Upgrade:
    upgrade = trigger_upgrade(cast.globex, actor=cast.consultant, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    engine.local_aws.advance(5)
    engine.step()
    return upgrade


def check(page: Page, name: str) -> list[str]:
    """Return the problems of the page in its current state, in both themes and at 320 px."""
    page.emulate_media(color_scheme="light")
    wrong = [f"{name}, light: {each}" for each in violations(page)]
    keep_screenshot(page, name)
    page.emulate_media(color_scheme="dark")
    wrong += [f"{name}, dark: {each}" for each in violations(page, rules=OF_COLOUR)]
    keep_screenshot(page, name)
    page.set_viewport_size({"width": 320, "height": 640})
    keep_screenshot(page, name)
    if scrolls_sideways(page):
        wrong.append(f"{name}: scrolls sideways at 320 px")
    page.evaluate(SPACE_TEXT)
    if scrolls_sideways(page):
        wrong.append(f"{name}: scrolls sideways at 320 px with text spaced out")
    page.set_viewport_size({"width": 1280, "height": 800})
    if page.get_by_role("heading", level=1).count() != 1:
        wrong.append(f"{name}: not one h1")
    return wrong


def open_events(page: Page) -> None:
    for summary in page.locator("[data-keep-open] summary").all():
        summary.click()
    page.evaluate("scrollTo(0, 0)")  # so that the bar at the top covers nothing that axe looks at


def send_unconfirmed_form(page: Page) -> None:
    page.get_by_label("Reason", exact=True).fill("OPS-412")
    page.get_by_role("button", name="Start upgrade").click()
    expect(page.get_by_role("alert")).to_be_focused()


def sign_without_note(page: Page) -> None:
    page.get_by_label("Fail").check()
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.get_by_text("Say in a note what failed").last).to_be_visible()


def open_menu(page: Page) -> None:
    page.locator("[data-menu] summary").first.click()


@pytest.mark.pages
def test_every_page_meets_wcag_in_both_themes_and_reflows(
    cast: Cast, partial: Upgrade, rolling: Upgrade, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["404 (Not Found)", "422 (Unprocessable"]
    acme, globex = "/o/acme/", "/o/globex/"
    view = SavedView.objects.create(
        organization=cast.acme, user=cast.admin, list="upgrades", name="Failed", query="status=FAILED", is_shared=True
    )
    pages: list[tuple[str, Callable[[Page], None] | None]] = [
        (acme, open_menu),
        ("/", open_menu),
        (f"{acme}search/?q=orchestrator", None),
        (f"{acme}upgrades/new", None),
        (f"{acme}upgrades/new?changed=connectors&changed=providers&force=1", send_unconfirmed_form),
        (f"{acme}upgrades/new?service=orchestrator&version=v0", None),
        (f"{acme}upgrades/{partial.upgrade_id}/", open_events),
        (f"{acme}upgrades/{partial.upgrade_id}/evidence", None),
        (f"{acme}upgrades/{partial.upgrade_id}/validation/sign_in", None),
        (f"{acme}upgrades/{partial.upgrade_id}/validation/platform_health", sign_without_note),
        (f"{acme}upgrades/", None),
        (f"{acme}upgrades/?status=PENDING", None),
        (f"{acme}upgrades/?status=unknown", None),
        (f"{acme}deployments/?status=unknown", None),
        (f"{acme}agents/", None),
        (f"{acme}activity/", None),
        (f"{acme}views/", None),
        (f"{acme}views/new?list=upgrades&query=status%3DFAILED", None),
        (f"{acme}views/{view.pk}/edit", None),
        (f"{acme}views/{view.pk}/remove", None),
        (f"{acme}settings/members/", None),
        (f"{acme}settings/tokens/", None),
        (globex, None),
        (f"{globex}upgrades/new", None),
        (f"{globex}versions/", None),
        (f"{globex}upgrades/{rolling.upgrade_id}/", open_events),
        (f"{globex}upgrades/{rolling.upgrade_id}/stop", None),
        (f"{acme}upgrades/{partial.upgrade_id}/rollback", None),
        ("/o/nowhere/", None),
    ]
    page = open_page("/", cast.consultant)
    wrong = []
    titles = {}

    for path, prepare in pages:
        page.goto(path)
        if prepare:
            prepare(page)
        wrong += check(page, path)
        titles[path.partition("?")[0]] = page.title()

    assert wrong == []
    assert len(set(titles.values())) == len(titles), titles


@pytest.mark.pages
def test_the_versions_page_meets_wcag(
    cast: Cast, registry: dict[str, str], engine: Engine, platform: LocalAws, open_page: OpenPage
) -> None:
    engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1"))
    image = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/axonflow-agent:v9.8.0"
    family = f"{cast.acme.deployment_stack}-agent"
    container = {"name": "agent", "image": image, "essential": True, "memory": 512}
    drifted = platform.client().register_task_definition(family=family, containerDefinitions=[container])
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=f"{family}-service",
        taskDefinition=drifted["taskDefinition"]["taskDefinitionArn"],
    )
    platform.advance(300)
    push_untagged(platform)

    page = open_page("/o/acme/versions/", cast.viewer)
    expect(page.get_by_text("Drift: agent service.")).to_be_visible()
    page.get_by_text("1 untagged image").click()

    assert check(page, "versions") == []


@pytest.mark.pages
def test_pages_of_newcomers_and_viewers_meet_wcag(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    wrong = check(open_page("/accounts/login/"), "sign-in")
    wrong += check(open_page("/o/initech/", cast.newcomer), "not set up")
    wrong += check(open_page("/", cast.stranger), "no organization")

    assert wrong == []


@pytest.mark.parametrize("width", [320, 1280])
def test_focus_is_visible_and_never_under_a_bar(
    width: int, cast: Cast, platform: LocalAws, open_page: OpenPage
) -> None:
    page = open_page("/o/acme/upgrades/new", cast.operator, width=width)
    walked = []

    for _ in range(40):
        page.keyboard.press("Tab")
        tag = page.evaluate("document.activeElement.outerHTML.slice(0, 90)")
        if tag.startswith("<body"):
            break
        walked.append((tag, page.evaluate(FOCUS_IS_SEEN)))

    assert [tag for tag, is_seen in walked if not is_seen] == []
    assert len(walked) > 10


def test_a_chosen_theme_persists_until_system_is_chosen(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    page = open_page("/o/acme/", cast.operator)
    scheme = "getComputedStyle(document.documentElement).colorScheme"

    page.get_by_role("button", name="Dark").click()
    page.reload()
    assert page.evaluate(scheme) == "dark"
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")

    page.get_by_role("button", name="System").click()
    page.reload()
    assert page.evaluate(scheme) == "light dark"
