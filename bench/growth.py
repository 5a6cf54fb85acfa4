"""Measures every route for two organizations, one of which has ten times the rows of the other.

    make bench-growth      (python -m bench.growth [--scale 10] [--routes list,page] [--seconds 1] [--rounds 3])

Both are in the data set of bench/data.py: `tenth` has 2,000 deployments of 5 agents, 100,000 events and 1,000 upgrades,
`big` has ten times as many (`--scale 10`: both ten times as many). The same server answers for both, in turn, as in
`make bench`. Printed is the CPU of application and PostgreSQL for one request, and how many times as much `big` takes.

Exits with 1 if a route takes more than 1.3 times as much. The list of agents counts from `--scale 10` on: before, `tenth`
has 5 agents, which do not fill a page.
"""

import bench.environment  # noqa: F401 - sets up Django, before anything imports models

# isort: split

import argparse
import subprocess
import sys

import redis

from bench import data, parts
from bench.__main__ import FEWEST, Bench, Window, summarize
from bench.environment import BROKER_SOCKET, CACHE_SOCKET
from bench.report import cpu
from bench.routes import TRIGGER, WRITE, Caller, Route, Undo, build_orders, build_routes, find_objects
from portal.tenancy import organizations
from tests.processes import wait_for

GOAL = 1.3
# ms: the kernel counts in steps of 10 ms for each process, and a window of writes has few requests.
NOISE = 0.3
# A page of this list is full for both from scale 10 on.
FULL_LATER = "page agents"
PEOPLE = {"tenth": data.PERSON_OF_TENTH, "big": data.PERSON}


class Growth(Bench):
    """The bench with two organizations and without the yardsticks."""

    def __init__(self, scale: int, seconds: float, rounds: int) -> None:
        self.seconds, self.rounds = seconds, rounds
        self.postgres = parts.start_database(scale)
        for socket_path in (CACHE_SOCKET, BROKER_SOCKET):
            parts.start_redis(socket_path)
        self.cache = redis.Redis(unix_socket_path=str(CACHE_SOCKET))
        parts.start_aws(*PEOPLE)
        subprocess.run([sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"], check=True)
        self.product = self.plain = self.floor = parts.Server("product", "portal.wsgi", "bench.product_settings")
        wait_for(lambda: self.answers(self.product.port, "/livez"))
        found = {slug: find_objects(slug) for slug in PEOPLE}
        undo = Undo(self.postgres, *found.values())
        self.pairs: dict[str, dict[str, Route]] = {}
        for slug, person in PEOPLE.items():
            caller = Caller(self.product.port)
            caller.sign_in(person)
            of_both = [*build_routes(caller, Caller(0), found[slug], undo), *build_orders(caller, found[slug])]
            for route in of_both:
                self.pairs.setdefault(route.name, {})[slug] = route
        self.ids = [each.organization for each in found.values()]

    def compare(self, pair: dict[str, Route]) -> dict[str, float]:
        """Return the CPU ms of a request for each organization: the median of the windows, which take turns."""
        windows = {slug: [self.measure_once(route)] for slug, route in pair.items()}
        for _ in range(self.rounds):
            for slug, route in pair.items():
                windows[slug].append(self.measure_once(route))
        # The first one of each warms up.
        return {slug: cpu(summarize({"product": each[1:]})["product"]) for slug, each in windows.items()}

    def measure_once(self, route: Route) -> Window:
        if route.kind in (WRITE, TRIGGER):
            return self.write(route, self.seconds, FEWEST[route.kind])
        return self.drive(self.product, self.with_etag(route), route.status, self.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="how many times the rows of both organizations")
    parser.add_argument("--routes", default="", help="only those whose name contains one of these, separated by commas")
    parser.add_argument("--seconds", type=float, default=1, help="the length of a window")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each organization; the median is printed")
    options = parser.parse_args()
    running = Growth(options.scale, options.seconds, options.rounds)
    wanted = [part.strip() for part in options.routes.split(",") if part.strip()]
    print("| route | CPU ms with a tenth | with all rows | ratio |\n|---|---|---|---|")
    grown = []
    with organizations(*running.ids):
        for name, pair in running.pairs.items():
            if wanted and not any(part in name for part in wanted):
                continue
            found = running.compare(pair)
            ratio = found["big"] / max(found["tenth"], NOISE)
            print(f"| {name} | {found['tenth']:.2f} | {found['big']:.2f} | {ratio:.2f} |", flush=True)
            is_full = name != FULL_LATER or options.scale >= 10
            if is_full and found["big"] > GOAL * found["tenth"] + NOISE:
                grown.append(name)
    print("Every route is within 1.3 times." if not grown else f"These grow with the rows: {', '.join(grown)}.")
    return 1 if grown else 0


if __name__ == "__main__":
    raise SystemExit(main())
