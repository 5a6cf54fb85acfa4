"""Runs every block marked `console` in README and docs against the running product, pasted as a whole.

Blocks of one page share a shell, as they would for a reader. What needs another machine or an AWS account is marked `text`
or `sh`. `portal-manage` is manage.py of an installed site (docs/deployment.md); here it is that of the running portal.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.local.up import is_healthy
from tests.local_aws import ROOT
from tests.processes import free_port, wait_for

START = "make up\n"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Deployments move faster by this factor, so that a rollout of 40 seconds takes 4.
SPEED = 10


def read_blocks(page: Path) -> list[str]:
    """Return the page's `console` blocks, without the one that starts the portal."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.S | re.M)
    return [block for block in blocks if block != START]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Start the portal with the README's own command. Return the environment for the blocks."""
    with tempfile.TemporaryDirectory(prefix="portal-docs-") as folder:
        manage = Path(folder, "portal-manage")
        manage.write_text('#!/bin/sh\nexec make --silent manage ARGS="$*"\n')
        manage.chmod(0o755)
        ports = {"PORT": str(free_port()), "AWS_PORT": str(free_port())}
        env = {"PATH": f"{folder}:{os.environ['PATH']}", "DATA_DIR": f"{folder}/data", "SPEED": str(SPEED), **ports}
        with Path(folder, "output").open("wb") as output:
            make_up = subprocess.Popen(
                START.split(), cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_for(lambda: is_healthy(int(env["PORT"])), seconds=90)
            yield env
        finally:
            os.killpg(make_up.pid, signal.SIGINT)
            make_up.wait(timeout=30)


def test_the_readme_starts_the_portal_with_make_up() -> None:
    assert f"```console\n{START}```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if read_blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_console_blocks_run_as_pasted(page: Path, environment: dict[str, str]) -> None:
    script = "set -euo pipefail\n" + "\n".join(read_blocks(page))
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{environment['PORT']}")
    script = script.replace("127.0.0.1:8001", f"127.0.0.1:{environment['AWS_PORT']}")

    ran = subprocess.run(
        ["bash", "-x"], input=script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )

    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"


@pytest.mark.parametrize(
    ("portal", "cookie"),
    [("http://127.0.0.1:8000", "csrftoken"), ("https://portal.example", "__Host-csrftoken")],
)
def test_call_proves_itself_over_http_and_https(tmp_path: Path, portal: str, cookie: str) -> None:
    jar = tmp_path / "jar"
    jar.write_text(f"portal.example\tFALSE\t/\tTRUE\t0\t{cookie}\tthe-token\n")
    block = next(each for each in read_blocks(ROOT / "docs" / "api.md") if "call() {" in each)
    (call,) = re.findall(r"^call\(\) \{\n.*?^\}\n", block, re.S | re.M)
    script = f"B={portal}/api/v1 jar={jar}\ncurl() {{ printf '%s\\n' \"$@\"; }}\n{call}call $B/auth/logout"

    ran = subprocess.run(["bash", "-euo", "pipefail"], input=script, capture_output=True, text=True, check=True)

    assert {f"Origin: {portal}", "X-CSRFToken: the-token"} <= set(ran.stdout.splitlines())
