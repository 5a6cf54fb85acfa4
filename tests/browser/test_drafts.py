"""After the session ends, signing in leads back to the page with what was typed."""

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import Page, expect

from tests.browser.conftest import Guard, OpenPage
from tests.conftest import Cast
from tests.local_aws import LocalAws

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

NEW_MEMBER = "/o/acme/settings/members/new"


def sign_in(page: Page, email: str, password: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def stored(page: Page) -> str:
    return str(page.evaluate("JSON.stringify(sessionStorage)"))


def test_a_form_sent_after_the_session_ended_is_kept(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(NEW_MEMBER, cast.admin)
    page.get_by_label("E-mail address").fill("new@example.com")
    page.get_by_label("Role").select_option("operator")
    Session.objects.all().delete()

    page.get_by_role("button", name="Add the member").click()
    sign_in(page, cast.admin.email, cast.password)

    expect(page.get_by_label("E-mail address")).to_have_value("new@example.com")
    expect(page.get_by_label("Role")).to_have_value("operator")
    expect(page).to_have_url(f"{page.url.split('/o/')[0]}{NEW_MEMBER}")
    assert cast.password not in stored(page)
    page.reload()
    expect(page.get_by_label("E-mail address")).to_have_value("")


def test_a_draft_is_restored_for_nobody_else(cast: Cast, open_page: OpenPage) -> None:
    page = open_page(NEW_MEMBER, cast.admin)
    page.get_by_label("E-mail address").fill("new@example.com")
    Session.objects.all().delete()

    page.get_by_role("button", name="Add the member").click()
    sign_in(page, cast.viewer.email, cast.password)

    expect(page.get_by_label("E-mail address")).to_have_value("")


def test_a_refused_fragment_keeps_what_was_typed(
    cast: Cast, platform: LocalAws, guard: Guard, open_page: OpenPage
) -> None:
    guard.expected = ["401 (Unauthorized)", "htmx:responseError"]
    page = open_page("/o/acme/upgrades/new?service=agent", cast.operator)
    page.get_by_label("Reason").fill("OPS-77")
    Session.objects.all().delete()

    page.get_by_role("radio", name="Orchestrator").click()  # the page may be left before check() sees the choice
    sign_in(page, cast.operator.email, cast.password)

    expect(page.get_by_label("Reason")).to_have_value("OPS-77")
