"""A pipeline's script triggers upgrades with a token and waits for `validated`: its exit code equals the verdict.

Each fate is scripted: what breaks at the local AWS, what people do meanwhile, how the validation ends, and with which code
the script then has to end. The script is a process of its own, portal/cli.py as it is copied into a pipeline, against a
running server. `make pipeline` runs 200 fates, `make faults` ten.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from portal.models import Organization, Scope
from tests.conftest import SERVICES, Cast, Engine
from tests.figures import print_line
from tests.portal.test_api_tokens import SECRET, make_token
from tests.processes import wait_for
from tests.upgrades.conftest import make_upgrade
from upgrades.commands.sign import sign_check
from upgrades.commands.stop import stop_upgrade
from upgrades.models import Upgrade
from upgrades.states import CheckStatus, Outcome, Phase, Stage, Status, Validation

pytestmark = pytest.mark.django_db(transaction=True)

FATES = int(os.environ.get("FATES") or 10)
SEED = int(os.environ.get("SEED") or 1)
CLI = Path(__file__).resolve().parents[2] / "portal" / "cli.py"
# Exit codes of docs/pipelines.md.
SUCCEEDED, FAILED, PARTIAL, NOT_VALIDATED, STILL_RUNS, REFUSED, INTERRUPTED = 0, 1, 3, 4, 5, 6, 130
ENDS_WITHIN = 60.0
# How often each happens, besides what breaks. The script is "killed", "interrupted", or out of time ("too late"); a
# person stops the upgrade ("stopped"); another one is "in progress"; the version is "unknown".
EVENTS = {"": 12, "killed": 2, "stopped": 2, "interrupted": 1, "too late": 1, "in progress": 1, "unknown": 1}
BREAKS = ("crash", "image_pull")


@dataclass(frozen=True)
class Fate:
    """One run. `broken`: the service whose new tasks fail, by `fault`. `signed`: how a person signs the validation."""

    number: int
    service: str
    event: str
    broken: str | None
    fault: str
    signed: CheckStatus

    @property
    def key(self) -> str:
        return f"run-{SEED}-{self.number}"

    @property
    def verdict(self) -> int:
        """Return the exit code of the upgrade when it has ended and is validated."""
        if self.event == "stopped":
            return FAILED
        if self.broken is not None:
            return FAILED if self.service != "all" or self.broken == SERVICES[0] else PARTIAL
        return SUCCEEDED if self.signed == CheckStatus.PASS else NOT_VALIDATED

    @property
    def first_code(self) -> int:
        """Return the exit code of the script's first run, which may end before the upgrade does."""
        early = {"interrupted": INTERRUPTED, "killed": -signal.SIGKILL, "too late": STILL_RUNS}
        return early.get(self.event, REFUSED if self.is_refused else self.verdict)

    @property
    def is_refused(self) -> bool:
        return self.event in ("in progress", "unknown")


def script(number: int, choose: random.Random) -> Fate:
    event = next(iter(EVENTS)) if number == 0 else choose.choices(list(EVENTS), list(EVENTS.values()))[0]
    service = choose.choice(SERVICES if event == "stopped" else (*SERVICES, "all"))
    targets = SERVICES if service == "all" else (service,)
    breaks = event != "stopped" and choose.random() < 0.4
    broken = choose.choice(targets) if breaks else None
    signed = choose.choice((CheckStatus.PASS, CheckStatus.PASS, CheckStatus.FAIL))
    return Fate(number, service, event, broken, choose.choice(BREAKS), signed)


class Pipeline:
    """Runs the script as a pipeline does: with an address and a token in its environment, and nothing else."""

    def __init__(self, url: str, home: Path) -> None:
        self.environment = {"PORTAL_URL": url, "PORTAL_TOKEN": SECRET, "HOME": str(home)}

    @contextmanager
    def run(self, fate: Fate, **options: str) -> Iterator["subprocess.Popen[str]"]:
        arguments = {"for": "validated", "reason": "OPS-412", "idempotency-key": fate.key, "timeout": "60"} | options
        given = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        command = [sys.executable, "-IS", str(CLI), "upgrade", fate.service, "--force", "--json", *given]
        with subprocess.Popen(command, env=self.environment, text=True, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()


class World:
    """What happens to the upgrades meanwhile: ECS, the engine, and people."""

    def __init__(self, engine: Engine, cast: Cast) -> None:
        self.engine, self.cast = engine, cast

    def prepare(self, fate: Fate) -> None:
        platform, acme = self.engine.local_aws, self.cast.acme
        platform.clear_faults()
        if fate.broken:
            name = f"{acme.deployment_stack}-{fate.broken}-service"
            platform.fault(fate.fault, cluster=acme.cluster, service=name)

    def end(self, fate: Fate, upgrade: Upgrade) -> None:
        """Carry the upgrade out, and let a person sign what the validation asks for."""
        if fate.event == "stopped":
            self.engine.start(upgrade)
            stop_upgrade(upgrade, actor=self.cast.admin)
        self.engine.run(upgrade, seconds=60)
        if upgrade.validation != Validation.NEEDED:
            return
        rows = upgrade.checks.filter(stage=Stage.VALIDATION).exclude(status=CheckStatus.PASS).order_by("position")
        *others, last = rows.values_list("name", flat=True)
        for name, status in [*((name, CheckStatus.PASS) for name in others), (last, fate.signed)]:
            sign_check(upgrade, actor=self.cast.operator, check=name, status=status, note="Looked at it.")

    def refuse(self, fate: Fate, pipeline: Pipeline) -> list[int]:
        """Let the portal refuse the upgrade: nothing is recorded. Return the exit code."""
        acme, blocker = self.cast.acme, None
        if fate.event == "in progress":
            blocker = make_upgrade(acme, by=self.cast.admin, target=fate.service, statuses=running(fate.service))
        earlier = Upgrade.objects.count()
        with pipeline.run(fate, version="v0.0.1" if fate.event == "unknown" else "latest") as process:
            code = process.wait(ENDS_WITHIN)
        assert Upgrade.objects.count() == earlier
        if blocker:
            blocker.rollouts.update(
                status=Status.FAILED, phase=Phase.DONE, outcome=Outcome.ROLLED_BACK, next_check_at=None
            )
            Upgrade.objects.filter(pk=blocker.pk).update(status=Status.FAILED)
        return [code]


def running(service: str) -> list[Status]:
    return [Status.IN_PROGRESS] * (len(SERVICES) if service == "all" else 1)


def live(fate: Fate, pipeline: Pipeline, world: World) -> list[int]:
    """Let the fate happen. Return the exit codes of the script's first run, and of the job's repetition."""
    earlier = Upgrade.objects.count()
    with pipeline.run(fate, timeout="1" if fate.event == "too late" else "60") as process:
        wait_for(lambda: Upgrade.objects.count() > earlier, seconds=ENDS_WITHIN)
        upgrade = Upgrade.objects.order_by("-created_at")[0]
        if fate.event in ("interrupted", "killed"):
            process.send_signal(signal.SIGINT if fate.event == "interrupted" else signal.SIGKILL)
        codes = [process.wait(ENDS_WITHIN)] if fate.first_code != fate.verdict else []
        world.end(fate, upgrade)
        if not codes:
            codes = [process.wait(ENDS_WITHIN)]
            check_output(process, upgrade)
    with pipeline.run(fate) as again:
        codes.append(again.wait(ENDS_WITHIN))
        check_output(again, upgrade)
    assert Upgrade.objects.count() == earlier + 1, "the repeated job started another upgrade"
    return codes


def check_output(process: "subprocess.Popen[str]", upgrade: Upgrade) -> None:
    """Check that the script printed the record of this upgrade, as it is."""
    assert process.stdout is not None
    record = json.loads(process.stdout.read())
    upgrade.refresh_from_db()
    assert (record["upgrade_id"], record["status"]) == (upgrade.upgrade_id, upgrade.status)


@pytest.mark.usefixtures("registry")
def test_the_exit_code_equals_the_verdict(
    request: pytest.FixtureRequest, live_server: Any, engine: Engine, cast: Cast, tmp_path: Path
) -> None:
    make_token(cast.operator, cast.acme, Scope.READ, Scope.UPGRADE)
    Organization.objects.filter(pk=cast.acme.pk).update(upgrade_trigger_limit=1000)
    pipeline, world, choose = Pipeline(live_server.url, tmp_path), World(engine, cast), random.Random(SEED)
    wrong, counted, began = [], Counter[int](), get_cpu_seconds()

    for fate in [script(number, choose) for number in range(FATES)]:
        world.prepare(fate)
        if fate.is_refused:
            codes, expected = world.refuse(fate, pipeline), [REFUSED]
        else:
            codes, expected = live(fate, pipeline, world), [fate.first_code, fate.verdict]
        counted.update(codes)
        if codes != expected:
            wrong.append((fate, codes, expected))

    seen = ", ".join(f"{count} x {code}" for code, count in sorted(counted.items()))
    print_line(
        request,
        f"pipeline: {FATES} fates, {len(wrong)} wrong; exit codes {seen}; {get_cpu_seconds() - began:.0f} s of CPU",
    )
    assert wrong == []


def get_cpu_seconds() -> float:
    """Return the CPU time of this process, which is server and engine, and of the scripts that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
