"""Builds the metrics region of the deployment page from a cached read of CloudWatch.

AWS errors are not raised. The region shows them as a sentence, with the last data that was read and its time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.models import Deployment, DeploymentEvent
from deployments.pages.charts import Chart, Mark, Point, Tick, build_chart, build_marks, build_ticks
from deployments.pages.time_window import Window
from deployments.pages.timeline_region import in_window
from deployments.states import EventType
from portal.cloudwatch.metrics import MetricPoint, MetricSeries, read_metrics

# Events that the charts show as marks: the actions of people.
MARKED = (EventType.CREATE, EventType.SCALE, EventType.RESTART, EventType.STOP, EventType.KILL)
MAX_MARKS = 40
MAX_MARK_DETAIL_LENGTH = 30
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
    period_seconds: int
    read_at: datetime | None
    error: str | None


def build_metrics(deployment: Deployment, window: Window) -> Metrics:
    """Build three charts over the window.

    *Costs* at most one GetMetricData call, and one query for the marks.
    """
    series = read_metrics(deployment.cloudwatch, since=window.since, until=None if window.is_live else window.until)
    has_any = any(get_value(point, measure[3]) is not None for point in series.points for measure in MEASURES)
    return Metrics(
        charts=[build_measure_chart(series, window, *measure) for measure in MEASURES] if has_any else [],
        ticks=build_ticks(window.since, window.until),
        marks=marks(deployment, window),
        period_seconds=series.period_seconds,
        read_at=series.read_at,
        error=series.error,
    )


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


def marks(deployment: Deployment, window: Window) -> list[Mark]:
    events = in_window(deployment, window).filter(event_type__in=MARKED)[:MAX_MARKS]
    return build_marks(((event.created_at, describe_mark(event)) for event in events), window.since, window.until)


def describe_mark(event: DeploymentEvent) -> str:
    """Return the label of a mark: the event, and its detail if that is short, such as `Scaled from 2 to 3`."""
    is_short = len(event.detail) <= MAX_MARK_DETAIL_LENGTH
    return f"{event.get_event_type_display()} {event.detail if is_short else ''}".strip()
