"""The logical processes of a world: threads of which only one runs at a time, ordered by virtual time.

A task stops at each step (`pause`) and continues when its time has come. A statement that waits for a row lock counts as
a step: the task is set aside, and the others run until one of them releases the lock.
"""

import heapq
import itertools
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg

from sim.clock import CLOCK

# Real time after which a statement that has not returned is checked for a lock.
LOCK_CHECK_SECONDS = 0.004

_local = threading.local()


class Killed(BaseException):
    """Ends a task as a kill does: nothing more is sent, and the database rolls back what was not committed."""


class Task:
    """One logical process. `subject` names what it works on, for the record of its AWS calls."""

    def __init__(self, scheduler: "Scheduler", name: str, run: Callable[[], None]) -> None:
        self.scheduler, self.name, self._run = scheduler, name, run
        self.subject: Any = None
        self.label = ""
        self.is_done = self.is_doomed = self.is_dying = self.is_locked_out = False
        self.token = 0
        self.sleeps = 0.0
        self.backend_pid: int | None = None  # of the statement that runs now
        self.error: BaseException | None = None
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()

    def run(self, *, at_end: Callable[[], None]) -> None:
        """Run in a thread of the pool. The first step waits for the scheduler."""
        _local.task = self
        self.go.acquire()
        try:
            if self.is_doomed:
                raise Killed
            self._run()
        except Killed:
            self.is_dying = True
            self.scheduler.on_death(self)
        except BaseException as error:
            if self.is_dying:
                self.scheduler.on_death(self)
            else:
                self.error = error
        finally:
            _local.task = None
            self.is_done = True
            at_end()
            self.back.release()

    def pause(self, seconds: float, label: str) -> None:
        """Let others run for so many virtual seconds. *Raises* Killed."""
        if self.is_dying:
            return
        self._stop(seconds + self.scheduler.on_step(self, label))

    def _stop(self, seconds: float) -> None:
        self.sleeps = seconds
        self.back.release()
        self.go.acquire()
        if self.is_doomed:
            self.is_dying = True
            raise Killed

    def pause_sometimes(self, seconds: tuple[float, float], label: str) -> None:
        """Stop at every fourth step of this kind, and wherever something happens to the task. *Raises* Killed."""
        if self.is_dying:
            return
        chance = self.scheduler.chance
        extra = self.scheduler.on_step(self, label)
        if extra or self.is_doomed or self.scheduler.locked_out or chance.random() < 0.25:
            self._stop(chance.uniform(*seconds) + extra)


def current() -> Task | None:
    """Return the task of this thread, or None outside tasks."""
    return getattr(_local, "task", None)


def pause(seconds: float, label: str) -> None:
    task = current()
    if task is not None:
        task.pause(seconds, label)


class Pool:
    """Threads that outlive a world, because each keeps its database connection."""

    def __init__(self) -> None:
        self._free: list[_Thread] = []

    def start(self, task: Task) -> None:
        thread = self._free.pop() if self._free else _Thread(self)
        thread.take(task)

    def give_back(self, thread: "_Thread") -> None:
        self._free.append(thread)


class _Thread(threading.Thread):
    def __init__(self, pool: Pool) -> None:
        super().__init__(daemon=True)
        self._pool = pool
        self._task: Task | None = None
        self._has_work = threading.Lock()
        self._has_work.acquire()
        self.start()

    def take(self, task: Task) -> None:
        self._task = task
        self._has_work.release()

    def run(self) -> None:
        while True:
            self._has_work.acquire()
            task, self._task = self._task, None
            if task is not None:
                task.run(at_end=lambda: self._pool.give_back(self))


POOL = Pool()


class Scheduler:
    """Runs tasks and timed actions one at a time. `on_step` returns the extra seconds that a task sleeps at a step."""

    def __init__(
        self,
        monitor: "psycopg.Connection[Any]",
        *,
        chance: Random,
        on_step: Callable[[Task, str], float],
        on_death: Callable[[Task], None],
    ) -> None:
        self.monitor, self.chance, self.on_step, self.on_death = monitor, chance, on_step, on_death
        self.locked_out: list[Task] = []
        self.tasks: list[Task] = []
        self.steps = 0
        self.broken = ""  # the invariant that the last step broke
        self._heap: list[tuple[float, int, int, Task | Callable[[], Any]]] = []
        self._numbers = itertools.count()

    def spawn(self, name: str, run: Callable[[], None], *, after: float = 0.0) -> Task:
        task = Task(self, name, run)
        self.tasks.append(task)
        POOL.start(task)
        self._push(CLOCK.seconds + after, task.token, task)
        return task

    def at(self, moment: float, action: Callable[[], Any]) -> None:
        self._push(moment, 0, action)

    def wake(self, task: Task, *, after: float = 0.0) -> None:
        """Continue a sleeping task earlier than it wanted."""
        if not task.is_done and not task.is_locked_out:
            self._push(CLOCK.seconds + after, task.token, task)

    def run(self, *, until: float, is_over: Callable[[], bool]) -> None:
        """Run everything in the order of virtual time until `is_over`, until this moment, or until an invariant breaks."""
        while self._heap and not self.broken and not is_over():
            moment, _, token, item = heapq.heappop(self._heap)
            if moment > until:
                return
            if isinstance(item, Task):
                if item.is_done or item.token != token:
                    continue
                CLOCK.advance_to(moment)
                self._step(item)
            else:
                CLOCK.advance_to(moment)
                item()

    def end(self) -> None:
        """Kill the tasks that are left."""
        for task in self.tasks:
            task.is_doomed = True
        while left := [task for task in self.tasks if not task.is_done]:
            free = [task for task in left if not task.is_locked_out]
            for task in free:
                self._step(task)
            self._settle()

    def _push(self, moment: float, token: int, item: Task | Callable[[], Any]) -> None:
        heapq.heappush(self._heap, (moment, next(self._numbers), token, item))

    def _step(self, task: Task) -> None:
        self.steps += 1
        task.go.release()
        patience = LOCK_CHECK_SECONDS
        while not task.back.acquire(timeout=patience):
            patience *= 2
            if self._waits_for_lock(task):
                task.is_locked_out = True
                task.token += 1  # it may also be on the heap for the time at which it was woken
                self.locked_out.append(task)
                return
        self._continue(task)
        if self.locked_out:
            self._settle()

    def _continue(self, task: Task) -> None:
        """Note when the task that has just stopped wants to continue. *Raises* the error that ended it."""
        if task.is_done:
            if task.error is not None:
                raise task.error
            return
        task.token += 1
        self._push(CLOCK.seconds + task.sleeps, task.token, task)

    def _settle(self) -> None:
        """Wait until each task that was locked out has its lock or is still waiting for it."""
        for task in list(self.locked_out):
            while True:
                if task.back.acquire(timeout=LOCK_CHECK_SECONDS):
                    task.is_locked_out = False
                    self.locked_out.remove(task)
                    self._continue(task)
                    break
                if self._waits_for_lock(task):
                    break

    def _waits_for_lock(self, task: Task) -> bool:
        pid = task.backend_pid
        if pid is None:
            return False
        row = self.monitor.execute("SELECT cardinality(pg_blocking_pids(%s))", [pid], prepare=True).fetchone()
        return bool(row and row[0])
