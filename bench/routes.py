"""The routes that the bench measures: the request to the product, to the yardstick, and the floor's statement."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from bench import data, floor
from bench.environment import HOST
from bench.load import Connection
from bench.parts import Postgres, find_person
from deployments.models import Deployment
from portal.models import Organization
from portal.tenancy import all_organizations
from upgrades.models import Upgrade

API, PAGE, FRAGMENT, WRITE, TRIGGER = "api", "page", "fragment", "write", "trigger"
Headers = dict[str, str]
# How far down the longest list of events a page of it is read.
FAR = 150_000
# Rows that writes use, of each kind. A window that has used them all ends early.
WRITE_ROWS = 600


@dataclass(frozen=True)
class Route:
    """One row of the table. `requests` yields a write's requests, each once; `reset` undoes them."""

    name: str
    kind: str
    status: int = 200
    request: bytes = b""
    plain: bytes = b""
    statement: str = ""
    requests: Callable[[], Iterator[bytes]] | None = None
    reset: Callable[[], None] | None = None
    is_conditional: bool = False


@dataclass
class Caller:
    """The signed-in person of the requests, at one server."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def build(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Return the bytes of a request, as a browser sends it behind the proxy."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = {
            "Host": HOST,
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "203.0.113.7",
            "User-Agent": "bench",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if method != "GET":
            token = self.cookies.get(settings.CSRF_COOKIE_NAME, "")
            lines |= {"Referer": f"https://{HOST}/", "X-CSRFToken": token, "Content-Length": str(len(content))}
            lines |= {"Content-Type": "application/json"} if content else {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content

    def send(self, request: bytes) -> tuple[int, bytes]:
        """Send one request, keep the cookies of the answer, and return status and body."""
        connection = Connection(self.port)
        status, head, body, _ = connection.exchange(request)
        connection.close()
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                self.cookies |= {key: morsel.value for key, morsel in SimpleCookie(value).items()}
        return status, body

    def sign_in(self, person: tuple[str, str] = data.PERSON) -> None:
        """Sign in through the API."""
        self.send(self.build("GET", "/api/v1/auth/session"))
        email, password = person
        status, body = self.send(self.build("POST", "/api/v1/auth/login", {"email": email, "password": password}))
        if status != 200:
            raise RuntimeError(f"Sign-in failed: {status} {body.decode()[:500]}")

    def sign_in_plainly(self) -> None:
        """Create a session of Django's own kind, for the yardstick."""
        person, session = find_person(), SessionStore()
        session[SESSION_KEY] = str(person.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = person.get_session_auth_hash()
        session.save()
        self.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)


@dataclass(frozen=True)
class Objects:
    """What the requests name: objects of the measured organization."""

    slug: str
    organization: UUID
    detailed: UUID
    medium: UUID
    large: UUID
    upgrade_id: str
    agents: list[UUID]
    ready: list[UUID]
    stopped: list[UUID]


@all_organizations("the bench measures one and looks up its objects")
def find_objects(slug: str = "big") -> Objects:
    big, number = Organization.objects.get(slug=slug), 0 if slug == "big" else data.TENTH
    mine = Deployment.objects.filter(organization=big)
    detailed, medium, large = (
        data.number_id("deployment", each, number) for each in (data.DETAILED, data.MEDIUM, data.LARGE)
    )
    ready = mine.filter(status="ready").exclude(pk__in=[detailed, medium, large])
    stopped = mine.filter(status__in=["stopped", "failed"])
    newest = Upgrade.objects.filter(organization=big).order_by("-created_at", "-id")[0]
    return Objects(
        slug=slug,
        organization=big.pk,
        detailed=detailed,
        medium=medium,
        large=large,
        upgrade_id=newest.upgrade_id,
        agents=list(big.agents.order_by("name").values_list("pk", flat=True)[: data.AGENTS]),
        ready=list(ready.order_by("created_at").values_list("pk", flat=True)[: 3 * WRITE_ROWS]),
        stopped=list(stopped.order_by("created_at").values_list("pk", flat=True)[:WRITE_ROWS]),
    )


class Undo:
    """Puts the rows back that writes have changed, so that each window finds the same. Through an administrator."""

    def __init__(self, postgres: Postgres, *objects: Objects) -> None:
        self.admin = postgres.admin
        self.since = datetime.now(UTC)
        ids = [pk for each in objects for pk in (*each.ready, *each.stopped)]
        self.admin.execute(
            "CREATE TABLE bench.before AS SELECT * FROM deployments_deployment WHERE id = ANY(%s)", [ids]
        )
        self.admin.execute("ALTER TABLE bench.before ADD PRIMARY KEY (id)")
        columns = [str(f.column) for f in Deployment._meta.concrete_fields if f.column != "id"]
        names = ", ".join(columns)
        self.restore = f"""UPDATE deployments_deployment d SET ({names}) = ROW ({", ".join(f"b.{c}" for c in columns)})
            FROM bench.before b WHERE b.id = d.id AND d.xmin::text <> b.xmin::text
            AND (d.wish, d.status, d.events_count, d.wanted) <> (b.wish, b.status, b.events_count, b.wanted)"""

    def deployments(self) -> None:
        # The events of deployments that existed before, then new deployments with theirs.
        self.admin.execute(
            """DELETE FROM deployments_deploymentevent e USING bench.before b
            WHERE e.deployment_id = b.id AND e.sequence > b.events_count"""
        )
        self.admin.execute(self.restore)
        new = "(SELECT id FROM deployments_deployment WHERE created_at > %s)"
        self.admin.execute(f"DELETE FROM deployments_deploymentevent WHERE deployment_id IN {new}", [self.since])
        self.admin.execute("DELETE FROM deployments_deployment WHERE created_at > %s", [self.since])
        self.admin.execute("VACUUM deployments_deployment, deployments_deploymentevent, deployments_deploymentcount")

    def upgrades(self) -> None:
        new = "(SELECT id FROM deployment_upgrades WHERE created_at > %s)"
        for table in ("events", "checks", "validations", "services"):
            self.admin.execute(f"DELETE FROM deployment_upgrade_{table} WHERE upgrade_id IN {new}", [self.since])
        self.admin.execute("DELETE FROM deployment_upgrades WHERE created_at > %s", [self.since])


def build_routes(product: Caller, plain: Caller, objects: Objects, undo: Undo) -> list[Route]:
    return [
        *build_probes(product),
        *build_reads(product, plain, objects),
        *build_pages(product, objects),
        *build_writes(product, objects, undo),
    ]


def build_probes(product: Caller) -> list[Route]:
    return [
        Route("/livez", API, request=product.build("GET", "/livez")),
        Route("no-op", API, request=product.build("GET", "/api/v1/bench/noop")),
    ]


def build_reads(product: Caller, plain: Caller, objects: Objects) -> list[Route]:
    def read(path: str) -> bytes:
        return product.build("GET", f"/api/v1/{path}", X_Organization=objects.slug, Accept="application/json")

    def record(name: str, path: str, plain_path: str, statement: str) -> Route:
        return Route(name, API, request=read(path), plain=plain.build("GET", f"/{plain_path}"), statement=statement)

    organization, large = objects.organization, f"deployments/{objects.large}/events?limit=100"
    medium, one = f"deployments/{objects.medium}/events?limit=100", f"deployments/{objects.detailed}"
    skip = FAR if objects.slug == "big" else FAR // 10
    far, upgrade = f"{large}&skip={skip}", objects.upgrade_id
    no_match = read("deployments?limit=50&q=no-such-agent")
    return [
        record("list 50", "deployments?limit=50", "deployments?limit=50", floor.list_statement(organization)),
        record(
            "list failed", "deployments?limit=50&status=failed", "deployments?limit=50&status=failed",
            floor.list_statement(organization, "failed"),
        ),
        Route(
            "list q no match", API, request=no_match, plain=plain.build("GET", "/deployments?limit=50&search=no-such-agent")
        ),
        record("detail", one, one, floor.detail_statement(objects.detailed)),
        record("events small", medium, medium, floor.events_statement(objects.medium)),
        record("events large", large, large, floor.events_statement(objects.large)),
        record(
            "events large skip", far, far.replace("skip=", "offset="), floor.events_statement(objects.large, skip)
        ),
        record("history 50", "deployments/upgrades?limit=50", "upgrades?limit=50", floor.history_statement(organization)),
        record("upgrade", f"deployments/upgrade/{upgrade}", f"upgrades/{upgrade}", floor.upgrade_statement(upgrade)),
        Route("pre-flight", API, request=read("deployments/preflight?service=all")),
    ]  # fmt: skip


def build_pages(product: Caller, objects: Objects) -> list[Route]:
    home = f"/o/{objects.slug}/"
    paths = {
        "list": f"{home}deployments/",
        "detail": f"{home}deployments/{objects.detailed}/",
        "history": f"{home}upgrades/",
        "upgrade": f"{home}upgrades/{objects.upgrade_id}/",
        "upgrade form": f"{home}upgrades/new?service=all",
        "agents": f"{home}agents/",
        "overview": home,
    }
    pages = [
        Route(f"page {name}", PAGE, request=product.build("GET", path, Accept="text/html"))
        for name, path in paths.items()
    ]
    fragments = [
        Route(
            f"fragment {name}", FRAGMENT, status=304, is_conditional=True,
            request=product.build("GET", path, Accept="*/*", HX_Request="true", **targets),
        )
        for name, path, targets in (
            ("list", paths["list"], {}), ("state", paths["detail"], {"HX_Target": "state"}),
            ("upgrade", paths["upgrade"], {}), ("overview", f"{home}services/", {}),
        )
    ]  # fmt: skip
    return pages + fragments


def build_orders(product: Caller, objects: Objects) -> list[Route]:
    """Return the lists in other orders and with filters, which `make bench-growth` measures as well."""
    queries = {
        "list oldest": "deployments/?sort=created_at",
        "list by status": "deployments/?sort=status",
        "list by replicas": "deployments/?sort=-replicas",
        "list by agent": "deployments/?sort=agent",
        "list killed": "deployments/?status=killed",
        "list q no match by replicas": "deployments/?q=no-such-agent&sort=-replicas",
        "history failed": "upgrades/?status=FAILED",
        "history of a service": "upgrades/?service=agent",
        "history of a version": "upgrades/?version=v0",
        "search no match": "search/?q=no-such-thing",
        "activity": "activity/",
    }
    return [
        Route(f"page {name}", PAGE, request=product.build("GET", f"/o/{objects.slug}/{path}", Accept="text/html"))
        for name, path in queries.items()
    ]


def build_writes(product: Caller, objects: Objects, undo: Undo) -> list[Route]:
    def each(ids: list[UUID], method: str, suffix: str, body: Any = None) -> Callable[[], Iterator[bytes]]:
        requests = [product.build(method, f"/api/v1/deployments/{one}{suffix}", body) for one in ids]
        return lambda: iter(requests)

    creates = [
        product.build(
            "POST",
            "/api/v1/deployments",
            {"agent_id": str(objects.agents[n % len(objects.agents)])},
            X_Organization=objects.slug,
        )
        for n in range(WRITE_ROWS)
    ]
    thirds = [objects.ready[at::3] for at in range(3)]
    body = {"service": "agent", "version": "latest", "force_new_deployment": True, "reason": "OPS-1: bench"}
    trigger = product.build("POST", "/api/v1/deployments/upgrade", body, X_Organization=objects.slug)
    back = undo.deployments
    return [
        Route("create", WRITE, 201, requests=lambda: iter(creates), reset=back),
        Route("scale", WRITE, requests=each(thirds[0], "POST", "/scale", {"replicas": 6}), reset=back),
        Route("stop", WRITE, requests=each(thirds[1], "POST", "/stop"), reset=back),
        Route("restart", WRITE, requests=each(objects.stopped, "POST", "/restart"), reset=back),
        Route("kill", WRITE, 204, requests=each(thirds[2], "DELETE", ""), reset=back),
        Route("trigger", TRIGGER, 202, requests=lambda: itertools.repeat(trigger), reset=undo.upgrades),
    ]
