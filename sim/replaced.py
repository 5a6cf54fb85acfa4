"""Everything outside the product that a world replaces: clocks, sleeping, randomness, thread pools, botocore's transport.

`install` must run before the product is imported, because modules import the classes of `concurrent.futures` by name.
"""

import concurrent.futures
import math
import os
import random
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, SupportsIndex

import botocore.httpsession
import botocore.retries.quota
import botocore.retries.standard
from django.utils import timezone

from sim.clock import CLOCK
from sim.scheduler import Killed, current

Send = Callable[[Any, Any], Any]

# Virtual time after which a task that waits for another's result looks again.
WAIT_SECONDS = 0.05

_real_time, _real_monotonic, _real_sleep, _real_urandom = time.time, time.monotonic, time.sleep, os.urandom
_quotas: "weakref.WeakSet[botocore.retries.quota.RetryQuota]" = weakref.WeakSet()


class Source:
    """The world that runs now: its random bytes, and its network. None between worlds."""

    chance: random.Random | None = None
    send: Send | None = None


class SteppedFuture(Future[Any]):
    """A future that lets other tasks run while its task waits, in virtual time."""

    def result(self, timeout: float | None = None) -> Any:
        task = current()
        until = math.inf if timeout is None else CLOCK.seconds + timeout
        while task is not None and not self.done() and CLOCK.seconds < until:
            task.pause(WAIT_SECONDS, "waits for a shared read")
        return super().result(timeout if task is None else 0)


class InlineExecutor(ThreadPoolExecutor):
    """Runs each call at its submission, in the task that submits it. Threads of a pool are not ordered by a seed."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        if current() is None:
            return super().submit(fn, *args, **kwargs)
        future = SteppedFuture()
        try:
            future.set_result(fn(*args, **kwargs))
        except Killed:
            raise
        except BaseException as error:
            future.set_exception(error)
        return future


class WatchedQuota(botocore.retries.quota.RetryQuota):  # type: ignore[misc] # botocore has no types
    """A retry quota that is full at the start of each world, although the clients outlive it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _quotas.add(self)


def install() -> None:
    time.time = lambda: _real_time() if current() is None else CLOCK.seconds
    time.monotonic = lambda: _real_monotonic() if current() is None else CLOCK.seconds
    time.sleep = sleep
    timezone.now = CLOCK.as_datetime
    os.urandom = random_bytes
    random._urandom = random_bytes  # type: ignore[attr-defined] # its own reference, which `secrets` uses
    concurrent.futures.Future = SteppedFuture  # type: ignore[misc] # a class in place of its base
    concurrent.futures.ThreadPoolExecutor = InlineExecutor  # type: ignore[misc] # a class in place of its base
    botocore.httpsession.URLLib3Session.send = send
    botocore.retries.standard.quota.RetryQuota = WatchedQuota


def refill_quotas() -> None:
    for quota in _quotas:
        quota._available_capacity = quota._max_capacity


def sleep(seconds: float | SupportsIndex, /) -> None:
    task = current()
    if task is None:
        _real_sleep(seconds)
    elif float(seconds) > 0:
        task.pause(float(seconds), "sleep")


def random_bytes(count: int) -> bytes:
    return Source.chance.randbytes(count) if Source.chance else _real_urandom(count)


def send(session: Any, request: Any) -> Any:
    if Source.send is None:
        raise RuntimeError(f"No world runs, but {request.url} is called.")
    return Source.send(session, request)
