"""Staff enter an organization: with a reason, for a limited time, as a viewer, and on record."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from portal import tasks
from portal.models import AuditEvent, Elevation, User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.conftest import audit_kinds, get_main
from tests.portal.isolation_table import NOWHERE, TENANT, ask, get_text, make_place, read_rows

SignIn = Callable[[User], Client]
REASON = "OPS-7: the rollout of the agent service hangs"


@pytest.fixture
def staff(client_for: SignIn, cast: Cast) -> Client:
    return client_for(cast.staff)


def enter(client: Client, cast: Cast, reason: str = REASON) -> Any:
    return client.post(f"/admin/portal/organization/{cast.acme.pk}/enter/", {"reason": reason})


def leave(client: Client, cast: Cast) -> Any:
    return client.post(f"/admin/portal/organization/{cast.acme.pk}/leave/")


def let_time_pass(minutes: int) -> None:
    connection.cursor().execute(
        "UPDATE portal_elevation SET expires_at = expires_at - make_interval(mins => %s)", [minutes]
    )


def test_staff_enter_and_see_who_and_why_and_until_when(staff: Client, cast: Cast) -> None:
    page = staff.get(f"/admin/portal/organization/{cast.acme.pk}/change/").content.decode()
    form = staff.get(f"/admin/portal/organization/{cast.acme.pk}/enter/").content.decode()

    entered = enter(staff, cast)
    overview = get_main(staff.get(entered["Location"]))

    assert f'href="/admin/portal/organization/{cast.acme.pk}/enter/"' in page
    assert "For 30 minutes you see the pages of Acme Robotics as a viewer does" in form
    assert entered["Location"] == "/o/acme/"
    assert "You read Acme Robotics as staff" in overview
    assert REASON in overview
    assert "Leave Acme Robotics" in overview
    event = AuditEvent.objects.get(kind="staff.entered")
    assert (event.organization, event.actor, event.subject) == (cast.acme, cast.staff, cast.staff.email)
    assert event.data["reason"] == REASON


@pytest.mark.parametrize("reason", ["", "   "])
def test_no_one_enters_without_a_reason(staff: Client, cast: Cast, reason: str) -> None:
    response = enter(staff, cast, reason)

    assert response.status_code == 422
    assert staff.get("/o/acme/").status_code == 404
    assert audit_kinds() == []


def test_only_staff_enter(client_for: SignIn, cast: Cast) -> None:
    assert enter(client_for(cast.outsider), cast).status_code == 403
    assert client_for(cast.outsider).get("/o/acme/").status_code == 404


def test_a_suspended_organization_cannot_be_entered(staff: Client, cast: Cast) -> None:
    enter(staff, cast)
    cast.acme.is_active = False
    cast.acme.save()

    assert staff.get("/o/acme/").status_code == 404
    assert enter(staff, cast).status_code == 409


def test_entered_staff_read_pages_and_change_nothing(
    staff: Client, cast: Cast, client_for: SignIn, platform: LocalAws
) -> None:
    """Every page as a viewer; the API, and everything of another organization, as an outsider."""
    acme, globex = make_place(cast, cast.acme), make_place(cast, cast.globex)
    enter(staff, cast)
    before = read_rows(cast.acme, audit=False)

    for row in TENANT:
        for method in row.allowed - {"head"}:
            answer = ask(staff, row, method, acme)
            expected = (404,) if row.is_api else (403,) if method in row.sends else (200, 302)
            assert answer.status_code in expected, (row, method, answer.status_code)
            elsewhere = ask(staff, row, method, globex)
            assert (row, method, elsewhere.status_code) == (row, method, 404)
            assert get_text(elsewhere) == get_text(ask(staff, row, method, NOWHERE))
    changed = {table for table, rows in read_rows(cast.acme, audit=False).items() if rows != before[table]}
    assert changed == {"deployments_deployment"}  # a deployment that someone watches is read more often


def test_what_staff_read_is_recorded_once_a_minute(staff: Client, cast: Cast) -> None:
    enter(staff, cast)
    for path in ("/o/acme/", "/o/acme/", "/o/acme/agents/", "/o/globex/"):
        staff.get(path)
    connection.cursor().execute("UPDATE portal_auditrepeat SET first_at = first_at - interval '61 seconds'")
    tasks.write_audit_repeats()
    staff.get("/o/acme/agents/")

    read = AuditEvent.objects.filter(kind="staff.read").order_by("id")
    assert [event.subject for event in read] == ["/o/acme/", "/o/acme/agents/", "/o/acme/agents/"]
    assert {(event.organization, event.actor) for event in read} == {(cast.acme, cast.staff)}


def test_leaving_ends_the_access(staff: Client, cast: Cast) -> None:
    enter(staff, cast)

    left, again = leave(staff, cast), leave(staff, cast)

    assert left["Location"] == again["Location"] == f"/admin/portal/organization/{cast.acme.pk}/change/"
    assert staff.get("/o/acme/").status_code == 404
    assert audit_kinds() == ["staff.entered", "staff.left"]


def test_the_access_expires(staff: Client, cast: Cast) -> None:
    enter(staff, cast)
    let_time_pass(minutes=29)
    during = staff.get("/o/acme/").status_code
    let_time_pass(minutes=2)

    after = staff.get("/o/acme/").status_code
    tasks.end_expired_staff_access()
    tasks.end_expired_staff_access()

    assert (during, after) == (200, 404)
    assert audit_kinds() == ["staff.entered", "staff.read", "staff.access_expired"]
    assert AuditEvent.objects.latest("id").actor_email == "system"


def test_entering_another_organization_leaves_the_first(staff: Client, cast: Cast) -> None:
    enter(staff, cast)

    staff.post(f"/admin/portal/organization/{cast.globex.pk}/enter/", {"reason": REASON})

    assert (staff.get("/o/acme/").status_code, staff.get("/o/globex/").status_code) == (404, 200)
    ended = AuditEvent.objects.get(kind="staff.left")
    assert (ended.organization, Elevation.objects.filter(ended_at=None).count()) == (cast.acme, 1)


def test_who_is_no_longer_staff_loses_the_access(staff: Client, cast: Cast) -> None:
    enter(staff, cast)
    User.objects.filter(pk=cast.staff.pk).update(is_staff=False)

    assert staff.get("/o/acme/").status_code == 404


def test_the_access_is_that_of_one_person(staff: Client, cast: Cast, client_for: SignIn) -> None:
    User.objects.filter(pk=cast.outsider.pk).update(is_staff=True)
    enter(staff, cast)

    assert client_for(cast.outsider).get("/o/acme/").status_code == 404


@pytest.mark.parametrize(
    ("page", "of_acme"), [("organization/{acme}/change/", True), ("auditevent/?q=acme", False), ("agent/", False)]
)
def test_reading_in_django_admin_is_recorded(staff: Client, cast: Cast, page: str, of_acme: bool) -> None:
    models = "deployments" if page.startswith("agent") else "portal"
    path = f"/admin/{models}/{page.format(acme=cast.acme.pk)}"

    for _ in range(2):
        assert staff.get(path).status_code == 200

    event = AuditEvent.objects.get()
    assert (event.kind, event.actor, event.subject) == ("staff.read", cast.staff, path.partition("?")[0])
    assert event.organization == (cast.acme if of_acme else None)
