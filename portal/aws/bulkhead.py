"""Bounds what AWS may cost the web process: its threads, and the time that a page or an API request waits.

A read runs on a thread of its lane: an account, a region and a service. A lane has few threads, and callers with the same
key share one read. A caller waits for at most BUDGET_SECONDS, for all reads of its request together. Its read continues
without it, so that the next caller finds the result in the cache. Most web threads are kept free of waiting callers.
When a lane has timed out, its callers are refused without waiting, and one read every QUIET_SECONDS tries again.

The engine does not use this: its processes wait for AWS by design.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from django.conf import settings

from portal.aws import silence
from portal.aws.credentials import AwsTarget, short_timeouts
from portal.aws.errors import AwsError, AwsUnavailable
from portal.request_id import request_id_var

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

# For all reads of one request together: assuming the role, connecting and reading.
BUDGET_SECONDS = 4.0
LEAST_WAIT_SECONDS = 0.5
READS_PER_LANE = 4
QUEUED_PER_LANE = 12
# A read that takes longer may be hanging. Callers that find no place to wait leave then.
HANGING_SECONDS = 0.4
# After a time-out, a lane gets no calls for so long. The caller whose read tries again waits briefly.
QUIET_SECONDS = 5.0
TRY_SECONDS = 0.3
# The codes of reads that were not made.
REFUSED = {"NoAnswer", "Busy"}
# botocore's errors for a connection or an answer that did not come in time.
TIME_OUTS = {"ConnectTimeoutError", "ReadTimeoutError"}


class LaneName(NamedTuple):
    """`account` is silence.OWN_ACCOUNT for the portal's own credentials. `service` is an IAM prefix, such as `logs`."""

    account: str
    region: str
    service: str


@dataclass
class Read:
    """One read for all callers with the same key. `started_at` is on the monotonic clock, None while it is queued."""

    key: str
    action: str
    call: Callable[[], Any]
    future: "Future[Any]" = field(default_factory=Future)
    started_at: float | None = None


def call_shared(
    target: AwsTarget, action: str, key: str, call: Callable[[], Found], *, seconds: float = BUDGET_SECONDS
) -> Found:
    """Return the result of `call`, which reads AWS on a thread of its lane and makes no database query.

    `key` names what is read: callers with the same key and action share one call.
    *Raises* the AwsError of the call; AwsUnavailable `TimedOut` after `seconds` or what is left of the request's budget;
    `NoAnswer` immediately while the lane is silent; `Busy` if no place to wait is free and its reads hang.
    """
    until = min(time.monotonic() + seconds, get_request_deadline())
    lane = get_lane(target, action)
    read, until = lane.join(f"{action} {key}", action, call, until)
    has_place = _places.take()
    try:
        now = time.monotonic()
        # Without a free place, wait until the lane's oldest read hangs.
        leaves_at = until if has_place else min(until, lane.oldest_start(now) + HANGING_SECONDS)
        result: Found = read.future.result(timeout=max(0.0, leaves_at - now))
    except TimeoutError:
        if lane.silent_since is not None:
            raise no_answer(action) from None
        raise (timed_out(action, seconds) if has_place else busy(action)) from None
    finally:
        if has_place:
            _places.leave()
    return result


def begin_shared(target: AwsTarget, action: str, key: str, call: Callable[[], Found]) -> "Future[Found]":
    """Begin a read as call_shared does, without waiting for it. *Raises* AwsUnavailable `NoAnswer` or `Busy`."""
    read, _ = get_lane(target, action).join(f"{action} {key}", action, call, until=0.0)
    return read.future


class Lane:
    """The reads of one account, region and service in this process."""

    def __init__(self, name: LaneName) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.reads: dict[str, Read] = {}
        self.queue: deque[Read] = deque()
        self.threads = 0
        self.silent_since: float | None = None
        self.try_at = 0.0

    def join(self, key: str, action: str, call: Callable[[], Any], until: float) -> tuple[Read, float]:
        """Return the read with this key, started if there is none, and how long to wait for it.

        *Raises* AwsUnavailable `NoAnswer` or `Busy`.
        """
        now = time.monotonic()
        with self.lock:
            if self.silent_since is not None:
                if now < self.try_at:
                    raise no_answer(action)
                self.try_at = now + QUIET_SECONDS
                until = min(until, now + TRY_SECONDS)
            read = self.reads.get(key)
            if read is not None:
                return read, until
            if len(self.queue) >= QUEUED_PER_LANE:
                raise busy(action)
            read = self.reads[key] = Read(key, action, call)
            self.queue.append(read)
            needs_thread = self.threads < READS_PER_LANE
            self.threads += needs_thread
        if needs_thread:
            # A pool of one thread, which ends when it has no more work: few of the many lanes are used at a time.
            pool = ThreadPoolExecutor(1, thread_name_prefix="-".join(self.name))
            pool.submit(self.work)
            pool.shutdown(wait=False)
        return read, until

    def work(self) -> None:
        """Make queued reads until there are none. Runs on a thread of its own."""
        try:
            with short_timeouts():
                while read := self.take_next():
                    self.make(read)
        except BaseException:
            with self.lock:
                self.threads -= 1
            raise

    def take_next(self) -> Read | None:
        """Return the next queued read. None: there is none, so the thread ends."""
        with self.lock:
            if not self.queue:
                self.threads -= 1
                return None
            read = self.queue.popleft()
            read.started_at = time.monotonic()
            return read

    def make(self, read: Read) -> None:
        """Make the read, and note what it shows about AWS. The cache comes last: nobody waits for it."""
        was_silent = self.silent_since is not None
        try:
            result = read.call()
        except BaseException as error:
            self.end(read)
            if isinstance(error, AwsUnavailable) and error.code in TIME_OUTS:
                self.fall_silent()
                read.future.set_exception(no_answer(error.action))
                silence.note(self.name.account, self.name.region)
                return
            if isinstance(error, AwsError):
                self.silent_since = None
            read.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.end(read)
            self.silent_since = None
            read.future.set_result(result)
        if was_silent and self.silent_since is None:
            logger.warning("AWS answers again: %s", self)
            silence.end(self.name.account, self.name.region)

    def end(self, read: Read) -> None:
        with self.lock:
            del self.reads[read.key]

    def fall_silent(self) -> None:
        """Refuse callers for some seconds, and release those whose read has not started."""
        with self.lock:
            now = time.monotonic()
            if self.silent_since is None:
                self.silent_since = now
                logger.warning("AWS does not answer: %s", self)
            self.try_at = now + QUIET_SECONDS
            dropped = list(self.queue)
            self.queue.clear()
            for read in dropped:
                del self.reads[read.key]
        for read in dropped:
            read.future.set_exception(no_answer(read.action))

    def oldest_start(self, now: float) -> float:
        with self.lock:
            return min((read.started_at for read in self.reads.values() if read.started_at is not None), default=now)

    def __str__(self) -> str:
        return f"{self.name.service} in {self.name.region}, account {self.name.account}"


class Places:
    """Counts the callers that wait for AWS. Half of the web threads never do."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken = 0

    def take(self) -> bool:
        """Return whether there was a free place, which the caller then has."""
        with self.lock:
            if self.taken >= max(1, settings.WEB_THREADS // 2):
                return False
            self.taken += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.taken -= 1


_places = Places()
_lanes: dict[LaneName, Lane] = {}
_lanes_lock = threading.Lock()
# The request whose budget has begun in this context, and when it ends.
_budget: ContextVar[tuple[str, float]] = ContextVar("aws_budget", default=("-", 0.0))


def get_lane(target: AwsTarget, action: str) -> Lane:
    account = target.role_arn.split(":")[4] if target.role_arn else silence.OWN_ACCOUNT
    name = LaneName(account, target.region, action.partition(":")[0])
    with _lanes_lock:
        if name not in _lanes:
            _lanes[name] = Lane(name)
        return _lanes[name]


def forget_lanes() -> None:
    """Forget which lanes are silent."""
    with _lanes_lock:
        _lanes.clear()


def get_request_deadline() -> float:
    """Return until when this request may wait for AWS: BUDGET_SECONDS from its first read on.

    A read after that may still wait for LEAST_WAIT_SECONDS. Outside a request each read has a budget of its own.
    """
    now = time.monotonic()
    request_id = request_id_var.get()
    if request_id == "-":
        return now + BUDGET_SECONDS
    known, until = _budget.get()
    if known != request_id:
        until = now + BUDGET_SECONDS
        _budget.set((request_id, until))
    return max(until, now + LEAST_WAIT_SECONDS)


def timed_out(action: str, seconds: float) -> AwsUnavailable:
    return unavailable("TimedOut", action, f"no answer within {seconds:g} seconds")


def no_answer(action: str) -> AwsUnavailable:
    return unavailable("NoAnswer", action, "AWS did not answer; trying again in a few seconds")


def busy(action: str) -> AwsUnavailable:
    return unavailable(
        "Busy", action, "AWS answers slowly, and other requests wait for it; trying again in a few seconds"
    )


def unavailable(code: str, action: str, why: str) -> AwsUnavailable:
    error = AwsUnavailable(code, action=action, why=why)
    error.may_have_happened = False
    return error
