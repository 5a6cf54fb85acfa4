"""Measures 1,000 upgrades that begin at the same time, in 10,000 organizations over 200 AWS accounts.

    make bench-fleet      (python -m bench.fleet [--upgrades 1000] [--organizations 10000] [--slow 8] [--finished 1000000])

Real worker and scheduler processes against the local AWS with AWS's limits on. Where the local AWS and the engine share two
cores, `--slow` runs AWS's clock and limits slower by a factor, and lengthens the engine's intervals by the same. Times
are printed in unslowed seconds. Then the sweep's cost is compared with 10,000 and with many finished upgrades.

Exits with 1 if a goal is missed: the end of a rollout is seen within 10 s at p95, no call is throttled, each account gets
at most half of AWS's calls, no organization waits more than twice as long as the median, the sweep costs the same.
"""

import bench.environment  # noqa: F401 - sets up Django, before anything imports models

# isort: split

import argparse
import atexit
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from bench import parts
from bench.data import Writer
from bench.environment import BROKER_SOCKET, CACHE_SOCKET, CLUSTER, DIRECTORY
from portal.local import embedded
from portal.models import Membership, MetricCount, Organization, Role, User
from portal.sandbox.throttling import LIMITS
from portal.tenancy import all_organizations
from tests.local_aws import ROOT, LocalAws
from upgrades import tasks
from upgrades.models import Rollout, Upgrade, ValidationRun
from upgrades.states import Phase

ACCOUNTS, FEW_FINISHED, SWEEPS = 200, 10_000, 50
# The settings in seconds that run slower with the local AWS.
INTERVALS = (
    *("UPGRADE_POLL_SECONDS", "UPGRADE_DEADLINE_SECONDS", "UPGRADE_STALL_SECONDS", "UPGRADE_ADOPT_SECONDS"),
    *("UPGRADE_STEADY_SECONDS", "UPGRADE_VALIDATION_SECONDS"),
)
SEEN_WITHIN_SECONDS, LONGEST_WAIT_RATIO, SHARE_OF_LIMITS, SWEEP_RATIO = 10.0, 2.0, 0.5, 1.3
# ms: the kernel counts in steps of 10 ms for each process.
SWEEP_NOISE = 0.4
PATIENCE_SECONDS = 300


def account(number: int) -> str:
    return str(300_000_000_000 + number % ACCOUNTS)


def role(number: int) -> str:
    return f"arn:aws:iam::{account(number)}:role/portal"


@all_organizations("the bench creates them")
def seed(local_aws: LocalAws, organizations: int, upgrades: int) -> tuple[User, list[Organization]]:
    """Create the organizations, and in AWS the agent service of those that upgrade. Return them with their operator."""
    person = User.objects.create_user("fleet@example.com", None)
    rows = [
        Organization(
            slug=f"fleet-{number}",
            name=f"Fleet {number}",
            deployment_stack=f"fleet-{number}",
            deployment_role_arn=role(number),
            deployment_external_id="fleet-external-id",
        )
        for number in range(organizations)
    ]
    Organization.objects.bulk_create(rows, batch_size=1000)
    Membership.objects.bulk_create(
        [Membership(organization=row, user=person, role=Role.OPERATOR, accepted_at=timezone.now()) for row in rows],
        batch_size=1000,
    )
    local_aws.seed(roles=[{"arn": role(number), "external_id": "fleet-external-id"} for number in range(ACCOUNTS)])
    for number, row in enumerate(rows[:upgrades]):
        services = [{"name": f"{row.slug}-agent-service", "desired_count": 2}]
        local_aws.seed(account=account(number), cluster=row.cluster, services=services)
    return person, rows


def start_processes() -> None:
    """Start the worker and the scheduler of the docs."""
    for name, command in (
        ("worker", ["celery", "-A", "portal", "worker", "--concurrency", "4", "--loglevel", "warning"]),
        ("scheduler", ["manage.py", "run_scheduler"]),
    ):
        prefix = ["-m"] if name == "worker" else []
        with (DIRECTORY / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, *prefix, *command], cwd=ROOT, stdout=log, stderr=log)  # noqa: S603
        atexit.register(process.wait)
        atexit.register(process.terminate)


@all_organizations("the bench acts in each")
def begin(person: User, organizations: list[Organization]) -> datetime:
    """Record one upgrade of each organization, all due now, as the trigger does. Return when."""
    now = timezone.now()
    upgrades = [
        Upgrade(
            upgrade_id=f"fleet-{number}",
            organization=each,
            target="agent",
            version="latest",
            force_new_deployment=True,
            initiated_by=person,
            initiated_by_email=person.email,
            cluster=each.cluster or "",
            region=each.deployment_region,
            role_arn=each.deployment_role_arn,
        )
        for number, each in enumerate(organizations)
    ]
    Upgrade.objects.bulk_create(upgrades)
    deadline = now + timedelta(seconds=settings.UPGRADE_DEADLINE_SECONDS)
    Rollout.objects.bulk_create(
        Rollout(
            upgrade=upgrade,
            organization_id=upgrade.organization_id,
            service="agent",
            service_name=f"{upgrade.cluster.removesuffix('-cluster')}-agent-service",
            position=0,
            phase=Phase.DUE,
            next_check_at=now,
            deadline_at=deadline,
        )
        for upgrade in upgrades
    )
    return now


@all_organizations("the bench reads them all")
def wait_until_done(slow: float) -> None:
    until = time.monotonic() + PATIENCE_SECONDS * slow
    while Rollout.objects.exclude(phase=Phase.DONE).exists() and time.monotonic() < until:
        time.sleep(2)


@all_organizations("the bench reads them all")
def find_delays(local_aws: LocalAws, began: datetime, slow: float) -> tuple[list[float], list[float]]:
    """Return, in unslowed seconds, how late each rollout's end was seen, and how long each waited for UpdateService."""
    clock_at, wall_at = local_aws.now(), time.time()

    def as_wall(sandbox: float) -> float:
        return wall_at - (clock_at - sandbox) * slow

    called = {entry["cluster"]: entry["time"] for entry in local_aws.ledger(action="UpdateService")}
    seen, waited = [], []
    for rollout in Rollout.objects.select_related("upgrade").filter(phase=Phase.DONE):
        cluster = rollout.upgrade.cluster
        ended = local_aws.deployments(cluster)[rollout.service_name]["deployments"][0]["finished_at"]
        if ended and rollout.completed_at:
            seen.append((rollout.completed_at.timestamp() - as_wall(ended)) / slow)
        if cluster in called:
            waited.append((as_wall(called[cluster]) - began.timestamp()) / slow)
    return sorted(seen), sorted(waited)


def count_calls(seconds: float) -> tuple[float, int]:
    """Return the most calls a second of any account, and how many calls were throttled. From the portal's own counters."""
    by_account: dict[str, float] = {}
    throttled = 0
    for row in MetricCount.objects.filter(name="aws_calls"):
        owner, _, result = json.loads(row.labels)
        by_account[owner] = by_account.get(owner, 0) + row.value
        throttled += int(row.value) if result == "throttled" else 0
    return max(by_account.values(), default=0) / seconds, throttled


def add_finished(postgres: parts.Postgres, person: User, first: int, last: int) -> None:
    """Insert finished upgrades with one rollout each, spread over the organizations."""
    writer = Writer(postgres.admin)
    numbered = (
        f"generate_series({first}, {last}) n JOIN bench_fleet o ON o.number = n % (SELECT count(*) FROM bench_fleet)"
    )
    postgres.admin.execute(
        "CREATE TEMP TABLE IF NOT EXISTS bench_fleet AS"
        " SELECT id, row_number() OVER () - 1 AS number FROM portal_organization"
    )
    postgres.admin.execute("ANALYZE bench_fleet")
    at = "now() - interval '1 day' - n * interval '10 seconds'"
    writer.insert(
        Upgrade,
        numbered,
        {
            "upgrade_id": "'finished-' || n",
            "organization": "o.id",
            "target": "'agent'",
            "version": "'v9.1'",
            "force_new_deployment": "false",
            "status": "'FAILED'",
            "initiated_by": str(person.pk),
            "initiated_by_email": f"'{person.email}'",
            "cluster": "'fleet'",
            "region": "'eu-central-1'",
            "created_at": at,
            "completed_at": at,
        },
        triggers=False,
    )
    writer.insert(
        Rollout,
        f"deployment_upgrades u WHERE u.upgrade_id IN (SELECT 'finished-' || n FROM generate_series({first}, {last}) n)",
        {
            "upgrade": "u.id",
            "organization": "u.organization_id",
            "service": "'agent'",
            "service_name": "'agent-service'",
            "position": "0",
            "status": "'FAILED'",
            "outcome": "'rolled_back'",
            "phase": "'done'",
            "completed_at": "u.completed_at",
        },
        triggers=False,
    )
    postgres.admin.execute("VACUUM (ANALYZE) deployment_upgrades, deployment_upgrade_services")


def measure_sweeps(postgres: parts.Postgres) -> dict[str, float]:
    """Return the CPU ms of PostgreSQL for each scheduled job of upgrades, while nothing is due."""
    found = {}
    for job in (tasks.sweep, tasks.sweep_validations, tasks.maintain_validations):
        job()
        before = postgres.cpu()
        for _ in range(SWEEPS):
            job()
        found[job.__name__] = 1000 * (postgres.cpu() - before) / SWEEPS
    return found


def compare_sweeps(postgres: parts.Postgres, person: User, finished: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the jobs' costs with few and with many finished upgrades. Nothing of the run before is due any more."""
    with all_organizations("the bench ends what runs"):
        ValidationRun.objects.update(is_done=True)
        Rollout.objects.update(phase=Phase.DONE, is_draining=False)
    add_finished(postgres, person, 1, FEW_FINISHED)
    few = measure_sweeps(postgres)
    add_finished(postgres, person, FEW_FINISHED + 1, finished)
    return few, measure_sweeps(postgres)


def report(options: argparse.Namespace, found: dict[str, Any]) -> bool:
    """Print the figures, and return whether the goals are met."""
    seen, waited, (few, many) = found["seen"], found["waited"], found["sweeps"]
    p95 = seen[int(len(seen) * 0.95)] if seen else float("inf")
    median, longest = statistics.median(waited or [0]), max(waited, default=0)
    most = SHARE_OF_LIMITS * LIMITS["service read"][1]
    print(
        f"{options.upgrades} upgrades at once, {options.organizations} organizations, {ACCOUNTS} accounts; "
        f"{len(seen)} ended within {found['seconds']:.0f} s; AWS and engine slowed {options.slow:g} times"
    )
    print(
        f"  end of a rollout seen after {statistics.median(seen or [0]):.1f} s (median), {p95:.1f} s (p95), goal 10 s"
    )
    print(f"  UpdateService after {median:.1f} s (median), {longest:.1f} s (the longest wait)")
    print(
        f"  calls a second of the busiest account: {found['calls']:.2f}, goal {most:g}; throttled: {found['throttled']}"
    )
    print(
        f"  PostgreSQL's ms for a job with nothing due, with {FEW_FINISHED} and {options.finished} finished upgrades:"
    )
    for job, cost in few.items():
        print(f"    {job}: {cost:.2f} and {many[job]:.2f}")
    met = {
        "seen": p95 <= SEEN_WITHIN_SECONDS and len(seen) == options.upgrades,
        "fair": longest <= LONGEST_WAIT_RATIO * median,
        "calls": found["calls"] <= most and not found["throttled"],
        "sweep": all(many[job] <= SWEEP_RATIO * cost + SWEEP_NOISE for job, cost in few.items()),
    }
    missed = [name for name, is_met in met.items() if not is_met]
    print("Goals met." if not missed else f"Goals missed: {', '.join(missed)}.")
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=1000)
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--slow", type=float, default=8, help="the factor by which AWS and the engine run slower")
    parser.add_argument("--finished", type=int, default=1_000_000, help="finished upgrades of the second sweep")
    options = parser.parse_args()
    postgres = parts.Postgres()
    postgres.start()
    embedded.create_roles(CLUSTER)
    call_command("migrate", verbosity=0)
    for socket_path in (CACHE_SOCKET, BROKER_SOCKET):
        parts.start_redis(socket_path)
    local_aws = LocalAws.start(speed=1 / options.slow)
    atexit.register(local_aws.stop)
    local_aws.throttling(scale=1 / options.slow)
    person, organizations = seed(local_aws, options.organizations, options.upgrades)
    slowed = {name: str(round(getattr(settings, name) * options.slow)) for name in INTERVALS}
    os.environ |= {"AWS_ENDPOINT_URL": local_aws.url, "METRICS_TOKEN": "bench", **slowed}
    start_processes()
    time.sleep(5)
    began = begin(person, organizations[: options.upgrades])
    wait_until_done(options.slow)
    seconds = (timezone.now() - began).total_seconds() / options.slow
    time.sleep(12)  # the counters are written every 10 s
    seen, waited = find_delays(local_aws, began, options.slow)
    calls, throttled = count_calls(seconds)
    found = {"seen": seen, "waited": waited, "seconds": seconds, "calls": calls, "throttled": throttled}
    found["sweeps"] = compare_sweeps(postgres, person, options.finished)
    return 0 if report(options, found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
