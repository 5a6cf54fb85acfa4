"""One world: an organization with its services, the engine's workers, people, outsiders, and the faults of its plan."""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from django.core.cache import cache
from django.utils import timezone
from kombu.transport.memory import Channel

from deployments import commands
from deployments.engine.reconciler import reconcile
from deployments.models import Agent, Deployment
from portal.aws import bulkhead
from portal.errors import PortalError
from portal.models import Membership, Organization, Role, User
from portal.sandbox.records import Service, ServiceDeployment
from portal.sandbox.seed import seed
from portal.sandbox.server import Sandbox
from portal.sandbox.sts import OWN_ACCOUNT, Session
from sim import parts
from sim.backend.base import drop_transaction
from sim.clock import BEGINNING, CLOCK
from sim.network import WRITE_SECONDS, Disturbance, Network, call_ecs
from sim.plan import ASLEEP_SECONDS, ON_THE_WAY, SERVICES, STANDING, Happening, Order, Plan, Request
from sim.replaced import Source, refill_quotas
from sim.scheduler import Scheduler, Task, current
from upgrades.commands.decide import decide_rollout
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, Upgrade
from upgrades.states import DecisionAction

REGION = "eu-central-1"
OUTSIDER_KEY = f"ASIA{OWN_ACCOUNT}OUTS"
RUNNING, NEWEST = "v9.9.0", "v9.9.1"
WANTED: dict[str, dict[str, Any]] = {
    "version": {"version": NEWEST},
    "forced": {"version": NEWEST, "force_new_deployment": True},
    "elsewhere": {"force_new_deployment": True},
    "unchanged": {"version": RUNNING},
}
OVERRIDE = "a plan of the simulation"
WORKERS = 2
# How often a worker that finds nothing due gets a message about a row all the same.
DUPLICATES = 0.1
# After so long a worker tries a row again that it could not claim, although it is due.
LOCKED_SECONDS = (0.5, 4.0)
# Longer than a lease (portal/leases.py).
PAUSE_SECONDS = (31, 95)
# The most that a disturbance on the way to AWS lasts, and what remains true when all have ended.
DISTURBED_SECONDS = 45
# How often people use a page of an earlier pause, or another person decides otherwise.
OLD_PAGE = 0.15
# How often a person checks what waits or is overdue.
TEND_SECONDS = 45.0
# By then everything has ended: the last request, three services in a row, each with its deadline.
LONGEST_SECONDS = 4 * 3600

# The rows that are not done and when each may be claimed, as the sweep sees them. Rows of earlier worlds are deleted.
READY_AT = "extract(epoch FROM greatest(next_check_at, lease_until + interval '1 millisecond'))"
ROLLOUTS = f"SELECT id, {READY_AT} FROM deployment_upgrade_services WHERE phase <> 'done' AND next_check_at IS NOT NULL"
OVERDUE = "SELECT service, deadline_at FROM deployment_upgrade_services WHERE phase <> 'done' AND is_overdue"
AGENTS = f" UNION ALL SELECT NULL, {READY_AT} FROM deployments_deployment WHERE next_check_at IS NOT NULL"

Json = dict[str, Any]


@dataclass
class Facts:
    """What has happened, for the oracle: moments by kind and service."""

    moments: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def note(self, kind: str, service: str = "") -> None:
        self.moments.setdefault((kind, service), []).append(CLOCK.seconds)

    def before(self, kind: str, service: str = "", *, at: float) -> bool:
        return any(moment <= at for moment in self.moments.get((kind, service), []))


@dataclass
class Asked:
    """A person's request and its answer."""

    request: Request
    key: str | None
    upgrade_id: str | None = None
    refusal: str | None = None
    answered_at: float = 0.0


@dataclass
class Decided:
    """A person's decision at the pause with this hook id, and the portal's answer."""

    rollout_id: int
    hook_id: str
    action: str
    is_accepted: bool = False
    refusal: str | None = None


class World:
    """A plan while it runs. `accepted` and `facts` are for the oracle, `trace` is for people."""

    def __init__(self, plan: Plan, sandbox: Sandbox, monitor: "psycopg.Connection[Any]", actor: User) -> None:
        self.plan, self.sandbox, self.monitor, self.actor = plan, sandbox, monitor, actor
        self.chance = random.Random(plan.seed)  # reproducible from the seed
        self.scheduler = Scheduler(monitor, chance=self.chance, on_step=self.on_step, on_death=self.on_death)
        self.network = Network(sandbox, self.scheduler, self.chance, outsider=self.deploy_beside)
        self.facts = Facts()
        self.asked: list[Asked] = []
        self.decided: list[Decided] = []
        self.stopped_at: dict[int, float] = {}  # when a stop had been accepted, by upgrade
        self.pages: dict[int, list[str]] = {}  # the pauses that people saw, by rollout
        self.workers: list[Task] = []
        self.busy = 0
        self.trace: list[str] = []
        self.shots: list[Happening] = []  # kills and pauses that have not met a worker yet
        self.open_ends = 0
        self.asleep_until = 0.0
        self.next_at: float | None = CLOCK.seconds  # when a row is due next; None: no row is left
        first = plan.requests[0].target
        self.services = sorted(SERVICES, key=lambda service: service != first)
        self.waits: dict[str, list[float]] = {}  # when the service was seen to wait for a decision
        self.stack = "sim"
        self.cluster = f"{self.stack}-cluster"
        self.worker_numbers = iter(range(1, 10**6))

    # The beginning

    def begin(self) -> None:
        CLOCK.restart()
        CLOCK.set_database()
        parts.delete_rows(self.monitor)
        cache.clear()
        Channel.queues.clear()
        refill_quotas()
        bulkhead.forget_lanes()
        random.seed(self.plan.seed)
        # From here on, the seed decides about ids.
        Source.chance = random.Random(self.plan.seed + 1)  # reproducible from the seed
        Source.send = self.network.send
        self.organization = Organization.objects.create(
            slug=self.stack,
            name=self.stack,
            deployment_stack=self.stack,
            deployment_region=REGION,
            deployment_cluster="gone" if self.plan.standing == "cluster_missing" else "",
        )
        self.membership = Membership.objects.create(
            organization=self.organization, user=self.actor, role=Role.OPERATOR, accepted_at=timezone.now()
        )
        self.sandbox.reset()
        self.sandbox.clock.wall = self.sandbox.throttling.wall = CLOCK.now
        self.sandbox.clock.reset()
        self.sandbox.throttling.enabled = False
        self.seed_services()
        self.schedule()

    def seed_services(self) -> None:
        role = f"arn:aws:iam::{OWN_ACCOUNT}:role/outsider"
        self.sandbox.identity.sessions[OUTSIDER_KEY] = Session(OUTSIDER_KEY, role, "person", OWN_ACCOUNT, 1e12)
        now = self.sandbox.clock.now()
        images = [
            {"repository": f"axonflow-{service}", "tags": tags, "pushed_at": now - age}
            for service in SERVICES
            for tags, age in (([RUNNING], 86400), ([NEWEST, "latest"], 3600))
        ]
        registries = {request.target: request.kind == "elsewhere" for request in self.plan.requests}
        services = []
        for service, desired in zip(SERVICES, self.plan.desired, strict=True):
            is_elsewhere = registries.get(service) or (registries.get("all") and service not in registries)
            registry = "example.org" if is_elsewhere else f"{OWN_ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
            services.append(
                {
                    "name": self.name(service),
                    "image": f"{registry}/axonflow-{service}:{RUNNING}",
                    "family": f"{self.stack}-{service}",
                    "container": service,
                    "desired_count": desired,
                    "deployment_configuration": self.configure(service),
                }
            )
        seed(self.sandbox, {"region": REGION, "cluster": self.cluster, "images": images, "services": services})
        for service, fate in zip(SERVICES, self.plan.fates, strict=True):
            self.add_fate(service, fate)

    def configure(self, service: str) -> Json:
        """Return the deploymentConfiguration of a service. The circuit breaker exists for rolling deployments only."""
        configuration = self.plan.shape.as_configuration()
        rolls_back = self.plan.rolls_back
        if configuration["strategy"] == "ROLLING":
            configuration["deploymentCircuitBreaker"] = {"enable": self.plan.has_breaker, "rollback": rolls_back}
        if self.plan.fates[SERVICES.index(service)] == "alarm":
            configuration["alarms"] = {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": rolls_back}
        return configuration

    def add_fate(self, service: str, fate: str) -> None:
        """Let the next deployment of the service end like this."""
        faults: list[Json] = [{"kind": fate}] if fate else []
        if fate == "slow":
            faults = [{"kind": "slow", "factor": 3}]
        elif fate == "some_crash":
            faults = [{"kind": "crash", "task_count": 1}]
        elif fate == "rollback_fails":
            faults = [{"kind": "crash"}, {"kind": "rollback_fails"}]
        for fault in faults:
            self.sandbox.faults.add({"times": 1, "cluster": self.cluster, "service": self.name(service), **fault})

    def schedule(self) -> None:
        for _ in range(WORKERS):
            self.hire()
        self.stand()
        for number, request in enumerate(self.plan.requests):
            key = f"key-{number}" if request.with_key else None
            for again in (0, request.again_after)[: 2 if request.twice else 1]:
                self.start(request.at + again, f"request {number}", partial(self.ask, request, key))
        for happening in self.plan.happenings:
            self.open_ends += 1
            self.scheduler.at(BEGINNING + happening.at, partial(self.happen, happening))
        self.scheduler.at(BEGINNING + TEND_SECONDS, self.tend)
        for number, order in enumerate(self.plan.orders):
            self.start(order.at, f"order {number}", partial(self.order, order))

    def stand(self) -> None:
        """Let AWS answer the engine's calls as they are answered in the whole world."""
        if not self.plan.standing:
            return
        kind, actions = STANDING[self.plan.standing]
        self.facts.note(kind or self.plan.standing)
        if actions:
            self.network.standing = Disturbance(kind, actions, times=1, ends_at=math.inf)

    def start(self, at: float, name: str, run: Callable[[], None]) -> None:
        """Start a person's command at a moment. The world is not over before it has ended."""
        self.open_ends += 1

        def counted() -> None:
            try:
                run()
            finally:
                self.open_ends -= 1
                self.next_at = CLOCK.seconds  # not known before a worker has asked again
                self.wake_workers()

        self.scheduler.spawn(name, counted, after=max(0.0, BEGINNING + at - CLOCK.seconds))

    # The engine's workers

    def hire(self, *, after: float = 0.0) -> None:
        name = f"worker {next(self.worker_numbers)}"
        self.workers.append(self.scheduler.spawn(name, self.work, after=after + self.chance.uniform(0, 0.5)))

    def work(self) -> None:
        """Take due rows as the sweep finds them, and sleep until the next one is due."""
        task = current()
        if task is None:
            raise RuntimeError("a worker runs as a task of the scheduler")
        while True:
            if CLOCK.seconds < self.asleep_until:
                task.pause(self.asleep_until - CLOCK.seconds + self.chance.uniform(0, 0.4), "asleep")
                continue
            due, next_at = self.find_due()
            if not due and next_at is not None and self.chance.random() < DUPLICATES:
                due = self.found  # a late or repeated message
            if not due:
                task.subject = None
                self.note_idle(next_at)
                until = CLOCK.seconds + 3600 if next_at is None else max(next_at, CLOCK.seconds) + 0.01
                task.pause(until - CLOCK.seconds + self.chance.uniform(0, 0.4), "idle")
                continue
            kind, key = self.chance.choice(due)
            task.subject = key
            self.busy += 1
            try:
                is_done = advance(key) if kind == "rollout" else reconcile(*key)
            finally:
                self.busy -= 1
                task.subject = None
            if not is_done:  # a worker that stands still in a transaction has the row locked
                task.pause(self.chance.uniform(*LOCKED_SECONDS), "locked out")

    def find_due(self) -> tuple[list[tuple[str, Any]], float | None]:
        """Return what may be claimed now, and otherwise when the next row may be."""
        CLOCK.set_database()
        query = ROLLOUTS + (AGENTS if self.plan.orders else "")
        found = self.monitor.execute(query, prepare=True).fetchall()
        place = (str(self.organization.pk), self.organization.cluster)
        rows = [("rollout" if pk else "agents", pk or place, float(at)) for pk, at in found]
        self.found = sorted({(kind, key) for kind, key, _ in rows}, key=str)
        due = sorted({(kind, key) for kind, key, at in rows if at <= CLOCK.seconds}, key=str)
        return due, min((at for *_, at in rows), default=None)

    def note_idle(self, next_at: float | None) -> None:
        self.next_at = next_at

    def wake_workers(self) -> None:
        for worker in self.workers:
            if not worker.is_done and worker.label == "idle":
                self.scheduler.wake(worker, after=self.chance.uniform(0, 0.3))

    def on_step(self, task: Task, label: str) -> float:
        """Return the extra seconds that the task sleeps at this step, and decide whether it is killed."""
        task.label = label
        self.trace.append(f"+{CLOCK.seconds - BEGINNING:.2f} {task.name} {task.subject or ''} {task.label}")
        if label in ("UpdateService", "written") and self.shots and self.shots[0].kind == "paused":
            return 0.0  # a request that takes effect later than its sender lives is a documented limit
        if not self.shots or task.label == "idle" or not task.name.startswith("worker"):
            return 0.0
        shot = self.shots[0]
        if shot.service > 0:
            self.shots[0] = Happening(shot.at, shot.kind, shot.service - 1, shot.amount)
            return 0.0
        self.shots.pop(0)
        self.open_ends -= 1
        self.trace.append(f"+{CLOCK.seconds - BEGINNING:.2f} {task.name} is {shot.kind}")
        if shot.kind == "killed":
            task.is_doomed = True
            return 0.0
        return self.chance.uniform(*PAUSE_SECONDS)

    def on_death(self, task: Task) -> None:
        drop_transaction()
        if task.name.startswith("worker") and not self.is_ending:
            self.hire(after=self.chance.uniform(0.5, 10))

    is_ending = False

    # People

    def ask(self, request: Request, key: str | None) -> None:
        asked = Asked(request, key)
        self.asked.append(asked)
        try:
            upgrade = trigger_upgrade(
                self.organization,
                actor=self.actor,
                service=request.target,
                override_reason=OVERRIDE,
                idempotency_key=key,
                **WANTED[request.kind],
            )
            asked.upgrade_id = upgrade.upgrade_id
        except PortalError as error:
            asked.refusal = error.code
        asked.answered_at = CLOCK.seconds

    def newest_upgrade(self) -> Upgrade | None:
        return Upgrade.objects.filter(organization=self.organization).order_by("-id").first()

    def stop(self) -> None:
        upgrade = self.newest_upgrade()
        if upgrade:
            with suppress(PortalError):
                stop_upgrade(upgrade, actor=self.actor)
                self.stopped_at.setdefault(upgrade.pk, CLOCK.seconds)

    def roll_back(self) -> None:
        upgrade = self.newest_upgrade()
        asked = Asked(Request(0, "rollback", "rollback"), None)
        self.asked.append(asked)
        if upgrade:
            try:
                made = rollback_upgrade(upgrade, actor=self.actor, override_reason=OVERRIDE)
                asked.upgrade_id = made.upgrade_id
            except PortalError as error:
                asked.refusal = error.code

    def order(self, order: Order) -> None:
        deployment = Deployment.objects.filter(organization=self.organization).order_by("created_at", "id").last()
        with suppress(PortalError):
            if order.command == "create":
                agent, _ = Agent.objects.get_or_create(
                    organization=self.organization,
                    name="Agent",
                    defaults={"image": "example.org/agent:v1", "cpu": 256, "memory": 512},
                )
                commands.create_deployment(agent, actor=self.actor, replicas=order.amount)
            elif deployment and order.command == "scale":
                commands.scale_deployment(deployment, actor=self.actor, replicas=order.amount)
            elif deployment:
                getattr(commands, f"{order.command}_deployment")(deployment, actor=self.actor)

    # What people do when a rollout waits for them

    def tend(self) -> None:
        """Decide at a pause that has waited for a while, and stop what is overdue."""
        self.scheduler.at(CLOCK.seconds + TEND_SECONDS, self.tend)
        for service in SERVICES:
            if self.find_pause(service):
                self.waits.setdefault(service, []).append(CLOCK.seconds)
                self.decide_somehow(service)
        for service, since in self.monitor.execute(OVERDUE, prepare=True).fetchall():
            if self.may_act() and CLOCK.seconds < since.timestamp() + 5 * TEND_SECONDS:
                self.start(0, "stop", self.stop)
            else:
                self.facts.note("stops", service)
                self.outsider_stops(service, 0)

    def decide_somehow(self, service: str) -> None:
        """Let those decide at the service's pause who decide in this world."""
        shape = self.plan.shape
        if shape.decision and shape.decider != "outsider":
            for _ in range(self.chance.choice((1, 1, 2))):
                after = self.chance.uniform(0, 3)
                self.start(CLOCK.seconds - BEGINNING + after, f"decide {service}", lambda: self.decide(service))
        if shape.decision and shape.decider != "portal":
            self.outsider_continues(service, 0)

    def decide(self, service: str) -> None:
        """Decide at the pause on the page, which may be one that was loaded at an earlier pause."""
        rollout = Rollout.objects.filter(organization=self.organization, service=service).order_by("-id").first()
        if rollout is None:
            return
        pages = self.pages.setdefault(rollout.pk, [])
        if rollout.waiting_hook:
            pages.append(rollout.waiting_hook["id"])
        if not pages:
            return
        hook_id = pages[0] if self.chance.random() < OLD_PAGE else pages[-1]
        action = DecisionAction(self.plan.shape.decision.lower())
        if self.chance.random() < OLD_PAGE:
            action = DecisionAction.CONTINUE if action == DecisionAction.ROLLBACK else DecisionAction.ROLLBACK
        decided = Decided(rollout.pk, hook_id, action.value.upper())
        try:
            decide_rollout(rollout.upgrade, actor=self.actor, service=service, hook_id=hook_id, action=action)
            decided.is_accepted = True
        except PortalError as error:
            decided.refusal = error.code
        self.decided.append(decided)

    def may_act(self) -> bool:
        return not {("member_removed", ""), ("suspended", "")} & set(self.facts.moments)

    # What happens

    def happen(self, happening: Happening) -> None:
        if happening.kind in ("killed", "paused"):
            self.shots.append(happening)  # ends with the worker that it meets
            return
        self.open_ends -= 1
        service = self.services[happening.service]
        self.trace.append(f"+{CLOCK.seconds - BEGINNING:.2f} {happening.kind} {service} {happening.actions}")
        if happening.kind in ON_THE_WAY:
            self.disturb(happening)
        elif happening.kind == "stale":
            self.facts.note("stale", service)
            fault = {"kind": "stale_reads", "cluster": self.cluster, "service": self.name(service), "times": 1}
            self.sandbox.faults.add(fault | {"seconds": happening.amount})
        elif happening.kind == "stale_cluster":
            fault = {"kind": "stale_reads", "cluster": self.cluster, "times": 1, "seconds": happening.amount}
            self.sandbox.faults.add(fault)
        elif happening.kind == "asleep":
            self.facts.note("asleep")
            self.asleep_until = CLOCK.seconds + ASLEEP_SECONDS * happening.amount
        elif happening.kind in ("stop", "roll_back"):
            self.start(0, happening.kind, getattr(self, happening.kind))
        elif happening.kind in ("member_removed", "suspended"):
            self.facts.note(happening.kind)
            self.start(0, happening.kind, lambda: self.shut_out(happening.kind))
        else:
            self.facts.note(happening.kind, service)
            getattr(self, f"outsider_{happening.kind}")(service, happening.amount)

    def disturb(self, happening: Happening) -> None:
        times = {"late": 1, "error_after": 1, "overtaken": 1, "undercut": 1, "forestalled": 1}.get(
            happening.kind, 1 + happening.amount % 4
        )
        if happening.kind == "denied":
            times = happening.amount
        self.facts.note(happening.kind)
        # A request that takes effect later than the portal searches for its deployment is a documented limit.
        seconds = WRITE_SECONDS + 1 + happening.amount % 16
        ends_at = CLOCK.seconds + DISTURBED_SECONDS
        self.network.disturbances.append(
            Disturbance(happening.kind, happening.actions, times, ends_at, seconds, happening.amount)
        )

    def shut_out(self, kind: str) -> None:
        if kind == "suspended":
            Organization.objects.filter(pk=self.organization.pk).update(is_active=False)
        else:
            Membership.objects.filter(pk=self.membership.pk).delete()

    def as_outsider(self, action: str, service: str, **params: Any) -> Json:
        where = {"cluster": self.cluster, "service": self.name(service)}
        return call_ecs(self.sandbox, OUTSIDER_KEY, action, where | params, region=REGION)

    def outsider_deploys(self, service: str, _amount: int) -> None:
        self.as_outsider("UpdateService", service, forceNewDeployment=True)

    def outsider_deploys_other(self, service: str, amount: int) -> None:
        container = {"name": service, "image": "example.org/other:v1", "memory": 512}
        params = {"family": f"{self.stack}-other", "containerDefinitions": [container]}
        made = call_ecs(self.sandbox, OUTSIDER_KEY, "RegisterTaskDefinition", params, region=REGION)
        self.as_outsider("UpdateService", service, taskDefinition=made["taskDefinition"]["taskDefinitionArn"])

    def deploy_beside(self, name: str, is_other: bool) -> None:
        service = next((each for each in SERVICES if self.name(each) == name), None)
        if service is None:
            return  # of an agent: its reply is lost all the same
        self.facts.note("deploys", service)
        deploy = self.outsider_deploys_other if is_other else self.outsider_deploys
        deploy(service, 0)

    def outsider_stops(self, service: str, _amount: int) -> None:
        found = self.find_service(service)
        if found and found.service_deployments:
            arn = found.service_deployments[0].arn
            params = {"serviceDeploymentArn": arn, "stopType": "ROLLBACK"}
            call_ecs(self.sandbox, OUTSIDER_KEY, "StopServiceDeployment", params, region=REGION)

    def outsider_continues(self, service: str, _amount: int) -> None:
        """Decide at the service's pause if it has waited for a while."""
        found = self.find_pause(service)
        if found and CLOCK.seconds > found[0].hooks_started_at + 20:
            action = self.plan.shape.decision or "CONTINUE"
            params = {"serviceDeploymentArn": found[0].arn, "hookId": found[1], "action": action}
            call_ecs(self.sandbox, OUTSIDER_KEY, "ContinueServiceDeployment", params, region=REGION)

    def find_pause(self, service: str) -> tuple[ServiceDeployment, str] | None:
        """Return the service's deployment that waits for a decision, with the id of the pause."""
        found = self.find_service(service)
        current = found.open_service_deployment if found else None
        if current is None or current.status != "IN_PROGRESS":
            return None
        return next(((current, each["hookId"]) for each in current.hooks if each["status"] == "AWAITING_ACTION"), None)

    def find_service(self, service: str) -> Service | None:
        services = self.sandbox.engine.all_services(self.cluster)
        return next((each for each in services if each.key.name == self.name(service)), None)

    def outsider_scales(self, service: str, amount: int) -> None:
        self.as_outsider("UpdateService", service, desiredCount=1 + amount % 4)

    def outsider_disables(self, service: str, _amount: int) -> None:
        self.as_outsider("UpdateService", service, desiredCount=0)

    def outsider_deletes(self, service: str, _amount: int) -> None:
        self.as_outsider("DeleteService", service, force=True)

    def outsider_recreates(self, service: str, amount: int) -> None:
        """Delete the service, and create it again a little later with the task definition that it ran."""
        found = self.as_outsider("DescribeServices", service, services=[self.name(service)])
        self.facts.note("deletes", service)
        self.outsider_deletes(service, amount)
        definition = next((each.get("taskDefinition") for each in found.get("services", [])), None)
        params = {"serviceName": self.name(service), "taskDefinition": definition, "desiredCount": 1 + amount % 3}
        if definition:
            self.scheduler.at(CLOCK.seconds + 10 + amount, lambda: self.as_outsider("CreateService", service, **params))

    def name(self, service: str) -> str:
        return f"{self.stack}-{service}-service"

    # The end

    def run(self) -> None:
        """Run until nothing is left to do, or until the bound."""
        self.scheduler.run(until=BEGINNING + LONGEST_SECONDS, is_over=self.is_over)

    def is_over(self) -> bool:
        if self.open_ends > len(self.shots) or self.busy or self.scheduler.locked_out:
            return False
        if self.plan.orders and CLOCK.seconds < self.settled_at:
            return False
        return self.next_at is None or bool(self.plan.orders and not self.has_open_rollouts())

    @property
    def settled_at(self) -> float:
        """Return the moment at which deployments of agents have settled, if nothing happens any more."""
        asleep = [each.at + ASLEEP_SECONDS * each.amount for each in self.plan.happenings if each.kind == "asleep"]
        orders, happenings = [each.at for each in self.plan.orders], [each.at for each in self.plan.happenings]
        return BEGINNING + max([0, *asleep, *orders, *happenings]) + 400.0

    def has_open_rollouts(self) -> bool:
        return bool(self.monitor.execute(ROLLOUTS, prepare=True).fetchall())

    def close(self) -> None:
        self.is_ending = True
        self.scheduler.end()
        Source.chance = Source.send = None
