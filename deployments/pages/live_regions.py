"""Builds the metrics and logs regions of the deployment page from cached CloudWatch reads.

AWS errors are not raised. The regions show them as a sentence, with the last data that was read and its time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import QueryDict

from deployments.cloudwatch.log_lines import LEVELS
from deployments.cloudwatch.logs import MAX_LIMIT, LogLine, LogPage, read_logs
from deployments.cloudwatch.metrics import MetricPoint, MetricSeries, read_metrics
from deployments.models import Deployment, DeploymentEvent
from deployments.pages.charts import Chart, Mark, Point, Tick, build_chart, build_marks, build_ticks
from deployments.pages.time_window import Span, Window, around_line
from deployments.pages.timeline_region import in_window
from deployments.states import EventType
from portal.errors import PortalError
from portal.models import User

# Events that the charts show as marks: the actions of people.
MARKED = (EventType.CREATE, EventType.SCALE, EventType.RESTART, EventType.STOP, EventType.KILL)
MAX_MARKS = 40
MAX_MARK_DETAIL_LENGTH = 30
MEASURES = (
    ("cpu", "CPU", "%", "cpu_usage"),
    ("memory", "Memory", "%", "memory_usage"),
    ("tasks", "Running tasks", "tasks", "running_replicas"),
)
LINES_SHOWN = 200
# Lines may reach CloudWatch late, so a follower reads the last seconds again. deployments.js drops lines it already has.
OVERLAP = timedelta(seconds=15)
MAX_TEXT = 200


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
    series = read_metrics(deployment, since=window.since, until=None if window.is_live else window.until)
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


@dataclass(frozen=True)
class Line:
    """A log line as a table row: with a span of time around it and its other fields as text."""

    line: LogLine
    near: Span

    @property
    def anchor(self) -> str:
        return f"#L{self.line.id}"

    @property
    def fields(self) -> str:
        return fields_text(self.line.extra_data)


@dataclass(frozen=True)
class Logs:
    lines: list[Line]
    q: str
    level: str
    task: str
    line: str
    levels: list[str]
    tasks: list[str]
    is_following: bool
    is_line_missing: bool
    next_cursor: str | None
    read_at: datetime | None
    error: str | None
    note: str | None
    newest: str
    until: str

    @property
    def is_filtered(self) -> bool:
        return bool(self.q or self.level or self.task)


def build_logs(query: QueryDict, deployment: Deployment, window: Window, *, reader: User) -> Logs:
    """Build the newest matching lines of the window, and the list of tasks from the same read."""
    page, asked = ask(query, deployment, window, reader)
    everything = page
    if page.error is None:
        everything = read_page(deployment, limit=MAX_LIMIT, since=window.since, until=get_end(window), reader=reader)
    lines = [Line(each, around_line(each.timestamp)) for each in page.items]
    line = query.get("line", "")
    return Logs(
        lines=lines,
        **asked,
        line=line,
        levels=LEVELS,
        tasks=sorted({each.node_id for each in everything.items} | ({asked["task"]} - {""})),
        is_following="follow" in query and window.is_live,
        is_line_missing=bool(line) and all(each.line.id != line for each in lines),
        next_cursor=page.next_cursor,
        read_at=page.read_at,
        error=page.error,
        note=page.note,
        newest=exact(page.items[0].timestamp) if page.items else exact(window.until),
        until=exact(page.items[0].timestamp + timedelta(milliseconds=1)) if page.items else window.until_text,
    )


def newer_lines(query: QueryDict, deployment: Deployment, after: datetime) -> list[Line]:
    """Return the lines since shortly before `after`, for a page that follows the log."""
    asked = read_filters(query)
    page = read_logs(deployment, limit=MAX_LIMIT, since=after - OVERLAP, **as_arguments(asked))
    return [Line(each, around_line(each.timestamp)) for each in page.items]


def log_text(query: QueryDict, deployment: Deployment, window: Window, *, reader: User) -> Iterator[str]:
    """Yield the lines that build_logs shows for the same query: time, level, task, message, other fields."""
    page, _ = ask(query, deployment, window, reader)
    for each in page.items:
        words = [
            exact(each.timestamp),
            f"{each.level or '-':8}",
            each.node_id,
            each.message,
            fields_text(each.extra_data),
        ]
        yield " ".join(word for word in words if word) + "\n"
    if page.error:
        yield f"# CloudWatch Logs could not be read: {page.error}\n"


def ask(query: QueryDict, deployment: Deployment, window: Window, reader: User) -> tuple[LogPage, dict[str, str]]:
    asked = read_filters(query)
    page = read_page(
        deployment,
        limit=MAX_LIMIT if query.get("line") else LINES_SHOWN,
        since=window.since,
        until=get_end(window),
        cursor=query.get("cursor") or None,
        reader=reader,
        **as_arguments(asked),
    )
    return page, asked


def read_page(deployment: Deployment, **asked: Any) -> LogPage:
    """Return a page of lines; if the person reads too often, an empty one that says so."""
    try:
        return read_logs(deployment, **asked)
    except PortalError as error:
        if error.status != 429:
            raise
        return LogPage([], read_at=None, error=error.message)


def read_filters(query: QueryDict) -> dict[str, str]:
    level = query.get("level", "").upper()
    return {
        "q": query.get("q", "")[:MAX_TEXT],
        "level": level if level in LEVELS else "",
        "task": query.get("task", "")[:MAX_TEXT],
    }


def as_arguments(asked: dict[str, str]) -> dict[str, Any]:
    return {"q": asked["q"] or None, "level": asked["level"] or None, "node_id": asked["task"] or None}


def get_end(window: Window) -> datetime | None:
    """Return the end of the window. A live window has none, so that all its viewers share one cached tail."""
    return None if window.is_live else window.until


def fields_text(extra_data: dict[str, Any] | None) -> str:
    """Format the fields of a JSON line as text.

    >>> fields_text({"model": "claude", "tokens": 12, "tags": ["a"]})
    'model=claude tokens=12 tags=["a"]'
    """
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in (extra_data or {}).items()
    )


def exact(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
