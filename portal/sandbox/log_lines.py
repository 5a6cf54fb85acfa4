"""Generates the log lines of a task's container from the task and the time, so that no line needs to be stored.

Time is divided into slots. A hash of task, container and slot determines the lines in it. A task writes about ten lines
a minute in its first hour and two or three afterwards, so that reading a long period stays cheap. The lines at start,
crash and stop are the same for every task.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from portal.sandbox.log_texts import CRASH, MESSAGES, OPENING, STOPPING
from portal.sandbox.rounding import round_down, round_up

YOUNG_MS = 3_600_000
YOUNG_SLOT_MS, OLD_SLOT_MS = 6_000, 24_000
OPENING_MS = 2_000
LINES_IN_SLOT = (0, 0, 1, 1, 1, 1, 2, 2)  # the number of a slot's lines; a hash picks one entry
BYTES_A_LINE = 12  # of a slot's hash; `message_of` uses them as random numbers
FIRST_OPENING_NUMBER, FIRST_CLOSING_NUMBER, FIRST_REGULAR_NUMBER = 0, 50, 100

COLOURS = {"DEBUG": "36", "INFO": "32", "WARN": "33", "ERROR": "31"}

INGESTED_AFTER_MS = 250


@dataclass(frozen=True)
class Stream:
    """The log stream of one container of one task, with its start and end in milliseconds since the epoch."""

    group: str
    name: str
    task_id: str
    container: str
    image: str
    started_ms: int
    stopping_ms: int | None = None
    has_crashed: bool = False
    exit_code: int = 0

    @property
    def opened_ms(self) -> int:
        """Return when the container has started up and begins to write regular lines."""
        return self.started_ms + OPENING_MS

    def is_open_at(self, at: int) -> bool:
        return self.opened_ms <= at and (self.stopping_ms is None or at < self.stopping_ms)


class Line(NamedTuple):
    """One log line. Lines sort by time, then by stream name, then by `number` within one millisecond.

    `put_ms`: when PutLogEvents brought it; 0 for a line of a task.
    """

    timestamp: int
    stream: str
    number: int
    message: str
    put_ms: int = 0

    @property
    def ingested_ms(self) -> int:
        return self.put_ms or self.timestamp + INGESTED_AFTER_MS

    @property
    def event_id(self) -> str:
        """Return a unique, stable id of 56 digits, as long as AWS's."""
        return f"{self.timestamp:014d}{stream_number(self.stream):020d}{self.number:022d}"


@lru_cache(maxsize=1024)
def stream_number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def lines(stream: Stream, *, since: int, until: int, newest_first: bool = False) -> Iterator[Line]:
    """Yield the stream's lines from `since` to `until` (both included), oldest or newest first. Generated lazily."""
    slots = slots_between(stream, since, until, newest_first=newest_first)
    regular = (regular_lines(stream, slot) for slot in slots)
    first, last = opening(stream), closing(stream)
    blocks = itertools.chain([last], regular, [first]) if newest_first else itertools.chain([first], regular, [last])
    for block in blocks:
        for line in reversed(block) if newest_first else block:
            if since <= line.timestamp <= until:
                yield line


class Slot(NamedTuple):
    """A span of time in milliseconds whose regular lines are generated together."""

    start: int
    length: int


def slots_between(stream: Stream, since: int, until: int, *, newest_first: bool) -> Iterator[Slot]:
    """Yield the slots that may hold regular lines from `since` to `until`, oldest or newest first.

    Slots are short in the stream's first hour and long afterwards.
    """
    end = until + 1 if stream.stopping_ms is None else min(until + 1, stream.stopping_ms)
    old_from = round_up(stream.started_ms + YOUNG_MS, OLD_SLOT_MS)
    young = range(round_down(max(since, stream.opened_ms), YOUNG_SLOT_MS), min(old_from, end), YOUNG_SLOT_MS)
    old = range(max(old_from, round_down(since, OLD_SLOT_MS)), end, OLD_SLOT_MS)
    starts = itertools.chain(reversed(old), reversed(young)) if newest_first else itertools.chain(young, old)
    for start in starts:
        yield Slot(start, YOUNG_SLOT_MS if start < old_from else OLD_SLOT_MS)


def opening(stream: Stream) -> list[Line]:
    """Return the lines the container writes at its start, up to its end if it stops before the last one."""
    found = scripted(stream, OPENING, stream.started_ms, FIRST_OPENING_NUMBER)
    return [line for line in found if stream.stopping_ms is None or line.timestamp < stream.stopping_ms]


def closing(stream: Stream) -> list[Line]:
    """Return the lines the container writes when it crashes or stops; none while it runs.

    A crash is known only after it has happened. Its lines all carry that moment, so that no reader has passed them yet.
    """
    if stream.stopping_ms is None:
        return []
    script = CRASH if stream.has_crashed else STOPPING
    return scripted(stream, script, stream.stopping_ms, FIRST_CLOSING_NUMBER)


def scripted(stream: Stream, script: tuple[tuple[int, str], ...], at: int, first_number: int) -> list[Line]:
    found = []
    for number, (offset, text) in enumerate(script, start=first_number):
        version = stream.image.partition("@")[0].rpartition(":")[2]
        message = text.format(
            time=iso(at + offset),
            plain_time=plain_time(at + offset),
            container=stream.container,
            version=version,
            task=stream.task_id,
            exit_code=stream.exit_code,
        )
        found.append(Line(at + offset, stream.name, number, message))
    return found


def regular_lines(stream: Stream, slot: Slot) -> list[Line]:
    """Return the lines of one slot, oldest first, without those before the container has opened or after it stops.

    The slot is divided into equal parts, one for each possible line.
    """
    part_ms = slot.length // max(LINES_IN_SLOT)
    source = f"{stream.task_id}/{stream.container}/{slot.start}"
    digest = hashlib.blake2b(source.encode(), digest_size=32).digest()
    found = []
    for number in range(LINES_IN_SLOT[digest[0] % len(LINES_IN_SLOT)]):
        chance = digest[1 + number * BYTES_A_LINE : 1 + (number + 1) * BYTES_A_LINE]
        at = slot.start + number * part_ms + int.from_bytes(chance[:4]) % part_ms
        if stream.is_open_at(at):
            found.append(Line(at, stream.name, FIRST_REGULAR_NUMBER + number, build_message(stream, at, chance)))
    return found


def build_message(stream: Stream, at: int, chance: bytes) -> str:
    """Return one line of the running container: mostly JSON, some plain text with or without colour, rarely an odd one."""
    level, logger, text = MESSAGES[chance[4] % len(MESSAGES)]
    request_id = chance[4:10].hex()
    text = text.format(request_id=request_id, ms=20 + chance[5] * 7, count=1 + chance[6] % 40, tokens=chance[7] * 31)
    if chance[10] < 2:
        text = f"{text} größer als üblich: 日本語, émoji 🤖"
    elif chance[10] == 2:
        text = f"{text} payload={chance.hex() * (200 + chance[5] * 3)}"
    if chance[11] < 150:
        fields = {"time": iso(at), "level": level.lower(), "logger": logger, "message": text, "request_id": request_id}
        if chance[11] % 3 == 0:
            fields["task_id"] = stream.task_id
        return json.dumps(fields, ensure_ascii=False)
    if chance[11] < 220:
        return f"{plain_time(at)} {level} {logger}: {text}"
    return f"{plain_time(at)} \x1b[{COLOURS[level]}m{level:5}\x1b[0m {logger}: {text}"


def iso(at: int) -> str:
    return f"{format_date(at // 86_400_000)}T{format_clock(at)}.{at % 1000:03d}Z"


def plain_time(at: int) -> str:
    return f"{format_date(at // 86_400_000)} {format_clock(at)},{at % 1000:03d}"


@lru_cache(maxsize=64)
def format_date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def format_clock(at: int) -> str:
    seconds = at // 1000
    return f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
