"""The processes of `make up`, recorded in DATA_DIR, so that what a kill -9 left running can be stopped later.

Uses only the standard library, because `make reset` runs it without the virtual environment.

A process is identified by its id and its start time, because its id may now belong to another program. Other programs are
never signalled.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Every process gets this variable. It identifies the process after the first process of its group has ended.
MARK = "PORTAL_DATA_DIR"
STOP_SECONDS = 5


class HeldError(Exception):
    """Another process holds the data folder."""


@contextlib.contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Lock the data folder for one `make up` or `make reset`. The lock ends with the process, even after a kill.

    *Raises* HeldError.
    """
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError from error
        yield


class Record:
    """The file DATA_DIR/processes.json: the folder of the sockets, and the first process of each group in start order."""

    def __init__(self, data_dir: Path, sockets: Path) -> None:
        self.path = record_path(data_dir)
        self.content: dict[str, Any] = {"sockets": str(sockets), "processes": []}
        self.write()

    def add(self, pid: int, stop_signal: int = signal.SIGTERM) -> None:
        self.content["processes"].append({"pid": pid, "started": read_start_time(pid), "stop_signal": int(stop_signal)})
        self.write()

    def write(self) -> None:
        """Replace the file atomically, because a kill may interrupt the write."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.content))
        new.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def record_path(data_dir: Path) -> Path:
    return data_dir / "processes.json"


def stop_all(data_dir: Path) -> bool:
    """Stop what an earlier `make up` recorded and left running. Return whether any of them still ran.

    The caller has locked the data folder, so no `make up` runs there.
    """
    try:
        content = json.loads(record_path(data_dir).read_text())
    except (FileNotFoundError, ValueError):
        return False
    recorded = [(each["pid"], each["started"], each["stop_signal"]) for each in content["processes"]]
    leaders = [each for each in recorded if each[1] and read_start_time(each[0]) == each[1]]
    for pid, _, stop_signal in leaders:
        with contextlib.suppress(OSError):
            os.kill(pid, stop_signal)
    deadline = time.monotonic() + STOP_SECONDS
    for pid, started, _ in leaders:
        if not has_ended(pid, started, deadline):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            has_ended(pid, started, deadline + STOP_SECONDS)
    members = [stop_members(pid, data_dir) for pid, _, _ in recorded]
    sockets = Path(content["sockets"])
    if sockets.name.startswith("portal-"):
        shutil.rmtree(sockets, ignore_errors=True)
    record_path(data_dir).unlink(missing_ok=True)
    return bool(leaders) or any(members)


def stop_members(group: int, data_dir: Path) -> bool:
    """Kill the processes of a group whose first process has ended, if they have MARK. Linux only.

    On other systems they end by themselves: a worker without a parent ends within a second.
    """
    mark = f"{MARK}={data_dir}".encode()
    found = False
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            is_member = int(stat_fields(int(entry.name))[2]) == group
            if is_member and mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                found = True
    return found


def has_ended(pid: int, started: str, deadline: float) -> bool:
    """Wait for a process to end, at most until the deadline. Return whether it has ended."""
    while read_start_time(pid) == started:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def read_start_time(pid: int) -> str | None:
    """Return a text for the process's start time that never changes; None if it has ended or is a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            fields = stat_fields(pid)
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    ps = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(ps, capture_output=True, text=True, check=False)
    state, _, start = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else start.strip()


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, group, ... The name may contain any character.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
