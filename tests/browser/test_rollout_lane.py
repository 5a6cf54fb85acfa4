"""The lanes of rollouts in a browser: every state in both themes and at 320 px, and times that count down."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone
from playwright.sync_api import expect

from portal.times import utc
from tests.browser.conftest import OpenPage
from tests.browser.test_accessibility import check
from tests.conftest import SERVICES, Cast
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Rollout
from upgrades.states import Status

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

STAGED = {"strategy": "BLUE_GREEN", "production_weight": 40.0, "source_weight": 60.0, "test_weight": 100.0}


def build_hook(status: str) -> dict[str, Any]:
    return {
        "id": "hook-1",
        "type": "PAUSE" if status == "AWAITING_ACTION" else "AWS_LAMBDA",
        "stage": "POST_TEST_TRAFFIC_SHIFT",
        "status": status,
        "expires_at": utc(timezone.now() + timedelta(hours=3)),
        "timeout_action": "ROLLBACK",
        "target": None,
    }


@pytest.mark.pages
def test_every_lane_meets_wcag_and_counts_down(cast: Cast, platform: LocalAws, open_page: OpenPage) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=[Status.IN_PROGRESS] * 3)
    stage = STAGED | {"lifecycle_stage": "POST_TEST_TRAFFIC_SHIFT", "stage_began_at": Now()}
    waiting = stage | {"outcome": "waiting_for_decision", "hook": build_hook("AWAITING_ACTION")}
    running = stage | {"outcome": "hook_running", "hook": build_hook("IN_PROGRESS")}
    bake_ends_at = Now() + timedelta(minutes=30)
    baking = STAGED | {"outcome": "baking", "lifecycle_stage": "BAKE_TIME", "bake_ends_at": bake_ends_at}
    rolling_back = STAGED | {"outcome": "rolling_back", "rollout_reason": "An alarm went off."}
    overdue = {"is_overdue": True, "is_stalled": True, "deadline_at": Now(), "progressed_at": Now()}
    page = open_page("/o/acme/", cast.operator)
    wrong: list[str] = []

    for states in ([waiting, baking, rolling_back], [running, stage, overdue]):
        for service, fields in zip(SERVICES, states, strict=True):
            Rollout.objects.filter(upgrade=upgrade, service=service).update(desired_count=4, target_running=2, **fields)
        for path in (f"/o/acme/upgrades/{upgrade.upgrade_id}/", "/o/acme/", "/o/acme/upgrades/"):
            page.goto(path)
            wrong += check(page, path)

    assert wrong == []
    page.goto(f"/o/acme/upgrades/{upgrade.upgrade_id}/")
    left = page.get_by_role("region", name="Agent service").locator("time[data-until]")
    expect(left).to_have_text(re.compile(r"in 2 h 5\d min"))
