"""API tokens: their pages, what a request with one may do, and what ends one."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.access import get_scope
from portal.accounts.tokens import hash_secret
from portal.errors import API_PREFIXES
from portal.models import ApiToken, AuditEvent, Membership, Organization, Role, Scope, TokenKind, User
from tests.conftest import Cast, audited_changes, sign_in
from tests.portal.test_policies import routes

SignIn = Callable[[User], Client]

SECRET = "aop_" + "a" * 43
AGENT = {"name": "Digest", "image": "registry.example.com/digest:v1"}
# A request of each scope that needs no AWS: a refusal by state (404, 409) proves that scope and role were accepted.
REQUESTS: dict[Scope, tuple[str, str, Any]] = {
    Scope.READ: ("get", "/api/v1/agents", None),
    Scope.DEPLOY: ("post", "/api/v1/agents", AGENT),
    Scope.UPGRADE: ("post", "/api/v1/deployments/upgrade", {"service": "agent"}),
    Scope.APPROVE: ("post", "/api/v1/deployments/upgrade/none/continue", {}),
}


def make_token(user: User, organization: Organization, *scopes: Scope, secret: str = SECRET, **fields: Any) -> ApiToken:
    values = {"kind": TokenKind.PERSONAL, "name": "Pipeline", "expires_at": timezone.now() + timedelta(days=1)} | fields
    return ApiToken.objects.create(
        organization=organization,
        user=user,
        secret_hash=hash_secret(secret),
        hint=secret[:8],
        scopes=list(scopes or Scope),
        **values,
    )


def bearer(secret: str = SECRET) -> Client:
    """Return a client of a pipeline: no cookie, CSRF checks as in production."""
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {secret}"})


def send(client: Client, scope: Scope) -> Any:
    method, path, body = REQUESTS[scope]
    return getattr(client, method)(path, body, content_type="application/json")


# --- scopes and roles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", Scope)
@pytest.mark.parametrize("role", Role)
def test_a_token_may_what_scope_and_role_allow(cast: Cast, held: Scope, role: Role) -> None:
    make_token(getattr(cast, role), cast.initech, held)
    Membership.objects.create(
        organization=cast.initech, user=getattr(cast, role), role=role, accepted_at=timezone.now() - timedelta(days=9)
    )
    client = bearer()

    for scope in Scope:
        response = send(client, scope)

        if scope is not held:
            assert (response.status_code, response.json()["code"]) == (403, "scope_missing")
            assert response.json()["scope"] == scope
        elif not role.includes(scope.needed_role) and scope is not Scope.APPROVE:
            assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        else:
            expected = {Scope.READ: 200, Scope.DEPLOY: 201, Scope.UPGRADE: 400, Scope.APPROVE: 400}
            assert response.status_code == expected[scope], response.json()


def test_each_unsafe_route_names_a_scope_or_takes_no_token() -> None:
    refusing = {
        route
        for route, view in routes()
        if ("/" + route).startswith(API_PREFIXES)
        and {"post", "patch", "delete"}
        & set(getattr(view.cls, "http_method_names", []) if hasattr(view, "cls") else [])
        and {"post", "patch", "delete"} & set(dir(view.cls))
        and get_scope(view, "POST") is None
    }

    assert refusing == {"api/v1/auth/login", "api/v1/auth/logout", "api/v1/auth/reauthenticate"}


def test_a_token_reaches_its_own_organization_only(cast: Cast) -> None:
    make_token(cast.consultant, cast.acme)
    client = bearer()

    named = client.get("/api/v1/agents", headers={"X-Organization": "globex"})
    session = client.get("/api/v1/auth/session").json()

    assert named.status_code == 404
    assert [each["slug"] for each in session["organizations"]] == ["acme"]
    assert client.get("/api/v1/agents").json()["organization"] == "acme"


@pytest.mark.parametrize("path", ["/o/acme/", "/account/", "/admin/", "/o/acme/activity.csv"])
def test_a_token_opens_no_page(cast: Cast, path: str) -> None:
    make_token(cast.admin, cast.acme)

    assert bearer().get(path, headers={"Accept": "*/*"}).status_code == 401


@pytest.mark.parametrize("route", ["login", "logout", "reauthenticate"])
def test_a_token_is_no_session(cast: Cast, route: str) -> None:
    make_token(cast.admin, cast.acme)

    response = bearer().post(f"/api/v1/auth/{route}", {}, content_type="application/json")

    assert (response.status_code, response.json()["code"]) == (403, "token_not_accepted")


def test_a_token_counts_as_never_reauthenticated(cast: Cast) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(requires_reauthentication=True)
    make_token(cast.operator, cast.acme)

    response = bearer().post("/api/v1/deployments/upgrade", {"service": "all"}, content_type="application/json")

    assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
    assert "a token cannot give" in response.json()["detail"]


# --- session and CSRF ----------------------------------------------------------------------------------------------


def test_beside_a_session_the_session_holds_and_needs_csrf(cast: Cast) -> None:
    make_token(cast.operator, cast.acme)
    client = bearer()
    sign_in(client, cast.outsider)

    read, write = send(client, Scope.READ), send(client, Scope.DEPLOY)

    assert read.json()["organization"] == "globex"
    assert (write.status_code, write.json()["code"]) == (403, "csrf_failed")


def test_an_ended_session_leaves_the_token(cast: Cast) -> None:
    make_token(cast.operator, cast.acme)
    client = bearer()
    client.cookies["sessionid"] = "0" * 32

    assert send(client, Scope.DEPLOY).status_code == 201


@pytest.mark.parametrize("header", ["Bearer other", f"Basic {SECRET}", f"Token {SECRET}"])
def test_another_authorization_header_is_ignored(cast: Cast, header: str) -> None:
    make_token(cast.operator, cast.acme)

    response = Client(headers={"Authorization": header}).get("/api/v1/agents")

    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("path", ["/api/v1/agents", "/o/acme/", "/"])
def test_a_token_in_an_address_is_refused(cast: Cast, client_for: SignIn, path: str) -> None:
    make_token(cast.operator, cast.acme)

    response = client_for(cast.operator).get(f"{path}?token={SECRET}")

    assert response.status_code == 400
    assert SECRET not in response.content.decode()


# --- what ends a token ---------------------------------------------------------------------------------------------


def end_by(cast: Cast, token: ApiToken, what: str) -> None:
    """End the token's access in one of the ways that must hold at the next request."""
    member = Membership.objects.filter(user=cast.operator, organization=cast.acme)
    if what == "left and came back":
        member.update(accepted_at=timezone.now())
    elif what == "left":
        member.delete()
    elif what == "switched off":
        User.objects.filter(pk=cast.operator.pk).update(is_active=False)
    elif what == "suspended":
        Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    elif what == "expired":
        ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    else:
        sign_in(client := Client(), cast.operator)
        assert client.post(f"/account/tokens/{token.pk}/revoke").status_code == 302


@pytest.mark.parametrize("what", ["revoked", "expired", "left", "left and came back", "switched off", "suspended"])
def test_the_next_request_is_refused_after_it_is(cast: Cast, what: str) -> None:
    token = make_token(cast.operator, cast.acme)
    client = bearer()
    assert send(client, Scope.READ).status_code == 200

    end_by(cast, token, what)
    refused = send(client, Scope.READ)

    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert refused["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert send(client, Scope.DEPLOY).status_code in (401, 403)


def test_an_organization_with_required_mfa_refuses_it(cast: Cast) -> None:
    make_token(cast.operator, cast.acme)
    Organization.objects.filter(pk=cast.acme.pk).update(requires_mfa=True)

    response = send(bearer(), Scope.READ)

    assert (response.status_code, response.json()["code"]) == (403, "mfa_required_by_organization")


def test_a_lower_role_holds_at_the_next_request(cast: Cast) -> None:
    make_token(cast.operator, cast.acme)
    Membership.objects.filter(user=cast.operator, organization=cast.acme).update(role=Role.VIEWER)

    assert send(bearer(), Scope.DEPLOY).json()["code"] == "forbidden"


def test_the_last_use_is_written_at_most_once_in_five_minutes(cast: Cast) -> None:
    token = make_token(cast.operator, cast.acme)
    client = bearer()

    send(client, Scope.READ)
    token.refresh_from_db()
    first = token.last_used_at
    send(client, Scope.READ)
    token.refresh_from_db()
    assert first
    assert token.last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=6))
    send(client, Scope.READ)
    token.refresh_from_db()

    assert token.last_used_at
    assert token.last_used_at >= first


# --- pages and audit trail -----------------------------------------------------------------------------------------


def make_on_page(client: Client, path: str, *scopes: str, **more: str) -> Any:
    form = {"idempotency_key": "k1", "name": "Pipeline", "scopes": scopes, "days": "30"} | more
    return client.post(path, form)


@pytest.mark.parametrize(
    ("path", "kind"), [("/account/tokens/new", "personal"), ("/o/acme/settings/tokens/new", "organization")]
)
def test_a_token_is_shown_once_and_stored_hashed(cast: Cast, client_for: SignIn, path: str, kind: str) -> None:
    client = client_for(cast.admin)

    shown = make_on_page(client, path, "read", organization="acme")
    again = make_on_page(client, path, "read", organization="acme")

    (secret,) = set(re.findall(r"aop_[\w-]{43}", shown.content.decode()))
    token = ApiToken.objects.get()
    assert (token.secret_hash, token.kind, token.scopes) == (hash_secret(secret), kind, ["read"])
    assert shown["Cache-Control"] == "no-store"
    assert (again.status_code, ApiToken.objects.count()) == (302, 1)
    assert secret not in client.get(again["Location"]).content.decode()
    assert bearer(secret).get("/api/v1/agents").status_code == 200
    assert secret not in "".join(str(row) for row in AuditEvent.objects.values_list("data", "subject"))


def test_a_new_token_expires_in_the_persons_zone(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.admin)
    client.post("/account/times", {"zone": "Asia/Tokyo"})

    shown = make_on_page(client, "/account/tokens/new", "read", organization="acme").content.decode()

    expires_at = ApiToken.objects.get().expires_at + timedelta(hours=9)
    assert f"{expires_at:%Y-%m-%d %H:%M} JST." in shown


def test_making_a_token_needs_a_reauthentication(cast: Cast) -> None:
    client = sign_in(Client(), cast.admin, is_fresh=False)

    response = make_on_page(client, "/account/tokens/new", "read", organization="acme")

    assert response["Location"].startswith("/accounts/reauthenticate/")
    assert not ApiToken.objects.exists()


def test_an_organization_token_cannot_approve(cast: Cast, client_for: SignIn) -> None:
    response = make_on_page(client_for(cast.admin), "/o/acme/settings/tokens/new", "read", "approve")

    assert response.status_code == 422
    assert not ApiToken.objects.exists()
    make_token(cast.admin, cast.acme, kind=TokenKind.ORGANIZATION)
    assert send(bearer(), Scope.APPROVE).json()["code"] == "scope_missing"
    assert send(bearer(), Scope.DEPLOY).status_code == 201


def test_a_viewer_makes_only_tokens_that_read(cast: Cast, client_for: SignIn) -> None:
    response = make_on_page(client_for(cast.viewer), "/account/tokens/new", "read", "deploy", organization="acme")

    assert response.status_code == 422
    assert "deploy needs operator" in response.content.decode()


def test_nobody_revokes_the_token_of_somebody_else(cast: Cast, client_for: SignIn) -> None:
    token = make_token(cast.operator, cast.acme)

    assert client_for(cast.consultant).post(f"/account/tokens/{token.pk}/revoke").status_code == 404
    assert client_for(cast.viewer).post(f"/o/acme/settings/tokens/{token.pk}/revoke").status_code == 404
    assert client_for(cast.admin).post(f"/o/acme/settings/tokens/{token.pk}/revoke").status_code == 302
    assert list(audited_changes().values_list("kind", "actor_email")) == [("token.revoked", cast.admin.email)]


def test_the_audit_trail_names_the_token(cast: Cast) -> None:
    token = make_token(cast.operator, cast.acme)

    send(bearer(), Scope.DEPLOY)

    row = audited_changes().get()
    assert row.actor_email == cast.operator.email
    assert (row.data["token"], row.data["token_id"]) == ("Pipeline", str(token.pk))
