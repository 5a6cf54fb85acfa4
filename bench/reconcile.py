"""Measures ECS calls per minute and detection delay for 2,000 steady deployments in 200 clusters of one AWS account.

    python -m bench.reconcile [--seconds 150] [--compress 2]      (also a part of make bench)

Runs the real reconciler against the local AWS on its own database, with time compressed: every interval is divided and
every rate multiplied by the same factor. One deployment changes constantly and one is being viewed. Prints calls per
minute and delays in uncompressed time. Exits with 1 if a goal is missed: 60 calls per minute, 5 seconds.
"""

import argparse
import itertools
import os
import secrets
import statistics
import threading
import time
from typing import Any

import tests.embedded  # noqa: F401 - starts PostgreSQL and Redis, and sets the environment

os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"

import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from deployments import commands
from deployments.engine import read_budget
from deployments.engine.reconciler import reconcile
from deployments.models import Agent, Deployment
from deployments.tasks import find_due_clusters
from portal.aws import ecs
from portal.models import Membership, Organization, Role, User
from portal.tenancy import all_organizations
from tests.local_aws import LocalAws

CLUSTERS, SERVICES_EACH, WORKERS = 200, 10, 2
# At the start all rows are due at the same time and are then spread out. This happens only once per installation.
WARM_UP_SECONDS = 30
READS_PER_MINUTE, OBSERVED_WITHIN_SECONDS = 60, 5.0
ARN = "arn:aws:ecs:eu-central-1:111111111111:service/steady"
IMAGE = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/bench-agent:v1"


class Reads:
    """Records the time and the service names of every DescribeServices call by the reconciler."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, frozenset[str]]] = []
        original = ecs.describe_services

        def noted(target: Any, cluster: str, names: list[str]) -> Any:
            reading = original(target, cluster, names)
            self.calls.append((time.monotonic(), frozenset(names)))
            return reading

        ecs.describe_services = noted

    def of(self, name: str, since: float) -> list[float]:
        return [at for at, names in self.calls if name in names and at >= since]


def compress(factor: float) -> None:
    settings.DEPLOYMENTS_POLL_SECONDS /= factor
    settings.DEPLOYMENTS_STEADY_SECONDS /= factor
    settings.DEPLOYMENTS_LAG_SECONDS /= factor
    settings.DEPLOYMENTS_READS_PER_MINUTE = int(READS_PER_MINUTE * factor)
    read_budget.URGENT_CALLS_PER_SECOND = int(read_budget.URGENT_CALLS_PER_SECOND * factor)
    for name in ("WORTH_READING", "JUST_APPLIED", "MISSED", "SLOT_IS_NOW"):
        setattr(read_budget, name, getattr(read_budget, name) / factor)


def seed(local_aws: LocalAws) -> User:
    """Create organizations with one cluster each, and their deployments, steady in ECS and in the database."""
    actor = User.objects.create_user("bench@example.com", "bench-password-1")
    for number in range(CLUSTERS):
        organization = Organization.objects.create(
            slug=f"org-{number}", name=f"Org {number}", deployment_stack=f"bench-{number}"
        )
        Membership.objects.create(organization=organization, user=actor, role=Role.OPERATOR, accepted_at=timezone.now())
        agent = Agent.objects.create(organization=organization, name="Agent", image=IMAGE, cpu=256, memory=512)
        rows = [commands.new_deployment(agent, actor, 1, None) for _ in range(SERVICES_EACH)]
        Deployment.objects.bulk_create(rows)
        steady = Deployment.objects.filter(pk__in=[row.pk for row in rows])
        steady.update(status="ready", running_replicas=1, desired_count=1, observed_generation=1, service_arn=ARN)
        names = [row.service_name for row in rows] + [f"bench-{number}-agent-service"]
        services = [{"name": name, "desired_count": 1} for name in names]
        local_aws.seed(cluster=organization.cluster, services=services)
    return actor


def work(stopping: threading.Event) -> None:
    """Run a worker that immediately reconciles the clusters the sweep would dispatch."""
    while not stopping.is_set():
        for organization_id, cluster, _ in find_due_clusters()[:2]:
            reconcile(str(organization_id), cluster)
        stopping.wait(0.01)
    connection.close()


def measure(local_aws: LocalAws, actor: User, seconds: float, factor: float) -> bool:
    reads = Reads()
    stopping = threading.Event()
    workers = [threading.Thread(target=work, args=[stopping]) for _ in range(WORKERS)]
    watched, changing = Deployment.objects.select_related("agent", "organization").order_by("id")[:2]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    outside: list[float] = []
    desired = 1
    for tick in range(int(seconds / 2)):
        commands.mark_watched(watched)
        changing.refresh_from_db()
        if changing.refusal("scale") is None:
            commands.scale_deployment(changing, actor=actor, replicas=2 if changing.replicas == 1 else 1)
        time.sleep(secrets.SystemRandom().uniform(0.2, 1))
        if time.monotonic() > began + WARM_UP_SECONDS / factor:
            desired = 3 - desired
            local_aws.client().update_service(
                cluster=watched.cluster, service=watched.service_name, desiredCount=desired
            )
            outside.append(time.monotonic())
        time.sleep(max(0.0, began + 2 * (tick + 1) - time.monotonic()))
    ended = time.monotonic()
    stopping.set()
    for worker in workers:
        worker.join()
    return report(reads, watched, changing, outside, began, ended, factor)


def report(
    reads: Reads,
    watched: Deployment,
    changing: Deployment,
    outside: list[float],
    began: float,
    ended: float,
    factor: float,
) -> bool:
    busy = {watched.service_name, changing.service_name}
    steady = [at for at, names in reads.calls if not names & busy]
    minutes = (ended - began) * factor / 60
    worst_minute = max(sum(1 for at in steady if start <= at < start + 60 / factor) for start in steady)
    delays = [min((at for at in reads.of(watched.service_name, change)), default=ended) - change for change in outside]
    gaps = find_gaps(reads.of(changing.service_name, began + WARM_UP_SECONDS / factor))
    passes = Deployment.objects.filter(last_checked_at__isnull=True).count()
    delay, gap = max(delays) * factor, max(gaps) * factor
    print(f"{CLUSTERS * SERVICES_EACH} deployments in {CLUSTERS} clusters of one account, {minutes:.1f} minutes")
    print(f"  steady: {len(steady) / minutes:5.1f} DescribeServices calls per minute, {worst_minute} in the worst one")
    print(f"  steady: never read: {passes}")
    print(f"  all:    {len(reads.calls) / minutes:5.1f} calls per minute, including one changing and one watched")
    print(
        f"  watched:  outside change seen after {statistics.median(delays) * factor:.1f} s (median), {delay:.1f} s (max)"
    )
    print(f"  changing: read every {statistics.median(gaps) * factor:.1f} s (median), {gap:.1f} s (max)")
    met = worst_minute <= READS_PER_MINUTE and delay <= OBSERVED_WITHIN_SECONDS and gap <= OBSERVED_WITHIN_SECONDS
    print("Goals met." if met else "Goal missed: 60 calls per minute, 5 seconds.")
    return met


def find_gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150, help="how long to measure, in real time")
    parser.add_argument("--compress", type=float, default=2, help="the factor by which time runs faster")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    local_aws = LocalAws.start(speed=options.compress)
    os.environ["AWS_ENDPOINT_URL"] = local_aws.url
    try:
        local_aws.throttling(scale=options.compress)
        with all_organizations("the bench creates them and acts in each"):
            actor = seed(local_aws)
            compress(options.compress)
            return 0 if measure(local_aws, actor, options.seconds, options.compress) else 1
    finally:
        local_aws.stop()


if __name__ == "__main__":
    raise SystemExit(main())
