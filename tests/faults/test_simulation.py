"""A small run of `make sim`: no world breaks an invariant, and a broken engine does."""

import subprocess
import sys

from bench.mutants import ROOT
from sim.mutants import MUTANTS


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim", "--processes", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_a_few_worlds_break_no_invariant() -> None:
    run = simulate("--seed", "11", "--worlds", "10")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "\n0 wrong verdicts in " in run.stdout
    assert "0 worlds broke an invariant; seed 11." in run.stdout


def test_a_broken_engine_is_noticed() -> None:
    command = [sys.executable, "-m", "sim.mutants", "--worlds", "10", "--only", "call twice"]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert (run.returncode, run.stderr) == (0, "")
    assert "doubled: the call of rollout 1 took effect twice" in run.stdout
    assert "1 of 1 mutants killed." in run.stdout


def test_every_mutant_changes_one_place_of_the_engine() -> None:
    found = {mutant.name: (ROOT / mutant.path).read_text().count(mutant.old) for mutant in MUTANTS}

    assert {name: count for name, count in found.items() if count != 1} == {}
