"""Measures how long other people wait while AWS hangs and ten people watch logs and metrics.

    make bench-hung-aws      (python -m bench.hung_aws [--seconds 30])

Starts the web server with the command of docs/deployment.md on its own database, stops the local AWS with SIGSTOP, and
lets ten viewers load the pages, logs and metrics of five deployments, in an organization whose role no process has
assumed yet. Meanwhile others load pages, /livez and /health. The same requests are measured while AWS answers, to tell the
machine's load from waiting. Exits with 1 if a goal is missed.
"""

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict

import tests.embedded  # noqa: F401 - starts PostgreSQL and Redis, and sets the environment

os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"

import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from deployments import commands
from deployments.models import Agent, Deployment
from portal.models import Membership, Organization, Role, User
from portal.tenancy import all_organizations
from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for

VIEWERS, DEPLOYMENTS = 10, 5
ROLE = "arn:aws:iam::222222222222:role/portal-upgrades"
IMAGE = "222222222222.dkr.ecr.us-east-1.amazonaws.com/bench-agent:v1"
PAUSE_SECONDS = 1.0
PERSON = {"login": "bench@example.com", "password": "bench-password-1"}
# In seconds: the p99 of each kind of request while AWS hangs.
GOALS = {"page": 0.5, "livez": 0.1, "health": 1.0}


class Web:
    """The web server of the docs, and the requests that people send to it."""

    def __init__(self, aws_url: str) -> None:
        self.port = free_port()
        command = ["gunicorn", "-c", "python:portal.gunicorn_conf", "portal.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": aws_url,
            "CACHE_URL": os.environ["CELERY_BROKER_URL"]
            .replace("redis+socket", "unix")
            .replace("virtual_host=0", "db=1"),
            "WEB_DRAIN_SECONDS": "0",
        }
        self.process = subprocess.Popen(  # noqa: S603 - the command of the docs
            [sys.executable, "-m", *command, "--log-level", "warning"], cwd=ROOT, env=environment
        )
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[tuple[str, int], int] = defaultdict(int)

    def get(self, kind: str, path: str, session: str = "", region: str | None = None) -> tuple[int, str]:
        """Send one request on a connection of its own, and note its kind, status and time."""
        headers = {"Host": "127.0.0.1", "Cookie": f"sessionid={session}"}
        headers |= {"HX-Request": "true", "HX-Target": region} if region else {}
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        self.seconds[kind].append(time.monotonic() - began)
        self.statuses[kind, answer.status] += 1
        return answer.status, text

    def is_ready(self) -> bool:
        try:
            return self.get("ready", "/readyz")[0] == 200
        except OSError:
            return False

    def forget(self) -> None:
        self.seconds.clear()
        self.statuses.clear()


@all_organizations("the bench creates its own")
def seed(local_aws: LocalAws) -> tuple[str, list[Deployment]]:
    """Create an organization in another account with five deployments, and a person's session."""
    organization = Organization.objects.create(
        slug="bench", name="Bench", deployment_stack="bench", deployment_region="us-east-1",
        deployment_role_arn=ROLE, deployment_external_id="bench-external-id",
    )  # fmt: skip
    local_aws.seed(
        account="222222222222",
        region="us-east-1",
        cluster=organization.cluster,
        services=[],
        roles=[{"arn": ROLE, "external_id": "bench-external-id"}],
    )
    person = User.objects.create_user(PERSON["login"], PERSON["password"])
    Membership.objects.create(organization=organization, user=person, role=Role.OPERATOR, accepted_at=timezone.now())
    agent = Agent.objects.create(organization=organization, name="Agent", image=IMAGE, cpu=256, memory=512)
    rows = [commands.new_deployment(agent, person, 1, None) for _ in range(DEPLOYMENTS)]
    Deployment.objects.bulk_create(rows)
    Deployment.objects.filter(pk__in=[row.pk for row in rows]).update(
        status="ready", running_replicas=1, desired_count=1, observed_generation=1, log_group="/bench"
    )
    client = Client()
    client.post("/accounts/login/", PERSON)
    return client.cookies[settings.SESSION_COOKIE_NAME].value, rows


def view(web: Web, session: str, deployment: Deployment, stopping: threading.Event) -> None:
    """Load the page, then its metrics and logs at the same time, as a browser does, again and again."""
    path = f"/o/bench/deployments/{deployment.pk}/"
    while not stopping.is_set():
        web.get("viewer's page", path, session)
        regions = [
            threading.Thread(target=web.get, args=["viewer's region", path, session, region])
            for region in ("metrics", "logs")
        ]
        for region in regions:
            region.start()
        for region in regions:
            region.join()
        stopping.wait(PAUSE_SECONDS)


def work(web: Web, session: str, stopping: threading.Event) -> None:
    """Load pages that do not read AWS."""
    while not stopping.is_set():
        for path in ("/o/bench/deployments/", "/o/bench/upgrades/", "/o/bench/agents/", "/account/"):
            web.get("page", path, session)
            stopping.wait(0.1)


def probe(web: Web, kind: str, every: float, stopping: threading.Event) -> None:
    while not stopping.wait(every):
        web.get(kind, f"/{kind}")


def measure(web: Web, session: str, deployments: list[Deployment], seconds: float) -> None:
    stopping = threading.Event()
    threads = [threading.Thread(target=work, args=[web, session, stopping]) for _ in range(2)]
    threads += [
        threading.Thread(target=view, args=[web, session, deployments[number % DEPLOYMENTS], stopping])
        for number in range(VIEWERS)
    ]
    threads += [
        threading.Thread(target=probe, args=[web, kind, every, stopping])
        for kind, every in (("livez", 0.1), ("health", 1.0))
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stopping.set()
    for thread in threads:
        thread.join()


def report(web: Web, title: str) -> dict[str, float]:
    """Print the times of each kind of request, and return their p99."""
    print(title)
    p99 = {}
    for kind, times in sorted(web.seconds.items()):
        times.sort()
        p99[kind] = times[min(len(times) - 1, int(len(times) * 0.99))]
        statuses = {status: count for (each, status), count in sorted(web.statuses.items()) if each == kind}
        print(
            f"  {kind:16} {len(times):5} requests, p50 {statistics.median(times):6.3f} s, p99 {p99[kind]:6.3f} s, "
            f"max {times[-1]:6.3f} s, statuses {statuses}"
        )
    return p99


def wait_until_answered(web: Web, session: str, deployment: Deployment) -> float:
    """Return the seconds until the metrics can be read again."""
    path, began = f"/o/bench/deployments/{deployment.pk}/", time.monotonic()
    wait_for(lambda: "could not be read" not in web.get("recovery", path, session, "metrics")[1], seconds=30)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="how long AWS hangs")
    parser.add_argument("--slack", type=float, default=1, help="multiply the goals, on a busy machine")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    local_aws = LocalAws.start()
    try:
        return run(local_aws, options)
    finally:
        local_aws.stop()


def run(local_aws: LocalAws, options: argparse.Namespace) -> int:
    local_aws.throttling(enabled=False)
    session, deployments = seed(local_aws)
    web = Web(local_aws.url)
    try:
        wait_for(web.is_ready)
        for _ in range(20):
            for path in ("/livez", "/health", "/o/bench/deployments/", "/o/bench/agents/"):
                web.get(path, path, session)  # each process imports its pages at the first request
        web.forget()
        local_aws.process.send_signal(signal.SIGSTOP)
        measure(web, session, deployments, options.seconds)
        p99 = report(web, f"AWS hangs, {VIEWERS} viewers of {DEPLOYMENTS} deployments, {options.seconds:g} s:")
        local_aws.process.send_signal(signal.SIGCONT)
        print(f"  metrics are read again after {wait_until_answered(web, session, deployments[0]):.1f} s")
        web.forget()
        measure(web, session, deployments, options.seconds)
        report(web, "The same requests while AWS answers, for comparison:")
        missed = [kind for kind, goal in GOALS.items() if p99[kind] > goal * options.slack]
        print("Goals met." if not missed else f"Goal missed: {', '.join(missed)}. Goals (p99, seconds): {GOALS}")
        return 1 if missed else 0
    finally:
        local_aws.process.send_signal(signal.SIGCONT)
        web.process.terminate()
        web.process.wait(timeout=30)


if __name__ == "__main__":
    raise SystemExit(main())
