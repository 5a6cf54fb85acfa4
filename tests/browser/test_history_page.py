"""The history's filters are in the URL, and every way back keeps them."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.conftest import Cast
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, Phase, Status

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def record_past_upgrades(cast: Cast, *, failed: int, succeeded: int) -> None:
    statuses = [Status.FAILED] * failed + [Status.SUCCESS] * succeeded
    for number, status in enumerate(statuses):
        upgrade = Upgrade.objects.create(
            upgrade_id=f"upgrade-2026-0101-000000-{number:06x}",
            organization=cast.acme,
            target="agent",
            version="latest",
            force_new_deployment=True,
            status=status,
            initiated_by=cast.operator,
            initiated_by_email=cast.operator.email,
        )
        Rollout.objects.create(
            upgrade=upgrade,
            organization=cast.acme,
            service="agent",
            service_name="acme-agent-service",
            position=0,
            phase=Phase.DONE,
            status=status,
            outcome=Outcome.COMPLETED if status == Status.SUCCESS else Outcome.ROLLED_BACK,
        )


def test_filters_stay_in_the_url_and_on_every_way_back(cast: Cast, open_page: OpenPage) -> None:
    record_past_upgrades(cast, failed=2, succeeded=3)
    page = open_page("/o/acme/upgrades/", cast.operator)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(5)
    page.evaluate("window.isSamePage = true")

    page.get_by_label("Status").select_option("FAILED")
    expect(rows).to_have_count(2)
    expect(page).to_have_url(re.compile(r"/upgrades/\?status=FAILED$"))
    expect(page.locator("#announcer")).to_have_text("2 upgrades")
    assert page.evaluate("window.isSamePage")

    page.get_by_label("Who (e-mail)").fill("nobody@example.com")
    expect(page.get_by_text("No upgrade matches these filters.")).to_be_visible()
    page.go_back()
    expect(rows).to_have_count(2)
    expect(page.get_by_label("Status")).to_have_value("FAILED")
    expect(page.get_by_label("Who (e-mail)")).to_have_value("")

    rows.first.get_by_role("link").click()
    page.get_by_role("main").get_by_role("link", name="History").click()
    expect(page).to_have_url(re.compile(r"/upgrades/\?status=FAILED$"))
    expect(rows).to_have_count(2)


def test_filters_and_pages_work_without_javascript(cast: Cast, open_page: OpenPage) -> None:
    record_past_upgrades(cast, failed=1, succeeded=51)
    page = open_page("/o/acme/upgrades/", cast.operator, javascript=False)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)

    page.get_by_label("Status").select_option("SUCCESS")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("navigation", name="Pages")).to_contain_text("1 to 50 of 51")
    page.get_by_role("link", name="Older").click()

    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile("status=SUCCESS"))
    expect(page.get_by_label("Status")).to_have_value("SUCCESS")
