"""Saved views in a browser: the view whose filters are shown is marked, also after filtering without a new page."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, violations
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_filters_are_saved_and_marked(cast: Cast, open_page: OpenPage) -> None:
    make_deployment(cast, make_agent(cast), "failed")
    page = open_page("/o/acme/deployments/", cast.viewer)

    page.locator("#status-failed").click()
    page.get_by_role("link", name="Save as view").click()
    page.get_by_label("Name").fill("On fire")
    page.get_by_label("Open the list with this view").check()
    page.get_by_role("button", name="Save view").click()
    saved = page.get_by_role("navigation", name="Saved views").get_by_role("link", name="On fire")
    expect(saved).to_have_attribute("aria-current", "true")

    page.locator("#status-any").click()
    expect(saved).not_to_have_attribute("aria-current", "true")
    page.locator("#status-failed").click()
    expect(saved).to_have_attribute("aria-current", "true")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Deployments").click()
    expect(page).to_have_url("/o/acme/deployments/?status=failed")
    page.get_by_role("link", name="Manage views").click()
    expect(page.get_by_role("heading", name="Saved views")).to_be_visible()
    assert violations(page) == []
