"""Measures 1,000 open live pages, which poll at their own pace, and triggers at the same time.

    make bench-live      (python -m bench.live_pages [--pages 1000] [--seconds 60] [--connections 64] [--every 2])

A third each are pages of upgrades, of deployments and overviews, on the data set of bench/data.py, at the production server
with two processes. Each is opened once; then its live block asks for itself as static/portal.js does: with its ETag, after
its own `data-live` seconds, ever less often while nothing changes. Worker, scheduler and local AWS run, so that the
upgrades that are triggered meanwhile, one every few seconds, really move; a part of the pages shows them.

The requests come over a pool of kept connections, as from a proxy. A poll's time counts from the moment at which it was
due, so it includes any wait for a connection. Exits with 1 if a goal is missed: p99 of the polls 250 ms, of the triggers
500 ms.
"""

import bench.environment  # noqa: F401 - sets up Django, before anything imports models

# isort: split

import argparse
import heapq
import json
import re
import selectors
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils import timezone

from bench import parts
from bench.environment import BROKER_SOCKET, CACHE_SOCKET
from bench.fleet import start_processes
from bench.load import BadAnswer, Connection
from bench.routes import Caller, find_objects
from deployments.models import Deployment
from portal.models import Membership, Organization, Role
from portal.tenancy import all_organizations
from tests.local_aws import LocalAws
from tests.processes import wait_for

# As in static/portal.js.
SLOWER, SLOWEST = 1.5, 10.0
POLL_GOAL, TRIGGER_GOAL = 250, 500
# Organizations that upgrade during the measurement, besides the measured one. Each takes one trigger at a time.
MOVING, OPENED_EACH = 20, 5
BLOCK = re.compile(rb"data-live=\"([0-9.]+)\"")
ADDRESS = re.compile(rb"data-live=\"[^>]*?hx-get=\"([^\"]+)\"", re.DOTALL)
TAG = re.compile(rb"data-tag=\"([^\"]+)\"")
TARGET = re.compile(rb"id=\"([a-z-]+)\"[^>]*? data-live=\"", re.DOTALL)
ETAG = re.compile(rb"\r\netag: ([^\r]+)", re.IGNORECASE)


@dataclass
class Page:
    """One open page: its kind, the address of its live block, the tag of what it shows, and its pace in seconds."""

    kind: str
    address: str
    target: str
    live: float
    tag: str
    pace: float = 0.0
    due: float = 0.0


@dataclass
class Found:
    """What was measured: ms by kind, and answers by kind and status."""

    times: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, kind: str, status: int, seconds: float) -> None:
        self.times.setdefault(kind, []).append(1000 * seconds)
        self.statuses[kind, status] += 1


@all_organizations("the bench gives each a platform")
def seed_moving(local_aws: LocalAws) -> list[Organization]:
    """Give the small organizations that will upgrade a platform in AWS, and the person of the bench a role in them."""
    person = parts.find_person()
    moving = list(Organization.objects.filter(slug__in=[f"small-{number}" for number in range(1, MOVING + 1)]))
    Membership.objects.bulk_create(
        Membership(organization=each, user=person, role=Role.OPERATOR, accepted_at=timezone.now()) for each in moving
    )
    for each in moving:
        parts.seed_platform(local_aws, each)
    return moving


@all_organizations("the bench chooses them")
def list_paths(pages: int, moved: dict[str, str]) -> list[tuple[str, str]]:
    """Return kind and path of each page to open. `moved`: the upgrades that move, by the slug of their organization."""
    objects, third = find_objects(), pages // 3
    ready = Deployment.objects.filter(pk__in=objects.ready[:third]).values_list("pk", flat=True)
    deployments = [("deployment", f"/o/big/deployments/{pk}/") for pk in ready]
    overviews = [("overview", "/o/big/")] * (third - len(moved)) + [("overview", f"/o/{slug}/") for slug in moved]
    moving = [("upgrade", f"/o/{slug}/upgrades/{upgrade_id}/") for slug, upgrade_id in moved.items()] * OPENED_EACH
    rest = pages - len(deployments) - len(overviews) - len(moving)
    resting = [("upgrade", f"/o/big/upgrades/{objects.upgrade_id}/")] * max(rest, 0)
    return [*deployments, *overviews, *moving, *resting][:pages]


def open_page(caller: Caller, kind: str, path: str) -> Page | None:
    """Open a page, and return how its live block polls. None if it shows nothing that changes."""
    status, body = caller.send(caller.build("GET", path, Accept="text/html"))
    if status != 200:
        raise RuntimeError(f"{path}: {status} {body.decode()[:500]}")
    live, address = BLOCK.search(body), ADDRESS.search(body)
    if live is None or address is None:
        return None
    tag, target = TAG.search(body), TARGET.search(body)
    said = tag[1].decode().replace("&quot;", '"') if tag else ""
    found = address[1].decode().replace("&amp;", "&")
    return Page(kind, found, target[1].decode() if target else "", float(live[1]), said)


class Browsers:
    """All open pages, and the pool of connections over which they ask."""

    def __init__(
        self, caller: Caller, pages: list[Page], triggers: list[bytes], every: float, connections: int
    ) -> None:
        self.caller, self.triggers, self.every = caller, deque(triggers), every
        self.free = deque(Connection(caller.port) for _ in range(connections))
        self.selector, self.found = selectors.DefaultSelector(), Found()
        self.waiting: deque[tuple[Page | None, bytes, float]] = deque()
        self.queue: list[tuple[float, int, Page]] = []
        now = time.perf_counter()
        for number, page in enumerate(pages):
            page.pace = page.live
            # They were opened at different times.
            page.due = now + page.live * (number + 1) / len(pages)
            heapq.heappush(self.queue, (page.due, number, page))
        self.next_trigger = now + every

    def run(self, seconds: float) -> Found:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or self.selector.get_map():
            now = time.perf_counter()
            if now < until:
                self.take_due(now)
            while self.waiting and self.free:
                self.send(*self.waiting.popleft())
            pause = max(0.0, min(self.queue[0][0] - time.perf_counter(), 0.05)) if self.queue else 0.05
            for key, _ in self.selector.select(pause) if self.selector.get_map() else []:
                self.receive(key)
            if not self.selector.get_map():
                time.sleep(pause)
        return self.found

    def take_due(self, now: float) -> None:
        while self.queue and self.queue[0][0] <= now:
            due, _, page = heapq.heappop(self.queue)
            self.waiting.append((page, self.build(page), due))
        if self.triggers and now >= self.next_trigger:
            self.waiting.appendleft((None, self.triggers.popleft(), self.next_trigger))
            self.next_trigger += self.every

    def build(self, page: Page) -> bytes:
        headers = {"Accept": "*/*", "HX_Request": "true", "HX_Target": page.target}
        return self.caller.build("GET", page.address, **headers, **({"If_None_Match": page.tag} if page.tag else {}))

    def send(self, page: Page | None, request: bytes, due: float) -> None:
        connection = self.free.popleft()
        self.selector.register(connection.send(request), selectors.EVENT_READ, (connection, page, request, due))

    def receive(self, key: selectors.SelectorKey) -> None:
        connection, page, request, due = key.data
        try:
            answer = connection.read()
        except (BadAnswer, ConnectionResetError):
            # The server closed the kept connection before it read the request: it is sent again.
            self.selector.unregister(key.fileobj)
            connection.close()
            self.free.append(connection)
            self.waiting.appendleft((page, request, due))
            return
        if answer is None:
            return
        self.selector.unregister(key.fileobj)
        self.free.append(connection)
        now = time.perf_counter()
        status, head, body = answer
        self.found.add(page.kind if page else "trigger", status, now - due)
        if page is not None:
            self.turn(page, status, head, body, now)

    def turn(self, page: Page, status: int, head: bytes, body: bytes, now: float) -> None:
        """Choose when the page asks again, as portal.js does. A block without an interval has ended."""
        if status == 304:
            page.pace = min(page.pace * SLOWER, max(page.live, SLOWEST))
        else:
            live, tag = BLOCK.search(body), ETAG.search(head)
            if live is None:
                return
            page.live = page.pace = float(live[1])
            page.tag = tag[1].decode().replace("w/", "W/") if tag else ""
        page.due = now + page.pace
        heapq.heappush(self.queue, (page.due, id(page), page))


def percentile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def report(found: Found, pages: int, seconds: float, cpu: dict[str, float]) -> bool:
    """Print the figures, and return whether the goals are met. `cpu`: seconds by what used them."""
    polls = [each for kind, times in found.times.items() if kind != "trigger" for each in times]
    print(
        f"{pages} open pages, {len(polls) / seconds:.0f} polls a second for {seconds:.0f} s, {settings.WEB_PROCESSES} "
        f"processes x {settings.WEB_THREADS} threads; cores used: "
        + ", ".join(f"{name} {used / seconds:.2f}" for name, used in cpu.items())
    )
    for kind, times in sorted(found.times.items()):
        said = ", ".join(
            f"{number} x {status}" for (of, status), number in sorted(found.statuses.items()) if of == kind
        )
        middle, last = percentile(times, 0.5), percentile(times, 0.99)
        print(f"  {kind}: p50 {middle:.0f} ms, p99 {last:.0f} ms ({said})")
    of_polls, of_triggers = percentile(polls, 0.99), percentile(found.times.get("trigger", []), 0.99)
    print(
        f"  all polls: p99 {of_polls:.0f} ms (goal {POLL_GOAL}); triggers: p99 {of_triggers:.0f} ms (goal {TRIGGER_GOAL})"
    )
    is_right = all(status in (200, 202, 304) for _, status in found.statuses)
    is_met = is_right and of_polls <= POLL_GOAL and of_triggers <= TRIGGER_GOAL
    print("Goals met." if is_met else "Goals missed.")
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=64, help="kept connections, as those of a proxy")
    parser.add_argument("--every", type=float, default=2, help="seconds between two triggers")
    options = parser.parse_args()
    postgres = parts.start_database(scale=1)
    for socket_path in (CACHE_SOCKET, BROKER_SOCKET):
        parts.start_redis(socket_path)
    moving = seed_moving(parts.start_aws())
    subprocess.run([sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"], check=True)
    server = parts.Server("product", "portal.wsgi", "bench.product_settings")
    start_processes()
    caller = Caller(server.port)
    wait_for(lambda: is_up(caller))
    caller.sign_in()
    body = {"service": "agent", "version": "latest", "force_new_deployment": True, "reason": "OPS-1: bench"}
    asked = [caller.build("POST", "/api/v1/deployments/upgrade", body, X_Organization=each.slug) for each in moving]
    first, later = asked[: MOVING // 2], asked[MOVING // 2 :]
    moved = {each.slug: trigger(caller, request) for each, request in zip(moving, first, strict=False)}
    opened = [open_page(caller, kind, path) for kind, path in list_paths(options.pages, moved)]
    pages = [each for each in opened if each]
    read = {"web": server.cpu, "PostgreSQL": postgres.cpu, "this driver": time.process_time}
    before = {name: cpu() for name, cpu in read.items()}
    found = Browsers(caller, pages, later, options.every, options.connections).run(options.seconds)
    cpu = {name: used() - before[name] for name, used in read.items()}
    return 0 if report(found, len(pages), options.seconds, cpu) else 1


def is_up(caller: Caller) -> bool:
    try:
        return caller.send(caller.build("GET", "/livez"))[0] == 200
    except OSError:
        return False


def trigger(caller: Caller, request: bytes) -> str:
    """Trigger an upgrade and return its id."""
    status, body = caller.send(request)
    if status != 202:
        raise RuntimeError(f"Trigger failed: {status} {body.decode()[:500]}")
    answer: dict[str, Any] = json.loads(body)
    return str(answer["upgrade_id"])


if __name__ == "__main__":
    raise SystemExit(main())
