"""Reads a service's CPU, memory and running tasks from CloudWatch on demand. Results are cached for a minute."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.utils import timezone

from portal import soft_cache
from portal.aws import metrics
from portal.aws.bulkhead import call_shared
from portal.aws.errors import AwsError, summarize_error
from portal.cloudwatch.reads import ReadLimit, describe_too_many
from portal.cloudwatch.source import Source
from portal.errors import PortalError
from portal.models import User

FRESH_SECONDS, FAILED_SECONDS = 60, 5
CACHE_SECONDS = 60 * 60
DEFAULT_RANGE = timedelta(hours=1)
# CloudWatch keeps one-minute points for 15 days, five-minute points for 63 days and hourly points for 455 days.
PERIODS = [60, 300, 900, 3600, 21600, 86400]
MAX_POINTS = 500
MAX_RANGE = timedelta(days=455)
MINUTE_POINTS, FIVE_MINUTE_POINTS = timedelta(days=15), timedelta(days=63)
CHOSEN_READS = ReadLimit("chosen-metric-reads")


@dataclass(frozen=True)
class MetricPoint:
    """One period, starting at `timestamp`. Usage in percent of what the tasks reserve; None if there is no point."""

    timestamp: datetime
    cpu_usage: float | None
    memory_usage: float | None
    running_replicas: float | None


@dataclass(frozen=True)
class MetricSeries:
    """Points, oldest first, with gaps where no task ran.

    If `error` is set, the points are as of `read_at`. `read_at` is None if nothing was ever read.
    """

    period_seconds: int
    since: datetime
    until: datetime
    points: list[MetricPoint]
    read_at: datetime | None
    error: str | None = None


def read_metrics(
    source: Source,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    period: int | None = None,
    reader: User | None = None,
) -> MetricSeries:
    """Return the series from `since` (default: an hour before the end) to `until` (default: now), aligned to the period.

    `period` is in seconds, a multiple of 60. None chooses one that gives at most MAX_POINTS. AWS errors are not raised
    but returned as `error`. `reader` is the person for whom others than the last hour, which all share, are read.

    *Raises* PortalError 400 `invalid` for an impossible range or period, 429 `too_many_metric_reads`.
    *Costs* one GetMetricData call; none while the cached series is fresh.
    """
    follows_now = until is None
    until = until or timezone.now()
    since = since or until - DEFAULT_RANGE
    period = checked_period(since, until, period)
    is_last_hour = (
        follows_now and period == PERIODS[0] and aligned(until, period) - aligned(since, period) == DEFAULT_RANGE
    )
    since, until = aligned(since, period), aligned(until, period) + timedelta(seconds=period)
    # All viewers of the newest hour share one entry. It is kept longer than a minute in case AWS fails.
    span = int((until - since).total_seconds())
    key = f"metrics:{source.key}:{period}:{span}:{'now' if follows_now else int(until.timestamp())}"
    kept = soft_cache.read_as(key, build_series)
    fresh = soft_cache.read(f"{key}:fresh")
    if fresh is not None and kept and not fresh:
        return kept
    if fresh:
        return with_error(kept, fresh, period, since, until)
    if not is_last_hour and (wait := CHOSEN_READS.spend(reader)):
        sentence = describe_too_many("metrics of chosen times", wait)
        raise PortalError("too_many_metric_reads", sentence, 429, retry_after=wait, limit=CHOSEN_READS)
    try:
        read = partial(read_and_cache, key, source, since, until, period)
        return call_shared(source.target, "cloudwatch:GetMetricData", key, read)
    except AwsError as error:
        return with_error(kept, summarize_error(error), period, since, until)


def read_and_cache(key: str, source: Source, since: datetime, until: datetime, period: int) -> MetricSeries:
    """Read the series and cache it, even if the caller no longer waits. A failure is cached too. *Raises* AwsError."""
    try:
        points = ask_cloudwatch(source, since, until, period)
    except AwsError as error:
        soft_cache.write(f"{key}:fresh", summarize_error(error), seconds=FAILED_SECONDS)
        raise
    series = MetricSeries(period, since, until, points, read_at=timezone.now())
    soft_cache.write(key, asdict(series), seconds=CACHE_SECONDS)
    soft_cache.write(f"{key}:fresh", "", seconds=FRESH_SECONDS)
    return series


def checked_period(since: datetime, until: datetime, period: int | None) -> int:
    """Return the period to request, in seconds. *Raises* PortalError 400 `invalid`."""
    span = until - since
    if span <= timedelta(0) or span > MAX_RANGE:
        refuse("since", f"The range must start before it ends and be at most {MAX_RANGE.days} days.")
    age = timezone.now() - since
    finest = 60 if age < MINUTE_POINTS else 300 if age < FIVE_MINUTE_POINTS else 3600
    if period is None:
        fitting = (each for each in PERIODS if each >= finest and span.total_seconds() / each <= MAX_POINTS)
        return next(fitting, PERIODS[-1])
    if period < 60 or period % 60 or period > PERIODS[-1]:
        refuse("period", f"Must be a multiple of 60 seconds, at most {PERIODS[-1]}.")
    if span.total_seconds() / period > MAX_POINTS:
        refuse("period", f"The range would have more than {MAX_POINTS} points. Choose a longer period.")
    return max(period, finest)


def refuse(field: str, sentence: str) -> None:
    raise PortalError("invalid", f"Not accepted: {field}. See errors.", 400, errors={field: [sentence]})


def aligned(at: datetime, period: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // period * period, tz=UTC)


def build_series(kept: dict[str, Any]) -> MetricSeries:
    """Build the series from its cached fields."""
    return MetricSeries(**kept | {"points": [MetricPoint(**point) for point in kept["points"]]})


def with_error(kept: MetricSeries | None, said: str, period: int, since: datetime, until: datetime) -> MetricSeries:
    if kept is None:
        return MetricSeries(period, since, until, [], read_at=None, error=said)
    return MetricSeries(kept.period_seconds, kept.since, kept.until, kept.points, kept.read_at, error=said)


def ask_cloudwatch(source: Source, since: datetime, until: datetime, period: int) -> list[MetricPoint]:
    """Read the points with one GetMetricData call. *Raises* AwsError."""
    points = metrics.service_metrics(
        source.target,
        cluster=source.cluster,
        service=source.service,
        start=since,
        end=until,
        period_seconds=period,
    )
    return [MetricPoint(point.at, point.cpu, point.memory, point.running) for point in points]
