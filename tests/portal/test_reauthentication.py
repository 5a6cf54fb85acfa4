"""Re-authentication: what asks for it, how it is given, and how long it holds."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client

from portal.accounts.sessions import SessionStore
from portal.models import AuditEvent, Membership, Organization, Role, User
from tests.conftest import Cast, get_session, sign_in
from tests.portal.conftest import ApiClient

MEMBERS = "/o/acme/settings/members/"
ROUTE = "/api/v1/auth/reauthenticate"
FORM = {"idempotency_key": "form-1", "email": "new@example.com", "role": "operator"}


@pytest.fixture
def admin(cast: Cast) -> Client:
    """Return a client of the admin, signed in on the sign-in page just now."""
    client = Client()
    client.post("/accounts/login/", {"login": cast.admin.email, "password": cast.password})
    return client


def get_url(cast: Cast, user: User, command: str) -> str:
    return f"{MEMBERS}{Membership.objects.get(user=user, organization=cast.acme).pk}/{command}"


def confirm(client: Client, response: Any, password: str) -> Any:
    """Give the password on the page that the response leads to, with its hidden fields."""
    page = client.get(response["Location"])
    then = page.context["redirect_field_value"]
    return client.post("/accounts/reauthenticate/", {"password": password, "next": then})


def test_adding_a_member_asks_and_keeps_what_was_typed(admin: Client, cast: Cast) -> None:
    asked = admin.post(f"{MEMBERS}new", FORM)
    assert asked["Location"].startswith("/accounts/reauthenticate/?next=")
    assert not Membership.objects.filter(user__email="new@example.com").exists()

    done = confirm(admin, asked, cast.password)

    assert (done.status_code, done["Location"]) == (302, MEMBERS)
    assert Membership.objects.get(user__email="new@example.com").role == Role.OPERATOR


def test_changing_a_role_asks_on_any_page_of_the_list(admin: Client, cast: Cast) -> None:
    asked = admin.post(get_url(cast, cast.viewer, "role") + "?skip=50", {"role": "admin"})

    done = confirm(admin, asked, cast.password)

    assert done["Location"] == f"{MEMBERS}?skip=50"
    assert Membership.objects.get(user=cast.viewer).role == Role.ADMIN


def test_removing_a_member_asks(admin: Client, cast: Cast) -> None:
    asked = admin.post(get_url(cast, cast.viewer, "remove"))
    assert Membership.objects.filter(user=cast.viewer).exists()

    confirm(admin, asked, cast.password)

    assert not Membership.objects.filter(user=cast.viewer).exists()


def test_a_wrong_password_changes_nothing(admin: Client, cast: Cast) -> None:
    asked = admin.post(get_url(cast, cast.viewer, "remove"))

    refused = confirm(admin, asked, "wrong")

    assert refused.status_code == 200
    assert Membership.objects.filter(user=cast.viewer).exists()


def test_it_holds_for_five_minutes(admin: Client, cast: Cast, time_machine: Any) -> None:
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client = sign_in(Client(), cast.admin)
    time_machine.shift(299)
    within = client.post(f"{MEMBERS}new", FORM)
    time_machine.shift(1)
    after = client.post(f"{MEMBERS}new", FORM | {"idempotency_key": "form-2", "email": "another@example.com"})

    assert (within["Location"], after["Location"][:26]) == (MEMBERS, "/accounts/reauthenticate/?")


def test_a_suspended_request_is_stored_without_its_cookies(admin: Client) -> None:
    admin.post(f"{MEMBERS}new", FORM)

    stored = str(SessionStore().decode(Session.objects.get().session_data))

    assert "new%40example.com" in stored
    assert admin.cookies["sessionid"].value not in stored
    assert "HTTP_COOKIE" not in stored


def test_a_fragment_moves_the_whole_page(admin: Client, cast: Cast) -> None:
    response = admin.post(get_url(cast, cast.viewer, "role"), {"role": "admin"}, headers={"HX-Request": "true"})

    assert response.status_code == 403
    assert response["HX-Redirect"].startswith("/accounts/reauthenticate/?next=")


@pytest.mark.parametrize("is_fresh", [False, True])
def test_the_switch_itself_needs_it(cast: Cast, is_fresh: bool) -> None:
    client = sign_in(Client(), cast.admin, is_fresh=is_fresh)
    body = {"name": "requires_reauthentication", "on": "1"}

    response = client.post("/o/acme/settings/safeguards", body)

    assert response["Location"].startswith("/o/acme/settings/" if is_fresh else "/accounts/reauthenticate/")
    assert Organization.objects.get(pk=cast.acme.pk).requires_reauthentication is is_fresh
    assert AuditEvent.objects.count() == int(is_fresh)


def test_an_unknown_safeguard_is_404(cast: Cast) -> None:
    assert sign_in(Client(), cast.admin).post("/o/acme/settings/safeguards", {"name": "is_active"}).status_code == 404


# --- the route -----------------------------------------------------------------------------------------------------


def is_fresh(api: ApiClient) -> bool:
    records = get_session(api)["account_authentication_methods"]
    return any(record.get("reauthenticated") for record in records)


def test_the_route_takes_the_password(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    before = is_fresh(api)

    response = api.send(ROUTE, {"password": cast.password})

    assert (before, response.status_code, is_fresh(api)) == (False, 204, True)


def test_the_route_takes_a_code(api: ApiClient, cast: Cast, authenticator: Callable[[User], Callable[[], str]]) -> None:
    code = authenticator(cast.operator)
    api.sign_in(cast.operator, cast.password, code=code())

    wrong, right = api.send(ROUTE, {"code": "000000"}), api.send(ROUTE, {"code": code()})

    assert (wrong.status_code, wrong.json()["code"]) == (403, "invalid_code")
    assert (right.status_code, is_fresh(api)) == (204, True)


@pytest.mark.parametrize("body", [{}, {"password": "a", "code": "b"}, {"pasword": "a"}, {"password": 7}])
def test_the_route_refuses_another_body(api: ApiClient, cast: Cast, body: dict[str, Any]) -> None:
    api.sign_in(cast.operator, cast.password)

    response = api.send(ROUTE, body)

    assert (response.status_code, is_fresh(api)) in {(400, False), (403, False)}


def test_wrong_passwords_lock_the_person(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    for _ in range(5):
        refused = api.send(ROUTE, {"password": "wrong"})
        assert (refused.status_code, refused.json()["code"]) == (403, "invalid_credentials")

    response = api.send(ROUTE, {"password": cast.password})

    assert (response.status_code, response.json()["code"], is_fresh(api)) == (429, "too_many_attempts", False)
    assert int(response["Retry-After"]) >= 60


def test_attempts_of_any_kind_are_limited(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    cache.clear()

    statuses = [api.send(ROUTE, {}).status_code for _ in range(11)]

    assert statuses == [400] * 10 + [429]


def test_anonymous_cannot_reauthenticate(api: ApiClient, cast: Cast) -> None:
    assert api.send(ROUTE, {"password": cast.password}).status_code == 401
