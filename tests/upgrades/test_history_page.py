"""The history page: filters in the URL, pagination, the fragment of rows, the CSV file."""

import csv
import html
import io
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import read_html
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, make_upgrade
from upgrades.models import Kind, Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]

URL = "/o/acme/upgrades/"
CSV = "/o/acme/upgrades/history.csv"
HTMX = {"HX-Request": "true"}


def shown(response: Any) -> list[str]:
    """Return the ids in the order in which the page lists them."""
    assert response.status_code == 200
    text = response.content.decode()
    found = [(text.find(f"/{upgrade.upgrade_id}/"), upgrade.upgrade_id) for upgrade in Upgrade.objects.all()]
    return [upgrade_id for at, upgrade_id in sorted(found) if at >= 0]


def test_a_row_shows_who_when_what_and_the_result(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(
        cast.acme, by=cast.operator, target="all", statuses=[Status.SUCCESS, Status.SUCCESS, Status.FAILED]
    )

    text = client_for(cast.viewer).get(URL).content.decode()

    for said in (
        upgrade.upgrade_id,
        cast.operator.name,
        cast.operator.email,
        "All three to latest",
        "Partial",
        "2 of 3",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"validation": "passed"}, "Validated"),
        ({"validation": "needed"}, "Needs validation"),
        ({"validation": "failed"}, "Validation failed"),
        ({"validation": "none"}, "Success, not validated"),
        ({"validation": "needed", "statuses": [Status.SUCCESS, Status.FAILED, Status.FAILED]}, "Partial"),
    ],
)
@pytest.mark.parametrize("url", [URL, "/o/acme/"])
def test_a_success_is_green_only_when_it_is_validated(
    cast: Cast, platform: LocalAws, client_for: SignIn, url: str, fields: dict[str, Any], said: str
) -> None:
    make_upgrade(cast.acme, by=cast.operator, target="all", **fields)

    text = client_for(cast.viewer).get(url).content.decode()

    results = text[text.index('class="result"') :].partition("</td>")[0]
    assert said in results
    assert ('class="chip success"' in results) is (said == "Validated")
    assert ("Needs validation" in results) is (fields["validation"] == "needed")


@pytest.mark.parametrize("url", [URL, "/o/acme/"])
def test_a_row_is_named_by_its_services_and_version(
    cast: Cast, platform: LocalAws, client_for: SignIn, url: str
) -> None:
    two = make_upgrade(cast.acme, by=cast.operator, target="all", kind=Kind.ROLLBACK, version="previous", reason="Slow")
    two.rollouts.filter(service="customer-portal").delete()
    make_upgrade(cast.acme, by=cast.operator).rollouts.update(from_version="v9.9.0", to_version="v9.9.1")
    make_upgrade(cast.acme, by=cast.operator, target="all", version=f"sha256:{'ab' * 32}")

    text = client_for(cast.viewer).get(url).content.decode()

    assert re.findall(r'title="upgrade-[^"]+">([^<]+)</a>', text) == [
        "All three to sha256:abababababab",
        "Agent service to v9.9.1",
        "Rollback of agent service and orchestrator to the previous version",
    ]
    assert '<p class="why" title="Slow">Slow</p>' in text


def test_a_row_shows_the_requested_version_until_ecs_reports(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, version="v9.9.1", statuses=[Status.PENDING])
    client = client_for(cast.viewer)

    asked = version_cell(client)
    upgrade.rollouts.update(from_version="v9.9.0", to_version="v9.9.1")

    assert asked == "v9.9.1"
    assert version_cell(client) == "v9.9.0 → to v9.9.1"


def test_a_row_names_the_services_of_each_version_step(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=[Status.SUCCESS] * 3)
    upgrade.rollouts.update(from_version="v9.9.0", to_version="v9.9.1")
    upgrade.rollouts.filter(service="orchestrator").update(from_version="v9.8.0")

    shown = "agent service and customer portal v9.9.0 → to v9.9.1 orchestrator v9.8.0 → to v9.9.1"
    assert version_cell(client_for(cast.viewer)) == shown


def version_cell(client: Client) -> str:
    """Return the version of the only row, without tags."""
    cell = client.get(URL).content.decode().partition('class="step"')[2].partition("</td>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", cell.partition(">")[2]).split())


def test_an_empty_history_says_what_to_do(cast: Cast, client_for: SignIn) -> None:
    assert "No upgrades yet." in client_for(cast.viewer).get(URL).content.decode()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["failed", "whole", "old"]),
        ({"status": "FAILED"}, ["failed"]),
        ({"service": "orchestrator"}, ["failed", "whole"]),
        ({"service": "all"}, ["whole"]),
        ({"version": "v1"}, ["old"]),
        ({"initiated_by": "ADMIN@example.com"}, ["old"]),
        ({"status": "SUCCESS", "service": "agent", "initiated_by": "operator@example.com"}, ["whole"]),
        ({"initiated_by": "outsider@example.com"}, []),
        ({"validation": "needed"}, ["whole"]),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_filters_combine_and_stay_in_the_url(
    cast: Cast, client_for: SignIn, filters: dict[str, str], found: list[str], headers: dict[str, str]
) -> None:
    made = {
        "old": make_upgrade(cast.acme, by=cast.admin, version="v1"),
        "whole": make_upgrade(cast.acme, by=cast.operator, target="all", validation="needed"),
        "failed": make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.FAILED]),
        "foreign": make_upgrade(cast.globex, by=cast.outsider),
    }

    response = client_for(cast.viewer).get(URL, filters, headers=headers)

    assert shown(response) == [made[name].upgrade_id for name in found]
    assert ("<!doctype html>" in response.content.decode()) is not bool(headers)


def test_pages_show_every_row_once_despite_equal_times(cast: Cast, client_for: SignIn) -> None:
    for _ in range(51):
        make_upgrade(cast.acme, by=cast.operator)
    Upgrade.objects.update(created_at=timezone.now())
    client = client_for(cast.viewer)

    first, second = client.get(URL), client.get(URL, {"skip": 50})

    seen = shown(first) + shown(second)
    assert (len(shown(first)), len(seen), len(set(seen))) == (50, 51, 51)
    assert 'rel="next" href="?skip=50"' in first.content.decode()
    assert 'rel="prev" href="?skip=0"' in second.content.decode()


def test_the_next_page_keeps_the_filters(cast: Cast, client_for: SignIn) -> None:
    for _ in range(51):
        make_upgrade(cast.acme, by=cast.operator)

    text = (
        client_for(cast.viewer).get(URL, {"status": "SUCCESS", "initiated_by": "operator@example.com"}).content.decode()
    )

    assert "status=SUCCESS&initiated_by=operator%40example.com&skip=50" in html.unescape(text)


@pytest.mark.parametrize(("query", "back"), [("", ""), ("status=SUCCESS&", "?status=SUCCESS")])
def test_beyond_the_end_leads_back_to_the_newest(cast: Cast, client_for: SignIn, query: str, back: str) -> None:
    make_upgrade(cast.acme, by=cast.operator)

    text = client_for(cast.viewer).get(f"{URL}?{query}skip=50").content.decode()

    assert f'No more upgrades. <a href="{URL}{back}">Back to the newest</a>' in text
    assert "No upgrades yet" not in text


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_its_queries_do_not_grow_with_the_rows(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, rows: int, headers: dict[str, str]
) -> None:
    for _ in range(rows):
        make_upgrade(cast.acme, by=cast.operator, target="all")
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    # Heartbeats with the saved views, count, upgrades, rollouts.
    with django_assert_num_queries(SIGNED_IN_QUERIES + 4):
        client.get(URL, headers=headers)


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str, headers: dict[str, str]) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = client_for(getattr(cast, person)).get(URL, headers=headers)

    assert response.status_code == 404
    assert upgrade.upgrade_id not in response.content.decode()


def test_anonymous_is_sent_to_sign_in(cast: Cast) -> None:
    page, fragment = Client().get(f"{URL}?status=FAILED"), Client().get(URL, headers=HTMX)

    assert page.headers["Location"] == "/accounts/login/?next=%2Fo%2Facme%2Fupgrades%2F%3Fstatus%3DFAILED"
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("status=DONE", "Status"),
        ("service=database", "Service"),
        ("validation=open", "Validation"),
        ("version=%00", "Requested version"),
        (f"version={'x' * 129}", "Requested version"),
        (f"initiated_by={'x' * 255}", "Who (e-mail)"),
        ("skip=-1", "Skip"),
        ("skip=x", "Skip"),
        ("skip=99999999999999999999", "Skip"),
        ("skip=1%00", "Skip"),
    ],
)
def test_an_invalid_filter_is_named_and_shows_no_rows(cast: Cast, client_for: SignIn, query: str, named: str) -> None:
    make_upgrade(cast.acme, by=cast.operator)

    response = client_for(cast.viewer).get(f"{URL}?{query}")

    assert shown(response) == []
    assert f"<p>{named}: " in response.content.decode()


def test_an_invalid_filter_keeps_the_other_filters(cast: Cast, client_for: SignIn) -> None:
    typed = {"status": "FAILED", "version": "v" * 101, "initiated_by": "<b>"}

    text = client_for(cast.viewer).get(URL, typed).content.decode()

    assert '<option value="FAILED" selected>' in text
    assert f'value="{typed["version"]}"' in text
    assert 'value="&lt;b&gt;"' in text


@pytest.mark.parametrize("name", ["status", "service", "version", "initiated_by", "validation", "skip", "anything"])
def test_query_values_are_escaped(cast: Cast, client_for: SignIn, name: str) -> None:
    hostile = "\"'><script>alert(1)</script>"

    response = client_for(cast.viewer).get(URL, {name: hostile})

    assert response.status_code == 200
    assert "<script>alert" not in response.content.decode()


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, method: str) -> None:
    assert getattr(client_for(cast.admin), method)(URL).status_code == 405


# --- as CSV -------------------------------------------------------------------------------------------------------


def in_file(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    return list(csv.DictReader(io.StringIO(response.content.decode())))


def test_a_csv_row_describes_the_upgrade(cast: Cast, client_for: SignIn) -> None:
    at = timezone.now().replace(microsecond=0)
    upgrade = make_upgrade(
        cast.acme,
        by=cast.operator,
        target="all",
        statuses=[Status.SUCCESS, Status.FAILED, Status.FAILED],
        reason="=OPS-1",
        started_at=at - timedelta(seconds=90),
        completed_at=at,
    )
    upgrade.rollouts.filter(service="agent").update(from_version="v9.8.0", to_version="v9.9.0")

    response = client_for(cast.viewer).get(CSV)

    assert response.headers["Content-Disposition"] == 'attachment; filename="acme-upgrades.csv"'
    assert in_file(response) == [
        {
            "upgrade_id": upgrade.upgrade_id,
            "kind": "upgrade",
            "target": "all",
            "services": "agent orchestrator customer-portal",
            "version": "latest",
            "agent_from_version": "v9.8.0",
            "agent_to_version": "v9.9.0",
            "orchestrator_from_version": "",
            "orchestrator_to_version": "",
            "customer_portal_from_version": "",
            "customer_portal_to_version": "",
            "status": "PARTIAL",
            "validation": "none",
            "success_count": "1",
            "failed_count": "2",
            "initiated_by": cast.operator.email,
            "reason": "'=OPS-1",
            "started_at": f"{at - timedelta(seconds=90):%Y-%m-%dT%H:%M:%SZ}",
            "completed_at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "seconds": "90",
        }
    ]


def test_the_csv_has_the_filters_and_order_of_the_page(cast: Cast, client_for: SignIn) -> None:
    older, newer = (make_upgrade(cast.acme, by=cast.operator) for _ in range(2))
    failed = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.FAILED])
    make_upgrade(cast.globex, by=cast.outsider)
    client = client_for(cast.viewer)

    page = client.get(URL, {"status": "SUCCESS"}).content.decode()

    assert 'href="/o/acme/upgrades/history.csv?status=SUCCESS" download>Download these as CSV</a>' in page
    assert [row["upgrade_id"] for row in in_file(client.get(CSV, {"status": "SUCCESS"}))] == [
        newer.upgrade_id,
        older.upgrade_id,
    ]
    assert len(in_file(client.get(CSV))) == 3
    assert [row["upgrade_id"] for row in in_file(client.get(CSV, {"initiated_by": cast.admin.email}))] == [
        failed.upgrade_id
    ]


def test_an_invalid_filter_gives_no_csv(cast: Cast, client_for: SignIn) -> None:
    response = client_for(cast.viewer).get(CSV, {"status": "WRONG"})

    assert response.status_code == 400
    assert "Nothing was exported. status: Select a valid choice" in html.unescape(response.content.decode())


def test_an_outsider_gets_no_csv(cast: Cast, client_for: SignIn) -> None:
    assert client_for(cast.outsider).get(CSV).status_code == 404


@pytest.mark.parametrize("upgrades", [1, 5])
def test_the_csv_query_count_does_not_grow_with_its_length(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, upgrades: int
) -> None:
    for _ in range(upgrades):
        make_upgrade(cast.acme, by=cast.operator, target="all", statuses=[Status.SUCCESS] * 3)
    client = client_for(cast.viewer)
    client.get(URL)

    # Upgrades, rollouts; then the export's audit row, in a transaction of its own.
    with django_assert_num_queries(SIGNED_IN_QUERIES + 2 + 4):
        assert len(in_file(client.get(CSV))) == upgrades


@pytest.mark.parametrize(("query", "shown"), [("", "dcba"), ("status=FAILED", "ca"), ("service=orchestrator", "d")])
def test_next_and_previous_walk_through_the_filtered_history(
    cast: Cast, client_for: SignIn, query: str, shown: str
) -> None:
    """All were made at the same time, so that the order needs the second key."""
    for name, status in zip("abcd", [Status.FAILED, Status.SUCCESS] * 2, strict=True):
        target = "orchestrator" if name == "d" else "agent"
        make_upgrade(cast.acme, by=cast.operator, target=target, statuses=[status], upgrade_id=f"upgrade-{name}")
    Upgrade.objects.update(created_at=timezone.now())
    client = client_for(cast.viewer)
    listed = read_html(client.get(f"{URL}?{query}")).partition("<tbody>")[2]
    here: str | None = re.findall(r'href="([^"]+/upgrade-[^"]+)"', listed)[0]

    walked, page = [], ""
    while here:
        walked.append(here)
        response = client.get(here)
        page = read_html(response)
        here = response.context["neighbours"].after
    back = client.get(walked[-1]).context["neighbours"].before

    assert [address.split("/")[4].removeprefix("upgrade-") for address in walked] == list(shown)
    assert back == (walked[-2] if len(walked) > 1 else None)
    assert f'<a href="{URL}{f"?{query}" if query else ""}">History</a>' in page
