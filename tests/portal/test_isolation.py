"""The isolation matrix: every route of the URLconf x method x actor, with and without htmx.

A route is public, a person's own, staff's, closed, or a tenant's. The tenant's are listed one by one with what they
take; a route that the table does not know fails the test. Cells that must be allowed are controls: without them a portal
that refuses everybody would pass.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.access import Policy, policy_of
from portal.audit import AuditEvent
from portal.idempotency import IdempotencyKey
from portal.models import Membership, Organization, Role, User
from tests.conftest import Cast, make_person
from tests.local_aws import LocalAws
from tests.portal.test_policies import routes
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Rollout, RolloutEvent, Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]

METHODS = ["get", "head", "post", "put", "patch", "delete", "options"]
HTMX = {"HX-Request": "true"}
RANDOM_ID = "upgrade-2026-0101-000000-abcdef"

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TRIGGER_FORM = "service=agent&version=latest&idempotency_key=matrix-1"


@dataclass(frozen=True)
class Row:
    """A tenant's route: where it is for an organization and an upgrade, who may use it, what it takes by POST."""

    address: Callable[[str, str], str]
    policy: Policy
    get: bool = True
    post: str | None = None
    content_type: str = FORM
    by_header: bool = False
    has_id: bool = False

    @property
    def allowed(self) -> set[str]:
        """OPTIONS tells of an API route what its documentation tells, and of no object."""
        reads = {"get", "head"} if self.get else set()
        return reads | ({"post"} if self.post is not None else set())


TENANT = {
    "o/<slug:slug>/": Row(lambda slug, _: f"/o/{slug}/", Policy.VIEWER),
    "o/<slug:slug>/services/": Row(lambda slug, _: f"/o/{slug}/services/", Policy.VIEWER),
    "o/<slug:slug>/upgrades/": Row(lambda slug, _: f"/o/{slug}/upgrades/", Policy.VIEWER),
    "o/<slug:slug>/upgrades/new": Row(lambda slug, _: f"/o/{slug}/upgrades/new", Policy.OPERATOR, post=TRIGGER_FORM),
    "o/<slug:slug>/upgrades/<str:upgrade_id>/": Row(
        lambda slug, upgrade_id: f"/o/{slug}/upgrades/{upgrade_id}/", Policy.VIEWER, has_id=True
    ),
    "o/<slug:slug>/upgrades/<str:upgrade_id>/stop": Row(
        lambda slug, upgrade_id: f"/o/{slug}/upgrades/{upgrade_id}/stop", Policy.OPERATOR, post="", has_id=True
    ),
    "api/v1/deployments/versions": Row(lambda *_: "/api/v1/deployments/versions", Policy.VIEWER, by_header=True),
    "api/v1/deployments/upgrade": Row(
        lambda *_: "/api/v1/deployments/upgrade",
        Policy.OPERATOR,
        get=False,
        post='{"service": "agent"}',
        content_type=JSON,
        by_header=True,
    ),
    "api/v1/deployments/upgrade/<str:upgrade_id>": Row(
        lambda _, upgrade_id: f"/api/v1/deployments/upgrade/{upgrade_id}", Policy.VIEWER, has_id=True
    ),
    "api/v1/deployments/upgrade/<str:upgrade_id>/stop": Row(
        lambda _, upgrade_id: f"/api/v1/deployments/upgrade/{upgrade_id}/stop",
        Policy.OPERATOR,
        get=False,
        post="{}",
        content_type=JSON,
        has_id=True,
    ),
    "api/v1/deployments/upgrades": Row(lambda *_: "/api/v1/deployments/upgrades", Policy.VIEWER, by_header=True),
}
PERSONAL = {"", "account/", "api/v1/auth/logout"}
PUBLIC = {"api/v1/auth/session", "api/v1/auth/login", "api/schema", "api/docs", "health", "livez", "readyz"}
LIBRARIES = {
    "accounts/": {Policy.PUBLIC, Policy.SIGNED_IN, Policy.CLOSED},
    "admin/": {Policy.STAFF},
}

OUTSIDERS = ["outsider", "removed", "stranger", "newcomer", "staff"]
MEMBERS = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN, "consultant": Role.OPERATOR}


@dataclass(frozen=True)
class Place:
    """What an actor reaches for: an organization and an upgrade of it that is under way."""

    organization: Organization
    upgrade: Upgrade


@pytest.fixture
def place(cast: Cast, platform: LocalAws) -> Place:
    return Place(cast.acme, make_upgrade(cast.acme, by=cast.admin, target="orchestrator", statuses=[Status.PENDING]))


def actor(cast: Cast, name: str) -> User:
    if name != "removed":
        person: User = getattr(cast, name)
        return person
    former = make_person("removed@example.com")
    Membership.objects.create(organization=cast.acme, user=former, role=Role.ADMIN).delete()
    return former


def ask(client: Client, row: Row, method: str, slug: str, upgrade_id: str, *, htmx: bool) -> Any:
    headers = (HTMX if htmx else {}) | ({"X-Organization": slug} if row.by_header else {})
    address = row.address(slug, upgrade_id)
    if method in ("get", "head", "options"):
        return getattr(client, method)(address, headers=headers)
    return getattr(client, method)(address, row.post or "", content_type=row.content_type, headers=headers)


def rows_of(organization: Organization) -> list[Any]:
    """Everything that the organization has, as it is now."""
    return [
        list(model.objects.filter(organization=organization).order_by("pk").values())
        for model in (Upgrade, Rollout, RolloutEvent, AuditEvent, IdempotencyKey, Membership)
    ] + [Organization.objects.filter(pk=organization.pk).values().get()]


# What differs from answer to answer whatever was asked: the request's id, the masked token, the clock.
NOISE = re.compile(r'[0-9a-f]{32}|"X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"|data-now="[^"]+"')


def text_of(response: Any) -> str:
    return NOISE.sub("", response.content.decode())


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_table_knows_every_route_and_its_policy() -> None:
    unknown = []
    for route, view in routes():
        declared = policy_of(view)
        library = next((allowed for prefix, allowed in LIBRARIES.items() if route.startswith(prefix)), None)
        if route in TENANT:
            assert declared is TENANT[route].policy, route
        elif route in PERSONAL:
            assert declared is Policy.SIGNED_IN, route
        elif route in PUBLIC:
            assert declared is Policy.PUBLIC, route
        elif library is None or declared not in library:
            unknown.append(route)

    assert unknown == []
    assert {route for route, _ in routes()} >= TENANT.keys() | PERSONAL | PUBLIC


# --- nobody from outside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OUTSIDERS)
@pytest.mark.parametrize("htmx", [False, True])
def test_outsider_gets_404_with_the_body_of_a_random_id(
    cast: Cast, place: Place, client_for: SignIn, name: str, htmx: bool
) -> None:
    client = client_for(actor(cast, name))
    before = rows_of(place.organization)

    for route, row in TENANT.items():
        for method in row.allowed:
            real = ask(client, row, method, "acme", place.upgrade.upgrade_id, htmx=htmx)
            made_up = ask(client, row, method, "nowhere", RANDOM_ID, htmx=htmx)

            assert (route, method, real.status_code) == (route, method, 404)
            assert real.headers["Content-Type"] == made_up.headers["Content-Type"]
            assert text_of(real) == text_of(made_up)
    assert rows_of(place.organization) == before


@pytest.mark.parametrize("htmx", [False, True])
def test_a_member_of_a_suspended_organization_is_an_outsider(
    cast: Cast, place: Place, client_for: SignIn, htmx: bool
) -> None:
    client = client_for(cast.admin)
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    before = rows_of(place.organization)

    for route, row in TENANT.items():
        for method in row.allowed:
            answer = ask(client, row, method, "acme", place.upgrade.upgrade_id, htmx=htmx)

            assert (route, method, answer.status_code) == (route, method, 404)
    assert rows_of(place.organization) == before


@pytest.mark.parametrize("htmx", [False, True])
def test_anonymous_is_sent_to_sign_in_whatever_the_method(cast: Cast, place: Place, htmx: bool) -> None:
    client = Client()
    before = rows_of(place.organization)

    for route, row in TENANT.items():
        for method in METHODS:
            answer = ask(client, row, method, "acme", place.upgrade.upgrade_id, htmx=htmx)

            is_page = route.startswith("o/")
            assert (route, method, answer.status_code) == (route, method, 302 if is_page and not htmx else 401)
            assert b"acme" not in answer.content
            if is_page:
                assert answer.headers["HX-Redirect" if htmx else "Location"].startswith("/accounts/login/")
            else:
                assert "Location" not in answer.headers
    assert rows_of(place.organization) == before


# --- members -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("htmx", [False, True])
def test_a_member_may_what_the_role_says(cast: Cast, place: Place, client_for: SignIn, name: str, htmx: bool) -> None:
    client = client_for(actor(cast, name))

    for route, row in TENANT.items():
        for method in row.allowed:
            before = rows_of(place.organization)
            answer = ask(client, row, method, "acme", place.upgrade.upgrade_id, htmx=htmx)

            if method == "post" and not MEMBERS[name].includes(Role.OPERATOR):
                assert (route, answer.status_code) == (route, 403)
                assert rows_of(place.organization) == before
            else:
                assert answer.status_code in (200, 202, 302, 409), (route, method, answer.status_code)
    if MEMBERS[name].includes(Role.OPERATOR):
        assert Upgrade.objects.filter(organization=cast.acme, initiated_by=actor(cast, name)).exists()
        assert Upgrade.objects.filter(pk=place.upgrade.pk, stop_requested_at__isnull=False).exists()


@pytest.mark.parametrize("name", ["outsider", "stranger", *MEMBERS])
def test_a_method_that_a_route_does_not_have_changes_nothing(
    cast: Cast, place: Place, client_for: SignIn, name: str
) -> None:
    client = client_for(actor(cast, name))
    before = rows_of(place.organization)

    for route, row in TENANT.items():
        for method in sorted(set(METHODS) - row.allowed):
            answer = ask(client, row, method, "acme", place.upgrade.upgrade_id, htmx=False)
            expected = 200 if method == "options" and route.startswith("api/") else 405

            assert (route, method, answer.status_code) == (route, method, expected)
            assert place.upgrade.upgrade_id.encode() not in answer.content
    assert rows_of(place.organization) == before


# --- an id in another place than the address -----------------------------------------------------------------------


def test_an_upgrade_is_not_reached_through_another_organization_of_mine(
    cast: Cast, place: Place, client_for: SignIn
) -> None:
    """The consultant may see both; the page of one must not act on an upgrade of the other."""
    client = client_for(cast.consultant)
    before = rows_of(place.organization)

    for route, row in TENANT.items():
        for method in row.allowed if row.has_id and route.startswith("o/") else ():
            assert ask(client, row, method, "globex", place.upgrade.upgrade_id, htmx=False).status_code == 404
    assert rows_of(place.organization) == before


@pytest.mark.parametrize("name", ["organization", "organization_id", "slug", "upgrade_id", "id", "initiated_by_id"])
def test_ids_of_another_organization_in_body_and_query_have_no_effect(
    cast: Cast, place: Place, client_for: SignIn, name: str
) -> None:
    theirs = make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.PENDING])
    values = {"slug": "globex", "organization": "globex", "organization_id": str(cast.globex.pk)}
    value = values.get(name, theirs.upgrade_id)
    client = client_for(cast.operator)
    before = rows_of(cast.globex)

    api = "/api/v1/deployments"
    in_body = client.post(f"{api}/upgrade", json.dumps({"service": "agent", name: value}), content_type=JSON)
    in_query = client.post(f"{api}/upgrade?{name}={value}", '{"service": "agent"}', content_type=JSON)
    filtered = client.get(f"{api}/upgrades", {name: value})
    on_page = client.post(
        "/o/acme/upgrades/new", {"service": "agent", "version": "latest", name: value, "idempotency_key": "k"}
    )

    assert (in_body.status_code, in_query.status_code, filtered.status_code) == (400, 400, 400)
    assert on_page.headers["Location"].startswith("/o/acme/upgrades/")
    assert Upgrade.objects.filter(organization=cast.globex).count() == 1
    assert rows_of(cast.globex) == before


# --- canaries ------------------------------------------------------------------------------------------------------

CANARY = "canary"


@pytest.fixture
def canaries(cast: Cast) -> Upgrade:
    """Upgrades of globex whose every text says canary, the newest of all; acme has some like them, as control."""
    for organization, by, word in ((cast.acme, cast.admin, "control"), (cast.globex, cast.outsider, CANARY)):
        make_upgrade(
            organization,
            by=by,
            target="customer-portal",
            statuses=[Status.IN_PROGRESS],
            upgrade_id=f"upgrade-{word}-open",
        )
        Organization.objects.filter(pk=organization.pk).update(name=f"{word} name")
        upgrade = make_upgrade(
            organization,
            by=by,
            statuses=[Status.FAILED],
            upgrade_id=f"upgrade-{word}-ended",
            reason=f"{word} reason",
            version=f"{word}-version",
            initiated_by_email=f"{word}@example.com",
        )
        upgrade.rollouts.update(
            service_name=f"{word}-service",
            from_version=f"{word}-from",
            to_version=f"{word}-to",
            task_definition=f"{word}-definition",
            rollout_reason=f"{word} why",
            error_message=f"{word} error",
            stopped_tasks=[{"id": "1", "stopped_at": None, "reason": f"{word} task", "exit_code": 1}],
        )
        RolloutEvent.objects.create(
            organization=organization,
            rollout=upgrade.rollouts.get(),
            ecs_event_id="1",
            message=f"{word} event",
            created_at=timezone.now(),
        )
    return upgrade


def test_no_answer_to_a_stranger_of_globex_sings(
    cast: Cast, platform: LocalAws, client_for: SignIn, canaries: Upgrade
) -> None:
    client = client_for(cast.admin)
    mine = Upgrade.objects.get(upgrade_id="upgrade-control-ended")
    api, heard = "/api/v1/deployments", ""
    addresses = [
        "/",
        "/account/",
        "/api/v1/auth/session",
        f"{api}/upgrades?initiated_by={CANARY}@example.com",
        f"{api}/upgrades?version={CANARY}-version",
        f"/o/acme/upgrades/?initiated_by={CANARY}@example.com",
        f"/o/acme/upgrades/{canaries.upgrade_id}/",
        f"{api}/upgrade/{canaries.upgrade_id}",
        "/o/acme/upgrades/new?service=agent",
        "/api/docs",
        "/nowhere/",
    ]
    addresses += [
        row.address(slug, upgrade.upgrade_id)
        for row in TENANT.values()
        for slug, upgrade in (("acme", mine), ("globex", canaries))
    ]

    for address in addresses:
        for headers in ({"X-Organization": "globex"}, {}) if address.startswith("/api/") else (HTMX, {}):
            text = client.get(address, headers=headers, follow=True).content.decode()
            asked = [f"{CANARY}@example.com", f"{CANARY}%40example.com", f"{CANARY}-version"] if "=" in address else []
            for own_words in asked:
                text = text.replace(own_words, "")
            assert CANARY not in text, (address, headers)
            heard += text

    for word in (
        "reason",
        "-service",
        "-from",
        " error",
        " task",
        " event",
        " name",
        "@example.com",
        "-open",
        "-ended",
    ):
        assert f"control{word}" in heard.replace("control reason", "controlreason"), word


def test_a_conflict_never_names_another_organizations_upgrade(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    theirs = make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.IN_PROGRESS])

    answer = client_for(cast.operator).post("/api/v1/deployments/upgrade", '{"service": "agent"}', content_type=JSON)

    assert answer.status_code == 202
    assert theirs.upgrade_id not in answer.content.decode()
