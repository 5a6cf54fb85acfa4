"""`make up` from a first start: one upgrade, kill -9 of every process, and a restart."""

import ast
import http.cookiejar
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.local_aws import ROOT
from tests.processes import free_port, wait_for

# AWS's clock runs faster by this factor, so that a rollout of 40 seconds takes 10.
SPEED = 4


class Portal:
    """A portal started by portal.local.up on its own data folder and ports, and a client that signs in to it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port, self.aws_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def start(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        env = kept | {
            "PORT": str(self.port),
            "AWS_PORT": str(self.aws_port),
            "DATA_DIR": str(self.data_dir),
            "SPEED": str(SPEED),
        }
        with (self.data_dir.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "portal.local.up"], cwd=ROOT, env=env, stdout=log, stderr=log
            )
        wait_for(lambda: self.answers("/health"), seconds=90)

    def answers(self, path: str) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.data_dir.parent / "up.log").read_text()[-3000:]
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

    def kill_everything(self) -> None:
        assert self.process
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def stop(self) -> int:
        """Stop the portal as Ctrl-C does, and return the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


@pytest.fixture
def portal() -> Iterator[Portal]:
    directory = Path(tempfile.mkdtemp(prefix="portal-up-"))
    directory.chmod(0o755)
    portal = Portal(directory / "data")
    (directory / "data").mkdir()
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

    portal.kill_everything()
    portal.start()
    ended = wait_for(lambda: (now := portal.call("GET", url))["completed_at"] and now, seconds=60)

    assert ended["status"] == "SUCCESS"
    assert ended["services"][0]["outcome"] == "completed"
    (deployment,) = portal.deployments_in_ecs()
    assert deployment["deployment_id"] == ended["services"][0]["deployment_id"]

    started = portal.processes()
    portal.stop()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_taken_port_is_a_readable_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = os.environ | {"PORT": str(port), "DATA_DIR": str(tmp_path)}

        ended = subprocess.run(
            [sys.executable, "-m", "portal.local.up"], cwd=ROOT, env=env, capture_output=True, text=True
        )

    assert ended.returncode == 1
    assert f"Port {port} is taken" in ended.stderr
    assert "Traceback" not in ended.stderr


def refusal_of(env: dict[str, str], *command: str) -> str:
    """Run a command that must refuse, and return its one sentence."""
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    return sentence


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_an_old_python_is_refused_in_one_sentence(version: str) -> None:
    installed = [*Path.home().glob(f".pyenv/versions/{version}.*/bin"), Path("/usr/local/bin"), Path("/usr/bin")]
    found = [folder / f"python{version}" for folder in installed if (folder / f"python{version}").exists()]
    if not found:
        pytest.skip(f"there is no Python {version} on this machine")

    sentence = refusal_of({}, str(found[0]), "-m", "portal.setup", "install", "requirements.txt")

    assert sentence.startswith(f"The portal needs Python 3.11 or newer and this is Python {version}: install")


def test_what_an_old_python_reads_uses_no_newer_syntax() -> None:
    newer = (ast.AnnAssign, ast.AsyncFunctionDef, ast.JoinedStr, ast.NamedExpr, ast.Nonlocal)
    for path in ("portal/__init__.py", "portal/setup.py"):
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
