"""The members pages, through HTTP: every member can read; admins add, change and remove members."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import transaction
from django.test import Client
from django.utils import timezone

from portal.errors import PortalError
from portal.members.commands import (
    MAX_MEMBERS,
    Added,
    accept_membership,
    add_member,
    change_role,
    leave_organization,
    remove_member,
)
from portal.models import AuditEvent, AuditKind, Membership, Organization, Role, User
from tests.conftest import Cast, audited_changes, make_person
from tests.notifications.test_concurrency import Others, waits_for_a_lock
from tests.portal.conftest import get_main

SignIn = Callable[[User], Client]

MEMBERS = "/o/acme/settings/members/"
NEW = f"{MEMBERS}new"
# Session with its person; organization with role, heartbeats and the switcher's organizations.
PAGE_QUERIES = 2


@pytest.fixture
def admin(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.admin)


def get_membership(user: User, organization: Organization | None = None) -> Membership:
    found = Membership.objects.select_related("organization", "user").filter(user=user)
    return found.get(organization=organization) if organization else found.get()


def get_page_url(user: User, command: str) -> str:
    return f"{MEMBERS}{Membership.objects.get(user=user, organization__slug='acme').pk}/{command}"


def form(email: str = "new@example.com", **fields: str) -> dict[str, str]:
    return {"idempotency_key": "form-1", "email": email, "role": "operator"} | fields


def get_text(response: Any) -> str:
    return " ".join(html.unescape(get_main(response)).split())


def get_row(page: str, email: str) -> str:
    row = page[page.index(f'<div class="cell">{email}') :]
    return row[: row.index("</tr>")]


def roles() -> dict[str, str]:
    return {
        each.user.email.partition("@")[0]: each.role for each in Membership.objects.filter(organization__slug="acme")
    }


def audited() -> list[tuple[str, str, str, Any]]:
    """Return kind, actor, subject and data of acme's audit rows, oldest first."""
    events = audited_changes().filter(organization__slug="acme").order_by("id")
    return list(events.values_list("kind", "actor_email", "subject", "data"))


def nothing_happened() -> bool:
    return roles() == {"viewer": "viewer", "operator": "operator", "admin": "admin", "consultant": "operator"} and (
        not audited_changes().exists() and not mail.outbox
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def test_members_are_listed_with_their_roles(cast: Cast, client_for: SignIn) -> None:
    User.objects.filter(pk=cast.operator.pk).update(is_active=False)

    page = get_text(client_for(cast.viewer).get(MEMBERS))

    for person, role in (("viewer", "Viewer"), ("operator", "Operator"), ("admin", "Admin")):
        assert f'<td data-label="Role"> {role} </td>' in get_row(page, f"{person}@example.com")
    assert "(you)" in get_row(page, "viewer@example.com")
    assert "switched off" in get_row(page, "operator@example.com")
    assert "outsider@example.com" not in page


def test_a_sign_in_before_the_membership_is_hidden(cast: Cast, admin: Client) -> None:
    """Name and sign-in are hidden, because they would reveal that the address already had an account."""
    User.objects.filter(pk=cast.stranger.pk).update(last_login=timezone.now())
    admin.post(NEW, form(cast.stranger.email))
    admin.post(NEW, form("new@example.com", idempotency_key="form-2"))

    page = get_text(admin.get(MEMBERS))
    known, unknown = get_row(page, cast.stranger.email), get_row(page, "new@example.com")

    assert "Stranger" not in known
    assert re.sub(r"\d+", "", known).replace(cast.stranger.email, "") == re.sub(r"\d+", "", unknown).replace(
        "new@example.com", ""
    )
    User.objects.filter(pk=cast.stranger.pk).update(last_login=timezone.now())
    assert "Stranger" not in get_row(get_text(admin.get(MEMBERS)), cast.stranger.email)
    accept_membership(get_membership(cast.stranger).pk, actor=cast.stranger)
    assert "Stranger" in get_row(get_text(admin.get(MEMBERS)), cast.stranger.email)


def test_members_are_paged(cast: Cast, admin: Client) -> None:
    for number in range(60):
        person = User.objects.create_user(f"zz-{number:02}@example.com")
        Membership.objects.create(organization=cast.acme, user=person, role="viewer")

    first, second = get_text(admin.get(MEMBERS)), get_text(admin.get(f"{MEMBERS}?skip=50"))

    assert "1 to 50 of 64" in first
    assert "zz-59@example.com" not in first
    assert "zz-59@example.com" in second
    assert "No more members." in get_text(admin.get(f"{MEMBERS}?skip=900"))
    assert admin.get(f"{MEMBERS}?skip=x").status_code == 200
    changed = admin.post(
        get_page_url(User.objects.get(email="zz-59@example.com"), "role") + "?skip=50", {"role": "admin"}
    )
    assert changed["Location"] == f"{MEMBERS}?skip=50"


@pytest.mark.parametrize("members", [1, 4])
def test_reading_costs_a_fixed_number_of_queries(
    cast: Cast, admin: Client, django_assert_num_queries: Any, members: int
) -> None:
    for number in range(members):
        Membership.objects.create(organization=cast.acme, user=make_person(f"{number}@example.com"), role="viewer")
    admin.get(MEMBERS)

    with django_assert_num_queries(PAGE_QUERIES + 2):  # members and their count
        admin.get(MEMBERS)


def test_the_only_member_is_asked_to_add_others(cast: Cast, admin: Client) -> None:
    Membership.objects.filter(organization=cast.acme).exclude(user=cast.admin).delete()

    assert "You are the only member." in get_text(admin.get(MEMBERS))


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_non_admins_can_read_and_see_why_they_cannot_act(cast: Cast, client_for: SignIn, role: str) -> None:
    client = client_for(getattr(cast, role))

    for path in (MEMBERS, NEW, get_page_url(cast.admin, "remove")):
        page = get_text(client.get(path))
        assert f"Your role is {role}: this needs admin." in page, path
        assert not re.search(r'<form[^>]*action="/o/acme/settings', page), path
    assert re.search(r"<button[^>]*disabled[^>]*>Add a member", get_text(client.get(MEMBERS)))


# --- adding ----------------------------------------------------------------------------------------------------------


def test_a_person_with_an_account_is_invited(cast: Cast, admin: Client, client_for: SignIn) -> None:
    theirs = client_for(cast.stranger)
    assert theirs.get("/o/acme/").status_code == 404

    response = admin.post(NEW, form(cast.stranger.email.upper()))

    assert (response.status_code, response["Location"]) == (302, MEMBERS)
    assert "invited" in get_row(get_text(admin.get(MEMBERS)), cast.stranger.email)
    data = {"email": cast.stranger.email, "role": "operator"}
    assert audited() == [(AuditKind.MEMBERSHIP_ADDED, cast.admin.email, cast.stranger.email, data)]
    (told,) = mail.outbox
    assert told.to == [cast.stranger.email]
    assert "admin@example.com invites you to Acme Robotics (production)" in told.body
    assert "http://testserver/\n" in told.body
    assert "password" not in told.body


def test_a_new_address_gets_an_account_and_a_password_link(cast: Cast, admin: Client, client: Client) -> None:
    admin.post(NEW, form("New@Example.com"))

    person = User.objects.get(email="new@example.com")
    assert (person.has_usable_password(), person.is_staff, person.is_active) == (False, False, True)
    assert get_membership(person).role == Role.OPERATOR
    (told,) = mail.outbox
    assert told.to == ["new@example.com"]
    link = re.search(r"http://testserver(/accounts/password/reset/key/\S+)", told.body)
    assert link
    shown = client.get(link[1], follow=True)
    password = "a-long-password-of-mine-1"
    client.post(shown.redirect_chain[-1][0], {"password1": password, "password2": password})
    signed_in = client.post("/accounts/login/", {"login": "new@example.com", "password": password})
    assert signed_in["Location"] == "/"
    assert client.get("/o/acme/settings/").status_code == 200
    again = Client().get(link[1], follow=True)
    assert "password1" not in again.content.decode()


def test_a_lost_link_can_be_requested_on_the_sign_in_page(cast: Cast, admin: Client, client: Client) -> None:
    admin.post(NEW, form())

    client.post("/accounts/password/reset/", {"email": "new@example.com"})

    assert [told.to for told in mail.outbox] == [["new@example.com"]] * 2
    assert "http://testserver/accounts/password/reset/key/" in mail.outbox[1].body
    assert not EmailAddress.objects.exists()


def test_only_staff_see_that_an_account_was_created(cast: Cast, admin: Client) -> None:
    admin.post(NEW, form())

    made = AuditEvent.objects.get(kind=AuditKind.PERSON_CREATED)
    assert (made.organization, made.actor, made.subject) == (None, cast.admin, "new@example.com")
    assert made.data == {"added_to": "acme"}
    page = get_main(admin.get("/o/acme/activity/"))
    assert "Member added" in page
    assert 'fixed">Person created<' not in page


def test_the_response_does_not_reveal_existing_accounts(cast: Cast, admin: Client) -> None:
    def said(email: str, key: str) -> str:
        page = get_text(admin.post(NEW, form(email, idempotency_key=key), follow=True))
        return page[: page.index("<table")].replace(email, "somebody")

    known, unknown = said(cast.stranger.email, "form-1"), said("new@example.com", "form-2")

    assert known == unknown
    assert "somebody is invited with the role operator, and becomes a member by accepting." in known
    assert len(mail.outbox) == 2
    first, second = audited()
    assert {**first[3], "email": ""} == {**second[3], "email": ""}


def test_a_failed_email_is_reported_and_undoes_nothing(cast: Cast, admin: Client, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", 1, False

    page = get_text(admin.post(NEW, form(), follow=True))

    assert "new@example.com is invited with the role operator" in page
    assert "The e-mail to them could not be sent" in page
    assert roles()["new"] == "operator"


def test_a_double_click_adds_and_notifies_once(cast: Cast, admin: Client) -> None:
    admin.post(NEW, form())
    again = admin.post(NEW, form(), follow=True)

    assert "new@example.com is invited" in get_text(again)
    assert len(mail.outbox) == len(audited()) == 1


def test_resending_the_form_of_a_removed_member_adds_no_one(cast: Cast, admin: Client) -> None:
    admin.post(NEW, form(cast.stranger.email))
    admin.post(get_page_url(cast.stranger, "remove"))

    response = admin.post(NEW, form(cast.stranger.email))

    assert response.status_code == 409
    assert "has since been removed" in get_text(response)
    assert admin.post(NEW, form(cast.stranger.email, idempotency_key="form-2")).status_code == 302


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"email": "nobody"}, 422, "Enter a valid email address."),
        ({"email": ""}, 422, "This field is required."),
        ({"role": "owner"}, 422, "Select a valid choice."),
        ({"email": "Viewer@example.com"}, 409, "viewer@example.com is already a member with the role viewer."),
    ],
)
def test_an_invalid_addition_is_refused(
    cast: Cast, admin: Client, fields: dict[str, str], status: int, sentence: str
) -> None:
    response = admin.post(NEW, form(**fields))

    assert response.status_code == status
    assert sentence in get_text(response)
    assert nothing_happened()


def test_an_account_that_is_switched_off_cannot_be_added(cast: Cast, admin: Client) -> None:
    User.objects.filter(pk=cast.stranger.pk).update(is_active=False)

    response = admin.post(NEW, form(cast.stranger.email))

    assert response.status_code == 409
    assert "is switched off, so it cannot sign in. Ask staff to switch it on." in get_text(response)
    assert nothing_happened()


def test_the_number_of_members_is_limited(cast: Cast, admin: Client) -> None:
    people = User.objects.bulk_create(User(email=f"{number}@example.com") for number in range(MAX_MEMBERS - 4))
    Membership.objects.bulk_create(Membership(organization=cast.acme, user=each) for each in people)

    response = admin.post(NEW, form())

    assert response.status_code == 409
    assert f"Acme Robotics already has {MAX_MEMBERS} members, the maximum." in get_text(response)
    assert not User.objects.filter(email="new@example.com").exists()


def test_additions_per_hour_are_limited_by_organization(cast: Cast, admin: Client, client_for: SignIn) -> None:
    Membership.objects.filter(user=cast.outsider).update(role="admin")
    viewer = client_for(cast.viewer)
    for number in range(20):
        assert viewer.post(NEW, form(idempotency_key=f"mine-{number}")).status_code == 403
        assert admin.post(NEW, form(f"{number}@example.com", idempotency_key=f"form-{number}")).status_code == 302

    refused = admin.post(NEW, form())
    elsewhere = client_for(cast.outsider).post("/o/globex/settings/members/new", form())

    assert (refused.status_code, refused["Retry-After"]) == (429, "3600")
    assert "Too many people were added to Acme Robotics" in get_text(refused)
    assert "new" not in roles()
    assert elsewhere.status_code == 302


# --- roles -----------------------------------------------------------------------------------------------------------


def test_a_role_change_takes_effect_immediately(cast: Cast, admin: Client, client_for: SignIn) -> None:
    theirs = client_for(cast.viewer)
    assert theirs.post(NEW, form()).status_code == 403

    response = admin.post(get_page_url(cast.viewer, "role"), {"role": "admin"}, follow=True)

    assert "The role of viewer@example.com is now admin." in get_text(response)
    before = {"email": cast.viewer.email, "role": "viewer"}
    data = {"email": cast.viewer.email, "role": "admin", "before": before}
    assert audited() == [(AuditKind.MEMBERSHIP_CHANGED, cast.admin.email, cast.viewer.email, data)]
    assert theirs.post(NEW, form()).status_code == 302
    theirs.post(get_page_url(cast.admin, "role"), {"role": "viewer"})
    assert admin.post(NEW, form("another@example.com")).status_code == 403
    assert "Membership changed" in get_main(admin.get("/o/acme/activity/"))


def test_the_same_role_changes_nothing(cast: Cast, admin: Client) -> None:
    assert admin.post(get_page_url(cast.viewer, "role"), {"role": "viewer"}).status_code == 302
    assert admin.post(get_page_url(cast.admin, "role"), {"role": "admin"}).status_code == 302

    assert nothing_happened()


@pytest.mark.parametrize("role", ["", "owner", "Admin"])
def test_a_role_that_does_not_exist_is_refused(cast: Cast, admin: Client, role: str) -> None:
    response = admin.post(get_page_url(cast.viewer, "role"), {"role": role})

    assert response.status_code == 422
    assert "Nothing was changed. Choose one of the roles." in get_text(response)
    assert nothing_happened()


# --- removing --------------------------------------------------------------------------------------------------------


def test_removing_asks_first_and_then_ends_access(cast: Cast, admin: Client, client_for: SignIn) -> None:
    theirs = client_for(cast.operator)

    asked = get_text(admin.get(get_page_url(cast.operator, "remove")))
    removal = get_page_url(cast.operator, "remove")
    still_there = theirs.get("/o/acme/settings/").status_code
    response = admin.post(removal, follow=True)

    assert "running rollouts continue; services that have not started are not attempted" in asked
    assert still_there == 200
    assert "operator@example.com is no longer a member of Acme Robotics." in get_text(response)
    assert theirs.get("/o/acme/settings/").status_code == 404
    data = {"email": cast.operator.email, "role": "operator"}
    assert audited() == [(AuditKind.MEMBERSHIP_REMOVED, cast.admin.email, cast.operator.email, data)]
    assert User.objects.get(pk=cast.operator.pk).is_active
    assert admin.post(removal).status_code == 404


def test_an_admin_with_a_successor_can_leave(cast: Cast, admin: Client) -> None:
    admin.post(get_page_url(cast.viewer, "role"), {"role": "admin"})
    assert "Remove yourself from Acme Robotics?" in get_text(admin.get(get_page_url(cast.admin, "remove")))

    response = admin.post(get_page_url(cast.admin, "remove"))

    assert response["Location"] == "/"
    assert "No organization yet" in get_text(admin.get("/"))
    assert "admin" not in roles()


# --- the last admin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "sent"), [("role", {"role": "operator"}), ("role", {"role": "viewer"}), ("remove", {})]
)
@pytest.mark.parametrize("second", [None, "switched off"])
def test_the_last_admin_who_can_sign_in_stays(
    cast: Cast, admin: Client, command: str, sent: dict[str, str], second: str | None
) -> None:
    if second:
        other = make_person("other@example.com", is_active=False)
        Membership.objects.create(organization=cast.acme, user=other, role="admin", accepted_at=timezone.now())

    response = admin.post(get_page_url(cast.admin, command), sent)

    assert response.status_code == 409
    assert "admin@example.com is the only admin of Acme Robotics who can sign in." in get_text(response)
    assert roles()["admin"] == "admin"
    assert not audited_changes().exists()


def test_the_confirmation_page_says_so_first(cast: Cast, admin: Client) -> None:
    page = get_text(admin.get(get_page_url(cast.admin, "remove")))

    assert "is the only admin of Acme Robotics who can sign in. Make another member an admin first." in page
    assert "<form" not in page


def test_an_inactive_admin_can_be_demoted_and_removed(cast: Cast, admin: Client) -> None:
    other = make_person("other@example.com", is_active=False)
    Membership.objects.create(organization=cast.acme, user=other, role="admin", accepted_at=timezone.now())

    assert admin.post(get_page_url(other, "role"), {"role": "viewer"}).status_code == 302
    assert admin.post(get_page_url(other, "remove")).status_code == 302


# --- concurrency -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "act",
    [
        lambda own, who: change_role(own, actor=who, role=Role.VIEWER, is_fresh=True),
        lambda own, who: remove_member(own, actor=who, is_fresh=True),
        lambda own, who: leave_organization(own.organization, actor=who),
    ],
)
def test_of_two_admins_leaving_concurrently_one_stays(cast: Cast, act: Callable[[Membership, User], None]) -> None:
    Membership.objects.filter(user=cast.viewer).update(role="admin")
    mine, theirs = get_membership(cast.admin), get_membership(cast.viewer)
    others = Others()

    with transaction.atomic():
        act(mine, cast.admin)
        assert waits_for_a_lock(others.start(lambda: act(theirs, cast.viewer)))

    (error,) = others.wait()
    assert (error.code, error.status) == ("last_admin", 409)
    assert roles()["viewer"] == "admin"
    assert len(audited()) == 1


@pytest.mark.django_db(transaction=True)
def test_an_admin_demoted_meanwhile_is_refused(cast: Cast) -> None:
    Membership.objects.filter(user=cast.viewer).update(role="admin")
    mine, theirs = get_membership(cast.admin), get_membership(cast.viewer)
    others = Others()

    with transaction.atomic():
        change_role(theirs, actor=cast.admin, role=Role.VIEWER, is_fresh=True)
        assert waits_for_a_lock(
            others.start(lambda: change_role(mine, actor=cast.viewer, role=Role.VIEWER, is_fresh=True))
        )

    (error,) = others.wait()
    assert (error.code, error.status) == ("forbidden", 403)
    assert roles()["admin"] == "admin"


@pytest.mark.django_db(transaction=True)
def test_organizations_adding_one_address_share_the_account(cast: Cast) -> None:
    Membership.objects.filter(user=cast.outsider).update(role="admin")
    others = Others()

    def add(organization: Organization, actor: User) -> Added:
        return add_member(organization, actor=actor, email="new@example.com", role=Role.VIEWER, is_fresh=True)

    with transaction.atomic():
        add(cast.acme, cast.admin)
        assert waits_for_a_lock(others.start(lambda: add(cast.globex, cast.outsider)))

    (added,) = others.wait()
    assert added.membership.user == User.objects.get(email="new@example.com")
    assert added.membership.user.memberships.count() == 2
    assert AuditEvent.objects.filter(kind=AuditKind.PERSON_CREATED).count() == 1


# --- permissions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "status"),
    [("viewer", 403), ("operator", 403), ("consultant", 403), ("outsider", 404), ("stranger", 404), ("staff", 404)],
)
def test_non_admins_change_nothing(cast: Cast, client_for: SignIn, who: str, status: int) -> None:
    """Nor do staff without a membership. The isolation matrix covers anonymous people, and all routes and methods."""
    client = client_for(getattr(cast, who))

    answers = [
        client.post(NEW, form()),
        client.post(get_page_url(cast.viewer, "role"), {"role": "admin"}),
        client.post(get_page_url(cast.admin, "role"), {"role": "viewer"}),
        client.post(get_page_url(cast.viewer, "remove")),
    ]

    assert [answer.status_code for answer in answers] == [status] * 4
    assert nothing_happened()
    reads = client.get(MEMBERS).status_code
    assert reads == (404 if status == 404 else 200)


def test_another_organizations_member_is_not_found(cast: Cast, admin: Client) -> None:
    theirs = get_membership(cast.outsider)

    answers = [
        admin.post(f"{MEMBERS}{theirs.pk}/role", {"role": "viewer"}),
        admin.get(f"{MEMBERS}{theirs.pk}/remove"),
        admin.post(f"{MEMBERS}{theirs.pk}/remove"),
        admin.post(f"{MEMBERS}{10**30}/remove"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert get_membership(cast.outsider).role == "operator"


def test_the_commands_check_the_role_themselves(cast: Cast) -> None:
    own = get_membership(cast.viewer)

    for act in (
        lambda: change_role(own, actor=cast.operator, role=Role.ADMIN, is_fresh=True),
        lambda: remove_member(own, actor=cast.viewer, is_fresh=True),
        lambda: add_member(cast.acme, actor=cast.operator, email="new@example.com", role=Role.VIEWER, is_fresh=True),
    ):
        with pytest.raises(PortalError) as refused:
            act()
        assert refused.value.status == 403
    assert nothing_happened()
