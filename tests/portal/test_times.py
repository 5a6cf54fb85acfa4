"""The times of pages: in the time zone that the person chose, as ages or as dates. Files and the API stay in UTC."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from deployments.models import Deployment
from portal.models import User
from tests.conftest import Cast, sign_in
from tests.deployments.conftest import DEPLOYMENTS, make_agent, make_deployment, read_html
from tests.local_aws import LocalAws
from tests.portal.isolation_table import TENANT, ask, make_place, undone
from upgrades.models import Rollout, Upgrade, UpgradeCheck
from upgrades.states import CheckStatus, MatrixRow, PreflightCheck, Stage

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
LIST = "/o/acme/deployments/"
SINCE = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
BY_DATE = {"zone": "America/New_York", "times": "absolute"}


@pytest.fixture
def deployment(cast: Cast) -> Deployment:
    return make_deployment(cast, make_agent(cast), status_at=SINCE, started_at=SINCE)


def test_a_person_chooses_zone_and_dates(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    client = client_for(cast.viewer)

    before = read_html(client.get(LIST))
    saved = client.post("/account/times", BY_DATE)
    after = read_html(client.get(LIST))
    page = read_html(client.get(f"{LIST}{deployment.pk}/"))
    others = read_html(client_for(cast.operator).get(LIST))

    assert (saved.status_code, saved["Location"]) == (302, "/account/")
    for text in (before, others):
        assert 'title="2026-01-01 02:30:00 UTC" data-relative>' in text
        assert "Times are UTC." in text
    assert 'title="2025-12-31 21:30:00 EST">2025-12-31 21:30:00</time>' in after
    assert "Times are America/New_York; files are UTC." in after
    assert "<dd> 2025-12-31 21:30:00 EST </dd>" in page
    assert "<option selected>America/New_York</option>" in read_html(client.get("/account/"))


def test_the_day_of_an_event_is_the_persons(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    deployment.events.update(created_at=SINCE)
    client, window = client_for(cast.viewer), "?since=2026-01-01T00:00:00Z&until=2026-01-01T04:00:00Z"
    client.post("/account/times", BY_DATE)

    page = read_html(client.get(f"{LIST}{deployment.pk}/{window}"))

    assert "Wednesday, 31 December 2025" in page
    assert ">21:30:00</a>" in page
    assert '<span class="mono">2025-12-31 19:00</span> to' in page
    assert 'name="zone" value="America/New_York"' in page
    assert 'value="2025-12-31T19:00:00" required' in page


# Files, which people also read as pages: all their times are in UTC, as their head says.
FILES = ("/evidence",)


def test_no_page_names_utc_to_who_chose_another_zone(cast: Cast, platform: LocalAws, subtests: Any) -> None:
    """Each page of the isolation matrix, with a pause that ends, a signed check and a stopped task."""
    place = make_place(cast, cast.acme)
    rollout = Rollout.objects.get(upgrade__upgrade_id=place.upgrade_id)
    rollout.hook = {**(rollout.hook or {}), "expires_at": "2026-01-01T02:30:00Z"}
    rollout.stopped_tasks = [{"id": "0a", "stopped_at": "2026-01-01T02:30:00Z", "reason": "Crash", "exit_code": 1}]
    rollout.save(update_fields=["hook", "stopped_tasks"])
    for upgrade in Upgrade.objects.all():
        for stage, name in ((Stage.PREFLIGHT, PreflightCheck.STEADY), (Stage.VALIDATION, MatrixRow.SIGN_IN)):
            result = {"status": CheckStatus.FAIL, "position": 0, "checked_at": SINCE, "evidence": {"status": 500}}
            UpgradeCheck.objects.create(organization=cast.acme, upgrade=upgrade, stage=stage, name=name, **result)
    client = sign_in(Client(), cast.admin)
    client.post("/account/times", {"zone": "America/New_York"})

    for row in TENANT:
        if not row.get or row.is_api or row.route.endswith(FILES):
            continue
        with subtests.test(row.route), undone():
            text = read_html(ask(client, row, "get", place))
            assert re.findall(r".{40}[0-9] UTC|.{40}(?<!T)02:30", text) == []


def test_a_live_fragment_follows_the_choice(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    client, htmx = client_for(cast.viewer), {"HX-Request": "true", "HX-Target": "rows"}
    tag = client.get(LIST, headers=htmx)["ETag"]
    client.post("/account/times", BY_DATE)

    assert client.get(LIST, headers=htmx | {"If-None-Match": tag}).status_code == 200


def test_a_304_can_move_a_time_in_both_forms(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    """By its name. portal.js writes an age or a date, as the element has it."""
    Deployment.objects.filter(pk=deployment.pk).update(last_checked_at=SINCE)
    client = client_for(cast.viewer)

    ages = read_html(client.get(f"{LIST}{deployment.pk}/"))
    client.post("/account/times", BY_DATE)
    dates = read_html(client.get(f"{LIST}{deployment.pk}/"))

    assert 'title="2026-01-01 02:30:00 UTC" data-relative data-name="last-checked">' in ages
    assert 'title="2025-12-31 21:30:00 EST" data-name="last-checked">2025-12-31 21:30:00</time>' in dates


def test_the_api_stays_in_utc(cast: Cast, client_for: SignedIn, deployment: Deployment) -> None:
    client = client_for(cast.viewer)
    client.post("/account/times", BY_DATE)

    assert client.get(f"{DEPLOYMENTS}/{deployment.pk}").json()["started_at"] == "2026-01-01T02:30:00Z"


@pytest.mark.parametrize("zone", ["", "Europe/Atlantis", "../etc/passwd", "x" * 300, "\x00"])
def test_an_unknown_zone_is_refused(cast: Cast, client_for: SignedIn, zone: str) -> None:
    refused = client_for(cast.viewer).post("/account/times", {"zone": zone})

    cast.viewer.refresh_from_db()
    assert (refused.status_code, cast.viewer.time_zone) == (422, "UTC")
