"""The Activity page: who did what in one organization, also as CSV."""

import csv
import html
import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.audit import record
from portal.models import AuditEvent, AuditKind, User
from portal.web.csv import MAX_ROWS, as_cell
from tests.conftest import Cast
from tests.portal.conftest import without_triggers
from tests.portal.test_plans import copy_row, up_to
from tests.upgrades.conftest import SIGNED_IN_QUERIES, make_upgrade

SignIn = Callable[[User], Client]

URL = "/o/acme/activity/"
CSV = "/o/acme/activity.csv"
# Organization with the rest of the frame, count, rows, titles of upgrades.
QUERIES = SIGNED_IN_QUERIES + 4


def did(cast: Cast, kind: AuditKind, subject: str, *, actor: User | None = None, **data: Any) -> AuditEvent:
    return record(kind, organization=cast.acme, actor=actor or cast.operator, subject=subject, data=data)


def subjects(response: Any) -> list[str]:
    assert response.status_code == 200
    return [row["subject"] for row in csv.DictReader(io.StringIO(response.content.decode()))]


def test_a_row_shows_time_kind_target_person_and_details(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    event = did(cast, AuditKind.UPGRADE_TRIGGERED, upgrade.upgrade_id, reason="OPS-1 <b>", service="agent")

    text = client_for(cast.viewer).get(URL).content.decode()

    for said in ("Upgrade triggered", cast.operator.email, "OPS-1 &lt;b&gt;", f">{event.pk}<"):
        assert said in text
    assert f'href="/o/acme/upgrades/{upgrade.upgrade_id}/"' in text
    assert f">Agent service to {upgrade.version}</a>" in text
    assert f">{upgrade.upgrade_id}</span>" in text


def test_the_portals_own_actions_are_by_system(cast: Cast, client_for: SignIn) -> None:
    record(AuditKind.UPGRADE_ENDED, organization=cast.acme, actor=None, subject="upgrade-1")

    assert ">system<" in client_for(cast.viewer).get(URL).content.decode()


def test_a_page_beyond_the_end_links_to_the_newest(cast: Cast, client_for: SignIn) -> None:
    did(cast, AuditKind.UPGRADE_TRIGGERED, "upgrade-1")

    text = client_for(cast.viewer).get(f"{URL}?skip=50").content.decode()

    assert f'No more entries. <a href="{URL}">Back to the newest</a>' in text
    assert "No activity yet" not in text


def test_an_empty_page_says_what_will_be_here(cast: Cast, client_for: SignIn) -> None:
    assert "No activity yet." in client_for(cast.viewer).get(URL).content.decode()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["u-2", "a-1", "u-1"]),
        ({"kind": "agent.created"}, ["a-1"]),
        ({"who": "ADMIN@"}, ["u-2"]),
        ({"subject": "u-"}, ["u-2", "u-1"]),
        ({"subject": "u-", "who": "operator"}, ["u-1"]),
        ({"since": f"{timezone.now() + timedelta(days=2):%Y-%m-%d}"}, []),
        ({"who": "nobody"}, []),
    ],
)
def test_page_and_csv_have_the_same_filters(
    cast: Cast, client_for: SignIn, filters: dict[str, str], found: list[str]
) -> None:
    did(cast, AuditKind.UPGRADE_TRIGGERED, "u-1")
    did(cast, AuditKind.AGENT_CREATED, "a-1")
    did(cast, AuditKind.UPGRADE_TRIGGERED, "u-2", actor=cast.admin)
    client = client_for(cast.viewer)

    text = client.get(URL, filters).content.decode()

    assert subjects(client.get(CSV, filters)) == found
    assert [
        subject for subject in ("u-2", "a-1", "u-1") if f'mono">{subject}<' in text or f'/{subject}/">' in text
    ] == found


@pytest.mark.parametrize(
    ("query", "named"), [("kind=unknown", "kind"), ("since=yesterday", "since"), ("skip=-1", "skip")]
)
def test_an_invalid_filter_is_named(cast: Cast, client_for: SignIn, query: str, named: str) -> None:
    did(cast, AuditKind.UPGRADE_TRIGGERED, "u-1")

    text = html.unescape(client_for(cast.viewer).get(f"{URL}?{query}").content.decode())

    assert f"<p>{named}: " in text
    assert "u-1" not in text
    file = client_for(cast.viewer).get(f"{CSV}?{query}")
    assert (file.status_code, file.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert f"Nothing was exported. {named}: " in html.unescape(file.content.decode())


@pytest.mark.parametrize("url", [URL, CSV])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, url: str) -> None:
    did(cast, AuditKind.UPGRADE_TRIGGERED, "u-1")

    assert client_for(cast.outsider).get(url).status_code == 404


def test_another_organizations_rows_are_hidden(cast: Cast, client_for: SignIn) -> None:
    record(AuditKind.AGENT_CREATED, organization=cast.globex, actor=cast.outsider, subject="theirs")
    record(AuditKind.SIGNED_IN, organization=None, actor=cast.staff, subject=cast.staff.email)
    client = client_for(cast.consultant)

    assert "theirs" not in client.get(URL).content.decode()
    assert subjects(client.get(CSV)) == []
    assert subjects(client.get("/o/globex/activity.csv")) == ["theirs"]


def test_costs_a_fixed_number_of_queries(cast: Cast, client_for: SignIn, django_assert_num_queries: Any) -> None:
    for number in range(60):
        did(cast, AuditKind.UPGRADE_TRIGGERED, f"u-{number}")
    client = client_for(cast.viewer)
    client.get(URL)

    with django_assert_num_queries(QUERIES):
        text = client.get(URL).content.decode()

    assert "1 to 50 of 60" in text


def test_the_csv_download_contains_no_formula(cast: Cast, client_for: SignIn) -> None:
    did(cast, AuditKind.AGENT_CREATED, '=HYPERLINK("https://evil.example")')

    response = client_for(cast.viewer).get(CSV)

    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="acme-activity.csv"'
    assert subjects(response) == ['\'=HYPERLINK("https://evil.example")']


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\n"])
def test_a_cell_never_begins_a_formula(begin: str) -> None:
    assert as_cell(f"{begin}1") == f"'{begin}1"


@pytest.mark.parametrize("inside", [";=1", "; +1", ';"-1"', ";\n@1"])
def test_no_formula_begins_after_a_semicolon(inside: str) -> None:
    """Some spreadsheets separate cells by semicolons."""
    assert as_cell(f"done{inside}") == f"done;'{inside[1:]}"
    assert as_cell("one; two - three") == "one; two - three"


def test_data_is_json_without_cell_separators(cast: Cast, client_for: SignIn) -> None:
    did(cast, AuditKind.UPGRADE_TRIGGERED, "u-1", reason='";=1+1;"')

    text = client_for(cast.viewer).get(CSV).content.decode()

    assert ";" not in text
    (row,) = csv.DictReader(io.StringIO(text))
    assert json.loads(row["data"]) == {"reason": '";=1+1;"'}


def test_a_file_has_a_row_limit(cast: Cast, client_for: SignIn) -> None:
    first = did(cast, AuditKind.AGENT_CREATED, "a-0")
    with without_triggers():  # which take half a millisecond for each of so many rows
        copy_row(first, up_to(MAX_ROWS), subject="'a-' || n", position="position + n")

    assert len(subjects(client_for(cast.viewer).get(CSV))) == MAX_ROWS
    assert "Download the newest 10,000 as CSV" in client_for(cast.viewer).get(URL).content.decode()
    assert "Download these as CSV" in client_for(cast.viewer).get(f"{URL}?subject=a-1").content.decode()
