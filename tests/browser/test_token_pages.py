"""The pages of API tokens in a real browser: usable without JavaScript, and WCAG 2.2 AA on each page."""

import re

import pytest
from playwright.sync_api import expect

from portal.models import ApiToken
from tests.browser.conftest import OpenPage
from tests.browser.test_accessibility import check
from tests.conftest import Cast
from tests.portal.test_api_tokens import make_token

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("of", ["own", "organization"])
def test_a_token_is_made_and_revoked_without_a_script(cast: Cast, open_page: OpenPage, of: str) -> None:
    path = "/account/tokens/" if of == "own" else "/o/acme/settings/tokens/"
    page = open_page(path, cast.admin, javascript=False)

    page.get_by_role("link", name="New token").click()
    page.get_by_label("Name").fill("Pipeline")
    page.get_by_label("Upgrade: trigger").check()
    page.get_by_role("button", name="Make the token").click()
    expect(page.locator(".secret")).to_have_text(re.compile(r"aop_[\w-]{43}"))
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="Revoke Pipeline").click()
    page.get_by_role("button", name="Revoke the token").click()

    expect(page.get_by_text("Pipeline is revoked.")).to_be_visible()
    token = ApiToken.objects.get()
    assert (token.scopes, token.revoked_at is None) == (["read", "upgrade"], False)


@pytest.mark.pages
def test_the_pages_of_tokens_meet_wcag(cast: Cast, open_page: OpenPage) -> None:
    token = make_token(cast.admin, cast.acme)
    base = "/o/acme/settings/tokens/"
    page = open_page("/account/tokens/", cast.admin)
    wrong = []
    for path in ("/account/tokens/", "/account/tokens/new", base, f"{base}new", f"{base}{token.pk}/revoke"):
        page.goto(path)
        wrong += check(page, path)
    page.goto(f"{base}new")
    page.get_by_label("Name").fill("Pipeline")
    page.get_by_role("button", name="Make the token").click()
    wrong += check(page, "shown")

    assert wrong == []
