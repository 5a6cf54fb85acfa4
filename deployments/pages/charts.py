"""Computes the geometry of the charts: points, gaps, grid lines, ticks and marks. Pure: no database, no AWS, no HTML.

A plot is 1000 wide and 100 high. templates/deployments/_chart.html stretches it to the available width. Everything except
the line is placed in percent. A missing data point is not zero: the line breaks there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

WIDTH, HEIGHT = 1000, 100
# Possible maxima of the scale. Half of each is also a round number, for the middle grid line.
NICE_TOPS = (2, 4, 10, 20, 50, 100, 200, 400, 1000)
NICE_TOPS_PERCENT = (10, 20, 50, 100, 200, 400, 1000)
MOST_TICKS = 6
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
    """An action on the deployment. `x` is in percent."""

    x: float
    at: datetime
    label: str


@dataclass(frozen=True)
class Gap:
    """A stretch without data, in percent of the width."""

    x: float
    width: float


@dataclass(frozen=True)
class Chart:
    """One chart. `line` and `area` are SVG paths. `points` is JSON `[[x, y, value, clock], ...]` for the crosshair."""

    name: str
    title: str
    unit: str
    line: str
    area: str
    grid: list[GridLine]
    gaps: list[Gap]
    points: str
    rows: list[tuple[datetime, str]]
    latest: str
    summary: str


def chart_of(
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
    runs = runs_of(inside, period)
    placed = [[(x_of(point.at, since, until), y_of(point.value, top)) for point in run] for run in runs]
    return Chart(
        name=name,
        title=title,
        unit=unit,
        line=" ".join(line_of(run, steps=not is_percent) for run in placed),
        area=" ".join(area_of(run, steps=not is_percent) for run in placed),
        grid=[GridLine(y, words(value, unit)) for y, value in ((0, top), (50, top / 2), (100, 0))],
        gaps=gaps_of(runs, since, until, period),
        points=json.dumps(
            [
                [round(x / 10, 2), y, words(point.value, unit), clock(point.at, until - since)]
                for run, spots in zip(runs, placed, strict=True)
                for point, (x, y) in zip(run, spots, strict=True)
            ],
            separators=(",", ":"),
        ),
        rows=[(point.at, words(point.value, unit)) for point in reversed(inside)],
        latest=words(inside[-1].value, unit) if inside else "no data",
        summary=summary_of(title, inside, unit),
    )


def nice_top(highest: float, tops: Sequence[int]) -> int:
    """Return the first round number that is not below the highest value."""
    return next((top for top in tops if highest <= top), int(highest) + int(highest) % 2 + 2)


def runs_of(points: Sequence[Point], period: timedelta) -> list[list[Point]]:
    """Split the points (ordered by time) where data is missing."""
    runs: list[list[Point]] = []
    for point in points:
        if runs and point.at - runs[-1][-1].at <= period * GAP_PERIODS:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def gaps_of(runs: list[list[Point]], since: datetime, until: datetime, period: timedelta) -> list[Gap]:
    """Return the stretches without data. The newest period is not one, because its point has not arrived yet."""
    edges = [since, *(edge for run in runs for edge in (run[0].at, run[-1].at)), until]
    gaps = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        slack = period * (2 if end == until else 1)
        if end - begin > slack * GAP_PERIODS:
            x = x_of(begin, since, until) / 10
            gaps.append(Gap(round(x, 2), round(x_of(end, since, until) / 10 - x, 2)))
    return gaps


def x_of(at: datetime, since: datetime, until: datetime) -> float:
    return round(WIDTH * ((at - since) / (until - since)), 1)


def y_of(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 1)


def line_of(run: Sequence[tuple[float, float]], *, steps: bool) -> str:
    """Return the SVG path of one stretch. A single point becomes a dot: a line of zero length with round ends."""
    (x, y), rest = run[0], run[1:]
    if not rest:
        return f"M{x} {y}h0"
    if steps:
        return f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in rest)
    return f"M{x} {y}L" + " ".join(f"{x} {y}" for x, y in rest)


def area_of(run: Sequence[tuple[float, float]], *, steps: bool) -> str:
    if len(run) < 2:
        return ""
    return f"{line_of(run, steps=steps)}V{HEIGHT}H{run[0][0]}Z"


def ticks_of(since: datetime, until: datetime) -> list[Tick]:
    """Return at most six round times, the labels of the time axis that all charts share."""
    span = until - since
    step = next((step for step in TICK_STEPS if span / step <= MOST_TICKS), TICK_STEPS[-1])
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + step * -(-(since - midnight) // step)
    ticks = []
    while at <= until:
        x = x_of(at, since, until) / 10
        anchor = "start" if x < 6 else "end" if x > 94 else "middle"
        label = (
            f"{at:%d %b}".lstrip("0")
            if step >= timedelta(days=1) or at == midnight + timedelta(days=1)
            else f"{at:%H:%M}"
        )
        ticks.append(Tick(round(x, 2), label, anchor))
        at += step
    return ticks


def marks_of(events: Iterable[tuple[datetime, str]], since: datetime, until: datetime) -> list[Mark]:
    """Return the marks within the window, oldest first."""
    inside = sorted((at, label) for at, label in events if since <= at <= until)
    return [Mark(round(x_of(at, since, until) / 10, 2), at, label) for at, label in inside]


def clock(at: datetime, span: timedelta) -> str:
    return f"{at:%d %b %H:%M}" if span > timedelta(hours=20) else f"{at:%H:%M:%S}"


def words(value: float, unit: str) -> str:
    """Format a value with its unit.

    >>> words(12.34, "%"), words(3.0, "tasks"), words(1.0, "tasks")
    ('12.3 %', '3 tasks', '1 task')
    """
    number = f"{value:.1f}".removesuffix(".0")
    if unit == "%":
        return f"{number} %"
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def summary_of(title: str, points: Sequence[Point], unit: str) -> str:
    """Return a text alternative for the chart."""
    if not points:
        return f"{title}: no data in this window."
    values = [point.value for point in points]
    falls = sum(1 for before, after in pairwise(values) if after != before)
    steady = "" if falls else ", constant"
    return (
        f"{title}: {words(values[-1], unit)} at {points[-1].at:%H:%M} UTC. "
        f"Lowest {words(min(values), unit)}, highest {words(max(values), unit)}{steady}."
    )
