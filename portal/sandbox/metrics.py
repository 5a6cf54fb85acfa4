"""Computes the metrics of a service, minute by minute, from its history of task counts and the time.

CPU has a daily wave, noise and a bump after each start, and rises when fewer tasks carry the load. Nothing is stored.
"""

import bisect
import itertools
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from portal.sandbox.history import GONE
from portal.sandbox.records import Service

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


def minutes(service: Service, *, start: int, end: int, now: float) -> Iterator[Minute]:
    """Yield the complete past minutes from `start` up to `end` in which the service existed."""
    counts = service.counts
    if not counts:
        return
    times = [entry[0] for entry in counts]
    starts = [after[0] for before, after in itertools.pairwise([[0.0, 0, 0, 0], *counts]) if after[2] > before[2]]
    first = max(start, int(times[0]) // MINUTE * MINUTE)
    unchanged_until = 0.0
    within: list[list[float]] = []
    begun = 0
    for at in range(-(-first // MINUTE) * MINUTE, min(end, int(now) - MINUTE + 1), MINUTE):
        if at + MINUTE > unchanged_until:
            low, high = bisect.bisect_right(times, at), bisect.bisect_left(times, at + MINUTE)
            within = counts[max(0, low - 1) : high]
            begun = bisect.bisect_left(starts, at + MINUTE)
            if low == high:
                unchanged_until = times[high] if high < len(times) else math.inf
        there = [entry for entry in within if entry[1] != GONE]
        if not there:
            continue
        latest = within[-1] if within[-1][1] != GONE else [at, 0, 0, 0]
        yield Minute(
            at=at,
            desired=latest[1],
            running=latest[2],
            pending=latest[3],
            most_running=max(entry[2] for entry in there),
            most_pending=max(entry[3] for entry in there),
            since_start=at + MINUTE - starts[begun - 1] if begun else float(DAY),
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
