"""Route policies: each route declares who may call it, and the declaration is enforced (portal/access.py)."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from portal.access import LIBRARY_POLICIES, Policy, get_policy
from portal.errors import API_PREFIXES
from portal.models import User
from tests.conftest import Cast

SignedIn = Callable[[User], Client]
View = Callable[..., Any]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
UUID = "00000000-0000-4000-8000-000000000000"
EXAMPLES = {"slug": "acme", "int": "1", "uuid": UUID, "any_uuid": UUID, "str": "x", "path": "x"}
# Routes by regular expression have no converters to fill in.
EXAMPLE_PATHS = {
    r"accounts/^confirm-email/(?P<key>[-:\w]+)/$": "accounts/confirm-email/x/",
    r"accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": "accounts/password/reset/key/1-x/",
    r"admin/(?P<url>.*)$": "admin/x",
}


def routes(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[tuple[str, View]]:
    """Yield every route of the URLconf with its view."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            assert isinstance(pattern, URLPattern)
            yield prefix + str(pattern.pattern), pattern.callback


def get_path(route: str) -> str:
    """Return a path that the route matches."""
    if route in EXAMPLE_PATHS:
        return "/" + EXAMPLE_PATHS[route]
    if route.startswith("admin/^(?P<app_label>"):
        return "/admin/portal/"
    filled = re.sub(r"<(?:(\w+):)?\w+>", lambda found: EXAMPLES[found[1] or "str"], route)
    assert "(?P" not in filled, f"Give an example of {route} in EXAMPLE_PATHS."
    return "/" + filled


def paths_with(*policies: Policy) -> list[str]:
    return [get_path(route) for route, view in routes() if get_policy(view) in policies]


def test_every_route_declares_a_policy() -> None:
    undeclared = [route for route, view in routes() if get_policy(view) is None]

    assert undeclared == []


def test_every_policy_of_a_library_belongs_to_a_route() -> None:
    views = [getattr(view, "view_class", view) for _, view in routes()]
    named = {f"{view.__module__}.{getattr(view, '__qualname__', '')}" for view in views}

    assert set(LIBRARY_POLICIES) <= named


def test_the_list_of_public_routes_is_short() -> None:
    """Making another route public requires a change of this list, which a reviewer will question."""
    public = {get_path(route) for route, view in routes() if get_policy(view) is Policy.PUBLIC}

    assert public == {
        "/accounts/login/",
        "/accounts/logout/",
        "/accounts/inactive/",
        "/accounts/signup/",
        "/accounts/password/reset/",
        "/accounts/password/reset/done/",
        "/accounts/password/reset/key/1-x/",
        "/accounts/password/reset/key/done/",
        "/accounts/2fa/authenticate/",
        "/accounts/2fa/webauthn/login/",
        "/api/v1/auth/session",
        "/api/v1/auth/login",
        "/api/schema",
        "/api/docs",
        "/health",
        "/livez",
        "/metrics",  # requires its own token
        "/readyz",
        "/csp-reports",  # counts, and stores nothing
        "/.well-known/security.txt",
    }


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_anonymous_gets_nothing_but_the_public_routes(client: Client, db: None, method: str) -> None:
    for path in paths_with(Policy.SIGNED_IN, Policy.VIEWER, Policy.OPERATOR, Policy.ADMIN, Policy.STAFF):
        response = getattr(client, method)(path, headers=BROWSER)

        if path.startswith(API_PREFIXES):
            assert (path, response.status_code) == (path, 401)
            assert response.json()["code"] == "not_authenticated"
        else:
            assert (path, response.status_code) == (path, 302)
            assert response["Location"].startswith("/accounts/login/?next=")


@pytest.mark.parametrize("headers", [{"Accept": "*/*"}, {"Accept": "text/csv"}, {}])
@pytest.mark.parametrize("path", ["/o/acme/upgrades/history.csv", "/o/acme/activity.csv", "/o/acme/"])
def test_anonymous_script_is_not_sent_to_a_page(client: Client, db: None, path: str, headers: dict[str, str]) -> None:
    response = client.get(path, headers=headers)

    is_page = not headers and not path.endswith(".csv")
    assert response.status_code == (302 if is_page else 401)
    assert is_page or response.json()["code"] == "not_authenticated"


def test_anonymous_fragment_moves_the_whole_page_to_sign_in(client: Client, db: None) -> None:
    response = client.get("/o/acme/", headers={"HX-Request": "true"})

    assert (response.status_code, response["HX-Redirect"]) == (401, "/accounts/login/")


@pytest.mark.parametrize("method", ["get", "post"])
def test_sign_in_leads_back_to_the_page_of_a_fragment(client: Client, cast: Cast, method: str) -> None:
    page = "/o/acme/deployments/?status=failed&q=a%26b+c"
    headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver{page}#rows"}

    refused = getattr(client, method)("/o/acme/deployments/bulk", headers=headers)
    form = client.get(refused["HX-Redirect"])
    sent = {"login": cast.operator.email, "password": cast.password, "next": form.context["redirect_field_value"]}
    signed_in = client.post("/accounts/login/", sent)

    assert (refused.status_code, refused.content) == (401, b"")
    assert refused["HX-Redirect"] == f"/accounts/login/?{urlencode({'next': page})}"
    assert (signed_in.status_code, signed_in["Location"]) == (302, page)


def test_sign_in_leads_back_to_the_page_of_a_form(client: Client, cast: Cast) -> None:
    """The address of the form itself may take no GET."""
    page = "/o/acme/settings/members/?skip=50"
    command = "/o/acme/settings/members/1/role"

    sent = client.post(command, headers={"Referer": f"http://testserver{page}"})
    foreign = client.post(command, headers={"Referer": "https://evil.example/o/acme/"})

    assert sent["Location"] == f"/accounts/login/?{urlencode({'next': page})}"
    assert foreign["Location"] == f"/accounts/login/?{urlencode({'next': command})}"


def test_sign_in_leads_back_to_an_address_that_htmx_encoded(client: Client, db: None) -> None:
    """htmx encodes the URL if it contains a character that a header cannot."""
    page = "/o/acme/deployments/?q=é"
    named = {"HX-Current-URL": quote(f"http://testserver{page}"), "HX-Current-URL-URI-AutoEncoded": "true"}

    response = client.get("/o/acme/", headers={"HX-Request": "true"} | named)

    assert response["HX-Redirect"] == f"/accounts/login/?{urlencode({'next': page})}"


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "/o/acme/",
        "//evil.example/",
        "https://evil.example/o/acme/",
        "http://evil.example/o/acme/",
        "http://testserver.evil.example/",
        "http://testserver@evil.example/",
        "http://testserver:8443/o/acme/",
        "http://testserver\\@evil.example/",
        "https://testserver/o/acme/",
        "http://testserver//evil.example/",
        "http://testserver///evil.example/",
        "http://testserver/\\evil.example/",
        "http://testserver/\t/evil.example/",
        "http://testserver",
        "javascript:alert(1)",
        "http:evil.example",
        "http://[evil",
    ],
)
def test_sign_in_leads_to_no_forged_address(client: Client, db: None, forged: str) -> None:
    response = client.get("/o/acme/", headers={"HX-Request": "true", "HX-Current-URL": forged})

    assert (response.status_code, response["HX-Redirect"]) == (401, "/accounts/login/")


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_closed_route_is_404(client_for: SignedIn, cast: Cast, method: str) -> None:
    for client in (Client(), client_for(cast.operator), client_for(cast.staff)):
        for path in paths_with(Policy.CLOSED):
            assert (path, getattr(client, method)(path).status_code) == (path, 404)


@pytest.mark.parametrize("method", ["get", "post"])
def test_only_staff_open_the_admin(client_for: SignedIn, cast: Cast, method: str) -> None:
    client = client_for(cast.admin)

    for path in paths_with(Policy.STAFF):
        assert (path, getattr(client, method)(path).status_code) == (path, 403)


def test_a_superuser_without_staff_cannot_open_the_admin(client_for: SignedIn, cast: Cast) -> None:
    User.objects.filter(pk=cast.admin.pk).update(is_superuser=True)

    assert client_for(cast.admin).get("/admin/").status_code == 403


def test_a_stranger_gets_404_for_every_page_of_an_organization(client_for: SignedIn, cast: Cast) -> None:
    client = client_for(cast.stranger)

    for path in paths_with(Policy.VIEWER, Policy.OPERATOR, Policy.ADMIN):
        assert (path, client.get(path).status_code) in {(path, 404), (path, 405)}


@pytest.mark.parametrize("person", ["stranger", "admin", "staff", None])
def test_a_view_without_a_policy_is_refused(
    client_for: SignedIn, cast: Cast, settings: Any, person: str | None
) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_without_policy"
    client = client_for(getattr(cast, person)) if person else Client()

    page, api = client.get("/undeclared/"), client.get("/api/v1/undeclared")

    assert (page.status_code, api.status_code) == (403, 403)
    assert api.json()["code"] == "no_policy"


def test_staff_need_two_factors_in_production(client_for: SignedIn, cast: Cast, settings: Any) -> None:
    settings.LOCAL = False
    client = client_for(cast.staff)

    for path in ("/admin/", "/admin/login/", "/admin/portal/organization/"):
        assert client.get(path)["Location"] == "/accounts/2fa/"
    assert b"requires two-factor authentication" in client.get("/accounts/2fa/").content


def test_recovery_codes_are_no_second_factor(
    client_for: SignedIn, cast: Cast, settings: Any, recovery_codes: Callable[[User], list[str]]
) -> None:
    settings.LOCAL = False
    recovery_codes(cast.staff)

    assert client_for(cast.staff).get("/admin/").status_code == 302


def test_staff_with_two_factors_open_the_admin_in_production(
    client_for: SignedIn, cast: Cast, settings: Any, authenticator: Callable[[User], Callable[[], str]]
) -> None:
    settings.LOCAL = False
    authenticator(cast.staff)

    assert client_for(cast.staff).get("/admin/").status_code == 200


def test_signed_in_answers_are_never_cached(client_for: SignedIn, cast: Cast) -> None:
    for path in ("/account/", "/api/v1/auth/session", "/accounts/2fa/"):
        assert "no-store" in client_for(cast.operator).get(path)["Cache-Control"]
