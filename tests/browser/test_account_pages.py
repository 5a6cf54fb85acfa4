"""The account pages in a real browser: passkeys under the strict CSP, and WCAG 2.2 AA on each page."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from portal.models import Membership, User
from tests.browser.conftest import OF_COLOUR, Guard, OpenPage, scrolls_sideways, violations
from tests.conftest import Cast
from tests.local_aws import LocalAws

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def page(browser: Browser, live_server: Any, settings: Any, platform: LocalAws) -> Iterator[Page]:
    """Open a page in a browser with a virtual authenticator. Passkeys need a host name, so not 127.0.0.1."""
    settings.ALLOWED_HOSTS = ["localhost"]
    guard = Guard(live_server.url.replace("127.0.0.1", "localhost"))
    context = browser.new_context(base_url=guard.origin)
    context.set_default_timeout(5000)
    page = context.new_page()
    guard.watch(page)
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    yield page
    context.close()
    assert guard.problems == []


def sign_in(page: Page, person: User, password: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(person.email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def sign_out(page: Page) -> None:
    page.goto("/accounts/logout/")
    page.get_by_role("main").get_by_role("button", name="Sign out").click()


def add_passkey(page: Page, password: str) -> None:
    page.goto("/accounts/2fa/webauthn/add/")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Passwordless").check()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Recovery codes")


def test_a_passkey_signs_in_by_itself_and_as_second_step(page: Page, cast: Cast) -> None:
    sign_in(page, cast.operator, cast.password)
    add_passkey(page, cast.password)
    sign_out(page)

    page.goto("/accounts/login/?next=/account/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page).to_have_url(re.compile(r"/account/$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Account")

    sign_out(page)
    sign_in(page, cast.operator, cast.password)
    expect(page.get_by_role("heading", level=1)).to_have_text("Two-factor authentication")
    page.get_by_role("button", name="Use a security key").click()
    expect(page).to_have_url(re.compile(r"/o/acme/$"))


def test_an_unused_passkey_shows_an_error(page: Page, cast: Cast) -> None:
    page.goto("/accounts/login/")
    page.evaluate("() => { navigator.credentials.get = async () => { throw new DOMException('', 'NotAllowedError') } }")

    page.get_by_role("button", name="Sign in with a passkey").click()

    expect(page.get_by_role("alert")).to_contain_text("The passkey prompt was cancelled")


@pytest.mark.pages
def test_account_pages_meet_wcag_in_both_themes_and_reflow(page: Page, cast: Cast) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    wrong: list[str] = []

    def check() -> None:
        page.emulate_media(color_scheme="light")
        wrong.extend(f"{page.url}, light: {each}" for each in violations(page))
        page.emulate_media(color_scheme="dark")
        wrong.extend(f"{page.url}, dark: {each}" for each in violations(page, rules=OF_COLOUR))
        if scrolls_sideways(page):
            wrong.append(f"{page.url}: scrolls sideways")
        if page.get_by_role("heading", level=1).count() != 1:
            wrong.append(f"{page.url}: not one h1")

    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        page.goto(path)
        check()
    sign_in(page, cast.operator, "wrong")
    check()
    sign_in(page, cast.operator, cast.password)
    page.goto("/accounts/2fa/totp/activate/")
    check()
    add_passkey(page, cast.password)
    check()
    Membership.objects.create(organization=cast.globex, user=cast.operator)
    for path in (
        "/",
        "/account/",
        "/account/organizations/acme/leave",
        "/accounts/2fa/",
        "/accounts/2fa/totp/activate/",
        "/accounts/2fa/webauthn/",
        "/accounts/password/change/",
        "/accounts/sessions/",
        "/accounts/logout/",
    ):
        page.goto(path)
        check()

    assert wrong == []


def test_signing_in_works_without_javascript(open_page: OpenPage, cast: Cast) -> None:
    page = open_page("/accounts/login/?next=/account/", javascript=False)

    page.get_by_label("E-mail address").fill(cast.operator.email)
    page.get_by_label("Password").fill(cast.password)
    page.get_by_role("button", name="Sign in", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Account")
