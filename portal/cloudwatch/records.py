"""Groups the lines of a log into records: what an application wrote at one go, such as an error with its stack trace. Pure.

A line continues the record before it, of the same task, if it looks like a part of a stack trace there, or if it names no
level of its own and is indented or has the same millisecond. A line that begins a stack trace is a record of its own,
unless it follows an error or continues another trace.
"""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils.functional import cached_property

from portal.cloudwatch.log_lines import LEVELS, STATES_LEVEL
from portal.cloudwatch.logs import LogLine

# The lines of a stack trace are written within this time, and what is written at one go within that.
TOGETHER, BURST = timedelta(seconds=1), timedelta(milliseconds=50)
MAX_LINES = 500
MAX_FIELD = 2000
INDENTED = re.compile(r"\s|[{}()\[\]]+,?;?$|$")
# `ValueError: 3` ends a traceback of Python, `java.lang.IllegalStateException` begins one of Java.
NAME = r"(Error|Exception|Exit|Interrupt|Warning|Failure)\b(:|$)"
EXCEPTION, EXCEPTION_NAME = re.compile(rf"[A-Za-z_][\w.$]*{NAME}"), re.compile(NAME)
# The text of an exception may have many lines.
EXCEPTION_FIRST = re.compile(rf"[\w.$]*{NAME}")
# Any exception may end a traceback of Python: `botocore.errorfactory.NoSuchKey: x`, `KeyboardInterrupt`.
# Before a SyntaxError, Python writes only the place.
TRACEBACK = re.compile(r"Traceback \(most recent call last\):?$|^\s+File \"[^\"]*\", line \d")
CONCLUSION = re.compile(r"[A-Za-z_][\w.<>]*(: |:?$)")
# Groups of exceptions of Python have lines at their left.
GUTTER = re.compile(r"^\s+[|+]\s")
# In a trace of Go, the lines of functions are not indented.
GO_TRACE, GO_FUNCTION = re.compile(r"goroutine \d+ \["), re.compile(r"[^\s(]+\(.*\)$|created by \S|exit status \d")
# What begins the trace of an error that nobody caught: of Python and Go, of many runtimes, Elixir and Ruby.
TRACE_BEGINS = re.compile(
    r"Traceback \(most recent call last\)|\s*\+ Exception Group Traceback|\s+File \"[^\"]*\", line \d|goroutine \d+ \["
    r"|Fatal Python error: |Exception (in thread|ignored in)\b|(Unhandled|Uncaught) \S*([Ee]xception|Error)\b"
    r"|terminate called |\*\* \(\w|\S{1,300}:\d{1,6}:in [`'][^'\n]{1,200}': .{0,1000}\([A-Z][\w:]{0,100}\)$"
)
# The same with a level: of Go, PHP and Rust.
PANIC = re.compile(r"panic: |(PHP )?[Ff]atal error: |thread '[^']*'( \(\d+\))? panicked at ")
FRAME = re.compile(
    r"\s+at ([^\s\d][^\s./:]*[./:]\S+$|(\S+ ){0,3}\S*(\(|[^\d\s]:\d|<anonymous>))|\s+from \S+:\d+:in "
    r"|goroutine \d+ \[|Stack trace:|stack backtrace:|\[stacktrace\]"
)
# How Java, Python, Go and others go on after the first lines of a stack trace.
TRACE_GOES_ON = re.compile(
    r"Caused by: |Suppressed: |\.\.\. \d+ more|\[signal |Stack trace:|stack backtrace:|\[stacktrace\]"
    r"|During handling of the above exception|The above exception was the direct cause"
)
CHAINS = re.compile(r"During handling of the above exception|The above exception was the direct cause")
# The innermost cause, as Java, .NET and Node write it.
CAUSE = re.compile(r"Caused by: |\s*---> |\s*\[cause\]: ")
# .NET's console writes only level and category into the first line.
DOTNET_HEADER = re.compile(r"[a-z]{4}: \S+\[\d+\]$")
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
# The fields of a JSON line that name the error, by their lower-case names: of zap, zerolog, pino and the Elastic schema.
ERROR_FIELDS = ("error", "err", "exception", "error.message", "err.message", "exception.message")
# What fills three rows of the page, and how many fields are read easily behind a message.
CLAMPED_LINES, CLAMPED_LENGTH, INLINE_FIELDS = 3, 320, 3


@dataclass
class Record:
    """Lines of one task that belong together, oldest first. Its id, time and fields are those of its first line.

    `has_trace`: a stack trace was found in it. `is_open`: a traceback of Python that lacks its last line. `is_complete`:
    another stack trace is a record of its own.
    """

    lines: list[LogLine] = field(default_factory=list)
    has_trace: bool = False
    is_open: bool = False
    is_complete: bool = False

    def add(self, line: LogLine) -> None:
        """Append a line that belongs to this record, or its first one."""
        self.lines.append(line)
        for text in line.message.split("\n"):
            self.follow(GUTTER.sub("", text))

    def follow(self, text: str) -> None:
        """Take note of how a line changes the state of the stack trace."""
        if TRACEBACK.search(text):
            self.has_trace, self.is_open, self.is_complete = True, True, False
        elif CHAINS.match(text):
            self.is_complete = False
        elif self.is_open:
            self.is_open = INDENTED.match(text) is not None
            self.is_complete = not self.is_open
        elif FRAME.match(text):
            self.has_trace, self.is_complete = True, text[0].isspace()
        elif TRACE_BEGINS.match(text) or PANIC.match(text):
            self.has_trace = True

    @property
    def is_failure(self) -> bool:
        return self.has_trace or self.lines[0].level in ("ERROR", "CRITICAL")

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
        """Return the level of the first line. A stack trace is an error, if that line is no warning."""
        level = self.lines[0].level
        return "ERROR" if self.has_trace and level in (None, "DEBUG", "INFO") else level

    @cached_property
    def message(self) -> str:
        """Return the text, without a time at its start that only repeats the record's own."""
        first, *others = (line.message for line in self.lines)
        return "\n".join([drop_time(first, self.timestamp), *others])

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """Return the other members of a JSON line as texts, without its time."""
        return [(name, as_text(value)[:MAX_FIELD]) for name, value in drop_times(self.lines[0]).items()]

    @property
    def fields_text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Return the fields of a JSON line that are texts, and those of objects in it as `outer.inner`."""
        found: dict[str, str] = {}
        for name, value in drop_times(self.lines[0]).items():
            members = (
                {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
            )
            found |= {key: each for key, each in members.items() if isinstance(each, str)}
        return found

    @cached_property
    def trace_error(self) -> str | None:
        """Return the error of the stack trace that a field of a JSON line holds; None if none does."""
        traces = (text.split("\n") for text in self.texts.values() if "\n" in text)
        return next((find_error(each) for each in traces if any(is_of_trace(line) for line in each)), None)

    @property
    def cause(self) -> str | None:
        """Return the error that the fields of a JSON line name; None if they name none."""
        named = (text for name, text in self.texts.items() if name.lower() in ERROR_FIELDS)
        return self.trace_error or next(named, None)

    @property
    def is_long(self) -> bool:
        """Return whether the page shows the record in short until a person opens it."""
        is_cut = len(self.message) + len(self.fields_text) > CLAMPED_LENGTH or len(self.fields) > INLINE_FIELDS
        return is_cut or self.hidden_lines > 0

    @property
    def hidden_lines(self) -> int:
        """Return how many lines the short form leaves out. It shows the first one and the conclusion."""
        lines = self.message.count("\n") + 1
        return lines - (1 if self.conclusion == self.first_line else 2) if lines > CLAMPED_LINES else 0

    @property
    def first_line(self) -> str:
        return self.message.partition("\n")[0]

    @cached_property
    def conclusion(self) -> str:
        """Return the line that says what went wrong: the error of a stack trace, else the last line without indent."""
        lines = [GUTTER.sub("", line) for line in self.message.split("\n") if line.strip()]
        has_header = len(lines) > 1 and DOTNET_HEADER.match(lines[0])
        if has_header:
            lines = textwrap.dedent("\n".join(lines[1:])).split("\n")
        found = find_error(lines) if self.has_trace else None
        if found is None and not has_header:
            found = next((line for line in reversed(lines) if not INDENTED.match(line)), None)
        return found or next(iter(lines), "")

    def goes_on(self, line: LogLine) -> bool:
        """Return whether the line belongs to this record."""
        apart, text = line.timestamp - self.lines[-1].timestamp, line.message
        if apart > TOGETHER or len(self.lines) >= MAX_LINES or not self.is_beside(line):
            return False
        if self.is_failure and self.continues_trace(text):
            return True
        if line.level is not None or TRACE_BEGINS.match(text) or (self.is_complete and EXCEPTION.match(text)):
            return False
        if not apart or INDENTED.match(text) or TRACE_GOES_ON.match(text):
            return True
        is_burst = self.has_trace or EXCEPTION_FIRST.match(self.lines[0].message) is not None
        return is_burst and apart <= BURST and not TIME.match(text)

    def is_beside(self, line: LogLine) -> bool:
        """Return whether the line is text, wrapped by a log router only as the first line of this record is."""
        if line.extra_data is None:
            return True
        return line.is_wrapped and self.lines[0].is_wrapped and drop_times(line) == drop_times(self.lines[0])

    def continues_trace(self, text: str) -> bool:
        """Return whether the line has the form of a part of this failure.

        A level that only its words name is not its own: `Caused by: org.postgresql.util.PSQLException: FATAL: x`.
        """
        if STATES_LEVEL.match(text):
            return False
        if TRACE_BEGINS.match(text) or EXCEPTION.match(text):
            return not self.is_complete
        if INDENTED.match(text) or TRACE_GOES_ON.match(text) or (self.is_open and CONCLUSION.match(text)):
            return True
        return bool(GO_FUNCTION.match(text) and any(GO_TRACE.match(each.message) for each in self.lines))

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
        if record is None or not record.goes_on(line):
            record = newest[line.node_id] = Record()
            records.append(record)
        record.add(line)
    return records


def is_of_trace(line: str) -> bool:
    return bool(TRACEBACK.search(line) or FRAME.match(line))


def find_error(lines: list[str]) -> str | None:
    """Return the line of a stack trace that names the error, without its indentation; None if it has none.

    Python writes it below the trace, others above it. The innermost cause says more than what it led to.
    """
    started = max((number for number, line in enumerate(lines) if TRACEBACK.search(line)), default=len(lines))
    below = (line for line in lines[started + 1 :] if not INDENTED.match(line))
    causes = (line.strip() for line in reversed(lines) if CAUSE.match(line))
    return next(below, None) or next(causes, None) or find_announcement(lines) or find_above_frames(lines)


def find_announcement(lines: list[str]) -> str | None:
    """Return the line that announces an uncaught error, or the next one if the error is there."""
    for number, line in enumerate(lines):
        is_announcement = PANIC.match(line) or TRACE_BEGINS.match(line)
        if is_announcement and not TRACEBACK.search(line) and not GO_TRACE.match(line):
            return lines[number + 1].strip() if line.endswith(":") and number + 1 < len(lines) else line
    return None


def find_above_frames(lines: list[str]) -> str | None:
    """Return the last line above the first frame that names an exception, else the last one."""
    first = next((number for number, line in enumerate(lines) if FRAME.match(line)), 0)
    named = (line for line in reversed(lines[:first]) if EXCEPTION_NAME.search(line))
    return next((line.strip() for line in (*named, *reversed(lines[:first]))), None)


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


def drop_times(line: LogLine) -> dict[str, Any]:
    """Return the other members of a JSON line without its times."""
    return {name: value for name, value in (line.extra_data or {}).items() if name.lower() not in TIME_FIELDS}


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
