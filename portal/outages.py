"""Circuits: a dependency that just failed is not called again for a few seconds, so that not each caller waits for it.

A circuit belongs to one process and is shared by its threads. It logs one line when an outage begins and one when it ends.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

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


def close_all_circuits() -> None:
    """Forget all failures, as a new process has."""
    with _circuits_lock:
        _circuits.clear()
