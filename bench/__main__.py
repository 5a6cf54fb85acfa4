"""Measures what each route costs, beside two yardsticks, on the data set of bench/data.py.

    make bench      (python -m bench [--scale 10] [--routes list,detail] [--seconds 2] [--json FILE])

The product, a plain REST framework project over the same tables (bench/plain), and the floor (bench/floor.py) run as three
servers with the production command. For each route the three are driven in turn, A B C A B C, by 16 connections. Between
two windows the bench waits until no process works. Writes and triggers have one caller, and their rows are put back.

CPU is what the kernel has counted for the processes of a server, and for all of PostgreSQL, between begin and end of the
window, divided by the requests. So it means something on a shared machine as well; requests/s, p50 and p99 do not. The
median of the rounds is printed. Then the bench of the reconciler runs (bench/reconcile.py), unless --routes names some
routes. docs/performance.md says more.
"""

import bench.environment  # noqa: F401 - sets up Django, before anything imports models

# isort: split

import argparse
import base64
import itertools
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from django.conf import settings

from bench import parts, report
from bench.environment import BROKER_SOCKET, CACHE_SOCKET, CLUSTER, DIRECTORY, INHERITED
from bench.load import Connection
from bench.routes import TRIGGER, WRITE, Caller, Route, Undo, build_routes, find_objects
from portal.tenancy import organizations
from tests.processes import wait_for

CONNECTIONS, COUNTED_REQUESTS, WARM_SECONDS = 16, 8, 1.0
# Of the requests in a window: the kernel counts in steps of 10 ms.
FEWEST = {WRITE: 20, TRIGGER: 4}
# Each thread prepares a statement the third time, and PostgreSQL keeps its plan after five more.
WARM_REQUESTS = 10 * settings.WEB_PROCESSES * settings.WEB_THREADS
WARM_WRITES = {WRITE: WARM_REQUESTS, TRIGGER: 4}
# The last one ends the context of row-level security after the answer (portal/tenancy.py).
NOT_COUNTED = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET PORTAL.ORGANIZATIONS")
# A process that uses less than this share of a core is idle.
IDLE_SHARE, IDLE_SECONDS, IDLE_WAIT = 0.02, 0.2, 30


@dataclass(frozen=True)
class Window:
    """What one window measured. Times in ms."""

    app: float
    pg: float
    per_second: float
    p50: float
    p99: float
    requests: int
    body_bytes: int
    status: int


class Bench:
    """The running parts, and the windows in which they are measured."""

    def __init__(self, scale: int, seconds: float, rounds: int) -> None:
        self.seconds, self.rounds = seconds, rounds
        self.postgres = parts.start_database(scale)
        for socket_path in (CACHE_SOCKET, BROKER_SOCKET):
            parts.start_redis(socket_path)
        self.cache = redis.Redis(unix_socket_path=str(CACHE_SOCKET))
        parts.start_aws()
        subprocess.run([sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"], check=True)
        self.objects = find_objects()
        context = f"{{{self.objects.organization}}}"
        statements = DIRECTORY / "statements.json"
        self.product = parts.Server("product", "portal.wsgi", "bench.product_settings")
        self.plain = parts.Server("plain", "bench.plain.wsgi", "bench.plain.settings")
        self.floor = parts.Server(
            "floor",
            "bench.floor:application",
            "bench.floor_settings",
            BENCH_STATEMENTS=str(statements),
            BENCH_CONTEXT=context,
        )
        self.callers = {
            name: Caller(server.port) for name, server in (("product", self.product), ("plain", self.plain))
        }
        wait_for(lambda: self.answers(self.product.port, "/livez"))
        wait_for(lambda: self.listens(self.floor.port))
        self.callers["product"].sign_in()
        self.callers["plain"].sign_in_plainly()
        self.routes = build_routes(
            self.callers["product"], self.callers["plain"], self.objects, Undo(self.postgres, self.objects)
        )
        self.noop = next(route for route in self.routes if route.name == "no-op")
        statements.write_text(json.dumps({path_of(route): route.statement for route in self.routes if route.statement}))

    def answers(self, port: int, path: str) -> bool:
        try:
            return Caller(port).send(Caller(port).build("GET", path))[0] == 200
        except OSError:
            return False

    def listens(self, port: int) -> bool:
        try:
            Connection(port).open()
        except OSError:
            return False
        return True

    def wait_until_idle(self) -> None:
        """Wait until servers and PostgreSQL do nothing, so that nothing of this window counts for the next."""
        until = time.monotonic() + IDLE_WAIT
        while time.monotonic() < until:
            before = self.total_cpu()
            time.sleep(IDLE_SECONDS)
            if self.total_cpu() - before <= IDLE_SHARE * IDLE_SECONDS:
                return

    def total_cpu(self) -> float:
        return self.postgres.cpu() + sum(server.cpu() for server in (self.product, self.plain, self.floor))

    def drive(self, server: parts.Server, request: bytes, status: int, seconds: float) -> Window:
        """Measure one window of reads, from idle to idle."""
        self.wait_until_idle()
        app, pg = server.cpu(), self.postgres.cpu()
        asked: dict[str, Any] = {"port": server.port, "connections": CONNECTIONS, "seconds": seconds}
        asked["request"] = base64.b64encode(request).decode()
        command = [sys.executable, "-m", "bench.load"]
        done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
        answer = json.loads(done.stdout or '{"statuses": {}}')
        said = {name: number for name, number in answer["statuses"].items() if name != "closed"}
        # A fragment that should be unchanged may differ each time. The table then says 200 instead of 304.
        if len(said) != 1 or not said.keys() <= {str(status), "200"}:
            line = request.partition(b"\r\n")[0].decode()
            raise RuntimeError(f"{server.name}: {line} answered {said}, not {status}.\n{server.read_log()}")
        self.wait_until_idle()
        cpu = (server.cpu() - app, self.postgres.cpu() - pg)
        return build_window(cpu, answer["seconds"], answer["elapsed"], answer["body_bytes"], int(next(iter(said))))

    def warm(self, server: parts.Server, request: bytes, status: int) -> None:
        """Drive a server until its threads have prepared their statements: a page takes longer than a second for it."""
        answered = 0
        while answered < WARM_REQUESTS:
            answered += self.drive(server, request, status, WARM_SECONDS).requests

    def write(self, route: Route, seconds: float, fewest: int) -> Window:
        """Measure one window of writes by one caller, each of another row, then put the rows back.

        The caller uses its connections in turn, so that all processes serve it, in each window alike.
        A trigger takes the service's only slot, so its rows are put back after each one.
        """
        assert route.requests is not None  # noqa: S101
        assert route.reset is not None  # noqa: S101
        self.wait_until_idle()
        connections, times, size = [Connection(self.product.port) for _ in range(CONNECTIONS)], [], 0
        app, pg, until = self.product.cpu(), self.postgres.cpu(), time.monotonic() + seconds
        for request, connection in zip(route.requests(), itertools.cycle(connections), strict=False):
            status, _, body, took = connection.exchange(request)
            times.append(took)
            size = len(body)
            if status != route.status:
                raise RuntimeError(f"{route.name}: {status} {body.decode()[:500]}")
            if route.kind == TRIGGER:
                route.reset()
            if time.monotonic() > until and len(times) >= fewest:
                break
        for connection in connections:
            connection.close()
        self.wait_until_idle()
        cpu = (self.product.cpu() - app, self.postgres.cpu() - pg)
        window = build_window(cpu, times, sum(times), size, route.status)
        route.reset()
        return window

    def measure(self, route: Route) -> dict[str, Any]:
        """Measure a route: all subjects in turn, in each round; then its statements and its commands to the cache."""
        windows: dict[str, list[Window]]
        if route.kind in (WRITE, TRIGGER):
            self.write(route, WARM_SECONDS, WARM_WRITES[route.kind])
            windows = {"product": [self.write(route, self.seconds, FEWEST[route.kind]) for _ in range(self.rounds)]}
            return {**summarize(windows), **self.count(route)}
        request = self.with_etag(route)
        subjects: dict[str, tuple[parts.Server, bytes, int]] = {"product": (self.product, request, route.status)}
        if route.plain:
            subjects["plain"] = (self.plain, route.plain, 200)
        if route.statement:
            self.compare_with_floor(route)
            subjects["no-op"] = (self.product, self.noop.request, 200)
            subjects["bare"] = (self.floor, Caller(0).build("GET", path_of(route)), 200)
        for subject in subjects.values():
            self.warm(*subject)
        windows = {name: [] for name in subjects}
        for _ in range(self.rounds):
            for name, subject in subjects.items():
                windows[name].append(self.drive(*subject, self.seconds))
        return {**summarize(windows), **self.count(route)}

    def with_etag(self, route: Route) -> bytes:
        """Return the request, with the ETag of what it would show now if the route asks for an unchanged fragment."""
        if not route.is_conditional:
            return route.request
        connection = Connection(self.product.port)
        _, head, _, _ = connection.exchange(route.request)
        connection.close()
        found = re.search(rb"\r\netag: ([^\r]+)", head, re.IGNORECASE)
        if found is None:
            raise RuntimeError(f"{route.name} has no ETag.")
        return route.request[:-2] + b"If-None-Match: " + found[1] + b"\r\n\r\n"

    def compare_with_floor(self, route: Route) -> None:
        """Print which values of the product's answer the floor's statement does not return: it must be the same JSON."""
        product = Caller(self.product.port).send(route.request)[1]
        bare = Caller(self.floor.port).send(Caller(0).build("GET", path_of(route)))[1]
        different = report.find_differences(json.loads(product), json.loads(bare))
        if different:
            print(f"{route.name}: the floor differs from the product in {', '.join(different[:5])}.", file=sys.stderr)

    def count(self, route: Route) -> dict[str, Any]:
        """Count the statements and the cache's commands of single requests: the median."""
        requests = route.requests() if route.requests else iter([self.with_etag(route)] * COUNTED_REQUESTS)
        connection, counted, commands = Connection(self.product.port), [], []
        self.postgres.log_statements("all")
        for _ in range(COUNTED_REQUESTS):
            at = (CLUSTER / "log").stat().st_size
            before = self.cache_commands()
            connection.exchange(next(requests))
            commands.append(self.cache_commands() - before)
            time.sleep(0.05)  # what runs after the answer was sent
            sent = [text for text in self.postgres.read_log(at)[0] if not text.upper().startswith(NOT_COUNTED)]
            counted.append(sent)
            if route.kind == TRIGGER and route.reset:
                route.reset()
        self.postgres.log_statements("none")
        connection.close()
        if route.reset:
            route.reset()
        typical = sorted(counted, key=len)[len(counted) // 2]
        return {
            "statements": len(typical),
            "cache": statistics.median_low(commands),
            "sql": [text[:300] for text in typical],
        }

    def cache_commands(self) -> int:
        calls: dict[str, Any] = self.cache.info("commandstats")
        return sum(
            each["calls"] for name, each in calls.items() if name not in ("cmdstat_info", "cmdstat_client|setinfo")
        )


def path_of(route: Route) -> str:
    return "/" + route.name.replace(" ", "-")


def build_window(
    cpu: tuple[float, float], seconds: list[float], elapsed: float, body_bytes: int, status: int
) -> Window:
    ordered, number = sorted(seconds), len(seconds)
    return Window(
        app=1000 * cpu[0] / number,
        pg=1000 * cpu[1] / number,
        per_second=number / elapsed,
        p50=1000 * statistics.median(ordered),
        p99=1000 * ordered[min(number - 1, int(number * 0.99))],
        requests=number,
        body_bytes=body_bytes,
        status=status,
    )


def summarize(windows: dict[str, list[Window]]) -> dict[str, Any]:
    """Return the median of each figure for each subject."""
    names = list(asdict(windows["product"][0]))
    return {
        subject: {name: round(statistics.median(getattr(each, name) for each in found), 3) for name in names}
        for subject, found in windows.items()
    }


def describe_run(options: argparse.Namespace) -> dict[str, Any]:
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)  # noqa: S607
    return {
        "revision": revision.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": options.scale,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processes": settings.WEB_PROCESSES,
        "threads": settings.WEB_THREADS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="how many times the rows of the measured organization")
    parser.add_argument("--routes", default="", help="only those whose name contains one of these, separated by commas")
    parser.add_argument("--seconds", type=float, default=2, help="the length of a window")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each subject; the median is printed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--without-reconciler", action="store_true", help="leave out bench/reconcile.py; --routes does too"
    )
    options = parser.parse_args()
    running = Bench(options.scale, options.seconds, options.rounds)
    wanted = [part.strip() for part in options.routes.split(",") if part.strip()]
    found: dict[str, Any] = {}
    result: dict[str, Any] = {"run": describe_run(options), "routes": found}
    print(report.heading(result["run"]))
    with organizations(running.objects.organization):
        for route in running.routes:
            if not wanted or any(part in route.name for part in wanted):
                found[route.name] = {"kind": route.kind, **running.measure(route)}
                print(report.line(route.name, found[route.name]), flush=True)
    result["memory"] = {server.name: server.memory() for server in (running.product, running.plain)}
    print(report.memory(result["memory"]))
    is_met = True
    if not wanted and not options.without_reconciler:
        result["reconciler"], is_met = run_reconciler()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if is_met else 1


def run_reconciler() -> tuple[list[str], bool]:
    """Run bench/reconcile.py, which has a database of its own. Return its lines, and whether its goals were met."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.reconcile"], env=INHERITED, stdout=subprocess.PIPE, text=True, check=False
    )
    print(f"\n{done.stdout}")
    return done.stdout.splitlines(), done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
