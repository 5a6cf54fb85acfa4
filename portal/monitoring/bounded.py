"""Runs checks that may hang on threads of their own, so that a health check can stop waiting for them.

A check has at most one run at a time in this process. Callers share it, so a hang costs one thread.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections

Verdict = TypeVar("Verdict")


class Check(Generic[Verdict]):
    """A check that makes no database query. `if_hanging`: the verdict if it does not return in time."""

    def __init__(self, run: Callable[[], Verdict], *, if_hanging: Verdict) -> None:
        self.run, self.if_hanging = run, if_hanging
        self.lock = threading.Lock()
        self.running: Future[Verdict] | None = None

    def start(self) -> "Future[Verdict]":
        """Return the run in progress, else a new one."""
        return self._start(self.run)

    def wait(self, running: "Future[Verdict]", until: float) -> Verdict:
        """Return the verdict. `until` is on the monotonic clock."""
        try:
            return running.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            return self.if_hanging

    def _start(self, run: Callable[[], Verdict]) -> "Future[Verdict]":
        with self.lock:
            if self.running is not None:
                return self.running
            started: Future[Verdict] = Future()
            self.running = started
        threading.Thread(target=self._make, args=[run, started], name="health", daemon=True).start()
        return started

    def _make(self, run: Callable[[], Verdict], started: "Future[Verdict]") -> None:
        try:
            verdict = run()
        except Exception as error:
            self.running = None
            started.set_exception(error)
        else:
            self.running = None
            started.set_result(verdict)


class DatabaseCheck(Check[Verdict]):
    """A check on the caller's connection to the database. After a hang, the caller's next query opens a new one."""

    def verdict(self, until: float) -> Verdict:
        loan = Loan(connections[DEFAULT_DB_ALIAS])
        running = self._start(lambda: loan.use(self.run))
        try:
            return self.wait(running, until)
        finally:
            loan.end()


class Loan:
    """The use of a thread's connection by another thread."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.is_used, self.is_over = False, False
        connection.inc_thread_sharing()

    def use(self, run: Callable[[], Verdict]) -> Verdict:
        """Run with the connection, and close it if its owner did not wait."""
        with self.lock:
            self.is_used = not self.is_over
        if self.is_used:
            connections[DEFAULT_DB_ALIAS] = self.connection
        try:
            return run()
        finally:
            with self.lock:
                is_left = self.is_over
                self.is_used = False
            if is_left:
                connections[DEFAULT_DB_ALIAS].close()

    def end(self) -> None:
        """Take the connection back. If it is still used, leave it to the other thread."""
        with self.lock:
            self.is_over = True
            if self.is_used:
                del connections[DEFAULT_DB_ALIAS]
        if not self.is_used:
            self.connection.dec_thread_sharing()
