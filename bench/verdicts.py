"""Checks the verdicts of a thousand scripted rollouts: compares the engine's with those of an independent oracle.

    make bench-verdicts      (python -m bench.verdicts [--rollouts 1000] [--seed 1] [--fates ""])

Each upgrade belongs to its own organization. Many run concurrently, through the real commands, the real engine and the
local AWS over HTTP. The script controls time: the clocks of the local AWS and the database are frozen while all due
rollouts take a step, and are then advanced together. Minutes pass quickly, and the engine keeps its own intervals.
When a rollout ends, the oracle (oracle.py) computes its correct verdict from the local AWS's ledger and records at the
same moment. Prints the outcomes of each fate (fates.py), and exits with 1 if a verdict is wrong.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from random import Random
from threading import Timer
from typing import Any

import tests.embedded  # noqa: F401 - starts PostgreSQL and Redis, and sets the environment
from portal.local import embedded

# As a superuser: it replaces a function of PostgreSQL.
SUPERUSER = os.environ["DATABASE_URL"].replace(embedded.APPLICATION, "postgres")
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "portal.settings",
    "DATABASE_URL": SUPERUSER,
    "DATABASE_OWNER_URL": SUPERUSER,
    "LOG_LEVEL": "CRITICAL",  # failures here are deliberate
    # Shorter than in production, because rollouts that never end are stopped after the deadline.
    "UPGRADE_DEADLINE_SECONDS": "240",
    "UPGRADE_POLL_SECONDS": "10",
}

import django

django.setup()

from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.models import Min

from bench.oracle import UNKNOWN, Service, Verdict, is_portals, judge, overall
from bench.scenarios import SCENARIOS, Scenario
from portal.errors import PortalError
from portal.models import Membership, Organization, Role, User
from tests.local_aws import ControlApiError, LocalAws
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, Upgrade

WORKERS, THREADS = 2, 8
STARTS_PER_SECOND = 8
MAX_PARALLEL_STEPS = 6
GIVEN_UP_AFTER_SECONDS = 3600
REGION = "eu-central-1"
OWN_ACCOUNT, OTHER_ACCOUNT = "111111111111", "222222222222"
PLATFORM = ("agent", "orchestrator", "customer-portal")
# Outcomes that the portal may report for a service it never tried to update, if the script lists them too.
DECIDED_BY_PORTAL = {
    "no_change": "SUCCESS",
    "not_attempted": "FAILED",
    "service_missing": "FAILED",
    "access_denied": "FAILED",
    "changed_since": "FAILED",
}

RUNNING, NEWEST = "v9.9.0", "v9.9.1"
# Requests of a trigger: a version, a forced rollout to the newest image, the same for an image outside ECR, no change.
KINDS: dict[str, dict[str, Any]] = {
    "version": {"version": NEWEST},
    "forced": {"force_new_deployment": True},
    "elsewhere": {"force_new_deployment": True},
    "unchanged": {"version": RUNNING},
}

Json = dict[str, Any]
Action = Callable[[], None]

# Django's Now() is statement_timestamp(). The search path makes this function hide PostgreSQL's own.
TURNED_CLOCK = """
CREATE SCHEMA turned;
CREATE TABLE turned.clock (at timestamptz NOT NULL);
INSERT INTO turned.clock VALUES (now());
CREATE FUNCTION turned.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM turned.clock';
DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET search_path = turned, pg_catalog, public', current_database());
END $$;
"""


class World:
    """The local AWS, the shared clock, and the position up to which the ledger was read."""

    def __init__(self, aws: LocalAws, seed: int) -> None:
        self.aws = aws
        self.seed = seed
        self.sequence = 0
        self.now = 0.0
        with connection.cursor() as cursor:
            cursor.execute(TURNED_CLOCK)
        connection.close()
        aws.throttling(enabled=False)
        self.began_at = aws.freeze()
        self.turn_to(self.began_at + 1)
        self.roles = {account: f"arn:aws:iam::{account}:role/{{}}" for account in (OWN_ACCOUNT, OTHER_ACCOUNT)}
        aws.seed(roles=[{"arn": role.format("outsider")} for role in self.roles.values()])
        aws.seed(roles=[{"arn": self.role(OTHER_ACCOUNT), "external_id": "bench-external-id"}])
        self.outsiders = {
            account: aws.client(region=REGION, role_arn=role.format("outsider")) for account, role in self.roles.items()
        }
        for account in self.roles:
            aws.seed(
                account=account,
                region=REGION,
                images=[
                    {"repository": f"axonflow-{service}", "tags": tags, "pushed_at": self.began_at - age}
                    for service in PLATFORM
                    for tags, age in (([RUNNING], 86400), ([NEWEST, "latest"], 3600))
                ],
            )
        self.actor = User.objects.create_user("bench@example.com", "bench-password-1")

    def role(self, account: str) -> str:
        return self.roles[account].format("portal")

    def turn_to(self, moment: float) -> None:
        """Set both clocks to a later moment."""
        self.now = moment
        with connection.cursor() as cursor:
            cursor.execute("UPDATE turned.clock SET at = to_timestamp(%s)", [moment])
        self.aws.advance(moment - self.aws.now())

    def new_entries(self) -> list[Json]:
        entries = self.aws.ledger(since=self.sequence)
        self.sequence = entries[-1]["sequence"] if entries else self.sequence
        return entries


# Scripts may break things before the start, which fails pre-flight checks; those are not measured here.
OVERRIDE = "a script of the bench"


@dataclass(eq=False)
class Case:
    """One organization with one upgrade and one script. The methods a script may call are documented in fates.py."""

    world: World
    number: int
    fate: Scenario
    start_at: float
    chance: Random
    target: str = ""
    kind: str = ""
    seeded: Json = field(default_factory=dict)
    seconds_asleep: float = 0
    loses_real_time: bool = False
    upgrade: Upgrade | None = None
    called_at: float | None = None
    services: dict[str, Service] = field(default_factory=dict)
    registered: Counter[str] = field(default_factory=Counter)  # revisions by the portal, by family
    second_act: Action | None = None
    timer: Timer | None = None
    moments: list[tuple[float, Action]] = field(default_factory=list)
    _before: list[Action] = field(default_factory=list)
    _at_start: list[Action] = field(default_factory=list)
    _after_call: list[tuple[float, Action]] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target = self.chance.choice(PLATFORM)
        self.kind = self.chance.choice(["version", "version", "forced", "elsewhere"])
        self.stack = f"bench-{self.number}"
        self.cluster = f"{self.stack}-cluster"
        self.account = OTHER_ACCOUNT if self.chance.random() < 0.15 else OWN_ACCOUNT
        self.organization = Organization(slug=self.stack, name=self.stack, deployment_stack=self.stack)
        if self.account == OTHER_ACCOUNT:
            self.organization.deployment_role_arn = self.world.role(OTHER_ACCOUNT)
            self.organization.deployment_external_id = "bench-external-id"
        self.fate.arrange(self)

    @property
    def recorded(self) -> Upgrade:
        if self.upgrade is None:
            raise RuntimeError(f"case {self.number} was not triggered yet")
        return self.upgrade

    @property
    def targets(self) -> tuple[str, ...]:
        return PLATFORM if self.target == "all" else (self.target,)

    def get_service_name(self, service: str | None = None) -> str:
        return f"{self.stack}-{service or self.targets[0]}-service"

    # Called by scripts

    def fault(self, kind: str, *, service: str | None = None, **fields: Any) -> None:
        def switch_on() -> None:
            scope: Json = {"cluster": self.cluster, "service": self.get_service_name(service) if service else None}
            if fields.get("action") == "RegisterTaskDefinition":
                scope = {"family": f"{self.stack}-{self.targets[0]}"}
            self._faults.append(self.world.aws.fault(kind, **scope, **fields)["id"])

        if self.upgrade:
            switch_on()
        else:
            self._at_start.append(switch_on)

    def failing(self, kind: str, action: str, low: float, high: float) -> None:
        def switch_on() -> None:
            self.fault(kind, action=action)
            fault = self._faults[-1]
            ends_at = self.world.now + self.chance.uniform(5, 25)
            self.moments.append((ends_at, lambda: self.switch_off(fault)))

        self.later(low, high, switch_on)

    def switch_off(self, fault: str) -> None:
        with suppress(ControlApiError):  # the fault was used up
            self.world.aws.clear_faults(fault)

    def later(self, low: float, high: float, action: Action) -> None:
        self._after_call.append((self.chance.uniform(low, high), action))

    def soon(self, action: Action) -> None:
        self._at_start.append(action)

    def early(self, action: Action) -> None:
        self._before.append(action)

    def meanwhile(self, real_seconds: float, action: Action) -> None:
        def act() -> None:
            with suppress(BotoCoreError, ClientError):  # it hit a fault meant for the portal
                action()

        self.timer = Timer(real_seconds, act)
        self.timer.start()

    def then_rolled_back(self, arrange: Action) -> None:
        self.kind = "version"
        self.second_act = arrange

    def outsider_deploys(self) -> None:
        self._as_outsider("update_service", service=self.get_service_name(), forceNewDeployment=True)

    def outsider_deploys_another_definition(self) -> None:
        container = {"name": self.targets[0], "image": "example.org/other:v1", "memory": 512}
        client = self.world.outsiders[self.account]
        made = client.register_task_definition(family=f"{self.stack}-other", containerDefinitions=[container])
        arn = made["taskDefinition"]["taskDefinitionArn"]
        self._as_outsider("update_service", service=self.get_service_name(), taskDefinition=arn)

    def outsider_stops(self) -> None:
        newest = self.world.aws.deployments(self.cluster)[self.get_service_name()]["deployments"][0]["arn"]
        with suppress(ClientError):  # it has ended
            self.world.outsiders[self.account].stop_service_deployment(serviceDeploymentArn=newest)

    def outsider_scales(self) -> None:
        self._as_outsider("update_service", service=self.get_service_name(), desiredCount=self.chance.randint(0, 5))

    def outsider_configures(self, **configuration: Any) -> None:
        self._as_outsider("update_service", service=self.get_service_name(), deploymentConfiguration=configuration)

    def outsider_deletes(self, service: str | None = None) -> None:
        self._as_outsider("delete_service", service=self.get_service_name(service), force=True)

    def outsider_disables(self, service: str) -> None:
        self._as_outsider("update_service", service=self.get_service_name(service), desiredCount=0)

    def person_stops(self) -> None:
        with suppress(PortalError):  # it has ended
            stop_upgrade(self.recorded, actor=self.world.actor)

    def clear_cluster(self) -> None:
        self.organization.deployment_cluster = f"{self.stack}-gone"

    def _as_outsider(self, call: str, **parameters: Any) -> None:
        getattr(self.world.outsiders[self.account], call)(cluster=self.cluster, **parameters)

    # Called by the run

    def seed(self) -> None:
        registry = "example.org" if self.kind == "elsewhere" else f"{self.account}.dkr.ecr.{REGION}.amazonaws.com"
        services = [
            {
                "name": self.get_service_name(service),
                "image": f"{registry}/axonflow-{service}:{RUNNING}",
                "family": f"{self.stack}-{service}",
                "container": service,
                "desired_count": self.chance.randint(1, 4),
                **self.seeded,
            }
            for service in self.targets
        ]
        self.world.aws.seed(account=self.account, region=REGION, cluster=self.cluster, services=services)
        self.services = {service: Service(self.cluster, self.get_service_name(service)) for service in self.targets}

    def start(self) -> None:
        for action in self._before:
            action()
        self.upgrade = trigger_upgrade(
            self.organization,
            actor=self.world.actor,
            service=self.target,
            override_reason=OVERRIDE,
            **KINDS[self.kind],
        )
        for action in self._at_start:
            action()

    def start_second_act(self) -> bool:
        """Roll back the upgrade that has just succeeded, if the script says so, and discard the records of the first."""
        arrange, first = self.second_act, Upgrade.objects.get(pk=self.recorded.pk)
        if arrange is None or first.status != "SUCCESS":
            return False
        self.second_act, self.upgrade, self.called_at, self.moments = None, None, None, []
        self._before, self._at_start, self._after_call = [], [], []
        self.registered.clear()
        for service in self.services.values():
            service.entries.clear()
        arrange()
        self.start_at = self.world.now
        self.upgrade = rollback_upgrade(first, actor=self.world.actor, override_reason=OVERRIDE)
        for action in self._at_start:
            action()
        return True

    def note(self, entry: Json) -> None:
        """Store an entry of the ledger. The portal's first deployment starts the script's clock."""
        if entry["action"] == "RegisterTaskDefinition" and entry["effect"] and is_portals(entry):
            self.registered[entry["parameters"]["family"]] += 1
        service = next((each for each in self.services.values() if each.name == entry["service"]), None)
        if service is None:
            return
        service.entries.append(entry)
        if service.portal_calls and self.called_at is None:
            self.called_at = entry["time"]
            self.moments += [(entry["time"] + seconds, action) for seconds, action in self._after_call]

    def play(self) -> None:
        """Run the script's due actions."""
        due = sorted((each for each in self.moments if each[0] <= self.world.now), key=lambda each: each[0])
        self.moments = [each for each in self.moments if each[0] > self.world.now]
        for _, action in due:
            action()

    @property
    def is_asleep(self) -> bool:
        return self.called_at is not None and self.world.now < self.called_at + self.seconds_asleep

    def clean_up(self) -> None:
        for fault in self._faults:
            self.switch_off(fault)


@dataclass
class Run:
    """All cases and the errors found so far. `workers` are processes that take the steps, as in production."""

    world: World
    cases: list[Case]
    pool: ThreadPoolExecutor
    workers: ProcessPoolExecutor
    wrong: list[str] = field(default_factory=list)
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    steps: int = 0
    _open: dict[int, Case] = field(default_factory=dict)  # by rollout
    _due_since: dict[int, float] = field(default_factory=dict)
    _verdicts: dict[int, list[Verdict]] = field(default_factory=dict)  # by case

    def run(self) -> None:
        waiting = sorted(self.cases, key=lambda case: case.start_at)
        while waiting or self._open:
            starting = [case for case in waiting if case.start_at <= self.world.now]
            waiting = [case for case in waiting if case.start_at > self.world.now]
            list(self.pool.map(Case.start, starting))
            for case in starting:
                self._watch(case)
            self._read_ledger()
            running = set(self._open.values())
            for case in running:
                case.play()
            if any(case.loses_real_time for case in starting):
                self._steps()
                time.sleep(2)  # let calls that have timed out take effect
            for case in starting:
                if case.timer:
                    case.timer.join()
            self._steps()
            self._settle()
            if self.world.now > self.world.began_at + GIVEN_UP_AFTER_SECONDS:
                self.wrong += [f"{case.fate.name}: rollout {pk} never ended" for pk, case in self._open.items()]
                return
            self.world.turn_to(self._next_moment(waiting))

    def _watch(self, case: Case) -> None:
        for pk, position in case.recorded.rollouts.values_list("pk", "position"):
            self._open[pk] = case
            if position == 0:
                self._due_since[pk] = self.world.now

    def _read_ledger(self) -> None:
        by_stack = {case.stack: case for case in self._open.values()}
        for entry in self.world.new_entries():
            case = by_stack.get(get_stack(entry))
            if case:
                case.note(entry)

    def _steps(self) -> None:
        """Step all due rollouts, repeatedly while a step makes a rollout due again immediately."""
        for _ in range(MAX_PARALLEL_STEPS):
            asleep = {pk for pk, case in self._open.items() if case.is_asleep}
            due = [pk for pk in Rollout.objects.due().values_list("pk", flat=True) if pk not in asleep]
            if not due:
                return
            parts = [due[number::WORKERS] for number in range(WORKERS) if due[number::WORKERS]]
            self.steps += sum(self.workers.map(advance_all, parts))

    def _settle(self) -> None:
        """Compare the rollouts that have just ended with the oracle's verdict at this moment."""
        self._read_ledger()
        ended = Rollout.objects.filter(pk__in=list(self._open), phase="done").order_by("upgrade", "position")
        for rollout in ended.select_related("upgrade"):
            case = self._open.pop(rollout.pk)
            self._hold(case, rollout)
            following = case.recorded.rollouts.filter(position=rollout.position + 1).first()
            if following:
                self._due_since[following.pk] = self.world.now
            if case not in self._open.values():
                self._hold_upgrade(case, rollout.upgrade)
                if case.start_second_act():
                    self._watch(case)
                else:
                    case.clean_up()

    def _hold(self, case: Case, rollout: Rollout) -> None:
        service = case.services[rollout.service]
        truth = self.world.aws.deployments(case.cluster).get(service.name)
        began = self._due_since.get(rollout.pk)
        deadline = None if began is None else began + settings.UPGRADE_DEADLINE_SECONDS
        expected = judge(service, truth, is_past_deadline=deadline is not None and self.world.now >= deadline)
        actual: Verdict = (rollout.status, rollout.outcome)
        earlier = self._verdicts.setdefault(case.number, [])
        if expected == UNKNOWN:
            expected = scripted(case, actual, earlier)
        earlier.append(actual)
        self.ends.setdefault(case.fate.name, Counter())[str(rollout.outcome)] += 1
        if actual != expected:
            self._blame(case, rollout, f"reported {actual}, expected {expected}")
        elif rollout.outcome not in case.fate.ends:
            self._blame(case, rollout, f"{actual} is not an outcome of the script: bug in script or oracle")
        elif len(service.portal_calls) > 1:
            self._blame(case, rollout, f"doubled: {len(service.portal_calls)} deployments by the portal")
        elif case.registered[f"{case.stack}-{rollout.service}"] > 1:
            self._blame(case, rollout, "registered several revisions")
        elif service.portal_calls and rollout.service_deployment_arn not in (
            None,
            service.portal_calls[0]["service_deployment_arn"],
        ):
            self._blame(case, rollout, f"judged by {rollout.service_deployment_arn}, which is not its own deployment")

    def _hold_upgrade(self, case: Case, upgrade: Upgrade) -> None:
        expected = overall(self._verdicts.pop(case.number))
        if upgrade.status != expected:
            self.wrong.append(f"{case.fate.name}: {upgrade.upgrade_id} reported {upgrade.status}, expected {expected}")

    def _blame(self, case: Case, rollout: Rollout, what: str) -> None:
        calls = "; ".join(
            f"+{entry['time'] - case.start_at:.0f} s {entry['principal'].rsplit('/', 1)[0].rsplit('/', 1)[-1]} "
            f"{entry['action']} {entry['error'] or ('ok' if entry['delivered'] else 'reply lost')}"
            for entry in case.services[rollout.service].entries
        )
        self.wrong.append(
            f"{case.fate.name} (case {case.number}, {rollout.service}, ended +{self.world.now - case.start_at:.0f} s): "
            f"{what}. Message: {rollout.error_message or rollout.rollout_reason}. Calls: {calls}"
        )

    def _next_moment(self, waiting: list[Case]) -> float:
        moments = [case.start_at for case in waiting[:1]]
        for case in set(self._open.values()):
            moments += [moment for moment, _ in case.moments]
            if case.is_asleep and case.called_at is not None:
                moments.append(case.called_at + case.seconds_asleep)
        awake = [pk for pk, case in self._open.items() if not case.is_asleep]
        due = Rollout.objects.filter(pk__in=awake).aggregate(at=Min("next_check_at"))["at"]
        moments += [due.timestamp()] if due else []
        return max(self.world.now + 1, min(moments, default=self.world.now + 1))


def advance_all(rollouts: list[int]) -> int:
    """Take one step of each rollout concurrently, in a worker process, and return the number of steps taken."""
    return sum(worker_threads().map(advance, rollouts))


@cache
def worker_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def get_stack(entry: Json) -> str:
    """Return the stack, such as `bench-7`, from a call about its cluster or one of its task definitions."""
    name = entry["cluster"] or entry["parameters"].get("family") or ""
    return "-".join(name.split("-")[:2])


def scripted(case: Case, actual: Verdict, earlier: list[Verdict]) -> Verdict | None:
    """Return the verdict on a service that the portal never tried to update, if its script allows it, else None."""
    outcome = str(actual[1])
    if outcome not in case.fate.ends or outcome not in DECIDED_BY_PORTAL:
        return None
    is_stopped = Upgrade.objects.get(pk=case.recorded.pk).stop_requested_at is not None
    if outcome == "not_attempted" and not is_stopped and not any(status == "FAILED" for status, _ in earlier):
        return None
    return DECIDED_BY_PORTAL[outcome], outcome


def deal(world: World, rollouts: int, fates: list[Scenario]) -> list[Case]:
    """Create the cases, each fate with its share of the rollouts, in an order determined by the seed."""
    chance = Random(world.seed)  # noqa: S311 - must be reproducible from the seed
    total = sum(fate.share for fate in fates)
    parts = [(fate.share * rollouts / total, fate) for fate in fates]
    deck = [fate for part, fate in parts for _ in range(int(part))]
    rest = sorted(parts, key=lambda each: (each[0] - int(each[0]), chance.random()), reverse=True)
    deck += [fate for _, fate in rest[: rollouts - len(deck)]]
    chance.shuffle(deck)
    cases: list[Case] = []
    left = rollouts
    for number, fate in enumerate(deck):
        if left <= 0:
            break
        start_at = world.now + 5 + number // STARTS_PER_SECOND
        case = Case(world, number, fate, start_at, Random(f"{world.seed} {number}"))  # noqa: S311
        if case.loses_real_time:
            case.start_at = world.now + 5
        left -= len(case.targets)
        cases.append(case)
    return cases


def report(run: Run, seconds: float) -> bool:
    rollouts = sum(sum(ends.values()) for ends in run.ends.values())
    outcomes = sum(run.ends.values(), Counter[str]())
    print(f"{rollouts} rollouts of {len(run.ends)} fates, {run.world.now - run.world.began_at:.0f} s of ECS time")
    for fate in SCENARIOS:
        ends = run.ends.get(fate.name)
        if ends:
            print(f"  {fate.name:52} {', '.join(f'{count} {outcome}' for outcome, count in ends.most_common())}")
    print(f"  {'total':52} {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}")
    for line in run.wrong:
        print(f"WRONG {line}")
    print(f"{run.steps} engine steps in {seconds:.0f} s; seed {run.world.seed}.")
    print(f"{len(run.wrong)} wrong verdicts in {rollouts} rollouts.")
    return not run.wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="seed of the order and timing of events")
    parser.add_argument("--fates", default="", help="run only fates whose names contain this text")
    options = parser.parse_args()
    fates = [fate for fate in SCENARIOS if options.fates in fate.name]
    if not fates:
        parser.error(f"no fate matches {options.fates!r}. Available: {', '.join(fate.name for fate in SCENARIOS)}")
    call_command("migrate", verbosity=0)
    local_aws = LocalAws.start()
    os.environ["AWS_ENDPOINT_URL"] = local_aws.url
    began = time.monotonic()
    try:
        world = World(local_aws, options.seed)
        cases = deal(world, options.rollouts, fates)
        Organization.objects.bulk_create([case.organization for case in cases])
        Membership.objects.bulk_create(
            Membership(organization=case.organization, user=world.actor, role=Role.OPERATOR) for case in cases
        )
        for case in cases:
            case.seed()
        # Fork before any thread starts. Workers are copies of this process and open their own connections.
        connection.close()
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as workers:
            list(workers.map(advance_all, [[]] * WORKERS))
            with ThreadPoolExecutor(THREADS) as pool:
                run = Run(world, cases, pool, workers)
                run.run()
        return 0 if report(run, time.monotonic() - began) else 1
    finally:
        local_aws.stop()


if __name__ == "__main__":
    raise SystemExit(main())
