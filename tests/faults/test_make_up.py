"""`make up` itself: one upgrade, kill -9 of every process, and up again; and what it refuses, cleans up and stops."""

import ast
import contextlib
import http.cookiejar
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.management import call_command

from portal.local import leftovers
from portal.models import Organization
from tests.local_aws import ROOT
from tests.processes import free_port, wait_for

# AWS's clock runs faster by this factor, so that a rollout of 40 seconds takes 10.
SPEED = 4


class Portal:
    """A portal started by portal.local.up on its own data folder and ports, and a client that signs in to it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.output = data_dir.parent / "output"
        self.port, self.aws_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def start(self) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.data_dir.parent),
            "PORT": str(self.port),
            "AWS_PORT": str(self.aws_port),
            "DATA_DIR": str(self.data_dir),
            "SPEED": str(SPEED),
        }
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "portal.local.up"], cwd=ROOT, env=env, stdout=log, stderr=log
            )
        wait_for(lambda: self.answers("/health"), seconds=90)

    def answers(self, path: str) -> bool:
        assert self.process
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            self.call("GET", path)
        except OSError:
            return False
        return True

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        token = next((cookie.value for cookie in self.cookies if cookie.name == "csrftoken"), "") or ""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json", "X-CSRFToken": token},
        )
        with self.opener.open(request, timeout=10) as answer:
            return dict(json.loads(answer.read() or b"{}"))

    def sign_in(self) -> None:
        try:
            self.call("GET", "/api/v1/auth/session")
        except urllib.error.HTTPError as refusal:
            refusal.close()  # 401, and the CSRF cookie
        self.call("POST", "/api/v1/auth/login", {"email": "operator@acme.example", "password": "portal-demo-1"})

    def deployments_in_ecs(self) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.aws_port}/_sandbox/ledger?action=UpdateService&effect=true"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [call for call in json.loads(answer.read())["entries"] if call["deployment_id"]]

    def processes(self) -> list[psutil.Process]:
        """Return all processes of `make up`, including PostgreSQL: those that name the data folder, and their children."""
        assert self.process
        with_children = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        named = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.data_dir) in " ".join(process.info["cmdline"] or [])
        ]
        children = [child for process in named for child in process.children(recursive=True)]
        return list({process.pid: process for process in [*with_children, *named, *children]}.values())

    def find(self, name: str) -> psutil.Process | None:
        """Return the running first process of worker or scheduler."""
        assert self.process
        word = {"worker": "celery", "scheduler": "run_scheduler"}[name]
        children = psutil.Process(self.process.pid).children()
        return next((child for child in children if word in child.cmdline()), None)

    def kill_everything(self) -> None:
        assert self.process
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    @contextlib.contextmanager
    def busy_clients(self) -> Iterator[None]:
        """Connections as browsers and slow clients keep them: nothing sent yet, and half a request."""
        with contextlib.ExitStack() as connections:
            for sent in (b"", b"", b"GET / HTTP/1.1\r\nHost: 127", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"):
                connection = connections.enter_context(socket.create_connection(("127.0.0.1", self.port)))
                connection.sendall(sent)
            yield

    def stop(self) -> int:
        """Stop the portal as Ctrl-C does, and return the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


@pytest.fixture
def portal() -> Iterator[Portal]:
    """In a path with spaces, without HOME, and where another user's lock lies in the folder for temporary files."""
    directory = Path(tempfile.mkdtemp(prefix="portal up "))
    directory.chmod(0o755)
    (directory / ".lockfile").mkdir()
    portal = Portal(directory / "my data")
    yield portal
    if portal.process and portal.process.poll() is None:
        portal.kill_everything()
    shutil.rmtree(directory, ignore_errors=True)


def test_an_upgrade_survives_the_kill_of_every_process(portal: Portal) -> None:
    portal.start()
    portal.sign_in()
    accepted = portal.call("POST", "/api/v1/deployments/upgrade", {"service": "agent", "force_new_deployment": True})
    url = accepted["status_url"]
    wait_for(lambda: portal.call("GET", url)["status"] == "IN_PROGRESS", seconds=30)
    assert len(portal.output.read_text().splitlines()) < 30
    assert "Traceback" not in (portal.data_dir / "portal.log").read_text()

    portal.kill_everything()
    portal.start()
    ended = wait_for(lambda: (now := portal.call("GET", url))["completed_at"] and now, seconds=60)

    assert ended["status"] == "SUCCESS"
    assert ended["services"][0]["outcome"] == "completed"
    (deployment,) = portal.deployments_in_ecs()
    assert deployment["deployment_id"] == ended["services"][0]["deployment_id"]

    for name in ("worker", "scheduler"):
        running = portal.find(name)
        assert running
        running.kill()
        sentence = f"{name} ended with exit code -9: starting it again."
        wait_for(lambda sentence=sentence: sentence in portal.output.read_text())
    wait_for(lambda: portal.find("worker") and portal.find("scheduler"))

    started = portal.processes()
    with portal.busy_clients():
        began = time.monotonic()
        code = portal.stop()
    assert code == 128 + signal.SIGINT
    assert time.monotonic() - began < 10
    assert "killing" not in portal.output.read_text()
    _, alive = psutil.wait_procs(started, timeout=0)
    assert alive == []


@pytest.mark.parametrize(
    "command", [("portal.local.setup", "reset"), ("portal.local.up",)], ids=["make reset", "make up"]
)
def test_what_a_killed_make_up_left_is_stopped(tmp_path: Path, command: tuple[str, ...]) -> None:
    data_dir = tmp_path / "my data"
    data_dir.mkdir()
    (data_dir / "lock").touch()
    record = leftovers.Record(data_dir, tmp_path / "portal-sockets")
    ours = os.environ | {leftovers.MARK: str(data_dir)}
    left, reused, parent = (
        subprocess.Popen(["sh", "-c", shell], env=env, stdin=subprocess.PIPE, start_new_session=True)
        for shell, env in (
            ("exec sleep 600", ours),
            ("exec sleep 600", os.environ),
            ("sleep 600 & read line", ours),
        )
    )
    for process in (left, reused, parent):
        record.add(process.pid)
    record.content["processes"][1]["started"] = "at another time"
    record.write()
    (child,) = wait_for(lambda: psutil.Process(parent.pid).children())
    parent.communicate(b"\n")

    with taken_port() as port:
        env = os.environ | {"DATA_DIR": str(data_dir), "PORT": str(port)}
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env, capture_output=True)

    try:
        assert left.wait(timeout=5) < 0
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert reused.poll() is None
    finally:
        for process in (left, reused):
            process.kill()
            process.communicate()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def catch_refusal(env: dict[str, str], *command: str) -> str:
    """Run a command that must refuse, and return its one sentence."""
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    return sentence


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"PORT": "abc"}, "PORT must be a number from 1 to 65535, such as PORT=8010; it is abc."),
        ({"PORT": "80000"}, "PORT must be a number from 1 to 65535, such as PORT=8010; it is 80000."),
        ({"PORT": "65535"}, "AWS_PORT must be a number from 1 to 65535, such as AWS_PORT=8010; it is 65536."),
        ({"SPEED": "fast"}, "SPEED must be a number above 0, such as SPEED=4; it is fast."),
        (
            {"DATA_DIR": "/dev/null/x"},
            "/dev/null/x cannot be written (Not a directory). Choose a folder of your own: "
            "DATA_DIR=~/portal-data make up",
        ),
    ],
    ids=lambda value: " ".join(f"{name}={given}" for name, given in value.items()) if isinstance(value, dict) else "",
)
def test_a_bad_setting_is_refused_in_one_sentence(env: dict[str, str], sentence: str, tmp_path: Path) -> None:
    assert catch_refusal({"DATA_DIR": str(tmp_path)} | env, sys.executable, "-m", "portal.local.up") == sentence


def test_a_taken_port_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with taken_port() as port:
        sentence = catch_refusal(
            {"PORT": str(port), "DATA_DIR": str(tmp_path)}, sys.executable, "-m", "portal.local.up"
        )

    assert sentence.startswith(f"Port {port} is taken by another program. Choose another: PORT=")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").touch()

    sentence = catch_refusal({"DATA_DIR": str(tmp_path)}, sys.executable, "-m", "portal.local.up")

    assert sentence.startswith(f"{tmp_path} holds other files.")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_an_old_python_is_refused_in_one_sentence(version: str) -> None:
    installed = [*Path.home().glob(f".pyenv/versions/{version}.*/bin"), Path("/usr/local/bin"), Path("/usr/bin")]
    found = [folder / f"python{version}" for folder in installed if (folder / f"python{version}").exists()]
    if not found:
        pytest.skip(f"there is no Python {version} on this machine")

    sentence = catch_refusal({}, str(found[0]), "-m", "portal.local.setup", "install", "requirements-demo.txt")

    assert sentence.startswith(f"The portal needs Python 3.11 or newer and this is Python {version}: install")


def test_what_an_old_python_reads_uses_no_newer_syntax() -> None:
    newer = (ast.AnnAssign, ast.AsyncFunctionDef, ast.JoinedStr, ast.NamedExpr, ast.Nonlocal)
    for path in ("portal/__init__.py", "portal/local/setup.py"):
        text = (ROOT / path).read_text(encoding="ascii")
        tree = ast.parse(text, feature_version=(3, 4))

        assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.arg) and node.annotation]


def test_make_manage_reads_settings_in_a_path_with_spaces(tmp_path: Path) -> None:
    data_dir = tmp_path / "my data"
    data_dir.mkdir()
    (data_dir / "env").write_text("DEMO=1\n")
    command = ["make", "manage", "ARGS=version", f"BIN={Path(sys.executable).parent}"]

    ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"DATA_DIR": str(data_dir)}, capture_output=True)

    assert ended.returncode == 0, ended.stderr


def test_a_prepared_database_is_not_migrated_again(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prepare_demo")

    assert Organization.objects.count() == 3
    assert capsys.readouterr().out == ""
