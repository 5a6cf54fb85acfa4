"""Starts the processes of `make up` together, watches them, and stops them in order.

Each process has its own session, so that Ctrl-C in the terminal signals only `make up`, which then stops them in order.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from portal.local.leftovers import Record

STOP_SECONDS = 8
# A process that is started again must run this many seconds, or it may end only MAX_SHORT_RUNS times in a row.
SHORT_RUN_SECONDS = 10
MAX_SHORT_RUNS = 3


@dataclass
class Running:
    name: str
    process: subprocess.Popen[bytes]
    reader: threading.Thread | None
    stop_signal: signal.Signals
    # Set for a process that is started again when it ends.
    command: list[str] | None = None
    started_at: float = 0.0
    short_runs: int = 0


class EndedError(Exception):
    """A process ended unexpectedly."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with exit code {code}")
        self.name = name


class Processes:
    def __init__(self, env: dict[str, str], cwd: Path, record: Record, log: Path) -> None:
        self.env, self.cwd, self.record = env, cwd, record
        self.running: list[Running] = []
        # All output lines of this start. They are also printed while is_shown is set.
        self.log = log.open("w")
        self.is_shown = False

    def start(
        self,
        name: str,
        command: list[str],
        *,
        log: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        is_supervised: bool = False,
    ) -> None:
        """Start a process. Its output goes to `log`, or with its name to the common log.

        `is_supervised`: start it again whenever it ends.
        """
        with contextlib.ExitStack() as files:
            output: IO[bytes] | int = files.enter_context(log.open("ab")) if log else subprocess.PIPE
            process = subprocess.Popen(
                command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )
        self.record.add(process.pid, stop_signal)
        reader = None
        if process.stdout:
            reader = threading.Thread(target=self.keep_lines, args=(name, process.stdout), daemon=True)
            reader.start()
        restarted = command if is_supervised else None
        self.running.append(Running(name, process, reader, stop_signal, restarted, time.monotonic()))

    def keep_lines(self, name: str, output: IO[bytes]) -> None:
        for raw in output:
            line = f"{name:<9} | {raw.decode(errors='replace').rstrip()}\n"
            self.log.write(line)
            self.log.flush()
            if self.is_shown:
                show(line, end="")

    def run(self, name: str, command: list[str]) -> int:
        """Run a process to its end and return its exit code. *Raises* EndedError if another process ends before."""
        process = subprocess.Popen(command, cwd=self.cwd, env=self.env, start_new_session=True)
        self.record.add(process.pid)
        started = Running(name, process, None, signal.SIGTERM)
        self.running.append(started)
        while process.poll() is None:
            self.check(apart_from=started)
            time.sleep(0.02)
        self.running.remove(started)
        return process.returncode

    def check(self, *, apart_from: Running | None = None) -> None:
        """Start supervised processes again that have ended. *Raises* EndedError if another has."""
        for each in list(self.running):
            code = each.process.poll()
            if code is None or each is apart_from:
                continue
            if each.reader:
                each.reader.join(timeout=1)  # so that its last lines are in the log
            self.restart(each, code)

    def restart(self, ended: Running, code: int) -> None:
        """Start an ended process again. *Raises* EndedError if it is not supervised, or keeps ending soon."""
        is_short = time.monotonic() - ended.started_at < SHORT_RUN_SECONDS
        short_runs = ended.short_runs + 1 if is_short else 0
        if ended.command is None or short_runs >= MAX_SHORT_RUNS:
            raise EndedError(ended.name, code)
        show(f"  {ended.name} ended with exit code {code}: starting it again.")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ended.process.pid, signal.SIGKILL)  # children that a killed worker left
        self.running.remove(ended)
        self.start(ended.name, ended.command, stop_signal=ended.stop_signal, is_supervised=True)
        self.running[-1].short_runs = short_runs

    def stop(self, *names: str) -> None:
        """Stop the named processes, or all, in parallel. Kill those that do not end in time."""
        self.is_shown = False
        chosen = [each for each in self.running if not names or each.name in names]
        for each in chosen:
            if each.process.poll() is None:
                each.process.send_signal(each.stop_signal)
        deadline = time.monotonic() + STOP_SECONDS
        for each in chosen:
            try:
                each.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                show(f"  {each.name} does not stop: killing it.")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)
                each.process.wait()
            self.running.remove(each)


def show(text: str, *, end: str = "\n") -> None:
    """Print, and ignore a closed output, because the processes must still be stopped in order."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
