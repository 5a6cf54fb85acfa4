"""A membership counts once the person accepts it; people leave, and choose a default organization."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from portal.members.approvals import find_approvers
from portal.members.commands import add_member
from portal.models import AuditEvent, Membership, Organization, Role, User
from tests.conftest import Cast, make_person
from tests.portal.conftest import get_main

SignIn = Callable[[User], Client]
UPGRADES = "/api/v1/deployments/upgrades"
PASSWORD = "a-long-password-of-mine-1"


def invite(cast: Cast, user: User, organization: Organization | None = None, *, role: Role = Role.ADMIN) -> Membership:
    organization = organization or cast.globex
    return Membership.objects.create(organization=organization, user=user, role=role)


def get_slugs(client: Client) -> list[str]:
    return [each["slug"] for each in client.get("/api/v1/auth/session").json()["organizations"]]


def get_kinds() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.order_by("id").values_list("kind", "actor_email"))


def set_password(client: Client, link: str) -> None:
    form = client.get(link, follow=True)
    client.post(form.redirect_chain[-1][0], {"password1": PASSWORD, "password2": PASSWORD})


def test_an_invitation_gives_nothing_until_it_is_accepted(cast: Cast, client_for: SignIn) -> None:
    client, invitation = client_for(cast.viewer), invite(cast, cast.viewer)

    before = [client.get(path).status_code for path in ("/o/globex/", "/o/globex/settings/members/", UPGRADES)]
    named = client.get(UPGRADES, headers={"X-Organization": "globex"})

    assert (before, named.status_code, get_slugs(client)) == ([404, 404, 200], 404, ["acme"])
    assert "Globex" in get_main(client.get("/"))
    assert cast.viewer.email not in find_approvers(cast.globex)
    response = client.post(f"/account/invitations/{invitation.pk}/accept")
    assert response["Location"] == "/o/globex/"
    assert get_slugs(client) == ["acme", "globex"]
    assert client.get("/o/globex/settings/members/").status_code == 200
    assert get_kinds() == [("membership.accepted", cast.viewer.email)]


def test_an_invitation_elsewhere_breaks_no_api_client(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    Membership.objects.filter(user=cast.outsider).update(role=Role.ADMIN)
    add_member(cast.globex, actor=cast.outsider, email=cast.viewer.email, role=Role.VIEWER, is_fresh=True)

    response = client.get(UPGRADES)

    assert (response.status_code, response.json()["organization"]) == (200, "acme")


def test_a_declined_invitation_is_gone(cast: Cast, client_for: SignIn) -> None:
    client, invitation = client_for(cast.viewer), invite(cast, cast.viewer)

    client.post(f"/account/invitations/{invitation.pk}/decline")

    assert not Membership.objects.filter(pk=invitation.pk).exists()
    assert client.post(f"/account/invitations/{invitation.pk}/accept").status_code == 404
    assert get_kinds() == [("membership.declined", cast.viewer.email)]


@pytest.mark.parametrize("command", ["accept", "decline"])
def test_nobody_answers_anothers_invitation(cast: Cast, client_for: SignIn, command: str) -> None:
    invitation = invite(cast, cast.viewer)
    accepted = Membership.objects.get(user=cast.viewer, organization=cast.acme)

    theirs = client_for(cast.admin).post(f"/account/invitations/{invitation.pk}/{command}")
    twice = client_for(cast.viewer).post(f"/account/invitations/{accepted.pk}/{command}")

    assert (theirs.status_code, twice.status_code) == (404, 404)
    assert Membership.objects.filter(user=cast.viewer).count() == 2
    assert Membership.objects.get(pk=invitation.pk).accepted_at is None


def test_the_first_password_accepts_the_invitation(cast: Cast, client: Client, client_for: SignIn) -> None:
    admin = client_for(cast.admin)
    form = {"idempotency_key": "form-1", "email": "new@example.com", "role": "viewer"}
    admin.post("/o/acme/settings/members/new", form)
    link = re.search(r"http://testserver(/accounts/password/reset/key/\S+)", mail.outbox[0].body)
    assert link
    membership = Membership.objects.get(user__email="new@example.com")
    assert membership.accepted_at is None

    set_password(client, link[1])

    membership.refresh_from_db()
    assert membership.accepted_at is not None
    assert ("membership.accepted", "new@example.com") in get_kinds()


def test_a_first_password_accepts_none_of_several(cast: Cast, client: Client) -> None:
    user = User.objects.create_user("new@example.com")
    invite(cast, user)
    invite(cast, user, cast.acme)
    client.post("/accounts/password/reset/", {"email": user.email})

    set_password(client, mail.outbox[0].body.split("http://testserver")[1].split()[0])

    assert not Membership.objects.accepted().filter(user=user).exists()


def test_a_later_password_accepts_nothing(cast: Cast, client: Client) -> None:
    invite(cast, cast.stranger)
    client.post("/accounts/password/reset/", {"email": cast.stranger.email})

    set_password(client, mail.outbox[0].body.split("http://testserver")[1].split()[0])

    assert client.post("/accounts/login/", {"login": cast.stranger.email, "password": PASSWORD}).status_code == 302
    assert not Membership.objects.accepted().filter(user=cast.stranger).exists()


def test_an_invited_admin_does_not_replace_the_last_one(cast: Cast, client_for: SignIn) -> None:
    invite(cast, cast.stranger, cast.acme)

    response = client_for(cast.admin).post("/account/organizations/acme/leave")

    assert response.status_code == 409
    assert "is the only admin of Acme Robotics who can sign in." in get_main(response)


@pytest.mark.parametrize("who", ["viewer", "operator", "admin"])
def test_everybody_but_the_last_admin_can_leave(cast: Cast, client_for: SignIn, who: str) -> None:
    other = make_person("other@example.com")
    Membership.objects.create(organization=cast.acme, user=other, role=Role.ADMIN, accepted_at=timezone.now())
    user: User = getattr(cast, who)
    client = client_for(user)
    client.post("/account/default-organization", {"organization": "acme"})

    asked = client.get("/account/organizations/acme/leave")
    response = client.post("/account/organizations/acme/leave")

    assert "Leave Acme Robotics?" in get_main(asked)
    assert (response.status_code, response["Location"]) == (302, "/account/")
    assert get_slugs(client) == []
    assert client.get("/account/organizations/acme/leave").status_code == 404
    assert get_kinds() == [("membership.left", user.email)]
    user.refresh_from_db()
    assert user.default_organization_id is None


def test_the_default_organization_is_used_where_none_is_named(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.consultant)
    none = client.get(UPGRADES)

    client.post("/account/default-organization", {"organization": "globex"})
    chosen, named = client.get(UPGRADES), client.get(UPGRADES, headers={"X-Organization": "acme"})
    client.post("/account/default-organization", {"organization": ""})
    again = client.get(UPGRADES)

    assert (none.status_code, none.json()["code"]) == (400, "organization_required")
    assert [each.json()["organization"] for each in (chosen, named)] == ["globex", "acme"]
    assert again.json()["code"] == "organization_required"


@pytest.mark.parametrize("ended_by", ["suspension", "removal by staff"])
def test_a_lost_default_is_replaced_by_no_other(cast: Cast, client_for: SignIn, ended_by: str) -> None:
    client = client_for(cast.consultant)
    client.post("/account/default-organization", {"organization": "globex"})
    if ended_by == "suspension":
        Organization.objects.filter(slug="globex").update(is_active=False)
    else:
        Membership.objects.filter(user=cast.consultant, organization=cast.globex).delete()

    response = client.get(UPGRADES)

    assert (response.status_code, response.json()["code"]) == (400, "organization_required")


@pytest.mark.parametrize("slug", ["globex", "nowhere"])
def test_only_an_own_organization_can_be_the_default(cast: Cast, client_for: SignIn, slug: str) -> None:
    response: Any = client_for(cast.viewer).post("/account/default-organization", {"organization": slug})

    assert response.status_code == 404
    cast.viewer.refresh_from_db()
    assert cast.viewer.default_organization_id is None
