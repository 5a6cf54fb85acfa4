"""Runs the bench for another revision and for the present tree, and prints what changed.

    make bench-compare REV=main      (python -m bench.compare main [options of python -m bench])

The other revision is served from a temporary worktree, by a copy of the present tree's bench, so that both are measured
alike. Its data set has the same rows, without the columns that it does not know.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import report

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="a commit, branch or tag")
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as name:
        other, figures = Path(name) / "tree", [Path(name) / f"{which}.json" for which in ("before", "after")]
        git("worktree", "add", "--detach", str(other), options.revision)
        try:
            shutil.rmtree(other / "bench", ignore_errors=True)
            shutil.copytree(ROOT / "bench", other / "bench", ignore=shutil.ignore_patterns("__pycache__"))
            for tree, file in zip((other, ROOT), figures, strict=True):
                run(tree, [*others, "--without-reconciler", "--json", str(file)])
        finally:
            git("worktree", "remove", "--force", str(other))
        before, after = (read(file) for file in figures)
    before["run"]["revision"] = options.revision
    print(f"\n{report.compare(before, after)}")
    return 0


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)  # noqa: S603, S607


def run(tree: Path, arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=tree, check=True)  # noqa: S603


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    raise SystemExit(main())
