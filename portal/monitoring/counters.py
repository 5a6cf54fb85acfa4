"""Counters of this process. A thread adds them to the database, where /metrics reads the sums of all processes.

So one scrape of any web process covers the web, the workers and the schedulers, wherever they run, and a restart resets
nothing. A process that is killed loses at most its last WRITE_SECONDS. While the database is down, counts are kept here.
No request waits for the database because of a count.

Every label value comes from the code, the URLconf or the organizations' settings, never from a request.
"""

import json
import logging
import os
import threading
from bisect import bisect_left
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

logger = logging.getLogger(__name__)

TABLE = "portal_metriccount"
WRITE_SECONDS = 10.0
# A process keeps at most so many counts until the next write. The labels of further ones become OTHER.
MAX_COUNTS = 5_000
MAX_LABEL_LENGTH = 100
OTHER = "other"
# Upper bounds in seconds. 0.5 and 2 are bounds of the goals for pages and triggers.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0)
BUCKET_NAMES = (*map(str, BUCKETS), "+Inf")


@dataclass(frozen=True)
class Metric:
    """A counter or histogram. /metrics puts `portal_` before its name.

    `always`: series that /metrics shows from the start with 0, so that Prometheus sees their first increase.
    """

    name: str
    help_text: str
    labels: tuple[str, ...]
    always: tuple[tuple[str, ...], ...] = ()


AWS_CALLS = Metric(
    "aws_calls",
    "Calls to AWS, each attempt. Results: ok, refused, throttled, failed (on AWS's side), no_answer.",
    ("account", "region", "result"),
)
DEPENDENCY_FAILURES = Metric(
    "dependency_failures", "Calls to cache or broker that failed.", ("dependency",), (("cache",), ("broker",))
)
JOB_FAILURES = Metric("scheduled_job_failures", "Runs of a scheduled job that ended with an error.", ("job",))
REQUEST_SECONDS = Metric("request_seconds", "Seconds until a response began.", ("route", "status"))
JOB_SECONDS = Metric("scheduled_job_seconds", "Seconds that a run of a scheduled job took.", ("job",))
COUNTERS = (AWS_CALLS, DEPENDENCY_FAILURES, JOB_FAILURES)
HISTOGRAMS = (REQUEST_SECONDS, JOB_SECONDS)

Key = tuple[str, tuple[str, ...]]

# One statement, with the rows in one order, so that processes cannot deadlock.
ADD = f"""
INSERT INTO {TABLE} AS counted (name, labels, value, counted_at)
SELECT *, statement_timestamp() FROM unnest(%s::text[], %s::text[], %s::float8[]) AS new (name, labels, value)
ORDER BY name, labels
ON CONFLICT (name, labels) DO UPDATE SET value = counted.value + excluded.value, counted_at = excluded.counted_at
"""  # noqa: S608 - a name of our own


class Counters:
    """The counts that are not in the database yet, and the thread that adds them to it.

    `writes`: start the thread with the first count. Without it, only `write` adds to the database.
    """

    def __init__(self, *, writes: bool, seconds: float = WRITE_SECONDS) -> None:
        self.writes, self.seconds = writes, seconds
        self.lock = threading.Lock()
        self.counts: dict[Key, float] = {}
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()

    def add(self, name: str, labels: tuple[str, ...], value: float) -> None:
        key = (name, labels)
        with self.lock:
            if key not in self.counts and len(self.counts) >= MAX_COUNTS:
                key = (name, (OTHER,) * len(labels))
            self.counts[key] = self.counts.get(key, 0.0) + value
            if self.writes and self.thread is None:
                self.thread = threading.Thread(target=self.write_until_stopped, name="metrics", daemon=True)
                self.thread.start()

    def write(self) -> None:
        """Add the counts to the database. *Raises* DatabaseError, and keeps them for the next time."""
        with self.lock:
            taken, self.counts = self.counts, {}
        if not taken:
            return
        names, labels = [name for name, _ in taken], [json.dumps(values) for _, values in taken]
        try:
            with connection.cursor() as cursor:
                cursor.execute(ADD, [names, labels, list(taken.values())])
        except BaseException:
            with self.lock:
                for key, value in taken.items():
                    self.counts[key] = self.counts.get(key, 0.0) + value
            raise

    def write_until_stopped(self) -> None:
        """Write every few seconds, and a last time when the process stops. Keep no connection in between."""
        is_failing = False
        while not self.stopping.is_set():
            self.stopping.wait(self.seconds)
            try:
                self.write()
                is_failing = False
            except Exception as error:
                if not is_failing:
                    logger.warning("metrics are written later: %s", type(error).__name__)
                is_failing = True
            finally:
                connection.close()

    def stop(self) -> None:
        """Write what is left and end the thread."""
        self.stopping.set()
        if self.thread:
            self.thread.join()


# The thread runs only where /metrics is open; tests write by hand.
_own = Counters(writes=bool(settings.METRICS_TOKEN))


def begin_again() -> None:
    """Count from zero in a forked child. The counts are the parent's, its lock may be held, and its thread is not here."""
    global _own
    _own = Counters(writes=_own.writes)


os.register_at_fork(after_in_child=begin_again)


def count(counter: Metric, *labels: str) -> None:
    """Count one event. `labels`: a value for each label of the counter."""
    _own.add(counter.name, bounded(labels), 1)


def observe_seconds(histogram: Metric, *labels: str, seconds: float) -> None:
    """Count one duration. `labels`: a value for each label of the histogram."""
    kept = bounded(labels)
    _own.add(f"{histogram.name}_bucket", (*kept, BUCKET_NAMES[bisect_left(BUCKETS, seconds)]), 1)
    _own.add(f"{histogram.name}_sum", kept, seconds)


def bounded(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(label[:MAX_LABEL_LENGTH] for label in labels)


def write_counts() -> None:
    """Add this process's counts to the database now. *Raises* DatabaseError."""
    _own.write()


def stop_counting() -> None:
    """Write the last counts of a process that ends."""
    _own.stop()
