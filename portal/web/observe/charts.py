"""Computes the geometry of the charts: points, gaps, grid lines, ticks and marks. Pure: no database, no AWS, no HTML.

A plot is 1000 wide and 100 high. templates/portal/web/observe/_chart.html stretches it to the available width. Everything
except the line is placed in percent. A missing data point is not zero: the line breaks there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from portal.times import to_zone
from portal.web.observe.changes import Change

WIDTH, HEIGHT = 1000, 100
# Possible maxima of the scale. Half of each is also a round number, for the middle grid line.
NICE_TOPS = (2, 4, 10, 20, 50, 100, 200, 400, 1000)
NICE_TOPS_PERCENT = (10, 20, 50, 100, 200, 400, 1000)
# Nothing is drawn above a full scale of this, so the line may touch its top.
FULL_PERCENT = 100
MAX_TICKS = 6
TICK_STEPS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200)
)
# Two points more than this many periods apart have a gap between them.
GAP_PERIODS = 1.6


@dataclass(frozen=True)
class Point:
    at: datetime
    value: float


@dataclass(frozen=True)
class GridLine:
    """A horizontal grid line. `y` is in percent from the top."""

    y: float
    label: str


@dataclass(frozen=True)
class Tick:
    """A label on the time axis. `x` is in percent. `anchor` keeps the first and last label inside the plot."""

    x: float
    label: str
    anchor: str


@dataclass(frozen=True)
class Mark:
    """An event at one time. `x` is in percent. `is_chosen`: the window was opened around it."""

    x: float
    at: datetime
    label: str
    is_chosen: bool = False


@dataclass(frozen=True)
class Dot:
    """A sample without a neighbour, which no line can show. `x` and `y` are in percent."""

    x: float
    y: float


@dataclass(frozen=True)
class Event:
    """What a mark shows, before it has a place."""

    at: datetime
    label: str
    is_chosen: bool = False


@dataclass(frozen=True)
class Band:
    """A change as a span behind the lines. `x` and `width` are in percent."""

    x: float
    width: float
    change: Change


@dataclass(frozen=True)
class Gap:
    """A stretch without data, in percent of the width."""

    x: float
    width: float


@dataclass(frozen=True)
class PointRow:
    """A point as a row of the table. `place`: its x and y in percent."""

    at: datetime
    value: str
    place: str


@dataclass(frozen=True)
class Chart:
    """One chart. `line` and `area` are SVG paths. `rows`: its points, newest first, which the cursor reads."""

    name: str
    title: str
    unit: str
    line: str
    area: str
    dots: list[Dot]
    grid: list[GridLine]
    gaps: list[Gap]
    rows: list[PointRow]
    latest: str
    summary: str


def build_chart(
    points: Iterable[Point],
    *,
    name: str,
    title: str,
    unit: str,
    since: datetime,
    until: datetime,
    period: timedelta,
) -> Chart:
    """Build the chart of one measure over [since, until]. `unit` is "%" or a plural noun; counts are drawn as steps."""
    inside = sorted((point for point in points if since <= point.at <= until), key=lambda point: point.at)
    is_percent = unit == "%"
    top = nice_top(max((point.value for point in inside), default=0), NICE_TOPS_PERCENT if is_percent else NICE_TOPS)
    runs = split_runs(inside, period)
    placed: list[list[tuple[float, float]]] = [
        [(calculate_x(point.at, since, until), calculate_y(point.value, top)) for point in run] for run in runs
    ]
    return Chart(
        name=name,
        title=title,
        unit=unit,
        line=" ".join(build_line(run, steps=not is_percent) for run in placed).strip(),
        area=" ".join(build_area(run, steps=not is_percent) for run in placed).strip(),
        dots=[Dot(round(run[0][0] / 10, 2), run[0][1]) for run in placed if len(run) == 1],
        grid=[GridLine(y, format_value(value, unit)) for y, value in ((0, top), (50, top / 2), (100, 0))],
        gaps=find_gaps(runs, since, until, period),
        rows=[
            PointRow(point.at, format_value(point.value, unit), f"{round(x / 10, 2)} {y}")
            for run, spots in zip(reversed(runs), reversed(placed), strict=True)
            for point, (x, y) in zip(reversed(run), reversed(spots), strict=True)
        ],
        latest=format_value(inside[-1].value, unit) if inside else "no data",
        summary=build_summary(title, inside, unit),
    )


def nice_top(highest: float, tops: Sequence[int]) -> int:
    """Return the first round number above the highest value, so that the line does not lie on the frame."""
    fitting = (top for top in tops if highest < top or highest == top == FULL_PERCENT)
    return next(fitting, int(highest) + int(highest) % 2 + 2)


def split_runs(points: Sequence[Point], period: timedelta) -> list[list[Point]]:
    """Split the points (ordered by time) where data is missing."""
    runs: list[list[Point]] = []
    for point in points:
        if runs and point.at - runs[-1][-1].at <= period * GAP_PERIODS:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def find_gaps(runs: list[list[Point]], since: datetime, until: datetime, period: timedelta) -> list[Gap]:
    """Return the stretches without data. The newest period is not one, because its point has not arrived yet."""
    edges = [since, *(edge for run in runs for edge in (run[0].at, run[-1].at)), until]
    gaps = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        slack = period * (2 if end == until else 1)
        if end - begin > slack * GAP_PERIODS:
            x = calculate_x(begin, since, until) / 10
            gaps.append(Gap(round(x, 2), round(calculate_x(end, since, until) / 10 - x, 2)))
    return gaps


def calculate_x(at: datetime, since: datetime, until: datetime) -> float:
    return round(WIDTH * ((at - since) / (until - since)), 1)


def calculate_y(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 1)


def build_line(run: Sequence[tuple[float, float]], *, steps: bool) -> str:
    """Return the SVG path of one stretch; empty for a single point, which becomes a Dot."""
    (x, y), rest = run[0], run[1:]
    if not rest:
        return ""
    if steps:
        return f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in rest)
    return f"M{x} {y}L" + " ".join(f"{x} {y}" for x, y in rest)


def build_area(run: Sequence[tuple[float, float]], *, steps: bool) -> str:
    if len(run) < 2:
        return ""
    return f"{build_line(run, steps=steps)}V{HEIGHT}H{run[0][0]}Z"


def build_ticks(since: datetime, until: datetime) -> list[Tick]:
    """Return at most six round times in the person's zone, the labels of the time axis that all charts share."""
    span = until - since
    step = next((step for step in TICK_STEPS if span / step <= MAX_TICKS), TICK_STEPS[-1])
    offset = to_zone(since).utcoffset() or timedelta()
    midnight = (since + offset).replace(hour=0, minute=0, second=0, microsecond=0) - offset
    at = midnight + step * -(-(since - midnight) // step)
    ticks = []
    while at <= until:
        ticks.append(build_tick(at, since, until, offset if step >= timedelta(days=1) else None))
        at += step
    return [tick for tick in ticks if tick.x <= 100]


def build_tick(at: datetime, since: datetime, until: datetime, offset: timedelta | None) -> Tick:
    """Return the tick at this time. `offset`: of midnights at the window's begin; None if the ticks are no midnights.

    Where clocks were changed since, midnight is an hour earlier or later.
    """
    local = to_zone(at)
    if offset is not None:
        local += offset - (local.utcoffset() or timedelta())
    x = calculate_x(local, since, until) / 10
    anchor = "start" if x < 6 else "end" if x > 94 else "middle"
    is_day = offset is not None or (local.hour, local.minute) == (0, 0)
    label = f"{local:%d %b}".lstrip("0") if is_day else f"{local:%H:%M}"
    return Tick(round(x, 2), label, anchor)


def build_marks(events: Iterable[Event], since: datetime, until: datetime) -> list[Mark]:
    """Return the marks within the window, oldest first."""
    inside = sorted((event for event in events if since <= event.at <= until), key=lambda event: event.at)
    return [
        Mark(round(calculate_x(event.at, since, until) / 10, 2), event.at, event.label, event.is_chosen)
        for event in inside
    ]


def build_bands(changes: Iterable[Change], since: datetime, until: datetime) -> list[Band]:
    """Return the part of each change that lies in the window, oldest first. One that goes on reaches to the end."""
    bands = []
    for change in sorted(changes, key=lambda change: change.began):
        begin, end = max(change.began, since), min(change.ended or until, until)
        if begin <= end:
            x = calculate_x(begin, since, until) / 10
            bands.append(Band(round(x, 2), round(calculate_x(end, since, until) / 10 - x, 2), change))
    return bands


def format_value(value: float, unit: str) -> str:
    """Format a value with its unit.

    >>> format_value(12.34, "%"), format_value(3.0, "tasks"), format_value(1.0, "tasks"), format_value(3.25, "tasks")
    ('12.3 %', '3 tasks', '1 task', '3.2 tasks on average')
    """
    number = f"{value:.1f}".removesuffix(".0")
    if unit == "%":
        return f"{number} %"
    if "." in number:
        return f"{number} {unit} on average"
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def build_summary(title: str, points: Sequence[Point], unit: str) -> str:
    """Return a text alternative for the chart."""
    if not points:
        return f"{title}: no data in this window."
    values = [point.value for point in points]
    falls = sum(1 for before, after in pairwise(values) if after != before)
    steady = "" if falls else ", constant"
    return (
        f"{title}: {format_value(values[-1], unit)} at {to_zone(points[-1].at):%H:%M %Z}. "
        f"Lowest {format_value(min(values), unit)}, highest {format_value(max(values), unit)}{steady}."
    )
