"""Logs an outage of cache, broker or database in one line per process, and keeps circuits for cache and broker.

A circuit does not call a dependency again for some seconds after it failed, so that callers do not all wait for it.
The database has none: nothing works without it, and it fails fast (settings.DATABASES).
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.backends.signals import connection_created
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction

from portal.monitoring.counters import DEPENDENCY_FAILURES, count

# A failure of the database this many seconds after the last one is logged as a new outage.
QUIET_SECONDS = 60

logger = logging.getLogger(__name__)


class CircuitOpen(Exception):
    """The dependency failed a moment ago and was not called."""


class Circuit:
    """Refuses calls to a dependency for settings.OUTAGE_RETRY_SECONDS after one failed.

    After that time one call is admitted as a trial, and the others are refused until it has succeeded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self._trial_at = 0.0

    @contextmanager
    def guard(self, *failures: type[Exception]) -> Iterator[None]:
        """Run the block unless the circuit is open. One of `failures` opens it, the end of the block closes it.

        *Raises* CircuitOpen if the dependency must not be called now.
        """
        if not self._admits():
            raise CircuitOpen(f"The {self.name} failed a moment ago.")
        try:
            yield
        except failures as error:
            self._open(error)
            raise
        self._close()

    def _admits(self) -> bool:
        if self._began_at is None:
            return True
        with self._lock:
            if self._began_at is not None and time.monotonic() < self._trial_at:
                return False
            self._trial_at = time.monotonic() + settings.OUTAGE_RETRY_SECONDS
            return True

    def _open(self, error: Exception) -> None:
        with self._lock:
            is_new = self._began_at is None
            if self._began_at is None:
                self._began_at = time.monotonic()
            self._trial_at = time.monotonic() + settings.OUTAGE_RETRY_SECONDS
        count(DEPENDENCY_FAILURES, self.name)
        if is_new:
            seconds = settings.OUTAGE_RETRY_SECONDS
            logger.warning("%s does not answer (%s), called again every %g s", self.name, type(error).__name__, seconds)

    def _close(self) -> None:
        if self._began_at is None:
            return
        with self._lock:
            began_at, self._began_at = self._began_at, None
        if began_at is not None:
            logger.warning("%s answers again after %.0f s", self.name, time.monotonic() - began_at)


_circuits: dict[tuple[str, str], Circuit] = {}
_circuits_lock = threading.Lock()


def get_circuit(name: str, address: str) -> Circuit:
    """Return this process's circuit for the dependency at this address. `name` is logged, the address is not."""
    with _circuits_lock:
        return _circuits.setdefault((name, address), Circuit(name))


def is_database_outage(error: BaseException) -> bool:
    """Return whether the database does not answer, accepts no changes, or refused in the interest of other work."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    # psycopg counts both among its internal errors.
    refusals = (ReadOnlySqlTransaction, IdleInTransactionSessionTimeout)
    return isinstance(error, DatabaseError) and isinstance(error.__cause__, refusals)


class DatabaseOutage:
    """The failures of the database that this process has seen since it last worked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last_at = 0.0
        self._is_read_only = False

    def note(self, error: BaseException) -> None:
        """Log the first failure in one line, and count the others."""
        now = time.monotonic()
        with self._lock:
            is_new = not self._count or now - self._last_at > QUIET_SECONDS
            self._count = 1 if is_new else self._count + 1
            self._last_at = now
            self._is_read_only = isinstance(error.__cause__, ReadOnlySqlTransaction)
        if is_new:
            logger.error("database does not serve: %s", type(error.__cause__ or error).__name__)

    def forget(self) -> None:
        self._count, self._is_read_only = 0, False

    def end(self) -> None:
        """Log that the database works again. A new connection does not show that it accepts changes."""
        with self._lock:
            if self._is_read_only:
                return
            count, self._count = self._count, 0
        if count:
            logger.warning("database serves again after %s failures", count)


_database = DatabaseOutage()
note_database_outage = _database.note


def end_database_outage(**_: Any) -> None:
    """End the outage that this process has noted, if any: a connection was made."""
    _database.end()


connection_created.connect(end_database_outage, dispatch_uid="portal.outages")


class WithoutOutages(logging.Filter):
    """Drop Django's lines and tracebacks about responses with status 503: each outage has a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


def forget_outages() -> None:
    """Forget all failures, as a new process has."""
    with _circuits_lock:
        _circuits.clear()
    _database.forget()
