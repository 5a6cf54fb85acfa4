"""Builds the metrics region of a page from a cached read of CloudWatch.

AWS errors are not raised. The region shows them as a sentence, with the last data that was read and its time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.http import QueryDict

from portal.cloudwatch.metrics import MetricPoint, MetricSeries, read_metrics
from portal.cloudwatch.source import Source
from portal.errors import PortalError
from portal.models import User
from portal.web.observe.changes import Change
from portal.web.observe.charts import (
    Band,
    Chart,
    Event,
    Mark,
    Point,
    Tick,
    build_bands,
    build_chart,
    build_marks,
    build_ticks,
)
from portal.web.observe.time_window import Window, moment

MEASURES = (
    ("cpu", "CPU", "%", "cpu_usage"),
    ("memory", "Memory", "%", "memory_usage"),
    ("tasks", "Running tasks", "tasks", "running_replicas"),
)


@dataclass(frozen=True)
class Metrics:
    charts: list[Chart]
    ticks: list[Tick]
    marks: list[Mark]
    bands: list[Band]
    period_seconds: int
    read_at: datetime | None
    error: str | None


def build_metrics(
    source: Source, window: Window, events: Iterable[Event], changes: Iterable[Change], *, reader: User | None = None
) -> Metrics:
    """Build three charts over the window. `events` are marked on each, `changes` lie behind the lines.

    If the `reader` reads too often, there are none and `error` says so.

    *Costs* at most one GetMetricData call.
    """
    until = None if window.is_live else window.until
    try:
        series = read_metrics(source, since=window.since, until=until, reader=reader)
    except PortalError as error:
        if error.status != 429:
            raise
        series = MetricSeries(60, window.since, window.until, [], read_at=None, error=error.message)
    has_any = any(get_value(point, measure[3]) is not None for point in series.points for measure in MEASURES)
    return Metrics(
        charts=[build_measure_chart(series, window, *measure) for measure in MEASURES] if has_any else [],
        ticks=build_ticks(window.since, window.until),
        marks=build_marks(events, window.since, window.until),
        bands=build_bands(changes, window.since, window.until),
        period_seconds=series.period_seconds,
        read_at=series.read_at,
        error=series.error,
    )


def find_chosen_moment(query: QueryDict) -> list[Event]:
    """Return a mark at the time of a log record, if `at` names one: its link opened the window."""
    at = moment(query.get("at"))
    return [Event(at, "The log line", is_chosen=True)] if at else []


def build_measure_chart(series: MetricSeries, window: Window, name: str, title: str, unit: str, field: str) -> Chart:
    values = [(point.timestamp, get_value(point, field)) for point in series.points]
    return build_chart(
        [Point(at, value) for at, value in values if value is not None],
        name=name,
        title=title,
        unit=unit,
        since=window.since,
        until=window.until,
        period=timedelta(seconds=series.period_seconds),
    )


def get_value(point: MetricPoint, field: str) -> float | None:
    value: float | None = getattr(point, field)
    return value
