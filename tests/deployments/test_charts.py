"""Charts, timeline folds, time windows and highlights: pure, without database and AWS."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import QueryDict

from deployments.pages.timeline import group_by_day
from portal.templatetags.observe import highlight
from portal.times import DEFAULT_TIMES, TimeChoice, choose_times
from portal.web.observe.changes import Change, Result
from portal.web.observe.charts import Chart, Event, Point, build_bands, build_chart, build_marks, build_ticks, nice_top
from portal.web.observe.time_window import parse_window

NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def chart(*values: tuple[int, float], unit: str = "%") -> Chart:
    points = [Point(NOON + minute * MINUTE, value) for minute, value in values]
    window = {"since": NOON, "until": NOON + timedelta(hours=1), "period": MINUTE}
    return build_chart(points, name="cpu", title="CPU", unit=unit, **window)  # type: ignore[arg-type] # values of two types


def test_no_data_is_a_gap_and_never_zero() -> None:
    drawn = chart((0, 50), (1, 50), (30, 25), (31, 25))

    assert drawn.line.count("M") == 2
    assert "100.0" not in drawn.line
    assert [round(gap.width) for gap in drawn.gaps] == [48, 48]


def test_a_single_point_is_a_dot() -> None:
    drawn = chart((0, 50), (1, 50), (30, 25))

    assert [(dot.x, dot.y) for dot in drawn.dots] == [(50.0, 75.0)]
    assert drawn.line.count("M") == 1


def test_counts_are_steps_on_whole_numbers() -> None:
    drawn = chart((0, 2), (1, 3), unit="tasks")

    assert drawn.line == "M0.0 50.0H16.7V25.0"
    assert [line.label for line in drawn.grid] == ["4 tasks", "2 tasks", "0 tasks"]
    assert drawn.latest == "3 tasks"


def test_the_table_has_the_points_of_the_cursor_newest_first() -> None:
    drawn = chart((0, 12.34), (1, 56.0))

    assert [(row.at, row.value) for row in drawn.rows] == [(NOON + MINUTE, "56 %"), (NOON, "12.3 %")]
    assert [row.place for row in drawn.rows] == ["1.67 44.0", "0.0 87.7"]


def test_a_chart_without_points_says_so() -> None:
    drawn = chart()

    assert (drawn.latest, drawn.summary) == ("no data", "CPU: no data in this window.")


@pytest.mark.parametrize(("highest", "top"), [(0, 2), (2, 4), (11, 20), (98, 100), (100, 100), (1001, 1004)])
def test_scale_ends_at_a_round_number_above_the_line(highest: float, top: int) -> None:
    assert nice_top(highest, (2, 4, 10, 20, 100, 1000)) == top


@pytest.mark.parametrize("hours", [0.05, 1, 6, 24, 168, 24 * 400])
def test_ticks_are_few_round_and_inside(hours: float) -> None:
    ticks = build_ticks(NOON + timedelta(seconds=7), NOON + timedelta(hours=hours))

    assert 1 <= len(ticks) <= 7 or hours > 2000
    assert all(0 <= tick.x <= 100 for tick in ticks)


def test_marks_outside_the_window_are_left_out() -> None:
    done = [Event(NOON - MINUTE, "Created"), Event(NOON + 30 * MINUTE, "Scaled")]

    assert [(mark.label, mark.x) for mark in build_marks(done, NOON, NOON + timedelta(hours=1))] == [("Scaled", 50.0)]


def test_a_band_is_the_part_of_a_change_inside_the_window() -> None:
    hour = NOON + timedelta(hours=1)
    before = Change(Result.FAILED, "before", "/", NOON - 9 * MINUTE, NOON - MINUTE)
    across = Change(Result.SUCCESS, "across", "/", NOON - 6 * MINUTE, NOON + 6 * MINUTE)
    still = Change(Result.RUNNING, "still", "/", NOON + 45 * MINUTE, None)

    bands = build_bands([still, before, across], NOON, hour)

    assert [(band.change.title, band.x, band.width) for band in bands] == [("across", 0, 10), ("still", 75, 25)]


def event(minute: int, said: str = "deploy.failed", **fields: Any) -> Any:
    values = {"event_type": said, "status": "failed", "error_message": None, "actor": "system"} | fields
    return SimpleNamespace(created_at=NOON + minute * MINUTE, **values)


def test_repeats_fold_by_day_and_pairs_stay() -> None:
    events = [event(50), event(40), event(30), event(20, "create"), event(10), event(5), event(-13 * 60)]

    days = group_by_day(events)

    assert [day.day.day for day in days] == [12, 11]
    assert [len(fold.more) for fold in days[0].folds] == [2, 0, 0, 0]
    assert days[0].folds[0].oldest.created_at == NOON + 30 * MINUTE


def test_different_events_are_not_folded() -> None:
    events = [event(3), event(2, error_message="exit code 1"), event(1, actor="a@example.com")]

    assert [len(fold.more) for fold in group_by_day(events)[0].folds] == [0, 0, 0]


def test_window_of_a_range_moves_with_now() -> None:
    window = parse_window(QueryDict("range=6h"), now=NOON)

    assert (window.since, window.until, window.is_live) == (NOON - timedelta(hours=6), NOON, True)
    assert [move.name for move in window.moves] == ["earlier", "closer", "wider"]


def test_custom_window_is_fixed_and_accepts_other_zones() -> None:
    window = parse_window(QueryDict("since=2026-03-12T10:00:00%2B01:00&until=2026-03-12T11:00"), now=NOON)

    assert (window.since.hour, window.until.hour, window.is_live, window.range) == (9, 11, False, "custom")
    assert {move.name for move in window.moves} == {"earlier", "later", "closer", "wider"}


def test_times_without_a_zone_are_those_of_the_form() -> None:
    window = parse_window(QueryDict("since=2026-03-12T06:00&until=2026-03-12T07:00&zone=America/New_York"), now=NOON)

    assert (window.since, window.until) == (NOON - 120 * MINUTE, NOON - 60 * MINUTE)


def test_ticks_are_round_in_the_persons_zone() -> None:
    choose_times(TimeChoice("Asia/Kolkata"))
    try:
        ticks = build_ticks(NOON, NOON + timedelta(hours=8))
    finally:
        choose_times(DEFAULT_TIMES)

    assert [tick.label for tick in ticks] == ["18:00", "20:00", "22:00", "13 Mar"]


def test_days_have_one_tick_each_when_clocks_are_changed() -> None:
    """In Berlin the 25th of October 2026 has 25 hours."""
    since = datetime(2026, 10, 23, 22, tzinfo=UTC)
    choose_times(TimeChoice("Europe/Berlin"))
    try:
        ticks = build_ticks(since, since + timedelta(days=4))
    finally:
        choose_times(DEFAULT_TIMES)

    assert [(tick.label, tick.x) for tick in ticks] == [
        ("24 Oct", 0),
        ("25 Oct", 25),
        ("26 Oct", round(49 / 96 * 100, 2)),
        ("27 Oct", round(73 / 96 * 100, 2)),
    ]


def test_a_window_ends_now_and_then_follows_the_present() -> None:
    window = parse_window(QueryDict("since=2026-03-12T11:50&until=2026-03-12T12:20"), now=NOON)
    short = parse_window(QueryDict("since=2026-03-12T11:59:30&until=2026-03-12T12:20"), now=NOON)

    assert (window.until, window.is_live) == (NOON, True)
    assert (short.since, short.until) == (NOON - 2 * MINUTE, NOON)


@pytest.mark.parametrize(
    "query",
    [
        "since=0001-01-01T00:00:00Z",
        "since=9999-12-31T23:59:59Z",
        "until=2026-03-12",
        "since=x",
        "since=2020-01-01T00:00Z",
    ],
)
def test_impossible_window_is_refused_with_a_reason(query: str) -> None:
    window = parse_window(QueryDict(query), now=NOON)

    assert window.error
    assert window.range == "1h"


def test_highlight_marks_every_case_and_escapes_all() -> None:
    assert (
        highlight("<b>Error</b> & error", "ERROR") == "&lt;b&gt;<mark>Error</mark>&lt;/b&gt; &amp; <mark>error</mark>"
    )
    assert highlight("a.c abc", ".") == "a<mark>.</mark>c abc"
    assert highlight("<i>", "") == "&lt;i&gt;"
