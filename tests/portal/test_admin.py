"""Django admin: staff manage people, organizations and memberships, and every change is in the audit trail."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator as AuthenticatorRow
from django.contrib import admin
from django.contrib.sessions.models import Session
from django.test import Client

from portal.accounts.sessions import SessionStore
from portal.audit import record
from portal.models import AuditEvent, AuditKind, Membership, Organization, Role, User
from tests.conftest import Cast, sign_in
from tests.portal.conftest import audit_kinds

SignedIn = Callable[[User], Client]
STRONG = "tide-kelp-oversaw-41-wrens"
ROLE_ARN = "arn:aws:iam::333333333333:role/portal"
NO_MEMBERS = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
NO_AUTHENTICATORS = {"authenticator_set-TOTAL_FORMS": "0", "authenticator_set-INITIAL_FORMS": "0"}


@pytest.fixture
def staff(client_for: SignedIn, cast: Cast) -> Client:
    return client_for(cast.staff)


def organization_form(organization: Organization | None = None, **changes: Any) -> dict[str, Any]:
    """Return the form data of the organization's page with `changes`."""
    shown = organization or Organization(name="Umbrella", slug="umbrella")
    form = {
        "name": shown.name,
        "slug": shown.slug,
        "environment": shown.environment,
        "is_active": "on" if shown.is_active else "",
        "deployment_stack": shown.deployment_stack,
        "deployment_cluster": shown.deployment_cluster,
        "deployment_region": shown.deployment_region,
        "deployment_role_arn": shown.deployment_role_arn,
        "deployment_external_id": shown.deployment_external_id,
        "deployment_replica_limit": shown.deployment_replica_limit,
        "upgrade_trigger_limit": shown.upgrade_trigger_limit,
    }
    return form | NO_MEMBERS | changes


def person_form(person: User, **changes: Any) -> dict[str, Any]:
    form = {"email": person.email, "name": person.name, "is_active": "on" if person.is_active else ""}
    return form | NO_MEMBERS | NO_AUTHENTICATORS | changes


def member_rows(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return the form data of the memberships. A row without an id is new; existing rows come first."""
    initial = sum("id" in row for row in rows)
    form = {"memberships-TOTAL_FORMS": str(len(rows)), "memberships-INITIAL_FORMS": str(initial)}
    for number, row in enumerate(rows):
        form |= {f"memberships-{number}-{name}": str(value) for name, value in row.items()}
    return form


def as_shown(membership: Membership, **changes: Any) -> dict[str, Any]:
    shown = {"user": membership.user_id, "organization": membership.organization_id, "role": membership.role}
    return {"id": membership.pk} | shown | changes


def change_page(row: Organization | User | Membership) -> str:
    return f"/admin/portal/{row._meta.model_name}/{row.pk}/change/"


# Access


def test_the_admin_signs_in_through_the_portal(client: Client, cast: Cast) -> None:
    credentials = {"username": cast.staff.email, "password": cast.password}

    response = client.post("/admin/login/?next=/admin/", credentials)

    assert response["Location"].startswith("/accounts/login/?next=")
    assert client.get("/admin/").status_code == 302


def test_staff_come_back_to_the_admin_after_signing_in(client: Client, cast: Cast) -> None:
    asked = client.get("/admin/portal/organization/")
    credentials = {"login": cast.staff.email, "password": cast.password, "next": "/admin/portal/organization/"}

    response = client.post("/accounts/login/", credentials)

    assert asked["Location"] == "/accounts/login/?next=%2Fadmin%2Fportal%2Forganization%2F"
    assert response["Location"] == "/admin/portal/organization/"


def test_the_admin_signs_out_through_the_portal(staff: Client) -> None:
    staff.post("/admin/logout/")

    assert audit_kinds() == ["session.signed_out"]
    assert staff.get("/admin/").status_code == 302


def test_the_admin_changes_its_own_password_through_the_portal(staff: Client) -> None:
    assert staff.get("/admin/password_change/")["Location"] == "/accounts/password/change/"


def test_staff_need_not_be_superuser(staff: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.staff.pk).update(is_superuser=False)

    assert staff.get("/admin/portal/organization/").status_code == 200
    assert staff.post(change_page(cast.acme), organization_form(cast.acme, name="Acme")).status_code == 302


def test_the_admin_itself_refuses_others(client_for: SignedIn, cast: Cast, settings: Any) -> None:
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each != "portal.access.AccessMiddleware"]
    client = client_for(cast.admin)

    assert client.get("/admin/portal/organization/")["Location"].startswith("/admin/login/")
    assert client.get("/admin/login/").status_code == 403


def test_only_staff_models_are_in_the_admin() -> None:
    ours = {model._meta.label for model in admin.site._registry if model._meta.app_label == "portal"}

    assert ours == {"portal.User", "portal.Organization", "portal.Membership", "portal.AuditEvent"}


@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        "/admin/portal/",
        "/admin/portal/user/",
        "/admin/portal/user/add/",
        "/admin/portal/user/{user}/change/",
        "/admin/portal/user/{user}/password/",
        "/admin/portal/user/{user}/history/",
        "/admin/portal/organization/",
        "/admin/portal/organization/?q=acme&is_active__exact=1",
        "/admin/portal/organization/add/",
        "/admin/portal/organization/{organization}/change/",
        "/admin/portal/organization/{organization}/enter/",
        "/admin/portal/membership/",
        "/admin/portal/membership/add/",
        "/admin/portal/auditevent/?q=acme",
    ],
)
def test_a_page_keeps_the_content_security_policy(staff: Client, cast: Cast, path: str) -> None:
    response = staff.get(path.format(user=cast.operator.pk, organization=cast.acme.pk))

    page = response.content.decode()
    assert response.status_code == 200
    assert 'href="/static/admin.css"' in page
    assert "style=" not in page
    assert "<style" not in page
    assert not re.search(r"\son\w+=", page)
    assert all("src=" in script or "json" in script for script in re.findall(r"<script[^>]*>", page))


# People


def test_a_new_person_can_sign_in(staff: Client, client: Client, cast: Cast) -> None:
    password = "a-long-password-1"
    member = member_rows({"organization": cast.acme.pk, "role": "operator"})
    form = {
        "email": "New@Example.com",
        "name": "New",
        "usable_password": "true",
        "password1": password,
        "password2": password,
    }

    response = staff.post("/admin/portal/user/add/", form | member)

    person = User.objects.get(email="new@example.com")
    assert response["Location"] == change_page(person)
    assert (person.name, person.is_staff) == ("New", False)
    assert Membership.objects.get(user=person).role == Role.OPERATOR
    assert audit_kinds() == ["person.created", "membership.added"]
    signed_in = client.post("/accounts/login/", {"login": "new@example.com", "password": password})
    assert signed_in["Location"] == "/"


def test_a_person_may_start_without_a_password(staff: Client) -> None:
    staff.post("/admin/portal/user/add/", {"email": "new@example.com", "usable_password": "false"} | NO_MEMBERS)

    assert not User.objects.get(email="new@example.com").has_usable_password()


def test_two_people_never_share_an_address(staff: Client, cast: Cast) -> None:
    form = {"email": cast.operator.email.upper(), "usable_password": "false"}

    response = staff.post("/admin/portal/user/add/", form | NO_MEMBERS)

    assert b"already exists" in response.content
    assert audit_kinds() == []


def test_people_are_not_deleted(staff: Client, cast: Cast) -> None:
    page = f"/admin/portal/user/{cast.operator.pk}/delete/"
    bulk = {"action": "delete_selected", "_selected_action": cast.operator.pk, "post": "yes"}

    assert staff.post(page, {"post": "yes"}).status_code == 403
    staff.post("/admin/portal/user/", bulk)

    assert User.objects.filter(pk=cast.operator.pk).exists()


def test_a_deactivated_person_loses_access_immediately(staff: Client, client_for: SignedIn, cast: Cast) -> None:
    theirs = client_for(cast.operator)

    staff.post(change_page(cast.operator), person_form(cast.operator, is_active=""))

    event = AuditEvent.objects.get()
    assert (event.kind, event.actor, event.subject) == ("person.changed", cast.staff, cast.operator.email)
    assert event.data == {"changes": {"is_active": {"before": True, "after": False}}}
    assert theirs.get("/account/").status_code == 302


def test_making_a_person_staff_is_audited(staff: Client, cast: Cast) -> None:
    staff.post(change_page(cast.operator), person_form(cast.operator, is_staff="on"))

    assert AuditEvent.objects.get().data["changes"] == {"is_staff": {"before": False, "after": True}}


def test_a_password_set_by_staff_is_audited_without_its_text(staff: Client, cast: Cast) -> None:
    new = {"usable_password": "true", "password1": "another-long-password-1", "password2": "another-long-password-1"}

    staff.post(f"/admin/portal/user/{cast.operator.pk}/password/", new)

    cast.operator.refresh_from_db()
    event = AuditEvent.objects.get()
    assert cast.operator.check_password("another-long-password-1")
    assert (event.kind, event.subject, event.data) == ("person.password_set", cast.operator.email, {})


def test_a_refused_password_writes_nothing(staff: Client, cast: Cast) -> None:
    staff.post(f"/admin/portal/user/{cast.operator.pk}/password/", {"password1": "short", "password2": "short"})

    assert audit_kinds() == []


def test_staff_remove_a_lost_second_factor(
    staff: Client,
    cast: Cast,
    authenticator: Callable[[User], Callable[[], str]],
    recovery_codes: Callable[[User], list[str]],
) -> None:
    authenticator(cast.operator)
    recovery_codes(cast.operator)
    totp = AuthenticatorRow.objects.get(user=cast.operator, type="totp")
    codes = AuthenticatorRow.objects.get(user=cast.operator, type="recovery_codes")
    shown = staff.get(change_page(cast.operator)).content.decode()
    form = person_form(cast.operator) | {
        "authenticator_set-TOTAL_FORMS": "2",
        "authenticator_set-INITIAL_FORMS": "2",
        "authenticator_set-0-id": totp.pk,
        "authenticator_set-0-user": cast.operator.pk,
        "authenticator_set-0-DELETE": "on",
        "authenticator_set-1-id": codes.pk,
        "authenticator_set-1-user": cast.operator.pk,
    }

    staff.post(change_page(cast.operator), form)

    assert totp.data["secret"] not in shown
    assert not AuthenticatorRow.objects.exists()
    assert AuditEvent.objects.get().kind == "person.two_factor_removed"


# Organizations


def test_a_new_organization_with_its_first_member(staff: Client, cast: Cast) -> None:
    member = member_rows({"user": cast.stranger.pk, "role": "admin"})

    staff.post("/admin/portal/organization/add/", organization_form(deployment_stack="umbrella-prod") | member)

    organization = Organization.objects.get(slug="umbrella")
    added, created = AuditEvent.objects.all()
    assert organization.cluster == "umbrella-prod-cluster"
    assert (created.kind, created.organization, created.subject) == ("organization.created", organization, "umbrella")
    assert created.data["changes"]["deployment_stack"] == {"before": None, "after": "umbrella-prod"}
    assert (added.kind, added.data) == ("membership.added", {"email": cast.stranger.email, "role": "admin"})


def test_a_change_is_in_the_audit_trail_with_before_and_after(staff: Client, cast: Cast) -> None:
    form = organization_form(cast.acme, deployment_cluster="another", deployment_region="eu-west-1")

    staff.post(change_page(cast.acme), form)

    event = AuditEvent.objects.get()
    assert (event.kind, event.organization, event.actor) == ("organization.changed", cast.acme, cast.staff)
    assert event.data["changes"] == {
        "deployment_cluster": {"before": "", "after": "another"},
        "deployment_region": {"before": "eu-central-1", "after": "eu-west-1"},
    }


def test_saving_without_a_change_writes_nothing(staff: Client, cast: Cast) -> None:
    assert staff.post(change_page(cast.globex), organization_form(cast.globex)).status_code == 302

    assert audit_kinds() == []


def test_a_role_without_an_external_id_gets_a_random_one(staff: Client, cast: Cast) -> None:
    response = staff.post(
        change_page(cast.acme), organization_form(cast.acme, deployment_role_arn=ROLE_ARN), follow=True
    )

    cast.acme.refresh_from_db()
    assert len(cast.acme.deployment_external_id) >= 40
    assert f"The portal generated an external id for Acme Robotics: {cast.acme.deployment_external_id}" in (
        response.content.decode()
    )
    assert cast.acme.deployment_external_id not in str(AuditEvent.objects.get().data)
    assert AuditEvent.objects.get().data["changes"]["deployment_external_id"] == "changed"


def test_a_given_external_id_is_kept(staff: Client, cast: Cast) -> None:
    form = organization_form(cast.acme, deployment_role_arn=ROLE_ARN, deployment_external_id="agreed-with-acme")

    staff.post(change_page(cast.acme), form)

    cast.acme.refresh_from_db()
    assert cast.acme.deployment_external_id == "agreed-with-acme"
    assert "agreed-with-acme" not in str(AuditEvent.objects.get().data)


def test_an_external_id_of_another_organization_is_refused(staff: Client, cast: Cast) -> None:
    globex = cast.globex
    form = organization_form(
        cast.acme,
        deployment_role_arn=globex.deployment_role_arn,
        deployment_external_id=globex.deployment_external_id,
    )

    response = staff.post(change_page(cast.acme), form)

    assert b"Another organization uses this external id" in response.content
    assert audit_kinds() == []


@pytest.mark.parametrize("cluster", ["", "{stack}-cluster"])
def test_another_organizations_cluster_and_stack_are_refused(staff: Client, cast: Cast, cluster: str) -> None:
    stack = cast.acme.deployment_stack
    form = organization_form(deployment_stack=stack, deployment_cluster=cluster.format(stack=stack))

    response = staff.post("/admin/portal/organization/add/", form)

    assert b"Acme Robotics (acme) uses the same cluster and stack" in response.content
    assert audit_kinds() == []


def test_another_role_in_the_same_account_is_the_same_place(staff: Client, cast: Cast) -> None:
    form = organization_form(cast.globex, slug="umbrella", deployment_external_id="")
    form["deployment_role_arn"] = cast.globex.deployment_role_arn.replace("portal-upgrades", "another")

    response = staff.post("/admin/portal/organization/add/", form)

    assert b"Globex (globex) uses the same cluster and stack" in response.content


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"deployment_region": "us-east-1"},
        {"deployment_cluster": "another"},
        {"deployment_stack": "another"},
        {"deployment_role_arn": ROLE_ARN},
    ],
)
def test_the_same_names_elsewhere_are_another_place(staff: Client, cast: Cast, elsewhere: dict[str, str]) -> None:
    form = organization_form(cast.acme, slug="umbrella") | elsewhere

    assert staff.post("/admin/portal/organization/add/", form).status_code == 302
    assert staff.post(change_page(cast.acme), organization_form(cast.acme)).status_code == 302


def test_an_external_id_without_a_role_is_refused(staff: Client, cast: Cast) -> None:
    response = staff.post(change_page(cast.acme), organization_form(cast.acme, deployment_external_id="alone"))

    assert b"Set both the role to assume and the external id" in response.content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deployment_cluster", "no spaces"),
        ("deployment_stack", "9starts-with-a-digit"),
        ("deployment_region", "Frankfurt"),
        ("deployment_role_arn", "arn:aws:iam::1:role/x"),
    ],
)
def test_a_value_that_aws_would_refuse_is_refused(staff: Client, cast: Cast, field: str, value: str) -> None:
    response = staff.post(change_page(cast.acme), organization_form(cast.acme, **{field: value}))

    assert response.status_code == 200
    assert b"errorlist" in response.content
    assert audit_kinds() == []


def test_the_slug_stays(staff: Client, cast: Cast) -> None:
    staff.post(change_page(cast.acme), organization_form(cast.acme, slug="renamed"))

    cast.acme.refresh_from_db()
    assert cast.acme.slug == "acme"


def test_organizations_are_not_deleted(staff: Client, cast: Cast) -> None:
    assert staff.post(f"/admin/portal/organization/{cast.initech.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Organization.objects.filter(pk=cast.initech.pk).exists()


def test_members_lose_access_to_a_suspended_organization(staff: Client, client_for: SignedIn, cast: Cast) -> None:
    staff.post(change_page(cast.acme), organization_form(cast.acme, is_active=""))

    assert client_for(cast.operator).get("/o/acme/").status_code == 404


# Memberships


def test_members_on_the_organization_page(staff: Client, cast: Cast) -> None:
    viewer, operator = (Membership.objects.get(user=user) for user in (cast.viewer, cast.operator))
    new = {"user": cast.stranger.pk, "role": "viewer"}
    rows = member_rows(as_shown(viewer, role="operator"), as_shown(operator, DELETE="on"), new)

    staff.post(change_page(cast.acme), organization_form(cast.acme) | rows)

    events = {event.kind: event for event in AuditEvent.objects.all()}
    assert set(events) == {"membership.added", "membership.changed", "membership.removed"}
    assert {event.organization for event in events.values()} == {cast.acme}
    assert events["membership.changed"].data == {
        "email": cast.viewer.email,
        "role": "operator",
        "before": {"email": cast.viewer.email, "role": "viewer"},
    }
    assert events["membership.removed"].subject == cast.operator.email


def test_memberships_on_the_person_page(staff: Client, cast: Cast) -> None:
    rows = member_rows({"organization": cast.globex.pk, "role": "viewer"})

    staff.post(change_page(cast.stranger), person_form(cast.stranger) | rows)

    event = AuditEvent.objects.get()
    assert (event.kind, event.organization, event.subject) == ("membership.added", cast.globex, cast.stranger.email)


def test_a_membership_on_its_own_page(staff: Client, cast: Cast) -> None:
    new = {"organization": cast.acme.pk, "user": cast.stranger.pk, "role": "viewer"}

    staff.post("/admin/portal/membership/add/", new)
    membership = Membership.objects.get(user=cast.stranger)
    staff.post(change_page(membership), {"role": "admin"})
    staff.post(f"/admin/portal/membership/{membership.pk}/delete/", {"post": "yes"})

    assert audit_kinds() == ["membership.added", "membership.changed", "membership.removed"]
    assert AuditEvent.objects.all()[1].data["before"] == {"email": cast.stranger.email, "role": "viewer"}


def test_memberships_removed_together_leave_a_row_each(staff: Client, client_for: SignedIn, cast: Cast) -> None:
    memberships = Membership.objects.filter(organization=cast.acme)
    count = memberships.count()
    form = {"action": "delete_selected", "_selected_action": [row.pk for row in memberships], "post": "yes"}

    staff.post("/admin/portal/membership/", form)

    assert audit_kinds() == ["membership.removed"] * count
    assert client_for(cast.operator).get("/o/acme/").status_code == 404


def list_membership_changes(cast: Cast) -> list[tuple[str, dict[str, Any]]]:
    """Return the address and form of each way to change a membership in the admin. Each removes or changes one of acme."""
    viewer, operator = (Membership.objects.get(user=user) for user in (cast.viewer, cast.operator))
    new = {"organization": cast.acme.pk, "user": cast.stranger.pk, "role": "viewer"}
    selected = {"action": "delete_selected", "_selected_action": [viewer.pk, operator.pk], "post": "yes"}
    removed, changed = member_rows(as_shown(viewer, DELETE="on")), member_rows(as_shown(viewer, role="operator"))
    return [
        ("/admin/portal/membership/add/", new),
        (change_page(viewer), {"role": "admin"}),
        (f"/admin/portal/membership/{viewer.pk}/delete/", {"post": "yes"}),
        ("/admin/portal/membership/", selected),
        (change_page(cast.acme), organization_form(cast.acme) | removed),
        (change_page(cast.acme), organization_form(cast.acme) | changed),
        (change_page(cast.viewer), person_form(cast.viewer) | removed),
        (change_page(cast.viewer), person_form(cast.viewer) | changed),
    ]


@pytest.mark.parametrize("way", range(8))
def test_each_change_of_a_membership_asks_and_is_then_made(cast: Cast, way: int) -> None:
    path, form = list_membership_changes(cast)[way]
    before = list(Membership.objects.order_by("pk").values_list("user", "organization", "role"))
    client = sign_in(Client(enforce_csrf_checks=True), cast.staff, is_fresh=False)
    token = client.get(path).cookies["csrftoken"].value

    asked = client.post(path, form | {"csrfmiddlewaretoken": token})
    assert asked["Location"].startswith("/accounts/reauthenticate/?next=")
    assert list(Membership.objects.order_by("pk").values_list("user", "organization", "role")) == before
    assert not set(audit_kinds()) - {"staff.read"}
    then = client.get(asked["Location"]).context["redirect_field_value"]
    proof = {"password": cast.password, "next": then, "csrfmiddlewaretoken": token}
    done = client.post("/accounts/reauthenticate/", proof)

    assert (done.status_code, done["Location"].startswith("/admin/portal/")) == (302, True)
    assert list(Membership.objects.order_by("pk").values_list("user", "organization", "role")) != before


def test_other_changes_do_not_ask(cast: Cast) -> None:
    client = sign_in(Client(), cast.staff, is_fresh=False)
    rows = member_rows(as_shown(Membership.objects.get(user=cast.viewer)))

    saved = client.post(change_page(cast.acme), organization_form(cast.acme, name="Acme AG") | rows)

    assert saved["Location"] == "/admin/portal/organization/"
    assert Organization.objects.get(pk=cast.acme.pk).name == "Acme AG"


def test_what_was_not_saved_generates_no_external_id(cast: Cast) -> None:
    client = sign_in(Client(), cast.staff, is_fresh=False)
    rows = member_rows({"user": cast.stranger.pk, "role": "viewer"})

    asked = client.post(change_page(cast.initech), organization_form(cast.initech, deployment_role_arn=ROLE_ARN) | rows)

    assert "generated an external id" not in client.get(asked["Location"]).content.decode()
    assert Organization.objects.get(pk=cast.initech.pk).deployment_role_arn == ""


def test_a_typed_password_is_not_stored_while_asking(cast: Cast) -> None:
    client = sign_in(Client(), cast.staff, is_fresh=False)
    rows = member_rows({"organization": cast.acme.pk, "role": "viewer"})
    person = {"email": "new@example.com", "usable_password": "true", "password1": STRONG, "password2": STRONG}

    asked = client.post("/admin/portal/user/add/", person | rows)
    stored = [str(SessionStore().decode(each.session_data)) for each in Session.objects.all()]
    then = client.get(asked["Location"]).context["redirect_field_value"]
    again = client.post("/accounts/reauthenticate/", {"password": cast.password, "next": then}).content.decode()

    assert STRONG not in str(stored)
    assert "new%40example.com" in str(stored)
    assert 'action="/admin/portal/user/add/"' in again
    assert 'value="new@example.com"' in again


@pytest.mark.parametrize("way", [2, 3, 4, 6])
def test_a_removed_member_has_no_default_organization(staff: Client, cast: Cast, way: int) -> None:
    User.objects.filter(pk=cast.viewer.pk).update(default_organization=cast.acme)
    path, form = list_membership_changes(cast)[way]

    staff.post(path, form)

    assert not Membership.objects.filter(user=cast.viewer).exists()
    assert User.objects.get(pk=cast.viewer.pk).default_organization is None


def test_a_moved_membership_leaves_no_default_organization(staff: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.viewer.pk).update(default_organization=cast.acme)
    rows = member_rows(as_shown(Membership.objects.get(user=cast.viewer), organization=cast.globex.pk))

    staff.post(change_page(cast.viewer), person_form(cast.viewer) | rows)

    assert User.objects.get(pk=cast.viewer.pk).default_organization is None


# The audit trail


def test_staff_read_the_audit_trail(staff: Client, cast: Cast) -> None:
    event = record(AuditKind.CONNECTION_TESTED, organization=cast.acme, actor=cast.staff, subject="acme", data={"a": 1})

    page = staff.get(f"/admin/portal/auditevent/{event.pk}/change/").content.decode()

    assert "&quot;a&quot;: 1" in page
    assert 'name="_save"' not in page


def test_the_audit_trail_is_read_only(staff: Client, cast: Cast) -> None:
    event = record(AuditKind.CONNECTION_TESTED, organization=cast.acme, actor=cast.staff, subject="acme")
    bulk = {"action": "delete_selected", "_selected_action": event.pk, "post": "yes"}

    assert staff.get("/admin/portal/auditevent/add/").status_code == 403
    assert staff.post(f"/admin/portal/auditevent/{event.pk}/change/", {"subject": "x"}).status_code == 403
    assert staff.post(f"/admin/portal/auditevent/{event.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post("/admin/portal/auditevent/", bulk)

    event.refresh_from_db()
    assert event.subject == "acme"
