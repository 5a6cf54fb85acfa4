"""Compares a service before and after its rollout: errors, CPU, memory and restarts in two windows of equal length.

The first window ends when the rollout began, the second begins when it ended, so nothing of the rollout itself counts.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from statistics import mean
from typing import Any

from django.db.models import Q

from portal import soft_cache
from portal.aws import ecs
from portal.aws.bulkhead import call_shared
from portal.aws.errors import AwsError, summarize_error
from portal.cloudwatch.logs import TAIL_LINES, read_logs
from portal.cloudwatch.metrics import MetricPoint, read_metrics
from portal.cloudwatch.records import group_lines
from portal.cloudwatch.source import Source
from portal.errors import PortalError
from portal.models import User
from upgrades.inventory.logs import find_source
from upgrades.models import Rollout
from upgrades.states import Outcome

# find_source reads no earlier lines than this before the start.
LENGTH = timedelta(minutes=15)
SHORTEST = timedelta(minutes=2)
# Fewer points than this say nothing about usage.
LEAST_POINTS = 3
# CloudWatch shows the points of a minute some minutes later.
DELAY = timedelta(minutes=3)
KEPT_SECONDS, CHANGING_SECONDS = 24 * 60 * 60, 30
# ECS keeps only the newest hundred events of a service.
EVENTS_KEPT = 100
STARTED = re.compile(r"has started (\d+) tasks?")
# Rollouts that replaced no task.
UNCHANGED = (Outcome.NOT_ATTEMPTED, Outcome.NO_CHANGE, Outcome.DISABLED)


@dataclass(frozen=True)
class Sample:
    """What was measured in one window. `value` is None if there is not enough data.

    `size`: of what it was measured: log records, points, or running tasks. `is_cut`: only the newest log lines were read.
    """

    value: float | None
    size: int
    is_cut: bool = False


@dataclass(frozen=True)
class Measure:
    """`name` is errors, cpu, memory or restarts."""

    name: str
    before: Sample
    after: Sample

    @property
    def change(self) -> float | None:
        if self.before.value is None or self.after.value is None:
            return None
        return round(self.after.value - self.before.value, 1)


@dataclass(frozen=True)
class Comparison:
    """Both windows and what was measured in them. `problems`: what AWS did not answer.

    `is_complete`: the second window has passed and all of it was read. `measures` is empty if the windows are too short.
    """

    length: timedelta
    before: datetime
    after: datetime
    measures: list[Measure]
    problems: list[str]
    is_complete: bool

    @property
    def before_until(self) -> datetime:
        return self.before + self.length

    @property
    def after_until(self) -> datetime:
        return self.after + self.length


def can_compare(rollout: Rollout) -> bool:
    """Return whether the rollout has ended and has replaced tasks."""
    return bool(rollout.started_at and rollout.completed_at) and rollout.outcome not in UNCHANGED


def compare(rollout: Rollout, *, now: datetime, reader: User) -> Comparison:
    """Return the comparison of a rollout for which can_compare() is true. AWS errors are not raised.

    *Costs* one query, and at most five AWS calls: two FilterLogEvents, one GetMetricData, one DescribeServices and one
    DescribeTaskDefinition. A complete comparison is kept for a day.
    """
    if rollout.started_at is None or rollout.completed_at is None:
        raise ValueError(f"{rollout} has not ended")
    room = min([LENGTH, now - rollout.completed_at, *find_gaps(rollout, rollout.started_at, rollout.completed_at)])
    length = timedelta(seconds=int(max(room, timedelta()).total_seconds()))
    before, after = rollout.started_at - length, rollout.completed_at
    has_passed = now >= after + length + DELAY
    if length < SHORTEST:
        return Comparison(length, before, after, [], [], is_complete=has_passed)
    # While the second window grows, so do both windows' lengths, and a reading counts for half a minute.
    kept_as = length if has_passed else f"growing {int(now.timestamp()) // CHANGING_SECONDS}"
    key = soft_cache.build_key("before-after", rollout.pk, kept_as)
    kept = soft_cache.read_as(key, build_comparison)
    if kept is not None:
        return kept
    measures, problems = measure(rollout, before, after, length, reader)
    comparison = Comparison(length, before, after, measures, problems, is_complete=has_passed and not problems)
    seconds = KEPT_SECONDS if comparison.is_complete else CHANGING_SECONDS
    soft_cache.write(key, asdict(comparison), seconds=seconds)
    return comparison


def build_comparison(kept: dict[str, Any]) -> Comparison:
    measures = [Measure(each["name"], Sample(**each["before"]), Sample(**each["after"])) for each in kept["measures"]]
    return Comparison(**kept | {"measures": measures})


def find_gaps(rollout: Rollout, started_at: datetime, completed_at: datetime) -> list[timedelta]:
    """Return the time from the end of the rollout before and to the start of the next one of the service, if any is near.

    *Costs* one query.
    """
    of_service = Rollout.objects.attempted().filter(organization=rollout.organization_id, service=rollout.service)
    has_ended_before = Q(completed_at__lt=started_at - LENGTH)
    near = of_service.filter(started_at__lt=completed_at + LENGTH).exclude(has_ended_before)
    gaps = []
    for began, ended in near.exclude(pk=rollout.pk).values_list("started_at", "completed_at"):
        gaps += [began - completed_at] if began and began >= completed_at else []
        gaps += [started_at - ended] if ended and ended <= started_at else []
    return gaps


def measure(
    rollout: Rollout, before: datetime, after: datetime, length: timedelta, reader: User
) -> tuple[list[Measure], list[str]]:
    """Return what was measured in both windows, and what AWS did not answer."""
    source = find_source(rollout)
    problems: list[str] = []
    errors = [count_errors(source, since, since + length, reader, problems) for since in (before, after)]
    series = read_metrics(source, since=before, until=after + length)
    if series.error:
        problems.append(series.error)
    period = timedelta(seconds=series.period_seconds)
    points = [
        [point for point in series.points if since <= point.timestamp <= since + length - period]
        for since in (before, after)
    ]
    starts = count_starts(rollout, [before, after], length, problems)
    running = [max([round(point.running_replicas or 0) for point in each], default=0) for each in points]
    return [
        Measure("errors", *errors),
        Measure("cpu", *(average(each, "cpu_usage") for each in points)),
        Measure("memory", *(average(each, "memory_usage") for each in points)),
        Measure("restarts", *(Sample(count, tasks) for count, tasks in zip(starts, running, strict=True))),
    ], list(dict.fromkeys(problems))


def count_errors(source: Source, since: datetime, until: datetime, reader: User, problems: list[str]) -> Sample:
    """Return the number of log records of level ERROR or above, among how many records."""
    try:
        page = read_logs(source, limit=TAIL_LINES, since=since, until=until, reader=reader)
    except PortalError as error:
        problems.append(error.message)
        return Sample(None, 0)
    problem = page.error or page.note
    if problem:
        problems.append(problem)
        return Sample(None, 0)
    records = group_lines(reversed(page.items))
    errors = sum(record.matches(level="ERROR", node_id=None, q=None) for record in records)
    return Sample(errors, len(records), is_cut=page.has_more)


def average(points: Iterable[MetricPoint], field: str) -> Sample:
    values = [value for point in points if (value := getattr(point, field)) is not None]
    return Sample(round(mean(values), 1) if len(values) >= LEAST_POINTS else None, len(values))


def count_starts(
    rollout: Rollout, windows: list[datetime], length: timedelta, problems: list[str]
) -> list[float | None]:
    """Return how many tasks ECS started in each window. None: ECS no longer keeps the events of that time."""
    target, name, cluster = rollout.upgrade.aws_target, rollout.service_name, rollout.upgrade.cluster
    call = partial(ecs.describe_services, target, cluster, [name])
    try:
        service = call_shared(target, "ecs:DescribeServices", f"events {name}", call).services.get(name)
    except AwsError as error:
        problems.append(summarize_error(error))
        return [None for _ in windows]
    events = service.events if service else ()
    counts: list[float | None] = []
    for since in windows:
        is_kept = service is not None and (
            len(events) < EVENTS_KEPT or min(event.created_at for event in events) <= since
        )
        inside = [event.message for event in events if since <= event.created_at < since + length]
        started = sum(int(found[1]) for message in inside if (found := STARTED.search(message)))
        counts.append(started if is_kept else None)
    return counts
