"""Confirmation pages opened by their own URL (in a new tab or by a link) with JavaScript: the button works."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Guard, OpenPage
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.isolation_table import Place, make_place

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
DEPLOYMENTS = "/o/acme/deployments/"


@pytest.fixture
def place(cast: Cast, platform: LocalAws) -> Place:
    return make_place(cast, cast.acme)


def press(page: Page, button: str) -> None:
    page.get_by_role("main").get_by_role("button", name=button, exact=True).click()


def test_a_command_on_a_deployment_runs(cast: Cast, place: Place, open_page: OpenPage) -> None:
    page = open_page("/account/", cast.operator)
    ready, stopped = (f"{DEPLOYMENTS}{place.deployments[status]}/" for status in ("ready", "stopped"))

    for one, button, fields, outcome in (
        (ready, "Scale", {"Replicas": "3"}, "Scale requested: Support agent to 3."),
        (stopped, "Restart", {}, "Restart requested: Support agent."),
        (ready, "Stop", {}, "Stop requested: Support agent."),
        (ready, "Kill", {"Type Support agent to confirm": "Support agent"}, "Killed: Support agent."),
    ):
        page.goto(f"{one}{button.lower()}")
        for label, value in fields.items():
            page.get_by_label(label).fill(value)
        press(page, button)

        expect(page.get_by_text(outcome)).to_be_visible()
        expect(page).to_have_url(re.compile(f"{one}$"))


def test_a_refused_command_can_be_sent_again(cast: Cast, place: Place, guard: Guard, open_page: OpenPage) -> None:
    guard.expected = ["422 (Unprocessable"]
    page = open_page(f"{DEPLOYMENTS}{place.deployments['ready']}/kill", cast.operator)

    press(page, "Kill")
    expect(page.get_by_text("The text does not match. Type Support agent to confirm.").last).to_be_visible()
    page.get_by_label("Type Support agent to confirm").fill("Support agent")
    press(page, "Kill")

    expect(page.get_by_text("Killed: Support agent.")).to_be_visible()


def test_a_command_on_several_deployments_runs(cast: Cast, place: Place, open_page: OpenPage) -> None:
    page = open_page(DEPLOYMENTS, cast.operator)
    for box in page.locator("tbody [type=checkbox]").all():
        box.check()
    # Submit as before the scripts have loaded, without any handler.
    page.locator("form.bulk [value=kill]").evaluate(
        """button => {
          const command = document.createElement("input");
          command.name = button.name;
          command.value = button.value;
          button.form.append(command);
          button.form.submit();
        }"""
    )
    expect(page.get_by_role("heading", level=1, name="Kill 2 deployments?")).to_be_visible()

    page.get_by_label("Type kill 2 to confirm").fill("kill 2")
    press(page, "Kill 2 deployments")

    expect(page.locator(".outcome.done")).to_have_count(2)


def test_every_other_confirmation_page_acts(cast: Cast, place: Place, open_page: OpenPage) -> None:
    upgrades, settings = "/o/acme/upgrades", "/o/acme/settings"
    channel = f"{settings}/channels/{place.channel_id}"
    page = open_page("/account/", cast.admin)

    for path, button, fields, outcome in (
        (f"{upgrades}/{place.upgrade_id}/stop", "Stop and roll back", {}, "Stop requested."),
        (f"{upgrades}/{place.ended_id}/validation/sign_in", "Sign", {"Pass": "", "Note": "Seen."}, "Signed: "),
        (f"{upgrades}/{place.ended_id}/rollback", "Roll back agent service", {}, "Rolls back"),
        (f"{channel}/edit", "Save changes", {"Name": "Renamed"}, "Changes saved."),
        (f"{channel}/secret", "Create a new secret", {}, "whsec_"),
        (f"{channel}/remove", "Remove the channel", {}, "was removed."),
        (f"{settings}/members/{place.membership_id}/remove", "Remove the member", {}, "is no longer a member of"),
        (f"/o/acme/agents/{place.agent_id}/revisions/1/restore", "Return to revision 1", {}, "returns to revision 1"),
        (f"/o/acme/agents/{place.agent_id}/edit", "Save changes", {"Name": "Renamed"}, "Changes saved."),
        (f"{DEPLOYMENTS}new?agent={place.agent_id}", "Deploy", {}, "Deploying"),
    ):
        page.goto(path)
        for label, value in fields.items():
            field = page.get_by_label(label, exact=True)
            field.fill(value) if value else field.check()
        press(page, button)

        expect(page.get_by_role("main")).to_contain_text(outcome)


def test_the_focus_goes_to_the_errors_of_a_form(cast: Cast, place: Place, guard: Guard, open_page: OpenPage) -> None:
    guard.expected = ["422 (Unprocessable", "422 from"]
    ready = f"{DEPLOYMENTS}{place.deployments['ready']}/"
    page = open_page("/account/", cast.admin)

    def sends_nothing(button: str) -> None:
        for form in page.get_by_role("main").locator("form").all():
            form.evaluate("form => { form.noValidate = true; }")
        press(page, button)
        expect(page.locator("main [data-error-summary]")).to_be_focused()

    for path, button in (
        (f"{ready}kill", "Kill"),
        (f"/o/acme/upgrades/{place.ended_id}/validation/sign_in", "Sign"),
        ("/o/acme/settings/members/new", "Add the member"),
        ("/o/acme/views/new?list=deployments&query=status%3Dfailed", "Save view"),
        ("/accounts/password/change/", "Change password"),
    ):
        page.goto(path)
        sends_nothing(button)
    page.goto(ready)
    page.get_by_role("link", name="Kill").click()
    expect(page.get_by_role("heading", name="Kill Support agent?")).to_be_focused()
    sends_nothing("Kill")
