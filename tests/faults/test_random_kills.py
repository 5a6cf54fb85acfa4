"""People use two organizations while processes are killed and paused, Redis hangs or forgets, and AWS's replies are lost.

make faults            the short form: 12 injections
make faults N=500      the full form; SEED=7 makes other choices

Workers and schedulers are real processes under a supervisor, as docs/deployment.md asks, on real PostgreSQL and Redis, with
the times of production. The local AWS's records are the oracle. Its clock runs faster, so that a rollout takes seconds.
"""

import contextlib
import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from deployments.models import Agent, Deployment
from portal.models import Organization
from tests.conftest import SERVICES, Cast
from tests.deployments.conftest import make_agent, send_json
from tests.faults.judge import Findings, find_unsettled, judge
from tests.faults.supervised import Supervisor, is_any_row_leased
from tests.faults.test_redis_lost import OwnRedis, broker, own_redis
from tests.figures import print_line
from tests.local_aws import LocalAws
from tests.notifications.conftest import make_channel
from tests.processes import worker_environment
from upgrades.models import Rollout, Upgrade

__all__ = ["broker", "own_redis"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)

INJECTIONS = int(os.environ.get("N") or 12)
SEED = int(os.environ.get("SEED") or 1)
SPEED = 6
# AWS's replies take a while, so that kills meet processes at work.
READ_SECONDS = 0.3
LONGEST_PAUSE_BETWEEN = 4.0
SETTLED_WITHIN = 240.0
RECOVERED_WITHIN = 30.0  # the goal for the 99th percentile
DEPLOYMENTS_AT_A_TIME = 4


class People:
    """Operators of two organizations, who upgrade services and command deployments of agents through the API."""

    def __init__(self, choose: random.Random, platform: LocalAws, clients: dict[Organization, Client]) -> None:
        self.choose = choose
        self.platform = platform
        self.clients = clients
        self.agents: dict[Organization, Agent] = {}
        self.upgrades: set[str] = set()
        self.deployments: set[str] = set()
        self.waiting: set[Organization] = set()
        self.answers: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()

    def act(self) -> None:
        """Trigger an upgrade, or send a command to a deployment. It may be refused, but never fail."""
        organization = self.choose.choice(list(self.clients))
        self.choose.choice([self.upgrade, self.upgrade, self.command])(organization)

    def send(self, organization: Organization, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return the body of the answer, None if the request was refused."""
        answer = send_json(self.clients[organization], method, f"/api/v1/{path}", body)
        answered: dict[str, Any] = json.loads(answer.content or b"{}")
        self.answers[f"{answer.status_code} {answered.get('code', '')}".strip()] += 1
        assert answer.status_code < 500, answer.content
        return answered if answer.status_code < 400 else None

    def upgrade(self, organization: Organization) -> None:
        """Trigger an upgrade. While `all` is refused because a service is rolling, nothing else is tried there."""
        target = "all" if organization in self.waiting else self.choose.choice([*SERVICES, *SERVICES, "all"])
        body = {"service": target, "force_new_deployment": True}
        answered = self.send(organization, "post", "deployments/upgrade", body)
        if answered:
            self.upgrades.add(answered["upgrade_id"])
            self.waiting.discard(organization)
        elif target == "all":
            self.waiting.add(organization)

    def command(self, organization: Organization) -> None:
        rows = list(Deployment.objects.filter(organization=organization).exclude(status="killed"))
        if len(rows) < DEPLOYMENTS_AT_A_TIME:
            body = {"agent_id": str(self.agents[organization].pk), "replicas": self.choose.randint(1, 3)}
            answered = self.send(organization, "post", "deployments", body)
            if answered:
                self.deployments.add(answered["id"])
            return
        row = self.choose.choice(rows)
        command = self.choose.choice(["scale", "scale", "stop", "restart", "restart", "kill"])
        path = f"deployments/{row.pk}"
        if command == "kill":
            self.send(organization, "delete", path)
        else:
            body = {"replicas": self.choose.randint(1, 4)} if command == "scale" else None
            self.send(organization, "post", f"{path}/{command}", body)

    def read_inboxes(self) -> None:
        """Keep the ids of the messages received so far, because an inbox keeps the last 500 only."""
        for organization in self.clients:
            for message in self.platform.webhook_inbox(organization.slug):
                self.messages[message["headers"]["webhook-id"]] += 1


class Injections:
    """The faults, in rounds in which each kind comes as often as it stands in `kinds`."""

    def __init__(self, choose: random.Random, supervisor: Supervisor, redis: OwnRedis, platform: LocalAws) -> None:
        self.choose = choose
        self.supervisor = supervisor
        self.redis = redis
        self.platform = platform
        self.timers: list[threading.Timer] = []
        self.kinds: list[Callable[[], None]] = [
            *(self.kill_child, self.kill_child, self.kill_worker, self.kill_worker, self.kill_scheduler),
            *(self.pause_worker, self.pause_scheduler, self.flush_redis, self.pause_redis),
            *(self.lose_reply, self.fail_call, self.crash_tasks),
        ]

    def plan(self, count: int) -> Iterator[Callable[[], None]]:
        for _ in range(math.ceil(count / len(self.kinds))):
            yield from self.choose.sample(self.kinds, len(self.kinds))[:count]
            count -= len(self.kinds)

    def kill_child(self) -> None:
        """Kill one child process of a worker while some process works on a row, if any does soon."""
        self.wait_for_work()
        children = self.choose.choice(self.supervisor.workers).children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.choose.choice(children), signal.SIGKILL)
        self.supervisor.recoveries.note(is_killed=True)

    def kill_worker(self) -> None:
        self.wait_for_work()
        self.choose.choice(self.supervisor.workers).kill()
        self.supervisor.recoveries.note(is_killed=True)

    def kill_scheduler(self) -> None:
        self.choose.choice(self.supervisor.schedulers).kill()
        self.supervisor.recoveries.note(is_killed=True)

    def wait_for_work(self) -> None:
        ends_at = time.monotonic() + 3
        while time.monotonic() < ends_at and not is_any_row_leased():
            time.sleep(0.05)

    def pause_worker(self) -> None:
        self.wait_for_work()
        self.choose.choice(self.supervisor.workers).pause(settings.LEASE_SECONDS + 2)
        self.supervisor.recoveries.note(is_killed=False)

    def pause_scheduler(self) -> None:
        self.choose.choice(self.supervisor.schedulers).pause(settings.LEASE_SECONDS + 2)
        self.supervisor.recoveries.note(is_killed=False)

    def flush_redis(self) -> None:
        self.redis.flush()

    def pause_redis(self) -> None:
        self.redis.process.send_signal(signal.SIGSTOP)
        self.timers.append(threading.Timer(self.choose.uniform(2, 6), self.continue_redis))
        self.timers[-1].start()

    def continue_redis(self) -> None:
        self.redis.process.send_signal(signal.SIGCONT)

    def lose_reply(self) -> None:
        self.platform.fault("reply_lost", action=self.choose.choice(["UpdateService", "CreateService"]), times=1)

    def fail_call(self) -> None:
        self.platform.fault("server_error", action=self.choose.choice(["UpdateService", "CreateService"]), times=1)

    def crash_tasks(self) -> None:
        """Let the tasks of the next deployment that an upgrade starts exit, so that ECS rolls it back."""
        stack = self.choose.choice(list(Organization.objects.exclude(deployment_stack=""))).deployment_stack
        self.platform.fault("crash", service=f"{stack}-{self.choose.choice(SERVICES)}-service", times=1)

    def cease(self) -> None:
        for timer in self.timers:
            timer.cancel()
            timer.join()
        self.continue_redis()
        self.supervisor.continue_all()
        self.platform.clear_faults()


@pytest.fixture
def supervisor(
    platform: LocalAws, own_redis: OwnRedis, broker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Supervisor]:
    """Start the processes on the test's own Redis, as broker and cache. AWS's clock runs."""
    platform.freeze(False)
    platform.set_speed(SPEED)
    env = worker_environment() | {
        "CELERY_BROKER_URL": f"redis+socket://{own_redis.socket}?virtual_host=0",
        "CACHE_URL": f"unix://{own_redis.socket}?db=1",
    }
    supervisor = Supervisor(env, tmp_path)
    yield supervisor
    supervisor.stop()
    platform.set_speed(1)


@pytest.fixture
def people(cast: Cast, platform: LocalAws, client_for: Callable[..., Client]) -> People:
    """Return the operators of acme and globex, each with an agent and a channel for notifications."""
    clients = {cast.acme: client_for(cast.operator), cast.globex: client_for(cast.outsider)}
    people = People(random.Random(SEED), platform, clients)
    for organization in clients:
        organization.upgrade_trigger_limit = 1000
        organization.save(update_fields=["upgrade_trigger_limit"])
        people.agents[organization] = make_agent(cast, organization=organization)
        make_channel(organization, by=cast.admin, target=platform.webhook_inbox_url(organization.slug))
    return people


def test_random_kills_lose_and_double_nothing(
    request: pytest.FixtureRequest, platform: LocalAws, supervisor: Supervisor, own_redis: OwnRedis, people: People
) -> None:
    injections = Injections(people.choose, supervisor, own_redis, platform)
    for action in ("DescribeServices", "DescribeServiceDeployments"):
        platform.fault("delay", action=action, seconds=READ_SECONDS)
    try:
        for inject in injections.plan(INJECTIONS):
            people.act()
            inject()
            people.act()
            people.read_inboxes()
            time.sleep(people.choose.uniform(0, LONGEST_PAUSE_BETWEEN))
    finally:
        injections.cease()
    ends_at = time.monotonic() + SETTLED_WITHIN
    while (unsettled := find_unsettled(platform)) and time.monotonic() < ends_at:
        time.sleep(0.5)
    people.read_inboxes()

    findings = judge(platform, upgrades=people.upgrades, deployments=people.deployments, messages=people.messages)
    findings.stuck = unsettled
    recoveries = sorted(supervisor.recoveries.seconds)
    print_line(request, describe(findings, recoveries))
    print(f"seed {SEED}; answers: {dict(people.answers)}; recoveries: {[round(each, 1) for each in recoveries]}")
    assert findings == Findings()
    assert not recoveries or percentile(recoveries, 99) < RECOVERED_WITHIN


def describe(findings: Findings, recoveries: list[float]) -> str:
    counts = f"{Upgrade.objects.count()} upgrades ({Rollout.objects.count()} rollouts)"
    found = ", ".join(f"{kind} {len(each)}" for kind, each in vars(findings).items())
    recovery = "not measured: no killed process held a lease"
    if recoveries:
        p50, p99 = percentile(recoveries, 50), percentile(recoveries, 99)
        recovery = f"p50 {p50:.1f} s, p99 {p99:.1f} s (of {len(recoveries)})"
    return (
        f"faults: {INJECTIONS} injections, {counts}, {Deployment.objects.count()} deployments: {found}; "
        f"recovery after a kill {recovery}"
    )


def percentile(values: list[float], percent: int) -> float:
    """Return the nearest-rank percentile of sorted values."""
    return values[math.ceil(len(values) * percent / 100) - 1]
