"""Mutants: changes of one place of the product, made in a copy of the tree, which a test or a simulation must notice."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """One change of the source, and what it breaks. `old` occurs once in the file."""

    name: str
    path: str
    old: str
    new: str


def run_mutated(mutants: Sequence[Mutant], copied: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m <arguments>` in a copy of the tree that has these mutants, and return what it printed.

    `copied`: the files and folders of the tree that the command needs.
    """
    with tempfile.TemporaryDirectory(prefix="portal-mutant-") as folder:
        copy_tree(copied, Path(folder))
        for mutant in mutants:
            apply(mutant, Path(folder))
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)


def copy_tree(copied: Sequence[str], folder: Path) -> None:
    """Copy the tree with its bytecode, which stays valid for all files but those that are changed."""
    for name in copied:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)


def apply(mutant: Mutant, folder: Path) -> None:
    path = folder / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.path} has {text.count(mutant.old)} times the text {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new))
