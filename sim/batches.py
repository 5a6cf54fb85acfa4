"""Runs batches of worlds in several processes, shrinks a failing one, and adds up the figures."""

import argparse
import gc
import itertools
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.core.management import call_command
from django.db import connections
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as with_seed

from portal.models import User
from portal.sandbox.server import Sandbox
from sim import journal, parts
from sim.clock import CLOCK, connection_options
from sim.oracle import Findings, judge
from sim.plan import STRATEGIES, Plan, name_plans, plans
from sim.world import World

WORLDS_PER_BATCH = 10


class Broken(AssertionError):
    """A world broke an invariant."""


def strategy_of(number: int) -> str:
    """Return the strategy of a batch. Pairs of batches share one, so that two processes draw all of them."""
    return STRATEGIES[number % 10_000 // 2 % len(STRATEGIES)]


@dataclass
class Figures:
    """The sums over the worlds of one strategy."""

    worlds: int = 0
    rollouts: int = 0
    steps: int = 0
    calls: int = 0
    wrong: int = 0
    timed_out: int = 0
    doubled: int = 0
    lost: int = 0
    broken: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        for name in ("worlds", "rollouts", "steps", "calls", "wrong", "timed_out", "doubled", "lost", "broken"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.outcomes.update(other.outcomes)
        self.failures += other.failures


class Runner:
    """Runs the worlds of one process, on its own database and its own local AWS."""

    def __init__(self, database: str) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000)
        parts.create_database(database, template=parts.TEMPLATE)
        use_database(database)
        self.monitor: psycopg.Connection[Any] = parts.connect(database)
        self.sandbox = Sandbox()
        self.actor = User.objects.create_user("sim@example.com", "sim-password-1")
        self.figures = {strategy: Figures() for strategy in STRATEGIES}
        self.last = ""
        self.is_stopped: Callable[[], bool] = lambda: False
        self.on_broken: Callable[[str], None] = lambda _what: None

    def run_world(self, plan: Plan) -> Findings:
        world = World(plan, self.sandbox, self.monitor, self.actor)
        try:
            world.begin()
            world.run()
            findings = judge(world)
        finally:
            world.close()
        figures = self.figures[plan.shape.strategy]
        figures.worlds += 1
        figures.rollouts += findings.outcomes.total()
        figures.steps += world.scheduler.steps
        figures.calls += world.network.count
        figures.outcomes.update(findings.outcomes)
        if findings.broken:
            self.last = describe(plan, world, findings)
        return findings

    def run_batch(self, number: int, worlds: int) -> bool:
        """Run the worlds of one batch, all of them, and return whether none broke an invariant."""
        broken = sum(figures.broken for figures in self.figures.values())

        def count(plan: Plan) -> None:
            if self.is_stopped():
                return
            findings = self.run_world(plan)
            if findings.broken:
                figures = self.figures[plan.shape.strategy]
                figures.broken += 1
                for name in ("wrong", "timed_out", "doubled", "lost"):
                    setattr(figures, name, getattr(figures, name) + getattr(findings, name))
                figures.failures.append(self.last)
                self.on_broken(self.last)

        if named := named_in(number):
            for plan in named[:worlds]:
                count(plan)
        else:
            draw(count, number, worlds, [Phase.generate])
        gc.collect()
        gc.freeze()  # the next collection looks only at what the next batch leaves
        return sum(figures.broken for figures in self.figures.values()) == broken

    def shrink_batch(self, number: int, worlds: int) -> str:
        """Run the batch again until the first broken world, and return the smallest one that breaks in the same way.

        A named world is as small as it can be.
        """

        def refuse(plan: Plan) -> None:
            findings = self.run_world(plan)
            if findings.broken:
                raise Broken(findings.broken[0].partition(":")[0])

        try:
            for plan in named_in(number):
                refuse(plan)
            if not named_in(number):
                draw(refuse, number, worlds, [Phase.generate, Phase.shrink])
        except Broken:
            return self.last
        return "The batch breaks no invariant the second time: something depends on more than the seed."


def named_in(number: int) -> list[Plan]:
    """Return the named worlds of a batch; the first batches of a seed have nothing else."""
    first = number % 10_000 * WORLDS_PER_BATCH
    return name_plans(number // 10_000 * 10_000)[first : first + WORLDS_PER_BATCH]


def draw(check: Callable[[Plan], None], number: int, worlds: int, phases: list[Phase]) -> None:
    """Let Hypothesis draw the plans of a batch."""
    profile = settings(
        max_examples=worlds,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    with_seed(number)(profile(given(plans(strategy_of(number)))(check)))()


def describe(plan: Plan, world: World, findings: Findings) -> str:
    lines = [f"BROKEN {line}" for line in findings.broken]
    lines += [f"  {plan}", *(f"    {line}" for line in world.trace[-150:])]
    return "\n".join(lines)


def run(options: argparse.Namespace, *, began: float) -> int:
    if not parts.has_database(parts.TEMPLATE):
        prepare_template()
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    stop = context.Event()
    places = range(1 if options.batch is not None else options.processes)
    processes = [context.Process(target=run_process, args=(options, place, results, stop)) for place in places]
    for process in processes:
        process.start()
    totals = {strategy: Figures() for strategy in STRATEGIES}
    crashes = []
    for _ in processes:
        figures, crash = results.get()
        crashes += [crash] if crash else []
        for strategy, each in figures.items():
            totals[strategy].add(each)
    for process in processes:
        process.join()
    return report(options, totals, crashes, seconds=time.monotonic() - began)


def prepare_template() -> None:
    """Create the database that each process copies: the clock first, then the product's tables, then the journal."""
    parts.create_database(parts.TEMPLATE)
    parts.create_clock(parts.TEMPLATE)
    use_database(parts.TEMPLATE)
    call_command("migrate", verbosity=0)
    connections.close_all()
    with parts.connect(parts.TEMPLATE) as connection:
        connection.execute(journal.SQL.encode())


def use_database(name: str) -> None:
    """Let Django's connections of this process use a database, and its time be the virtual one."""
    CLOCK.write_to(parts.clock_file(name))
    settings = connections.databases["default"]
    settings["NAME"] = name
    settings["OPTIONS"]["options"] = connection_options(parts.clock_file(name))


def run_process(options: argparse.Namespace, place: int, results: Any, stop: Any) -> None:
    """Run this process's batches, and shrink the first world that breaks an invariant."""
    crash = ""
    runner = None
    try:
        runner = Runner(f"sim_{os.getpid()}")
        if not options.keep_going:
            runner.is_stopped, runner.on_broken = stop.is_set, lambda _what: stop.set()
        for number, worlds in deal(options, place, runner):
            if stop.is_set():
                break
            if runner.run_batch(number, worlds):
                continue
            batch = number % 10_000
            command = f'make sim SEED={options.seed} ARGS="--batch {batch} --worlds {worlds}"'
            smallest = runner.shrink_batch(number, worlds) if options.shrink else ""
            runner.figures[strategy_of(number)].failures.append(f"{smallest}\nThe same again: {command}")
            if not options.keep_going:
                break
    except BaseException:
        crash = traceback.format_exc()
        print(crash, file=sys.stderr, flush=True)  # the other process may run for an hour
    results.put((runner.figures if runner else {}, crash))


def deal(options: argparse.Namespace, place: int, runner: Runner) -> Iterator[tuple[int, int]]:
    """Yield the number and the worlds of each batch of a process, until its share has been run."""
    if options.batch is not None:
        yield options.seed * 10_000 + options.batch, options.worlds or WORLDS_PER_BATCH
        return
    before = 0
    for batch in itertools.count():
        number = options.seed * 10_000 + batch
        named = len(named_in(number))
        worlds = named or WORLDS_PER_BATCH
        if options.worlds:
            worlds = min(worlds, options.worlds - before)
            if worlds <= 0:
                return
            before += worlds
        is_mine = batch % options.processes == place
        if is_mine and (options.worlds or named):
            yield number, worlds
        elif is_mine:
            share = options.rollouts / options.processes
            if all(figures.rollouts >= share for figures in runner.figures.values()):
                return
            if runner.figures[strategy_of(number)].rollouts < share:
                yield number, worlds


def report(options: argparse.Namespace, totals: dict[str, Figures], crashes: list[str], *, seconds: float) -> int:
    """Print the figures of each strategy. Return 1 if anything broke."""
    total = Figures()
    for figures in totals.values():
        for failure in figures.failures:
            print(failure)
        total.add(figures)
    heads = ("rollouts", "wrong", "timed_out", "doubled", "lost")
    print(f"{'':16}" + "".join(f"{head:>11}" for head in heads))
    for strategy, figures in totals.items():
        print(f"{strategy:16}" + "".join(f"{getattr(figures, head):11}" for head in heads))
    print(", ".join(f"{count} {outcome}" for outcome, count in total.outcomes.most_common()))
    print(f"{total.wrong} wrong verdicts in {total.rollouts} rollouts.")
    print(
        f"{total.worlds} worlds, {total.rollouts} rollouts, {total.steps} steps and {total.calls} calls to AWS in "
        f"{seconds:.0f} s; {total.broken} worlds broke an invariant; seed {options.seed}."
    )
    return 1 if total.broken or crashes else 0
