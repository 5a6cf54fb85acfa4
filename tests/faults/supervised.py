"""Workers and schedulers that are started again whenever they end, and how soon others take the work of a killed one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import connection

from portal import tenancy
from tests.local_aws import ROOT

LOOK_SECONDS = 0.2
# Rows that may be under a lease, and the database's clock.
LEASES = """
SELECT 'rollout ' || id, lease_epoch, lease_until, statement_timestamp()
FROM deployment_upgrade_services WHERE phase <> 'done'
UNION ALL
SELECT 'deployment ' || id, lease_epoch, lease_until, statement_timestamp()
FROM deployments_deployment WHERE next_check_at IS NOT NULL
"""
WORKER = ["-W", "ignore", "-m", "celery", "--quiet", "-A", "portal", "worker"]
WORKER_OPTIONS = ["--concurrency", "2", "--loglevel", "ERROR", "--without-mingle"]
SCHEDULER = ["manage.py", "run_scheduler"]


class Part:
    """One supervised worker or scheduler: a group of processes of which the first is the main one."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.arguments = arguments
        self.env = env
        self.log = log
        self.paused_until: float | None = None
        self.start()

    def start(self) -> None:
        self.paused_until = None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal_all(signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        self.paused_until = time.monotonic() + seconds
        self.signal_all(signal.SIGSTOP)

    def continue_now(self) -> None:
        self.paused_until = None
        self.signal_all(signal.SIGCONT)

    def children(self) -> list[int]:
        """Return the ids of the main process's children."""
        try:
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(each) for each in found.split()]

    def tend(self) -> None:
        """Start it again if its main process has ended, and continue it if its pause is over."""
        if self.process.poll() is not None:
            self.kill()  # children that outlived it
            self.start()
        elif self.paused_until is not None and time.monotonic() >= self.paused_until:
            self.continue_now()


@dataclass(frozen=True)
class Orphan:
    """A row that was under a lease when a process was killed. It is not known yet whether that process held it."""

    epoch: int
    lease_until: datetime
    is_killed: bool  # else paused
    since: float


class Recoveries:
    """Measures the time from a kill until another process claims a row that the killed one held.

    The row's holder is not recorded. A live one renews or releases its lease, so a lease that runs out unchanged was held
    by the killed or paused process.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.orphans: dict[str, Orphan] = {}
        self.seconds: list[float] = []

    def note(self, *, is_killed: bool) -> None:
        """Remember the rows that are under a lease. Call it right after the kill or the pause."""
        since = time.monotonic()
        with self.lock:
            for name, (epoch, lease_until, now) in read_leases().items():
                if lease_until and lease_until > now:
                    self.orphans.setdefault(name, Orphan(epoch, lease_until, is_killed, since))

    def look(self) -> None:
        """Find the remembered rows that were released, renewed or claimed since."""
        with self.lock:
            if not self.orphans:
                return
            rows = read_leases()
            for name, orphan in list(self.orphans.items()):
                epoch, lease_until, now = rows.get(name, (None, None, None))
                if (epoch, lease_until) == (orphan.epoch, orphan.lease_until):
                    continue
                del self.orphans[name]
                is_taken = epoch is not None and epoch > orphan.epoch and now is not None and now > orphan.lease_until
                if is_taken and orphan.is_killed:
                    self.seconds.append(time.monotonic() - orphan.since)


def read_leases() -> dict[str, tuple[int, datetime | None, datetime]]:
    """Return epoch, end of the lease and the database's clock for each row that may be claimed."""
    with tenancy.all_organizations("the test watches all leases"), connection.cursor() as cursor:
        cursor.execute(LEASES)
        return {name: (epoch, lease_until, now) for name, epoch, lease_until, now in cursor.fetchall()}


def is_any_row_leased() -> bool:
    return any(until and until > now for _, until, now in read_leases().values())


class Supervisor:
    """Two workers of two child processes each and two schedulers, tended every LOOK_SECONDS on a thread."""

    def __init__(self, env: dict[str, str], directory: Path) -> None:
        self.recoveries = Recoveries()
        self.workers = [
            Part(name, [*WORKER, *WORKER_OPTIONS, "--hostname", f"{name}@local"], env, directory / f"{name}.log")
            for name in ("worker-1", "worker-2")
        ]
        self.schedulers = [
            Part(name, SCHEDULER, env, directory / f"{name}.log") for name in ("scheduler-1", "scheduler-2")
        ]
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, "supervisor")
        self._loop: Future[None] = self._pool.submit(self._tend)

    @property
    def parts(self) -> list[Part]:
        return [*self.workers, *self.schedulers]

    def _tend(self) -> None:
        try:
            while not self._ended.wait(LOOK_SECONDS):
                for part in self.parts:
                    part.tend()
                self.recoveries.look()
        finally:
            connection.close()

    def continue_all(self) -> None:
        for part in self.parts:
            part.continue_now()

    def stop(self) -> None:
        """End all processes. Raises what ended the supervisor's thread, if anything did."""
        self._ended.set()
        self._pool.shutdown()
        for part in self.parts:
            part.kill()
            part.process.wait()
        self._loop.result()
