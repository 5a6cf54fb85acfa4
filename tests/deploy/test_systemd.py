"""The systemd units: what they run and set exists, and systemd reads them without a warning."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.commands import find_mistakes, find_unknown_settings
from tests.deploy.production import run_python
from tests.local_aws import ROOT

FOLDER = ROOT / "docs" / "deploy" / "systemd"
PORTAL = ["portal-web@.service", "portal-worker.service", "portal-scheduler.service"]


def read_settings(name: str) -> dict[str, str]:
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line and not line.startswith("#")]
    return {name: value or "0123456789abcdef" * 4 for name, value in (line.split("=", 1) for line in lines)}


@pytest.mark.parametrize("name", PORTAL)
def test_each_unit_runs_a_process_of_the_portal(name: str) -> None:
    text = (FOLDER / name).read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.M)

    assert find_mistakes(command.split()) == []
    assert {"User=portal", "Restart=always", "EnvironmentFile=/etc/portal/portal.env"} <= set(text.splitlines())


def test_the_timer_prunes_with_a_role_of_its_own() -> None:
    unit = (FOLDER / "portal-prune-audit.service").read_text()
    (shell,) = re.findall(r"^ExecStart=/bin/sh -c 'exec (.*)'$", unit, re.M)

    assert find_mistakes(shlex.split(shell)) == []
    assert unit.index("/etc/portal/portal.env") < unit.index("/etc/portal/maintenance.env")  # the last one counts
    assert "portal_maintenance:" in read_settings("maintenance.env")["DATABASE_URL"]


def test_the_proxy_reaches_the_web_servers() -> None:
    ports = re.findall(r"^\s*server 127\.0\.0\.1:(\d+)", (ROOT / "docs/deploy/nginx.conf").read_text(), re.M)
    deployment = (ROOT / "docs/deployment.md").read_text()

    assert ports
    assert [port for port in ports if f"portal-web@{port}" not in deployment] == []


def test_production_starts_with_the_example_of_settings() -> None:
    settings = read_settings("portal.env") | read_settings("owner.env")

    ran = run_python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **settings)

    assert ran.returncode == 0, ran.stderr
    assert find_unknown_settings(settings) == set()


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    for path in FOLDER.glob("*.*"):
        text = re.sub(r"/opt/portal/current/venv/bin/\w+", "/bin/true", path.read_text())
        text = re.sub(r"^User=.*$", "User=daemon", text, flags=re.M)  # the users exist on the portal's machine only
        (tmp_path / path.name.replace("@.", "@8000.")).write_text(text)

    units = [path for path in tmp_path.iterdir() if path.suffix in (".service", ".timer")]
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )

    assert len(units) == 7
    assert [line for line in (ran.stdout + ran.stderr).splitlines() if "portal-" in line] == []
    assert ran.returncode == 0, ran.stderr


def test_manage_gets_the_owner_for_migrate_only(tmp_path: Path) -> None:
    """With stand-ins for the programs of the machine: it prints what manage.py would get."""
    script = (
        (FOLDER / "portal-manage")
        .read_text()
        .replace("/etc/portal", str(tmp_path))
        .replace("/opt/portal/current", str(tmp_path))
    )
    for name in ("portal.env", "owner.env"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "runuser").write_text('#!/bin/sh\necho "$@" "${DATABASE_OWNER_URL:-none}" "$ALLOWED_HOSTS"\n')
    (tmp_path / "runuser").chmod(0o755)

    def run(command: str) -> str:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", "-c", script, "sh", command], env=env, capture_output=True, text=True, check=True
        ).stdout

    assert run("migrate").split() == [
        *["--user", "portal", "--", "venv/bin/python", "manage.py", "migrate"],
        read_settings("owner.env")["DATABASE_OWNER_URL"],
        "portal.example",
    ]
    assert run("doctor").split()[-2:] == ["none", "portal.example"]
