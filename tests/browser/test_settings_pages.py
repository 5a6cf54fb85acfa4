"""The settings pages in a real browser: adding a channel, its test appearing live, and use without JavaScript."""

import re

import pytest
from playwright.sync_api import Page, expect

from portal.models import Membership
from portal.models.notifications import SUBSCRIBABLE, NotificationChannel, NotificationKind
from tests.browser.conftest import Guard, OpenPage
from tests.browser.test_accessibility import check
from tests.conftest import Cast
from tests.notifications.conftest import deliver_now, deliveries, make_channel, receiver, send_notification, statuses
from tests.outside import Outside

__all__ = ["receiver"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def add_webhook(page: Page, url: str) -> NotificationChannel:
    page.get_by_role("link", name="Add webhook").click()
    page.get_by_label("Name").fill("Ops")
    page.get_by_label("URL").fill(url)
    page.get_by_label("Rollout stalled").uncheck()
    page.get_by_role("button", name="Add the channel").click()
    expect(page.locator(".secret")).to_have_text(re.compile(r"whsec_\S{44}"))
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_role("heading", level=1, name="Ops")).to_be_visible()
    return NotificationChannel.objects.get()


def test_a_channel_is_added_and_its_test_appears_live(cast: Cast, receiver: Outside, open_page: OpenPage) -> None:
    receiver.answers["/in"] = statuses(503, 200)
    page = open_page("/o/acme/settings/", cast.admin)
    channel = add_webhook(page, f"{receiver.url}/in")
    assert set(channel.events) == set(SUBSCRIBABLE) - {NotificationKind.UPGRADE_STALLED}

    page.get_by_role("button", name="Send test").click()
    row = page.locator("#log tbody tr").first
    expect(row).to_contain_text("Waiting")
    page.evaluate("window.stays = true")
    deliver_now(deliveries(channel)[0])

    expect(row).to_contain_text("HTTP 503. The receiver failed.")
    expect(page.locator("#announcer")).to_have_text("Last message: failed. HTTP 503. The receiver failed.")
    expect(page.locator("#log")).not_to_have_attribute("hx-trigger", re.compile("."))
    assert page.evaluate("window.stays")


def test_everything_works_without_a_script(cast: Cast, receiver: Outside, open_page: OpenPage) -> None:
    page = open_page("/o/acme/settings/", cast.admin, javascript=False)
    channel = add_webhook(page, f"{receiver.url}/in")

    page.get_by_role("button", name="Send test").click()
    deliver_now(deliveries(channel)[0])
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("#log tbody tr").first).to_contain_text("HTTP 204.")
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_text("This channel is switched off")).to_be_visible()
    page.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove the channel").click()
    expect(page.get_by_text("No notifications yet.")).to_be_visible()


@pytest.mark.pages
def test_the_settings_pages_meet_wcag_and_reflow(
    cast: Cast, receiver: Outside, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["422 (Unprocessable", "409 (Conflict"]
    receiver.answers["/in"] = statuses(503, 404)
    channel = make_channel(cast.acme, by=cast.admin, target=f"{receiver.url}/in")
    make_channel(cast.acme, by=cast.admin, kind="email", is_active=False)
    send_notification(cast.acme)
    deliver_now(deliveries(channel)[0])
    deliver_now(deliveries(channel)[0])
    send_notification(cast.acme)
    one = f"/o/acme/settings/channels/{channel.pk}"
    page = open_page("/o/globex/settings/", cast.outsider)
    wrong = check(page, "empty, may not act")

    page = open_page("/o/acme/settings/", cast.admin)
    members = "/o/acme/settings/members"
    own, other = (Membership.objects.get(organization=cast.acme, user=user).pk for user in (cast.admin, cast.viewer))
    of_members = (f"{members}/", f"{members}/new", f"{members}/{own}/remove", f"{members}/{other}/remove")
    for path in ("/o/acme/settings/", f"{one}/", f"{one}/edit", f"{one}/secret", f"{one}/remove", *of_members):
        page.goto(path)
        for summary in page.locator("details.tries summary").all():
            summary.click()
        wrong += check(page, path)
    page.goto("/o/acme/settings/channels/new/email")
    page.get_by_label("Name").fill("x")
    page.get_by_label("Addresses").fill("nobody")
    page.get_by_role("button", name="Add the channel").click()
    expect(page.get_by_role("alert")).to_be_visible()
    wrong += check(page, "refused form")
    page.goto(f"{members}/new")
    page.get_by_label("E-mail address").fill(cast.viewer.email)
    page.get_by_role("button", name="Add the member").click()
    expect(page.get_by_role("alert")).to_be_visible()
    wrong += check(page, "refused member")
    page.goto(f"{members}/")
    page.get_by_label("Role of admin@example.com", exact=True).select_option("viewer")
    page.get_by_role("button", name="Change the role of admin@example.com").click()
    expect(page.get_by_role("alert")).to_be_visible()
    wrong += check(page, "refused role")
    page = open_page(f"{members}/", cast.viewer)
    wrong += check(page, "members, may not act")

    assert wrong == []


def test_a_member_is_added_changed_and_removed_without_a_script(cast: Cast, open_page: OpenPage) -> None:
    page = open_page("/o/acme/settings/", cast.admin, javascript=False)

    page.get_by_role("link", name="Members and roles").click()
    page.get_by_role("link", name="Add a member").click()
    page.get_by_label("E-mail address").fill("new@example.com")
    page.get_by_role("button", name="Add the member").click()
    expect(page.get_by_text("new@example.com is invited with the role viewer")).to_be_visible()
    page.get_by_label("Role of new@example.com", exact=True).select_option("operator")
    page.get_by_role("button", name="Change the role of new@example.com").click()
    expect(page.get_by_text("The role of new@example.com is now operator.")).to_be_visible()
    page.get_by_role("link", name="Remove new@example.com").click()
    page.get_by_role("button", name="Remove the member").click()

    expect(page.get_by_text("new@example.com is no longer a member of Acme Robotics.")).to_be_visible()
    assert not Membership.objects.filter(user__email="new@example.com").exists()
