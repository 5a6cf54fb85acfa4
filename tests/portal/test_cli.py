"""The command line against the running portal: exit codes follow the verdict, and nothing leaks the token."""

import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Deployment
from portal import cli
from portal.models import AuditEvent, AuditKind, Scope
from tests.conftest import Cast, Engine
from tests.deployments.conftest import make_agent, make_deployment
from tests.deployments.test_logs import Group
from tests.local_aws import LocalAws
from tests.outside import Outside, Talk, as_json, outside, raw
from tests.portal.test_api_tokens import SECRET, make_token
from tests.processes import wait_for
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Upgrade
from upgrades.states import Outcome, Status, Validation

ENDS = (Status.SUCCESS, Status.FAILED, Status.SKIPPED)
CLI = Path(cli.__file__)
Cli = Callable[..., int]


@pytest.fixture
def portal(live_server: Any, cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Return the command line with a token of acme's operator."""
    make_token(cast.operator, cast.acme)
    monkeypatch.setenv("PORTAL_URL", live_server.url)
    monkeypatch.setenv("PORTAL_TOKEN", SECRET)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return lambda *arguments: cli.main(list(arguments))


def expect_code(statuses: tuple[Status, ...], validation: Validation, until: str) -> int:
    """Return the exit code of docs/pipelines.md, from the ends of the services."""
    if Status.SUCCESS not in statuses:
        return 1
    if Status.FAILED in statuses:
        return 3
    return 4 if validation == Validation.FAILED and until == "validated" else 0


def test_the_exit_code_follows_the_verdict(portal: Cli, cast: Cast, capsys: Any) -> None:
    ended = (Validation.NONE, Validation.PASSED, Validation.FAILED)
    fates = [
        (statuses, validation, until)
        for statuses in itertools.combinations_with_replacement(ENDS, 3)
        for validation in ended
        for until in ("done", "validated")
        if Status.SUCCESS in statuses or (Status.FAILED in statuses and validation == Validation.NONE)
    ]

    wrong = []
    for statuses, validation, until in fates:
        upgrade = make_upgrade(
            cast.acme, by=cast.operator, target="all", statuses=list(statuses), validation=validation
        )
        code = portal("wait", upgrade.upgrade_id, "--for", until, "--json", "--timeout", "1")
        record = json.loads(capsys.readouterr().out)
        if (code, record["status"]) != (expect_code(statuses, validation, until), upgrade.status):
            wrong.append((statuses, validation, until, code, record["status"]))

    assert wrong == []


@pytest.mark.parametrize(("fault", "code"), [(None, 0), ("crash", 1)])
def test_an_upgrade_is_triggered_and_waited_for(
    engine: Engine, portal: Cli, cast: Cast, fault: str | None, code: int
) -> None:
    if fault:
        name = f"{cast.acme.deployment_stack}-agent-service"
        engine.local_aws.fault(fault, cluster=cast.acme.cluster, service=name)

    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(portal, "upgrade", "agent", "--force", "--reason", "OPS-1", "--idempotency-key", "run-1")
        wait_for(Upgrade.objects.exists, seconds=20)
        upgrade = engine.run(Upgrade.objects.get())

        assert ran.result() == code
    assert (upgrade.reason, upgrade.initiated_by) == ("OPS-1", cast.operator)
    assert AuditEvent.objects.get(kind=AuditKind.UPGRADE_TRIGGERED).data["token"] == "Pipeline"
    assert portal("upgrade", "agent", "--force", "--reason", "OPS-1", "--idempotency-key", "run-1") == code
    assert Upgrade.objects.count() == 1


def test_what_still_runs_is_five(portal: Cli, cast: Cast, capsys: Any) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    assert portal("wait", upgrade.upgrade_id, "--timeout", "1") == 5
    assert "agent: IN_PROGRESS" in capsys.readouterr().err


def test_a_baking_version_serves(portal: Cli, cast: Cast) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    upgrade.rollouts.update(outcome=Outcome.BAKING)

    assert portal("wait", upgrade.upgrade_id, "--for", "serving", "--timeout", "1") == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["upgrade", "nothing"], 6),
        (["wait", "upgrade-2026-0101-000000-abcdef"], 6),
        (["approve", "../../auth/session"], 6),
        (["logs", "x/../../agents"], 6),
    ],
)
def test_a_refusal_is_six(portal: Cli, capsys: Any, arguments: list[str], code: int) -> None:
    assert portal(*arguments) == code
    assert capsys.readouterr().err.startswith("portal: ")


def test_approve_decides_at_the_pause_that_waits(portal: Cli, cast: Cast) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.admin, target="orchestrator", statuses=[Status.IN_PROGRESS])
    assert portal("approve", upgrade.upgrade_id) == 6
    hook = {"id": "pause-1", "type": "PAUSE", "stage": "POST_SCALE_UP", "status": "AWAITING_ACTION"}
    hook |= {"expires_at": None, "timeout_action": None, "target": None}
    upgrade.rollouts.update(outcome=Outcome.WAITING_FOR_DECISION, hook=hook)

    assert portal("approve", upgrade.upgrade_id, "--hook-id", "pause-0") == 6
    assert portal("approve", upgrade.upgrade_id, "--json") == 0
    assert upgrade.rollouts.get().decisions.get().decided_by_email == cast.operator.email


def test_a_refused_value_is_named_without_more(portal: Cli, capsys: Any) -> None:
    assert portal("deployments", "--status", "running well") == 6
    assert capsys.readouterr().err.startswith("portal: status: Must be one of ")


def test_lists_are_for_people_and_scripts(portal: Cli, cast: Cast, capsys: Any) -> None:
    deployment = make_deployment(cast, make_agent(cast, name="Mail\x1b[2J"), "ready")

    assert portal("deployments") == 0
    text = capsys.readouterr().out
    assert (str(deployment.pk) in text, "\x1b" in text) == (True, False)
    assert portal("agents", "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1


def test_login_stores_the_token_for_its_owner_only(
    portal: Cli, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    url = os.environ["PORTAL_URL"]
    assert portal("login", url) == 0
    monkeypatch.delenv("PORTAL_TOKEN")
    monkeypatch.delenv("PORTAL_URL")

    (file,) = (tmp_path / "operations-portal").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert portal("agents") == 0
    assert portal("logout") == 0
    assert portal("agents") == 2
    assert SECRET not in "".join(capsys.readouterr())


def test_a_scope_that_is_missing_is_named(
    portal: Cli, cast: Cast, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SECRET[:-1] + "b"
    make_token(cast.operator, cast.acme, Scope.READ, secret=other)
    monkeypatch.setenv("PORTAL_TOKEN", other)

    assert portal("upgrade", "agent") == 6
    assert "lacks the scope upgrade" in capsys.readouterr().err
    assert not Upgrade.objects.exists()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://portal.example.com", 2),
        ("portal.example.com", 2),
        ("https://[::1", 2),
        ("https://portal.example.com:https", 2),
        ("https://portal.example.com/a b", 2),
        (None, 7),
    ],
)
def test_a_wrong_address_gets_no_token(monkeypatch: pytest.MonkeyPatch, url: str | None, code: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORTAL_URL", url or f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("PORTAL_TOKEN", SECRET)

        assert cli.main(["agents"]) == code


# --- unexpected answers ----------------------------------------------------------------------------------------------

COUNTS = dict.fromkeys(("target_running", "desired_count", "production_weight"))
SERVICE = {"service": "agent", "status": "SUCCESS", "outcome": None, "hook": None, "error_message": None, **COUNTS}
RECORD = {"upgrade_id": "u", "status": "SUCCESS", "validation": "none", "message": "m", "services": [SERVICE]}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """Start a server that the command line takes for the portal."""
    monkeypatch.setenv("PORTAL_TOKEN", SECRET)
    with outside() as server:
        monkeypatch.setenv("PORTAL_URL", server.url)
        yield server


def head(line: str, body: bytes = b"", *headers: str) -> Talk:
    lines = [f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers, "", ""]
    return raw("\r\n".join(lines).encode() + body)


@pytest.mark.parametrize(
    "arguments", [["agents"], ["wait", "u", "--timeout", "1"], ["logs", "d", "-f"], ["approve", "u"]]
)
@pytest.mark.parametrize(
    "answer",
    [
        as_json([1, 2]),
        as_json([[1, 2]]),
        as_json({}),
        as_json({"items": [1]}),
        as_json({"items": "x", "services": {}, "status": 5}),
        as_json(None),
        head("200 OK", b"<html>Sign in</html>", "Content-Type: text/html"),
        head("200 OK"),
        head("200 OK", b"[" * 100_000),
        head("200 OK", b"\xff\xfe"),
        raw(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"items": ['),
        raw(b"SSH-2.0-OpenSSH\r\n"),
        head("302 Found", b"", "Location: https://login.example/"),
        head("404 Not Found", b"<html>"),
        as_json([1], status=403),
        as_json({"detail": 5, "code": "x"}, status=400),
        as_json(RECORD | {"services": [SERVICE | {"hook": {}}], "items": [SERVICE]}),
        head("503 Down", b"<html>", "Retry-After: " + "9" * 5000),
    ],
)
def test_what_is_not_the_portals_is_seven(other: Outside, capsys: Any, answer: Talk, arguments: list[str]) -> None:
    other.otherwise = answer

    assert cli.main([*arguments, "--json"]) == 7
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("portal: http://127.0.0.1")


@pytest.mark.parametrize("until", ["serving", "done", "validated"])
@pytest.mark.parametrize(
    "changed",
    [
        {"status": "PAUSED"},
        {"status": "IN_PROGRESS", "services": [SERVICE | {"status": "IN_PROGRESS"}]},
        {"status": "IN_PROGRESS", "services": []},
    ],
)
def test_only_a_known_status_is_a_verdict(other: Outside, changed: dict[str, Any], until: str) -> None:
    services = [SERVICE | {"status": "PAUSED"}] if changed["status"] == "PAUSED" else []
    other.otherwise = as_json(RECORD | {"services": services} | changed)

    assert cli.main(["wait", "u", "--for", until, "--timeout", "1"]) == 5


def test_a_reader_that_ended_changes_no_verdict(other: Outside) -> None:
    other.otherwise = as_json(RECORD | {"status": "PARTIAL", "message": "\u00fc" * 200_000})
    command = f"{sys.executable} -IS {CLI} wait u 2>&1 | head -c 1; exit ${{PIPESTATUS[0]}}"

    assert subprocess.run(["bash", "-c", command], stdout=subprocess.DEVNULL, check=False).returncode == 3


def test_any_text_is_printed_in_any_encoding(other: Outside) -> None:
    other.otherwise = as_json(RECORD | {"message": "\u65e5\u672c"})
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}

    ran = subprocess.run([sys.executable, str(CLI), "wait", "u"], env=environment, capture_output=True, check=False)

    assert (ran.returncode, ran.stdout.strip()) == (0, rb"u: SUCCESS. \u65e5\u672c")


@pytest.mark.parametrize("stored", ["[]", "{", '{"url": 5, "token": null}', "[" * 100_000])
def test_settings_that_are_none_are_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: str) -> None:
    for name in ("PORTAL_URL", "PORTAL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "operations-portal").mkdir()
    (tmp_path / "operations-portal" / "cli.json").write_text(stored)

    assert cli.main(["agents"]) == 2


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def group(portal: Cli, cast: Cast, local_aws: LocalAws) -> Group:
    """Return the log group of a deployment that is three days old."""
    local_aws.throttling(scale=100)
    made = make_deployment(cast, make_agent(cast))
    fields: dict[str, Any] = {"log_group": f"/test/{made.pk}", "created_at": timezone.now() - timedelta(days=3)}
    Deployment.objects.filter(pk=made.pk).update(**fields)
    made.refresh_from_db()
    return Group(local_aws, made)


class Follower:
    """`logs --follow` as a process. Its lines arrive in `lines`."""

    def __init__(self, deployment: object, *options: str) -> None:
        command = [sys.executable, "-IS", str(CLI), "logs", str(deployment), "--follow", *options]
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.split()[2])

    def wait_for(self, *words: str) -> None:
        wait_for(lambda: set(words) <= set(self.lines), seconds=30)


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(deployment: object, *options: str) -> Follower:
        started.append(Follower(deployment, *options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_a_followed_log_loses_no_line_of_a_burst(group: Group, follow: Callable[..., Follower]) -> None:
    burst = [f"b{number}" for number in range(1200)]
    group.put("first", ago=300)
    follower = follow(group.deployment.pk)
    follower.wait_for("first")

    group.put(*burst, ago=5, step=0.1)
    follower.wait_for(burst[0], burst[-1])

    assert follower.lines == ["first", *burst]


def test_a_followed_log_has_late_lines_once(group: Group, follow: Callable[..., Follower]) -> None:
    group.put("a", "b", "c", ago=60)
    follower = follow(group.deployment.pk, "--limit", "2")
    follower.wait_for("c")

    group.put("late", task="slow", ago=60.5)
    follower.wait_for("late")
    group.put("d", ago=30)
    follower.wait_for("d")

    assert follower.lines == ["b", "c", "late", "d"]


def test_a_followed_level_is_searched_without_gap(group: Group, follow: Callable[..., Follower]) -> None:
    group.put("INFO-1", "[ERROR] first", ago=100)
    follower = follow(group.deployment.pk, "--level", "error")
    follower.wait_for("[ERROR]")

    group.put("[ERROR]2", *(f"[INFO] {number}" for number in range(700)), "ERROR: last", ago=5, step=0.1)
    follower.wait_for("ERROR:")

    assert follower.lines == ["[ERROR]", "[ERROR]2", "ERROR:"]


def test_a_limit_over_a_page_reads_further(portal: Cli, group: Group, capsys: Any) -> None:
    group.put("[ERROR] rare", *(f"line {number}" for number in range(1100)), ago=5, step=0.1)

    assert portal("logs", str(group.deployment.pk), "--limit", "700") == 0
    assert len(capsys.readouterr().out.splitlines()) == 700
    assert portal("logs", str(group.deployment.pk), "--level", "ERROR") == 0
    assert "ERROR    [ERROR] rare" in capsys.readouterr().out


def test_an_outage_before_the_first_line_is_waited_out(other: Outside, follow: Callable[..., Follower]) -> None:
    page = {"items": [], "next_cursor": None, "read_at": "2026-11-28T10:00:00Z"}
    line = {"id": "1", "timestamp": "2026-11-28T10:00:05Z", "level": None, "message": "first"}
    down = head("503 Down", b"", "Retry-After: 1")
    answers = iter([as_json(page), down, as_json([1]), as_json(page | {"items": [line]})])
    last = as_json(page | {"items": [line]})
    other.otherwise = lambda connection, request: next(answers, last)(connection, request)

    follower = follow("new")
    follower.wait_for("first")

    assert "since=2026-11-28" in other.requests[-1]


def test_an_unreachable_portal_is_not_followed(other: Outside) -> None:
    other.otherwise = head("503 Down", b"", "Retry-After: 1")

    assert cli.main(["logs", "new", "--follow"]) == 7
