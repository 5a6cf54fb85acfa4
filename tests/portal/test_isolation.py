"""The isolation matrix: every route of the URLconf x method x actor, and one actor of each kind also with htmx.

A route is public, personal, for staff, closed, or a tenant's. The tenant routes are listed with their input in
isolation_table.py, and a route that is missing there fails the test. Cells that must be allowed are controls: without
them a portal that refuses everyone would pass.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import Agent, Deployment, DeploymentEvent
from portal.access import Policy, get_policy
from portal.models import AuditEvent, Membership, Organization, Role, User
from portal.models.notifications import NotificationChannel, NotificationDelivery
from portal.sealing import seal
from tests.conftest import Cast, make_person
from tests.deployments.conftest import DEPLOYMENTS, make_agent, send_json
from tests.figures import add_statuses
from tests.local_aws import LocalAws
from tests.portal.isolation_table import (
    ANSWERS,
    HTMX,
    LIBRARIES,
    METHODS,
    NOWHERE,
    PERSONAL,
    PUBLIC,
    TENANT,
    Place,
    ask,
    get_address,
    get_text,
    make_place,
    read_rows,
    undone,
)
from tests.portal.test_policies import routes
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.states import Status

SignIn = Callable[[User], Client]

OUTSIDERS = ["outsider", "removed", "invited", "stranger", "newcomer", "staff"]
MEMBERS = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN, "consultant": Role.OPERATOR}


def also(*names: object) -> list[object]:
    """Return parameters that `make isolation` tries and `make test` leaves out: actors like one that it tries."""
    return [
        pytest.param(*(name if isinstance(name, tuple) else (name,)), marks=pytest.mark.isolation) for name in names
    ]


@pytest.fixture(autouse=True)
def count_cells(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print at the end how many cells were requested, and how they were answered."""
    ANSWERS.clear()
    yield
    add_statuses(request, ANSWERS, of="isolation")


@pytest.fixture
def place(cast: Cast, platform: LocalAws) -> Place:
    return make_place(cast, cast.acme)


def actor(cast: Cast, name: str) -> User:
    if name == "invited":
        invited = make_person("invited@example.com")
        Membership.objects.create(organization=cast.acme, user=invited, role=Role.ADMIN)
        return invited
    if name != "removed":
        person: User = getattr(cast, name)
        return person
    former = make_person("removed@example.com")
    Membership.objects.create(organization=cast.acme, user=former, role=Role.ADMIN, accepted_at=timezone.now()).delete()
    return former


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_table_knows_every_route_and_its_policy() -> None:
    tenant = {row.route: row.policy for row in TENANT}
    unknown = []
    for route, view in routes():
        declared = get_policy(view)
        library = next((allowed for prefix, allowed in LIBRARIES.items() if route.startswith(prefix)), None)
        if route in tenant:
            assert declared is tenant[route], route
        elif route in PERSONAL:
            assert declared is Policy.SIGNED_IN, route
        elif route in PUBLIC:
            assert declared is Policy.PUBLIC, route
        elif library is None or declared not in library:
            unknown.append(route)

    assert unknown == []
    assert {route for route, _ in routes()} >= tenant.keys() | PERSONAL | PUBLIC


# --- outsiders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "htmx"), [("outsider", False), *also(("outsider", True), *((name, False) for name in OUTSIDERS[1:]))]
)
def test_outsider_gets_404_with_the_body_of_a_random_id(
    cast: Cast, place: Place, client_for: SignIn, name: str, htmx: bool
) -> None:
    client = client_for(actor(cast, name))
    before = read_rows(cast.acme)

    for row in TENANT:
        for method in row.allowed:
            real = ask(client, row, method, place, htmx=htmx)
            made_up = ask(client, row, method, NOWHERE, htmx=htmx)

            assert (row, method, real.status_code) == (row, method, 404)
            assert real.headers["Content-Type"] == made_up.headers["Content-Type"]
            assert get_text(real) == get_text(made_up)
    assert read_rows(cast.acme) == before


@pytest.mark.parametrize("htmx", [False, *also(True)])
def test_a_member_of_a_suspended_organization_is_an_outsider(
    cast: Cast, place: Place, client_for: SignIn, htmx: bool
) -> None:
    client = client_for(cast.admin)
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    before = read_rows(cast.acme)

    for row in TENANT:
        for method in row.allowed:
            answer = ask(client, row, method, place, htmx=htmx)

            assert (row, method, answer.status_code) == (row, method, 404)
    assert read_rows(cast.acme) == before


@pytest.mark.parametrize("htmx", [False, *also(True)])
def test_anonymous_is_sent_to_sign_in_whatever_the_method(cast: Cast, place: Place, htmx: bool) -> None:
    client = Client()
    before = read_rows(cast.acme)

    for row in TENANT:
        for method in METHODS:
            answer = ask(client, row, method, place, htmx=htmx)

            assert (row, method, answer.status_code) == (row, method, 401 if row.is_api or htmx else 302)
            assert b"acme" not in answer.content
            if row.is_api:
                assert "Location" not in answer.headers
            else:
                assert answer.headers["HX-Redirect" if htmx else "Location"].startswith("/accounts/login/")
    assert read_rows(cast.acme) == before


# --- members -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "htmx"),
    [("viewer", False), ("operator", False), *also(("operator", True), ("admin", False), ("consultant", False))],
)
def test_a_member_may_do_what_the_role_allows(
    cast: Cast, place: Place, client_for: SignIn, name: str, htmx: bool
) -> None:
    """Accepted requests are rolled back, so that each cell finds the state it needs (running to stop, and so on)."""
    client = client_for(actor(cast, name))

    for row, method in [(each, method) for each in TENANT for method in each.allowed]:
        with undone():
            before = read_rows(cast.acme) if method in row.sends else {}
            answer = ask(client, row, method, place, htmx=htmx)

            if method not in row.sends:
                assert answer.status_code in (200, 302), (row, method, answer.status_code)
            elif MEMBERS[name].includes(row.sender):
                assert answer.status_code in (200, 201, 202, 204, 302), (row, method, answer.status_code)
                assert answer.headers.get("Location", "/o/acme/").startswith(("/o/acme/", "/api/v1/"))
                assert read_rows(cast.acme) != before
            else:
                assert (row, method, answer.status_code) == (row, method, 403)
                refused = {AuditEvent._meta.db_table}  # the attempt's own row
                assert {table for table, rows in read_rows(cast.acme).items() if rows != before[table]} == refused


@pytest.mark.parametrize("name", ["outsider", *also("stranger", *MEMBERS)])
def test_a_method_that_a_route_does_not_have_changes_nothing(
    cast: Cast, place: Place, client_for: SignIn, name: str
) -> None:
    client = client_for(actor(cast, name))
    before = read_rows(cast.acme)

    for row in TENANT:
        for method in sorted(set(METHODS) - row.allowed):
            answer = ask(client, row, method, place)
            expected = 200 if method == "options" and row.is_api else 405

            assert (row, method, answer.status_code) == (row, method, expected)
            assert not [each for each in place.ids if each in answer.content.decode()]
    assert read_rows(cast.acme) == before


# --- ids in body and query ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "htmx"), [("outsider", False), *also(("outsider", True), ("consultant", False))])
def test_acmes_ids_do_not_exist_at_globex(cast: Cast, place: Place, client_for: SignIn, name: str, htmx: bool) -> None:
    """In URL, body and query. The consultant may see both, but a request to one must not act on the other's objects."""
    client, at_home = client_for(actor(cast, name)), client_for(actor(cast, name))
    Membership.objects.filter(organization=cast.globex).update(role=Role.ADMIN)  # allows everything at home
    home = make_place(cast, cast.globex)
    theirs, made_up = replace(place, slug="globex"), replace(NOWHERE, slug="globex")
    before = read_rows(cast.acme), read_rows(cast.globex, audit=False)

    for row in TENANT:
        # An object's API URL determines its organization, so the consultant is allowed.
        if row.is_api and row.is_of_an_object and name == "consultant":
            continue
        cells = [(method, "") for method in row.allowed if row.names_an_id(method)]
        for method, query in [*cells, *(("get", query) for query in row.queries)]:
            with undone():
                allowed = ask(at_home, row, method, home, htmx=htmx, query=query)
                assert allowed.status_code < 400, (row, method, query, allowed.status_code)
            real = ask(client, row, method, theirs, htmx=htmx, query=query)
            random = ask(client, row, method, made_up, htmx=htmx, query=query)

            refused = (200,) if query and not query.startswith("agent_id") else (404, 422)
            assert real.status_code == random.status_code
            assert real.status_code in refused, (row, method, query, real.status_code)
            assert get_text(real, *theirs.ids) == get_text(random, *made_up.ids), (row, method, query)
    assert (read_rows(cast.acme), read_rows(cast.globex, audit=False)) == before


def test_a_bulk_action_affects_only_my_organizations(cast: Cast, place: Place, client_for: SignIn) -> None:
    home = make_place(cast, cast.globex)
    mine, theirs = home.deployments["ready"], place.deployments["ready"]
    before = read_rows(cast.acme)

    answer = client_for(cast.consultant).post(
        "/o/globex/deployments/bulk", {"command": "stop", "id": [theirs, mine], "is_sure": "1"}
    )

    assert answer.status_code == 200
    assert theirs not in answer.content.decode()
    assert Deployment.objects.get(pk=mine).wanted == "stopped"
    assert read_rows(cast.acme) == before


def foreign(cast: Cast) -> dict[str, str]:
    """Return parameter names that could select an organization or object, with globex's values."""
    theirs = make_place(cast, cast.globex)
    return {
        "organization": "globex",
        "organization_id": str(cast.globex.pk),
        "slug": "globex",
        "upgrade_id": theirs.upgrade_id,
        "deployment_id": theirs.deployments["ready"],
        "id": theirs.deployments["ready"],
        "created_by_id": str(cast.outsider.pk),
        "initiated_by_id": str(cast.outsider.pk),
    }


def test_the_api_refuses_foreign_ids_in_body_and_query(cast: Cast, place: Place, client_for: SignIn) -> None:
    values = foreign(cast)
    client = client_for(cast.admin)
    before = read_rows(cast.globex)

    for row in (row for row in TENANT if row.is_api):
        for method, (name, value) in itertools.product(row.allowed, values.items()):
            answers = [ask(client, row, method, place, query=f"{name}={value}")]
            if row.sends.get(method) is not None:
                answers.append(ask(client, row, method, place, more={name: value}))
            for answer in answers:
                assert (row, method, name, answer.status_code) == (row, method, name, 400)
    assert read_rows(cast.globex) == before


def test_pages_ignore_foreign_ids_in_body_and_query(cast: Cast, place: Place, client_for: SignIn) -> None:
    """A page ignores unknown names. The canary tests check what its reads show."""
    values = foreign(cast)
    client = client_for(cast.admin)
    before = read_rows(cast.globex)

    for row in (row for row in TENANT if not row.is_api):
        for method, sent in row.sends.items():
            with undone():
                ask(client, row, method, place, query=urlencode(values))
                assert read_rows(cast.globex) == before
            with undone():
                more = {name: value for name, value in values.items() if name not in (sent or {})}
                answer = ask(client, row, method, place, more=more)
                assert read_rows(cast.globex) == before
            assert answer.status_code in (200, 302), (row, method)
            assert answer.headers.get("Location", "/o/acme/").startswith("/o/acme/")


# --- canaries ------------------------------------------------------------------------------------------------------

CANARY = "kanary"
HEARD = [
    *("reason", "-service", "-from", " error", " task", " event", " name", "@example.com", "-open", "-ended"),
    *(" agent", "/image", " description", " value", "-node", " deployment failed", " happened", "-actor"),
    *(" channel", "-target", " gone", "-subject", " detail of a try", " member"),
]


def plant(cast: Cast, organization: Organization, word: str) -> Place:
    """Create upgrades, an agent and deployments, newer than all others, with the word in every text."""
    by = cast.outsider if organization == cast.globex else cast.admin
    make_upgrade(
        organization,
        by=by,
        target="customer-portal",
        statuses=[Status.IN_PROGRESS],
        upgrade_id=f"upgrade-{word}-open",
    )
    Organization.objects.filter(pk=organization.pk).update(name=f"{word} name")
    upgrade = plant_upgrade(organization, by, word)
    account = organization.account or "111111111111"
    secret = f"arn:aws:secretsmanager:us-east-1:{account}:secret:{word}-secret"
    made = make_place(
        cast,
        organization,
        name=f"{word} agent",
        image=f"{word}/image:{word}-tag",
        description=f"{word} description",
        environment={"PLAIN": f"{word} value", "SECRET": secret},
    )
    Deployment.objects.filter(organization=organization).update(
        node_id=f"{word}-node", error_message=f"{word} deployment failed", check_error=f"{word} check"
    )
    DeploymentEvent.objects.filter(organization=organization).update(
        node_id=f"{word}-node", error_message=f"{word} happened", detail=f"{word} detail", actor=f"{word}-actor"
    )
    plant_notification(organization, word)
    User.objects.filter(memberships=made.membership_id).update(name=f"{word} member", last_login=timezone.now())
    return replace(made, upgrade_id=upgrade.upgrade_id)


def plant_upgrade(organization: Organization, by: User, word: str) -> Upgrade:
    """Create an ended upgrade with the word in every text."""
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
    UpgradeEvent.objects.create(
        organization=organization,
        rollout=upgrade.rollouts.get(),
        ecs_event_id="1",
        message=f"{word} event",
        created_at=timezone.now(),
    )
    return upgrade


def plant_notification(organization: Organization, word: str) -> None:
    """Write the word into every text of the organization's channel and message."""
    NotificationChannel.objects.filter(organization=organization).update(
        name=f"{word} channel",
        sealed_target=seal(f"https://{word}-target.example.com/"),
        is_active=False,
        off_reason=f"{word} gone",
    )
    tried = {"at": "2026-01-01T00:00:00+00:00", "seconds": 1, "http_status": None, "failure": "no_answer"}
    NotificationDelivery.objects.filter(organization=organization).update(
        subject=f"{word}-subject", attempts=[tried | {"detail": f"{word} detail of a try"}]
    )


def test_no_response_to_a_stranger_contains_a_canary(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    """The same is created at acme, as a control."""
    client = client_for(cast.admin)
    mine, theirs = plant(cast, cast.acme, "control"), plant(cast, cast.globex, CANARY)
    upgrades, heard = "/api/v1/deployments/upgrades", ""
    addresses = [
        "/",
        "/account/",
        "/api/v1/auth/session",
        f"{upgrades}?initiated_by={CANARY}@example.com",
        f"{upgrades}?version={CANARY}-version",
        f"/o/acme/upgrades/?initiated_by={CANARY}@example.com",
        "/o/acme/upgrades/new?service=agent",
        "/o/acme/deployments/?q=anar",
        "/o/acme/deployments/?sort=agent",
        "/o/acme/agents/?q=anar",
        "/o/acme/search/?q=anar",
        "/deployments?q=anar",
        "/agents?q=anar",
        "/api/docs",
        "/nowhere/",
    ]
    places = (mine, theirs, replace(theirs, slug="acme"))
    for row in TENANT:
        # A page ignores unknown names.
        queries = ("" if row.is_api else "organization=globex&slug=globex", *row.queries)
        addresses += [get_address(row, place, query) for place in places for query in queries]

    for address in addresses:
        foreign, fragments = {"X-Organization": "globex"}, [HTMX | {"HX-Target": name} for name in ("timeline", "logs")]
        is_api = address.startswith(("/api/", "/deployments", "/agents"))
        parts = fragments if "/deployments/" in address else []
        for headers in [foreign, {}] if is_api else [HTMX, *parts, {}]:
            text = client.get(address, headers=headers, follow=True).content.decode().lower()
            mails = [f"{CANARY}{at}example.com" for at in ("@", "%40", "%2540")]
            asked = [*mails, f"{CANARY}-version"] if "=" in address else []
            for own_words in asked:
                text = text.replace(own_words, "")
            assert CANARY not in text, (address, headers)
            heard += text

    silent = [word for word in HEARD if f"control{word}" not in heard.replace("control reason", "controlreason")]
    assert silent == []


def test_a_conflict_never_names_another_organizations_upgrade(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    theirs = make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.IN_PROGRESS])

    answer = client_for(cast.operator).post(
        "/api/v1/deployments/upgrade", '{"service": "agent"}', content_type="application/json"
    )

    assert answer.status_code == 202
    assert theirs.upgrade_id not in answer.content.decode()


def test_another_organizations_names_and_keys_are_free(cast: Cast, client_for: SignIn) -> None:
    """Trying names and keys does not reveal which ones globex has used."""
    theirs = make_agent(cast, "Secret agent", organization=cast.globex)
    body, key = {"name": theirs.name, "image": theirs.image}, {"Idempotency_Key": "one-key"}
    elsewhere, here = client_for(cast.outsider), client_for(cast.operator)
    send_json(elsewhere, "post", DEPLOYMENTS, {"agent_id": str(theirs.pk)}, **key)

    made = send_json(here, "post", "/agents", body, **key)
    mine = Agent.objects.get(pk=made.json()["id"])
    deployed = send_json(here, "post", f"/agents/{mine.pk}/deploy", **key)

    assert (made.status_code, mine.organization) == (201, cast.acme)
    assert deployed.status_code == 422  # its own key, just used for another command
    assert send_json(here, "post", f"/agents/{mine.pk}/deploy", Idempotency_Key="other").status_code == 201
