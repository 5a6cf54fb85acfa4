"""The table of the isolation matrix: every tenant route, who may use it and its input, and how to request a cell.

Placeholders name the objects: `<str:upgrade_id>` in a URL and `<agent_id>` in a body are both filled in from a Place.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from deployments.models import Agent, Deployment, DeploymentEvent, Revision
from portal.access import Policy
from portal.accounts.tokens import hash_secret
from portal.errors import API_PREFIXES
from portal.idempotency import IdempotencyKey
from portal.models import (
    ApiToken,
    AuditEvent,
    DefaultView,
    Membership,
    Organization,
    Role,
    SavedView,
    Scope,
    TokenKind,
)
from portal.models.notifications import NotificationChannel, NotificationDelivery
from tests.conftest import Cast, make_person
from tests.deployments.conftest import make_agent, make_deployment
from tests.notifications.conftest import make_channel
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Decision, Rollout, Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import Outcome, Status

METHODS = ["get", "head", "post", "put", "patch", "delete", "options"]
HTMX = {"HX-Request": "true"}
BROWSER = {"Accept": "text/html,*/*;q=0.8"}
PLACEHOLDER = re.compile(r"<(?:\w+:)?(\w+)>")

Body = dict[str, Any] | None
ONCE = {"idempotency_key": "matrix-1"}


@dataclass(frozen=True)
class Row:
    """A tenant route: who may use it, the body of each unsafe method, and its queries that contain an id.

    Unsafe methods need the `lowest` role, else an operator, or an admin if the policy says so, whoever may read. `command`
    is the last part of a URL that accepts several commands. `status` selects the deployment to request, and `is_ended` the
    upgrade, so that a valid request is accepted.
    """

    route: str
    policy: Policy
    get: bool = True
    sends: dict[str, Body] = field(default_factory=dict)
    queries: tuple[str, ...] = ()
    command: str = ""
    status: str = "ready"
    is_ended: bool = False
    lowest: Role | None = None

    @property
    def allowed(self) -> set[str]:
        """The methods that access an object. OPTIONS of an API route only describes the route."""
        return {*(("get", "head") if self.get else ()), *self.sends}

    @property
    def sender(self) -> Role:
        """The lowest role that may use unsafe methods."""
        return self.lowest or (Role.ADMIN if self.policy is Policy.ADMIN else Role.OPERATOR)

    @property
    def is_api(self) -> bool:
        return ("/" + self.route).startswith(API_PREFIXES)

    @property
    def is_of_an_object(self) -> bool:
        """Whether the URL names an object. For other API routes X-Organization names the organization."""
        return "_id>" in self.route

    def names_an_id(self, method: str) -> bool:
        return self.is_of_an_object or "_id>" in json.dumps(self.sends.get(method))


@dataclass(frozen=True)
class Place:
    """The target of a request: an organization's URL and the ids of its objects, with deployments by status.

    One of the two upgrades is open; the other has ended.
    """

    slug: str
    upgrade_id: str
    ended_id: str
    agent_id: str
    deployments: dict[str, str]
    channel_id: str
    delivery_id: str
    membership_id: str
    token_id: str
    view_id: str

    @property
    def ids(self) -> list[str]:
        """The ids, except the membership's, which is a number that appears on every page."""
        upgrades = [self.upgrade_id, self.ended_id]
        others = [self.channel_id, self.delivery_id, self.token_id, self.view_id]
        return [*upgrades, self.agent_id, *self.deployments.values(), *others]

    def words(self, row: Row) -> dict[str, str]:
        return {
            "slug": self.slug,
            "upgrade_id": self.ended_id if row.is_ended else self.upgrade_id,
            "agent_id": self.agent_id,
            "deployment_id": self.deployments[row.status],
            "channel_id": self.channel_id,
            "delivery_id": self.delivery_id,
            "membership_id": self.membership_id,
            "number": "1",
            "token_id": self.token_id,
            "view_id": self.view_id,
            "kind": "webhook",
            "command": row.command,
            "form": "txt",
            "service": "orchestrator",
            "check": "sign_in",
        }


NOWHERE = Place(
    slug="nowhere",
    upgrade_id="upgrade-2026-0101-000000-abcdef",
    ended_id="upgrade-2026-0101-000000-fedcba",
    agent_id=str(uuid.uuid4()),
    deployments={"ready": str(uuid.uuid4()), "stopped": str(uuid.uuid4())},
    channel_id=str(uuid.uuid4()),
    delivery_id=str(uuid.uuid4()),
    membership_id="987654321",
    token_id=str(uuid.uuid4()),
    view_id=str(uuid.uuid4()),
)

AGENT = {"name": "Matrix agent", "image": "registry.example.com/matrix:v1"}
AGENT_FORM = ONCE | AGENT | {"size": "512/1024", "environment": "LOG_LEVEL=info"}


def upgrade_rows() -> Iterator[Row]:
    trigger = ONCE | {"service": "agent", "version": "latest"}
    yield Row("o/<slug:slug>/services/", Policy.VIEWER)
    yield Row("o/<slug:slug>/versions/", Policy.VIEWER)
    yield Row("o/<slug:slug>/upgrades/", Policy.VIEWER)
    yield Row("o/<slug:slug>/upgrades/history.csv", Policy.VIEWER, queries=("initiated_by=<upgrade_id>",))
    yield Row("o/<slug:slug>/upgrades/new", Policy.OPERATOR, sends={"post": trigger})
    yield Row("o/<slug:slug>/upgrades/preflight", Policy.VIEWER)
    yield Row("o/<slug:slug>/upgrades/<str:upgrade_id>/", Policy.VIEWER)
    logs = "o/<slug:slug>/upgrades/<str:upgrade_id>/<str:service>/logs"
    yield Row(logs, Policy.VIEWER)
    yield Row(f"{logs}.<slug:form>", Policy.VIEWER)
    yield Row("o/<slug:slug>/upgrades/<str:upgrade_id>/<str:service>/before-after", Policy.VIEWER)
    yield Row("o/<slug:slug>/upgrades/<str:upgrade_id>/stop", Policy.OPERATOR, sends={"post": None})
    decision: Body = {"service": "orchestrator", "hook_id": "pause-1", "action": "continue"}
    yield Row("o/<slug:slug>/upgrades/<str:upgrade_id>/decide", Policy.OPERATOR, sends={"post": decision})
    rollback: dict[str, Body] = {"post": ONCE | {"services": "agent"}}
    yield Row("o/<slug:slug>/upgrades/<str:upgrade_id>/rollback", Policy.OPERATOR, sends=rollback, is_ended=True)
    signed: dict[str, Body] = {"post": {"status": "pass", "note": "Seen."}}
    one = "o/<slug:slug>/upgrades/<str:upgrade_id>"
    yield Row(f"{one}/validation/<str:check>", Policy.OPERATOR, sends=signed, is_ended=True)
    yield Row(f"{one}/evidence", Policy.VIEWER)
    yield Row(f"{one}/probe", Policy.OPERATOR, get=False, sends={"post": None}, is_ended=True)
    api = "api/v1/deployments"
    yield Row(f"{api}/versions", Policy.VIEWER)
    yield Row(f"{api}/preflight", Policy.VIEWER)
    yield Row(f"{api}/upgrade", Policy.OPERATOR, get=False, sends={"post": {"service": "agent"}})
    yield Row(f"{api}/upgrade/<str:upgrade_id>", Policy.VIEWER)
    yield Row(f"{api}/upgrade/<str:upgrade_id>/events", Policy.VIEWER)
    yield Row(f"{api}/upgrade/<str:upgrade_id>/evidence", Policy.VIEWER)
    yield Row(f"{api}/upgrade/<str:upgrade_id>/stop", Policy.OPERATOR, get=False, sends={"post": {}})
    yield Row(f"{api}/upgrade/<str:upgrade_id>/continue", Policy.OPERATOR, get=False, sends={"post": decision})
    undo: dict[str, Body] = {"post": {}}
    yield Row(f"{api}/upgrade/<str:upgrade_id>/rollback", Policy.OPERATOR, get=False, sends=undo, is_ended=True)
    sign: dict[str, Body] = {"post": {"check": "sign_in", "status": "pass"}}
    yield Row(f"{api}/upgrade/<str:upgrade_id>/validation", Policy.VIEWER, sends=sign, is_ended=True)
    yield Row(f"{api}/upgrade/<str:upgrade_id>/validation/probe", Policy.OPERATOR, get=False, sends=undo, is_ended=True)
    yield Row(f"{api}/upgrades", Policy.VIEWER)


def deployment_pages() -> Iterator[Row]:
    base = "o/<slug:slug>/deployments"
    one = f"{base}/<uuid:deployment_id>"
    lists = ("agent=<agent_id>", "q=<deployment_id>")
    new = ONCE | {"agent": "<agent_id>", "replicas": "2"}
    yield Row(f"{base}/", Policy.VIEWER, queries=lists)
    yield Row(f"{base}/list.csv", Policy.VIEWER, queries=lists[1:])
    yield Row(f"{base}/new", Policy.OPERATOR, sends={"post": new}, queries=("agent=<agent_id>",))
    yield Row(f"{one}/", Policy.VIEWER)
    yield Row(f"{one}/logs.<slug:form>", Policy.VIEWER)
    yield Row(f"{one}/events.csv", Policy.VIEWER)
    for command, status, more in (
        ("scale", "ready", {"replicas": "3"}),
        ("stop", "ready", {}),
        ("restart", "stopped", {}),
        ("kill", "ready", {"confirmation": "Support agent"}),
    ):
        sends: dict[str, Body] = {"post": ONCE | more}
        yield Row(f"{one}/<slug:command>", Policy.OPERATOR, sends=sends, command=command, status=status)
    for command, status in (("stop", "ready"), ("restart", "stopped"), ("kill", "ready")):
        several = {"command": command, "id": ["<deployment_id>"], "is_sure": "1", "confirmation": f"{command} 1"}
        yield Row(f"{base}/bulk", Policy.OPERATOR, get=False, sends={"post": several}, status=status)


def agent_pages() -> Iterator[Row]:
    base = "o/<slug:slug>/agents"
    yield Row(f"{base}/", Policy.VIEWER)
    yield Row(f"{base}/list.csv", Policy.VIEWER)
    yield Row(f"{base}/new", Policy.OPERATOR, sends={"post": AGENT_FORM})
    yield Row(f"{base}/<uuid:agent_id>/", Policy.VIEWER)
    yield Row(f"{base}/<uuid:agent_id>/edit", Policy.OPERATOR, sends={"post": AGENT_FORM})
    yield Row(f"{base}/<uuid:agent_id>/versions", Policy.VIEWER)
    revision = f"{base}/<uuid:agent_id>/revisions/<int:number>"
    yield Row(f"{base}/<uuid:agent_id>/revisions/", Policy.VIEWER)
    yield Row(f"{revision}/", Policy.VIEWER)
    yield Row(f"{revision}/restore", Policy.OPERATOR, sends={"post": ONCE | {"newest": "2"}})


def deployment_api(prefix: str) -> Iterator[Row]:
    """Return the row at the documented root path and the same row under /api/v1."""
    one, agents = f"{prefix}deployments/<any_uuid:deployment_id>", f"{prefix}agents"
    create: Body = {"agent_id": "<agent_id>", "replicas": 2}
    lists = ("agent_id=<agent_id>", "q=<deployment_id>")
    yield Row(f"{prefix}deployments", Policy.VIEWER, sends={"post": create}, queries=lists)
    yield Row(one, Policy.VIEWER, sends={"delete": None})
    for reading in ("events", "logs", "metrics"):
        yield Row(f"{one}/{reading}", Policy.VIEWER)
    yield Row(f"{one}/scale", Policy.OPERATOR, get=False, sends={"post": {"replicas": 3}})
    yield Row(f"{one}/stop", Policy.OPERATOR, get=False, sends={"post": {}})
    yield Row(f"{one}/restart", Policy.OPERATOR, get=False, sends={"post": {}}, status="stopped")
    yield Row(agents, Policy.VIEWER, sends={"post": AGENT})
    yield Row(f"{agents}/<any_uuid:agent_id>", Policy.VIEWER, sends={"patch": {"name": "Renamed"}})
    yield Row(f"{agents}/<any_uuid:agent_id>/deploy", Policy.OPERATOR, get=False, sends={"post": {}})
    revision = f"{agents}/<any_uuid:agent_id>/revisions/<int:number>"
    yield Row(f"{agents}/<any_uuid:agent_id>/revisions", Policy.VIEWER)
    yield Row(revision, Policy.VIEWER)
    yield Row(f"{revision}/restore", Policy.OPERATOR, get=False, sends={"post": {"newest": 2}})


def settings_pages() -> Iterator[Row]:
    base = "o/<slug:slug>/settings"
    one = f"{base}/channels/<uuid:channel_id>"
    form = ONCE | {"name": "Matrix", "target": "https://hooks.example.com/", "events": ["upgrade.ended"]}
    yield Row(f"{base}/", Policy.VIEWER)
    safeguard: dict[str, Body] = {"post": {"name": "requires_reauthentication", "on": "1"}}
    yield Row(f"{base}/safeguards", Policy.ADMIN, get=False, sends=safeguard)
    yield Row(f"{base}/links", Policy.ADMIN, sends={"post": {"runbook_link": "https://wiki.example.com/{service}"}})
    yield Row(f"{base}/second-approver", Policy.ADMIN, get=False, sends={"post": {"on": "1"}})
    yield Row(f"{base}/channels/new/<slug:kind>", Policy.ADMIN, sends={"post": form})
    yield Row(f"{one}/", Policy.VIEWER)
    yield Row(f"{one}/edit", Policy.ADMIN, sends={"post": form})
    yield Row(f"{one}/switch", Policy.ADMIN, get=False, sends={"post": {"on": "0"}})
    yield Row(f"{one}/secret", Policy.ADMIN, sends={"post": ONCE})
    yield Row(f"{one}/remove", Policy.ADMIN, sends={"post": None})
    yield Row(f"{one}/test", Policy.ADMIN, get=False, sends={"post": None})
    yield Row(f"{one}/deliveries/<uuid:delivery_id>/again", Policy.ADMIN, get=False, sends={"post": None})
    member = f"{base}/members/<int:membership_id>"
    yield Row(f"{base}/members/", Policy.VIEWER)
    added = ONCE | {"email": "matrix@example.com", "role": "viewer"}
    yield Row(f"{base}/members/new", Policy.ADMIN, sends={"post": added})
    yield Row(f"{member}/role", Policy.ADMIN, get=False, sends={"post": {"role": "operator"}})
    yield Row(f"{member}/remove", Policy.ADMIN, sends={"post": None})
    made = ONCE | {"name": "Matrix", "scopes": ["read"], "days": "30"}
    yield Row(f"{base}/tokens/", Policy.VIEWER)
    yield Row(f"{base}/tokens/new", Policy.ADMIN, sends={"post": made})
    yield Row(f"{base}/tokens/<uuid:token_id>/revoke", Policy.ADMIN, sends={"post": None})


def saved_view_pages() -> Iterator[Row]:
    """Return the rows of a shared view, which admins change. Everybody saves their own and chooses a default."""
    base = "o/<slug:slug>/views"
    one = f"{base}/<uuid:view_id>"
    saved: dict[str, Body] = {"post": {"name": "Matrix", "list": "deployments", "query": "status=failed"}}
    yield Row(f"{base}/", Policy.VIEWER)
    yield Row(f"{base}/new", Policy.VIEWER, sends=saved, queries=("query=agent%3D<agent_id>",), lowest=Role.VIEWER)
    yield Row(f"{one}/edit", Policy.VIEWER, sends={"post": {"name": "Renamed", "is_shared": "on"}}, lowest=Role.ADMIN)
    yield Row(f"{one}/remove", Policy.VIEWER, sends={"post": None}, lowest=Role.ADMIN)
    yield Row(f"{one}/default", Policy.VIEWER, get=False, sends={"post": {"on": "1"}}, lowest=Role.VIEWER)


TENANT = [
    Row("o/<slug:slug>/", Policy.VIEWER),
    Row("o/<slug:slug>/search/", Policy.VIEWER, queries=("q=<deployment_id>", "q=<agent_id>")),
    Row("o/<slug:slug>/activity/", Policy.VIEWER, queries=("subject=<agent_id>",)),
    Row("o/<slug:slug>/activity.csv", Policy.VIEWER, queries=("subject=<agent_id>",)),
    *upgrade_rows(),
    *deployment_pages(),
    *agent_pages(),
    *settings_pages(),
    *saved_view_pages(),
    *deployment_api(""),
    *deployment_api("api/v1/"),
]
PERSONAL = {
    "",
    "account/",
    "account/default-organization",
    "account/devices/<int:device_id>/sign-out",
    "account/invitations/<int:membership_id>/accept",
    "account/invitations/<int:membership_id>/decline",
    "account/organizations/<slug:slug>/leave",
    "account/tokens/",
    "account/tokens/new",
    "account/tokens/<uuid:token_id>/revoke",
    "account/times",
    "api/v1/auth/logout",
    "api/v1/auth/reauthenticate",
}
PUBLIC = {
    *("api/v1/auth/session", "api/v1/auth/login", "api/schema", "api/docs", "health", "livez", "readyz", "metrics"),
    *("csp-reports", ".well-known/security.txt"),
}
LIBRARIES = {
    "accounts/": {Policy.PUBLIC, Policy.SIGNED_IN, Policy.CLOSED},
    "admin/": {Policy.STAFF},
}


# --- targets -------------------------------------------------------------------------------------------------------


def make_place(cast: Cast, organization: Organization, **fields: Any) -> Place:
    """Create one object of each kind: an upgrade that waits for a decision and an ended one, an agent with these fields,
    a running and a stopped deployment, a channel with a failed message, and another member.
    """
    by = cast.outsider if organization == cast.globex else cast.admin
    upgrade = make_upgrade(organization, by=by, target="orchestrator", statuses=[Status.IN_PROGRESS])
    hook = {"id": "pause-1", "type": "PAUSE", "stage": "POST_SCALE_UP", "status": "AWAITING_ACTION"}
    hook |= {"expires_at": None, "timeout_action": None, "target": None}
    upgrade.rollouts.update(outcome=Outcome.WAITING_FOR_DECISION, hook=hook)
    ended = make_upgrade(
        organization, by=by, target="agent", cluster=organization.cluster, region=organization.deployment_region
    )
    # It left the revision that the agent service runs (tests/conftest.py). Any other one can be the previous revision.
    account = organization.deployment_role_arn.split(":")[4] if organization.deployment_role_arn else "111111111111"
    stack = f"arn:aws:ecs:{organization.deployment_region}:{account}:task-definition/{organization.deployment_stack}"
    ended.rollouts.update(task_definition=f"{stack}-agent:1", previous_task_definition=f"{stack}-orchestrator:1")
    agent = make_agent(cast, organization=organization, **fields)
    deployments = {status: str(make_deployment(cast, agent, status).pk) for status in ("ready", "stopped")}
    channel = make_channel(organization, by=by)
    delivery = NotificationDelivery.objects.create(
        organization=organization, channel=channel, kind="upgrade.ended", status="failed", failure="broken"
    )
    member = make_person(f"member@{organization.slug}.example.com")
    membership = Membership.objects.create(
        organization=organization, user=member, role=Role.VIEWER, accepted_at=timezone.now()
    )
    token = ApiToken.objects.create(
        organization=organization,
        user=by,
        kind=TokenKind.ORGANIZATION,
        name="Matrix pipeline",
        secret_hash=hash_secret(organization.slug),
        hint="aop_matr",
        scopes=[Scope.READ],
        expires_at=timezone.now() + timedelta(days=1),
    )
    view = SavedView.objects.create(
        organization=organization, user=by, list="deployments", name="Matrix view", query="status=ready", is_shared=True
    )
    return Place(
        slug=organization.slug,
        upgrade_id=upgrade.upgrade_id,
        ended_id=ended.upgrade_id,
        agent_id=str(agent.pk),
        deployments=deployments,
        channel_id=str(channel.pk),
        delivery_id=str(delivery.pk),
        membership_id=str(membership.pk),
        token_id=str(token.pk),
        view_id=str(view.pk),
    )


def read_rows(organization: Organization, *, audit: bool = True) -> dict[str, str]:
    """Return a digest of all rows of the organization, by table. One query, because it is called often.

    `audit`: False leaves the audit rows out, which refused attempts and exports leave too.
    """
    models = (
        *(Upgrade, Rollout, Decision, UpgradeEvent, UpgradeCheck, ValidationRun),
        *(Agent, Revision, Deployment, DeploymentEvent),
        *(IdempotencyKey, Membership, *([AuditEvent] if audit else [])),
        *(NotificationChannel, NotificationDelivery, ApiToken, SavedView, DefaultView),
    )
    owners = {Organization._meta.db_table: "id"} | {model._meta.db_table: "organization_id" for model in models}
    digest = "SELECT '{0}', md5(coalesce(string_agg({0}::text, '|' ORDER BY {0}::text), '')) FROM {0} WHERE {1} = %s"
    tables = " UNION ALL ".join(digest.format(table, column) for table, column in owners.items())
    with connection.cursor() as cursor:
        cursor.execute(tables, [organization.pk] * len(owners))
        return dict(cursor.fetchall())


@contextmanager
def undone() -> Iterator[None]:
    """Roll back what happens inside, so that each cell finds the same state."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# --- requests ------------------------------------------------------------------------------------------------------


def fill(value: Any, words: dict[str, str]) -> Any:
    """Fill in the placeholders of a URL or body."""
    if isinstance(value, dict):
        return {name: fill(each, words) for name, each in value.items()}
    if isinstance(value, list):
        return [fill(each, words) for each in value]
    return PLACEHOLDER.sub(lambda found: words[found[1]], value) if isinstance(value, str) else value


def get_address(row: Row, place: Place, query: str = "") -> str:
    words = place.words(row)
    return "/" + fill(row.route, words) + (f"?{fill(query, words)}" if query else "")


# How often each status came since a test cleared it.
ANSWERS: Counter[int] = Counter()


def ask(
    client: Client,
    row: Row,
    method: str,
    place: Place,
    *,
    htmx: bool = False,
    query: str = "",
    more: dict[str, Any] | None = None,
) -> Any:
    """Request one cell, and count its answer. `more` is added to the body; ids are always those of the place."""
    headers = (HTMX if htmx else BROWSER) | ({"X-Organization": place.slug} if row.is_api else {})
    address = get_address(row, place, query)
    if method in ("get", "head", "options"):
        answer = getattr(client, method)(address, headers=headers)
        ANSWERS[answer.status_code] += 1
        return answer
    body = fill(row.sends.get(method), place.words(row))
    if more is not None:
        body = (body or {}) | more
    if row.is_api:
        content, content_type = "" if body is None else json.dumps(body), "application/json"
    else:
        content, content_type = urlencode(body or {}, doseq=True), "application/x-www-form-urlencoded"
    answer = getattr(client, method)(address, content, content_type=content_type, headers=headers)
    ANSWERS[answer.status_code] += 1
    return answer


# Parts that differ between equal responses: the request id, the masked token, the clock.
NOISE = re.compile(
    r'[0-9a-f]{32}|"X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"|data-now="[^"]+"'
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00|\d\d:\d\d:\d\d UTC"
)


def get_text(response: Any, *asked: str) -> str:
    """Return the response's text without noise and without the words of the request."""
    text: str = NOISE.sub("", response.content.decode())
    for word in asked:
        text = text.replace(word, "")
    return text
