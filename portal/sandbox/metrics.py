"""Computes the metrics of a service, minute by minute, from its history of task counts and the time.

CPU has a daily wave, noise and a bump after each start, and rises when fewer tasks carry the load. Nothing is stored.
"""

import bisect
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from portal.sandbox.history import GONE
from portal.sandbox.records import Counts, Service
from portal.sandbox.rounding import round_down, round_up

MINUTE = 60
DAY = 86_400

UTILIZATION, INSIGHTS = "AWS/ECS", "ECS/ContainerInsights"
METRICS: dict[tuple[str, str], str] = {
    (UTILIZATION, "CPUUtilization"): "Percent",
    (UTILIZATION, "MemoryUtilization"): "Percent",
    (INSIGHTS, "RunningTaskCount"): "Count",
    (INSIGHTS, "DesiredTaskCount"): "Count",
    (INSIGHTS, "PendingTaskCount"): "Count",
}


class Point(NamedTuple):
    """The samples of one minute: one per running task for utilization, a single one for a count."""

    at: int
    average: float
    minimum: float
    maximum: float
    samples: int


class Minute(NamedTuple):
    """A service's task counts in one minute: those at its end, and the most tasks running and pending within it."""

    at: int
    desired: float
    running: float
    pending: float
    most_running: float
    most_pending: float
    since_start: float


def points(service: Service, namespace: str, name: str, within: Iterable[Minute]) -> Iterator[Point]:
    """Yield the metric's points of the given minutes."""
    seed = zlib.crc32(f"{service.key.service_arn} {name}".encode())
    for minute in within:
        if namespace == INSIGHTS:
            counts = {
                "RunningTaskCount": minute.running,
                "DesiredTaskCount": minute.desired,
                "PendingTaskCount": minute.most_pending,
            }
            yield Point(minute.at, counts[name], counts[name], counts[name], 1)
        elif minute.most_running > 0:
            value = cpu(seed, minute) if name == "CPUUtilization" else memory(seed, minute)
            spread = (0.5 + 3 * noise(seed + 7, minute.at // MINUTE)) * (minute.most_running > 1)
            tasks = int(minute.most_running)
            yield Point(minute.at, value, max(0.1, value - spread), min(100.0, value + spread), tasks)


class CountHistory:
    """A service's task counts over time, found by binary search because they are read for thousands of minutes."""

    def __init__(self, counts: list[Counts]) -> None:
        self.counts = counts
        self.change_times = [each.at for each in counts]
        before = [0, *(each.running for each in counts)]
        self.start_times = [each.at for running, each in zip(before, counts, strict=False) if each.running > running]

    def during(self, minute: int) -> list[Counts]:
        """Return the counts in effect at the start of the minute and those that changed within it, oldest first."""
        earlier = bisect.bisect_right(self.change_times, minute)
        changed = bisect.bisect_left(self.change_times, minute + MINUTE)
        return self.counts[max(0, earlier - 1) : changed]

    def seconds_since_start(self, moment: int) -> float:
        """Return the seconds since a task last started before this moment, or a day if none did."""
        earlier = bisect.bisect_left(self.start_times, moment)
        return moment - self.start_times[earlier - 1] if earlier else float(DAY)


def minutes(service: Service, *, start: int, end: int, now: float) -> Iterator[Minute]:
    """Yield the complete past minutes from `start` up to `end` in which the service existed."""
    if not service.counts:
        return
    history = CountHistory(service.counts)
    created = round_down(int(service.counts[0].at), MINUTE)
    first = round_up(max(start, created), MINUTE)
    for at in range(first, min(end, int(now) - MINUTE + 1), MINUTE):
        within = history.during(at)
        existing = [each for each in within if each.desired != GONE]
        if not existing:
            continue
        latest = within[-1] if within[-1].desired != GONE else Counts(at, 0, 0, 0)
        yield Minute(
            at=at,
            desired=latest.desired,
            running=latest.running,
            pending=latest.pending,
            most_running=max(each.running for each in existing),
            most_pending=max(each.pending for each in existing),
            since_start=history.seconds_since_start(at + MINUTE),
        )


def cpu(seed: int, minute: Minute) -> float:
    base, amplitude = 14 + seed % 17, 6 + seed % 11
    wave = amplitude * (1 + math.sin(2 * math.pi * (minute.at % DAY / DAY - 0.3 - seed % 5 / 40)))
    number = minute.at // MINUTE
    value = base + wave + 6 * drift(seed, number, 15) + 3 * noise(seed, number)
    load = min(2.0, minute.desired / minute.most_running) if minute.desired > minute.most_running else 1.0
    return round(min(98.0, value * load + 28 * math.exp(-minute.since_start / 150)), 4)


def memory(seed: int, minute: Minute) -> float:
    """Return memory use in percent. It grows slowly after a start, as caches fill, and starts over with new tasks."""
    number = minute.at // MINUTE
    filled = 14 * (1 - math.exp(-minute.since_start / 21_600))
    return round(min(96.0, 30 + seed % 19 + filled + 3 * drift(seed, number, 40) + noise(seed, number)), 4)


def drift(seed: int, number: int, width: int) -> float:
    """Return slowly changing noise: a linear interpolation between values `width` minutes apart."""
    whole, part = divmod(number, width)
    left, right = noise(seed + 1, whole), noise(seed + 1, whole + 1)
    return left + (right - left) * part / width


def noise(seed: int, number: int) -> float:
    """Return a number from 0 to 1, always the same for the same arguments."""
    mixed = (number * 0x9E3779B1 ^ seed * 0x85EBCA6B) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE3D) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFFFF) / 0x1_0000_0000
