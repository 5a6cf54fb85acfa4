"""Groups the lines of a log into records: what an application wrote at one go, such as an error with its stack trace. Pure.

A line continues the record before it, of the same task, if it names no level of its own and looks like a continuation:
it is indented, or belongs to a stack trace, or has the same millisecond.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils.functional import cached_property

from portal.cloudwatch.log_lines import LEVELS
from portal.cloudwatch.logs import LogLine

# The lines of a stack trace are written within this time.
TOGETHER = timedelta(seconds=1)
MAX_LINES = 500
MAX_FIELD = 2000
INDENTED = re.compile(r"\s|[{}()\[\]]+,?;?$|$")
# How Python, Java and Go go on after the first line of a stack trace.
TRACE_GOES_ON = re.compile(
    r"Traceback \(most recent call last\):|Caused by: |Suppressed: |\.\.\. \d+ more"
    r"|During handling of the above exception|The above exception was the direct cause|goroutine \d+ \["
)
# `ValueError: 3` ends a traceback of Python, `java.lang.IllegalStateException` begins one of Java.
EXCEPTION = re.compile(r"[A-Za-z_][\w.$]*(Error|Exception|Exit|Interrupt|Warning|Failure)\b(:|$)")
# In a trace of Go, the lines of functions are not indented.
GO_TRACE, GO_FUNCTION = re.compile(r"goroutine \d+ \["), re.compile(r"\S+\(.*\)$|created by \S|exit status \d")
IN_TRACE = re.compile(r"Traceback \(most recent call last\):|\s+at \S|  File \"|goroutine \d+ \[", re.MULTILINE)
# A time at the start of a line. The page shows the line's own time already.
# Its zone may stand apart: `+0000` of gunicorn, `UTC` or `-03` of PostgreSQL.
ZONE = (
    r"\s?(?:Z|UTC|GMT|[CEW]ES?T|[ECMP][SD]T|A[CEW][SD]T|[BIJK]ST|[+-]\d\d:?\d\d|[+-]\d\d(?=\]|\s\[))(?!\w|:\d)|[+-]\d\d"
)
TIME = re.compile(
    r"(?P<open>\[)?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:(?P<minute>\d\d):(?P<second>\d\d)(?:[.,]\d+)?"
    rf"(?:{ZONE})?(?P<close>\])?[\s:|]*(?:-+\s+)?"
)
TIME_FIELDS = ("time", "ts", "timestamp", "@timestamp", "@t", "asctime", "datetime", "date")
# What fills three rows of the page, and how many fields are read easily behind a message.
CLAMPED_LINES, CLAMPED_LENGTH, INLINE_FIELDS = 3, 320, 3


@dataclass
class Record:
    """Lines of one task that belong together, oldest first. Its id, time and fields are those of its first line."""

    lines: list[LogLine] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.lines[0].id

    @property
    def timestamp(self) -> datetime:
        return self.lines[0].timestamp

    @property
    def node_id(self) -> str:
        return self.lines[0].node_id

    @property
    def ingested_at(self) -> datetime:
        """Return when CloudWatch received the newest line."""
        return max(line.ingested_at or line.timestamp for line in self.lines)

    @cached_property
    def level(self) -> str | None:
        """Return the level of the first line. A stack trace without one is an error."""
        if self.lines[0].level or not any(IN_TRACE.match(line.message) for line in self.lines):
            return self.lines[0].level
        return "ERROR"

    @cached_property
    def message(self) -> str:
        """Return the text, without a time at its start that only repeats the record's own."""
        first, *others = (line.message for line in self.lines)
        return "\n".join([drop_time(first, self.timestamp), *others])

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """Return the other members of a JSON line as texts, without its time."""
        members = (self.lines[0].extra_data or {}).items()
        return [(name, as_text(value)[:MAX_FIELD]) for name, value in members if name.lower() not in TIME_FIELDS]

    @property
    def fields_text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields)

    @property
    def is_long(self) -> bool:
        """Return whether the page shows the record in short until a person opens it."""
        is_cut = len(self.message) + len(self.fields_text) > CLAMPED_LENGTH or len(self.fields) > INLINE_FIELDS
        return is_cut or self.hidden_lines > 0

    @property
    def hidden_lines(self) -> int:
        """Return how many lines stand between the first one and the conclusion."""
        lines = self.message.count("\n") + 1
        return lines - 2 if lines > CLAMPED_LINES else 0

    @property
    def first_line(self) -> str:
        return self.message.partition("\n")[0]

    @property
    def conclusion(self) -> str:
        """Return the last line that is not indented: the exception of a traceback, or the last cause."""
        lines = [line for line in self.message.split("\n")[1:] if line and not INDENTED.match(line)]
        return lines[-1] if lines else self.message.rpartition("\n")[2]

    def goes_on(self, line: LogLine) -> bool:
        """Return whether the line belongs to this record."""
        last = self.lines[-1]
        is_apart = line.timestamp - last.timestamp > TOGETHER or len(self.lines) >= MAX_LINES
        if is_apart or line.level is not None or line.extra_data is not None:
            return False
        if line.timestamp == last.timestamp or INDENTED.match(line.message) or TRACE_GOES_ON.match(line.message):
            return True
        if GO_FUNCTION.match(line.message) and any(GO_TRACE.match(each.message) for each in self.lines):
            return True
        is_failure = self.lines[0].level in ("ERROR", "CRITICAL") or len(self.lines) > 1
        return is_failure and EXCEPTION.match(line.message) is not None

    def matches(self, *, level: str | None, node_id: str | None, q: str | None) -> bool:
        """Return whether the record is of this level or a higher one, of this task, and shows the text, ignoring case."""
        if level is not None and (self.level is None or LEVELS.index(self.level) < LEVELS.index(level)):
            return False
        if node_id is not None and self.node_id != node_id:
            return False
        return not q or q.casefold() in f"{self.message} {self.fields_text}".casefold()


def group_lines(lines: Iterable[LogLine]) -> list[Record]:
    """Return the records of lines that are given oldest first, in the order of their first lines."""
    records: list[Record] = []
    newest: dict[str, Record] = {}
    for line in lines:
        record = newest.get(line.node_id)
        if record is not None and record.goes_on(line):
            record.lines.append(line)
        else:
            newest[line.node_id] = Record([line])
            records.append(newest[line.node_id])
    return records


def count_levels(records: Iterable[Record]) -> list[tuple[str, int]]:
    """Return for each level, the highest first, how many records have it or a higher one."""
    exact = Counter(record.level for record in records)
    above = 0
    counts = []
    for level in reversed(LEVELS):
        above += exact[level]
        counts.append((level, above))
    return counts


def drop_time(message: str, at: datetime) -> str:
    """Return the message without a time at its start, if that is the line's own, in whatever zone."""
    found = TIME.match(message)
    if found is None or found.end() == len(message):
        return message
    written = int(found["minute"]) * 60 + int(found["second"])
    # Zones differ by quarters of an hour.
    apart = abs(written - (at.minute * 60 + at.second)) % 900
    if min(apart, 900 - apart) > 5:
        return message
    # `[2026-11-28T10:00:00Z INFO app] x`: the bracket holds more than the time.
    bracket = "[" if found["open"] and not found["close"] else ""
    return bracket + message[found.end() :]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
