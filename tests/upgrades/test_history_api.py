"""GET /api/v1/deployments/upgrades."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from portal.models import Membership, Organization, User
from tests.conftest import Cast
from tests.upgrades.conftest import SIGNED_IN_QUERIES, UPGRADES, assert_refused, make_upgrade
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [item["upgrade_id"] for item in response.json()["items"]]


def test_an_item_is_the_record_with_service_names_and_count(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(
        cast.acme,
        by=cast.operator,
        target="all",
        statuses=[Status.SUCCESS, Status.FAILED, Status.FAILED],
        reason="OPS-1",
    )

    body = client_for(cast.viewer).get(UPGRADES).json()

    times = {name: body["items"][0][name] for name in ("started_at", "completed_at")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time) for time in times.values())
    assert body == {
        "items": [
            {
                "success": False,
                "upgrade_id": upgrade.upgrade_id,
                "organization": "acme",
                "status": "PARTIAL",
                "kind": "upgrade",
                "version": "latest",
                "force_new_deployment": True,
                "reason": "OPS-1",
                "initiated_by": "operator@example.com",
                "services": ["agent", "orchestrator", "customer-portal"],
                "service_count": 3,
                "success_count": 1,
                "failed_count": 2,
                "validation": "none",
                "message": "Partial: agent service advanced, orchestrator, customer portal did not.",
                "error_message": "orchestrator: Rolled back by ECS. customer-portal: Rolled back by ECS.",
                "override_reason": None,
                "checks": [],
                **times,
            }
        ],
        "total": 1,
        "skip": 0,
        "limit": 50,
        "has_more": False,
        "organization": "acme",
        "status": None,
        "service": None,
        "version": None,
        "initiated_by": None,
        "validation": None,
    }


def test_without_upgrades_the_list_is_empty(cast: Cast, client_for: SignIn) -> None:
    body = client_for(cast.newcomer).get(UPGRADES).json()

    assert (body["items"], body["total"], body["has_more"], body["organization"]) == ([], 0, False, "initech")


def test_newest_first(cast: Cast, client_for: SignIn) -> None:
    made = [
        make_upgrade(cast.acme, by=cast.operator, created_at=Now() - timedelta(days=days)).upgrade_id
        for days in (2, 0, 3, 1)
    ]

    assert ids(client_for(cast.viewer).get(UPGRADES)) == [made[1], made[3], made[0], made[2]]


def test_pages_with_equal_times_have_each_row_once(cast: Cast, client_for: SignIn) -> None:
    made = {make_upgrade(cast.acme, by=cast.operator).upgrade_id for _ in range(7)}
    Upgrade.objects.update(created_at=timezone.now())
    client = client_for(cast.viewer)

    pages = [client.get(UPGRADES, {"skip": skip, "limit": 3}) for skip in (0, 3, 6)]

    assert [page.json()["has_more"] for page in pages] == [True, True, False]
    assert [page.json()["total"] for page in pages] == [7, 7, 7]
    seen = [upgrade_id for page in pages for upgrade_id in ids(page)]
    assert sorted(seen) == sorted(made)
    assert seen == ids(client.get(UPGRADES))


def test_skip_beyond_the_end_is_an_empty_page(cast: Cast, client_for: SignIn) -> None:
    make_upgrade(cast.acme, by=cast.operator)

    body = client_for(cast.viewer).get(UPGRADES, {"skip": 2**31, "limit": 100}).json()

    assert (body["items"], body["total"], body["skip"], body["limit"]) == ([], 1, 2**31, 100)
    assert body["has_more"] is False


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"status": "FAILED"}, ["failed"]),
        ({"status": "PENDING"}, []),
        ({"service": "orchestrator"}, ["failed", "whole"]),
        ({"service": "all"}, ["whole"]),
        ({"version": "latest"}, ["failed", "whole"]),
        ({"version": "v1"}, ["old"]),
        ({"initiated_by": "ADMIN@example.com"}, ["old"]),
        ({"initiated_by": "outsider@example.com"}, []),
        ({"validation": "needed"}, ["whole"]),
        ({"validation": "passed"}, []),
        ({"validation": "none", "status": "SUCCESS"}, ["old"]),
        ({"status": "SUCCESS", "service": "agent", "initiated_by": "operator@example.com"}, ["whole"]),
    ],
)
def test_filters_apply_together_and_are_echoed(
    cast: Cast, client_for: SignIn, filters: dict[str, str], found: list[str]
) -> None:
    make_upgrade(cast.acme, by=cast.admin, version="v1", reason="old")
    make_upgrade(cast.acme, by=cast.operator, target="all", reason="whole", validation="needed")
    make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.FAILED], reason="failed")
    make_upgrade(cast.globex, by=cast.outsider, reason="foreign")

    body = client_for(cast.viewer).get(UPGRADES, filters).json()

    assert [item["reason"] for item in body["items"]] == found
    assert body["total"] == len(found)
    echoed = {name: body[name] for name in ("status", "service", "version", "initiated_by", "validation")}
    assert echoed == dict.fromkeys(echoed) | filters


def test_a_consultant_reads_the_named_organization(cast: Cast, client_for: SignIn) -> None:
    make_upgrade(cast.acme, by=cast.consultant, reason="of acme")
    make_upgrade(cast.globex, by=cast.consultant, reason="of globex")

    body = client_for(cast.consultant).get(UPGRADES, headers={"X-Organization": "globex"}).json()

    assert body["organization"] == "globex"
    assert [item["reason"] for item in body["items"]] == ["of globex"]


@pytest.mark.parametrize("rows", [1, 5])
def test_its_queries_do_not_grow_with_the_rows(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, rows: int
) -> None:
    for _ in range(rows):
        make_upgrade(cast.acme, by=cast.operator, target="all")
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    with django_assert_num_queries(SIGNED_IN_QUERIES + 1):
        client.get(UPGRADES)


def test_totals_follow_every_change(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=[Status.IN_PROGRESS] * 3)
    make_upgrade(cast.acme, by=cast.operator, target="orchestrator")

    def totals(**changes: Any) -> list[int]:
        Upgrade.objects.filter(pk=upgrade.pk).update(**changes)
        queries: list[dict[str, str]] = [{}, {"service": "all"}, {"status": "SUCCESS"}, {"validation": "needed"}]
        queries += [{"service": "agent"}, {"service": "orchestrator"}, {"service": "orchestrator", "status": "SUCCESS"}]
        return [client.get(UPGRADES, query).json()["total"] for query in queries]

    assert totals(kind="upgrade") == [2, 1, 1, 0, 1, 2, 1]
    assert totals(status="SUCCESS", validation="needed") == [2, 1, 2, 1, 1, 2, 2]
    assert totals(validation="passed") == [2, 1, 2, 0, 1, 2, 2]
    upgrade.delete()
    assert totals() == [1, 0, 1, 0, 0, 1, 1]


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "newcomer", "staff", "stranger"])
def test_outsider_gets_404_as_for_an_unknown_slug(cast: Cast, client_for: SignIn, person: str) -> None:
    make_upgrade(cast.acme, by=cast.operator)
    client = client_for(getattr(cast, person))

    foreign = client.get(UPGRADES, headers={"X-Organization": "acme"})

    assert_refused(foreign, 404, "not_found")
    assert foreign.content == client.get(UPGRADES, headers={"X-Organization": "nowhere"}).content


def test_a_consultant_without_the_header_gets_400(cast: Cast, client_for: SignIn) -> None:
    assert_refused(client_for(cast.consultant).get(UPGRADES), 400, "organization_required")


def test_membership_and_suspension_apply_immediately(cast: Cast, client_for: SignIn) -> None:
    removed, member = client_for(cast.operator), client_for(cast.viewer)
    Membership.objects.filter(user=cast.operator).delete()

    assert_refused(removed.get(UPGRADES), 404, "not_found")
    assert member.get(UPGRADES).status_code == 200
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    assert_refused(member.get(UPGRADES), 404, "not_found")


def test_anonymous_gets_401(cast: Cast) -> None:
    assert_refused(Client().get(UPGRADES), 401, "not_authenticated")


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("skip=-1", "skip"),
        ("skip=x", "skip"),
        ("skip=", "skip"),
        ("skip=2147483649", "skip"),
        ("skip=99999999999999999999999999", "skip"),
        ("skip=1%00", "skip"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-5", "limit"),
        ("limit=all", "limit"),
        ("limit=1e1", "limit"),
        ("status=success", "status"),
        ("status=SKIPPED", "status"),
        ("status=", "status"),
        ("status=FAILED%27--", "status"),
        ("service=database", "service"),
        ("validation=open", "validation"),
        ("validation=", "validation"),
        ("version=", "version"),
        ("version=a%00", "version"),
        (f"version={'x' * 129}", "version"),
        (f"initiated_by={'x' * 255}", "initiated_by"),
        ("initiated_by=%00", "initiated_by"),
        ("organization=globex", "organization"),
        ("ordering=reason", "ordering"),
        ("skip=1&skip=2", "skip"),
        ("status=FAILED&status=SUCCESS", "status"),
        ("%00=1", "\x00"),
    ],
)
def test_a_bad_query_is_400_and_names_the_key(cast: Cast, client_for: SignIn, query: str, named: str) -> None:
    body = assert_refused(client_for(cast.viewer).get(f"{UPGRADES}?{query}"), 400, "invalid")

    assert list(body["errors"]) == [named]


def test_an_unknown_status_gets_the_five_statuses(cast: Cast, client_for: SignIn) -> None:
    body = client_for(cast.viewer).get(UPGRADES, {"status": "DONE"}).json()

    assert body["errors"]["status"] == ["Must be one of PENDING, IN_PROGRESS, SUCCESS, FAILED, PARTIAL."]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, method: str) -> None:
    assert_refused(getattr(client_for(cast.admin), method)(UPGRADES), 405, "method_not_allowed")


def test_a_trailing_slash_is_404_without_redirect(cast: Cast, client_for: SignIn) -> None:
    assert_refused(client_for(cast.viewer).get(f"{UPGRADES}/"), 404, "not_found")
