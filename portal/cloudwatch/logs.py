"""Reads a service's logs from CloudWatch Logs on demand. The portal stores no copy.

All tasks of a service write to streams whose names begin alike, so one read covers them all, including stopped tasks. All
viewers share one cached tail of the newest lines, so CloudWatch is read at most once per FRESH_SECONDS. A request reads
one page of lines. If none of them matches, it returns no lines and a cursor to continue from.
"""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.utils import timezone

from portal import soft_cache
from portal.aws import logs
from portal.aws.bulkhead import REFUSED, call_shared
from portal.aws.errors import AwsError, summarize_error
from portal.cloudwatch.log_lines import read_line
from portal.cloudwatch.reads import ReadLimit, describe_too_many
from portal.cloudwatch.source import Source
from portal.errors import PortalError
from portal.models import User

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FRESH_SECONDS = 3
CACHE_SECONDS = 60 * 60
READING_SECONDS = 10  # after this long, another request may start its own read
TAIL_LINES, TAIL_CHARACTERS = 1000, 1_000_000
SHORT_SPAN_MS = 15 * 60 * 1000
# Docker splits longer lines (moby, daemon/logger/copier.go). The pieces follow each other immediately.
PIECE_BYTES, PIECES_WITHIN_MS = 16 * 1024, 1000
DEFAULT_LIMIT, MAX_LIMIT = 100, 500
# Requests with ends near each other share a read, which ends at the next full step (milliseconds). If too many lines lie
# between the end and that step, the next finer step is read.
STEPS_MS = (60_000, 1_000, 1)
EARLIER_READS = ReadLimit("earlier-log-reads")


@dataclass(frozen=True)
class LogLine:
    """One log line.

    `node_id` is the task. `extra_data` holds the other fields of a JSON line. `cut` is true if the line was truncated.
    `ingested_at`: when CloudWatch received it; None in a reading of the previous release. `is_wrapped`: the message is
    a line of text, and the other fields are those of a log router.
    """

    id: str
    timestamp: datetime
    level: str | None
    message: str
    node_id: str
    extra_data: dict[str, Any] | None
    cut: bool
    ingested_at: datetime | None = None
    is_wrapped: bool = False


@dataclass(frozen=True)
class LogPage:
    """A page of lines, newest first. `next_cursor` continues with older lines.

    If `error` is set, the lines are as of `read_at`. `read_at` is None if nothing was ever read. `note` says why there
    can be no lines.
    """

    items: list[LogLine]
    read_at: datetime | None
    next_cursor: str | None = None
    error: str | None = None
    note: str | None = None

    @property
    def has_more(self) -> bool:
        return self.next_cursor is not None


class Position(NamedTuple):
    """A place in the log, in the order of the lines: milliseconds, then the id of a line or "" before all of them."""

    at: int
    id: str = ""


@dataclass(frozen=True)
class Walk:
    """The result of reading backwards: lines (plain dicts, newest first), complete from `reached` (milliseconds) on."""

    lines: list[dict[str, Any]]
    reached: int
    began: int
    read_at: datetime


def read_logs(
    source: Source,
    *,
    limit: int = DEFAULT_LIMIT,
    skip: int = 0,
    level: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    q: str | None = None,
    node_id: str | None = None,
    cursor: str | None = None,
    reader: User | None = None,
) -> LogPage:
    """Return the newest matching lines before `cursor` or `until` (exclusive) and not older than `since` (inclusive).

    `skip`: so many of the lines that were read are left out before the first.
    `level` is one of log_lines.LEVELS. `q` is text to find in the message or the JSON fields, ignoring case. `node_id` is
    a task. AWS errors are not raised: `error` says what went wrong, and the lines are the last that were read. `reader`
    is the person for whom earlier lines are read.

    *Raises* PortalError 400 `bad_cursor`, 429 `too_many_log_reads`.
    *Costs* usually one FilterLogEvents call; none while the cached read is fresh.
    """
    end = find_end(cursor, until)
    if source.log_group is None:
        return LogPage([], read_at=timezone.now(), note=source.note)
    walk, error = read_walk_to(source, end, reader)
    if walk is None:
        return LogPage([], read_at=None, error=error)
    oldest = milliseconds(since) if since else walk.began
    in_range = (line for line in walk.lines if line["at"] >= oldest and (end is None or get_position(line) < end))
    found = [line for line in in_range if matches(line, level=level, node_id=node_id, q=q)]
    next_cursor = None
    if len(found) > skip + limit:
        next_cursor = write_cursor(get_position(found[skip + limit - 1]))
    elif walk.reached > oldest:
        next_cursor = write_cursor(Position(walk.reached))
    return LogPage([as_line(line) for line in found[skip : skip + limit]], walk.read_at, next_cursor, error)


def find_end(cursor: str | None, until: datetime | None) -> Position | None:
    """Return the position that the page ends before. None: it ends now."""
    ends = [read_cursor(cursor)] if cursor else []
    if until is not None:
        ends.append(Position(milliseconds(until)))
    return min(ends, default=None)


def read_cursor(cursor: str) -> Position:
    """Return the position to continue before. *Raises* PortalError 400 `bad_cursor`."""
    at, separator, line_id = cursor.partition(":")
    if not separator or not at.isascii() or not at.isdigit() or len(at) > 16:
        raise PortalError("bad_cursor", "Pass next_cursor of an earlier response as cursor, unchanged.", 400)
    return Position(int(at), line_id)


def write_cursor(position: Position) -> str:
    return f"{position.at}:{position.id}"


def write_cursor_before(line: LogLine) -> str:
    """Return the cursor that continues with the lines before this one."""
    return write_cursor(Position(milliseconds(line.timestamp), line.id))


def get_position(line: dict[str, Any]) -> Position:
    return Position(line["at"], line["id"])


def matches(line: dict[str, Any], *, level: str | None, node_id: str | None, q: str | None) -> bool:
    return (
        (level is None or line["level"] == level)
        and (node_id is None or line["node_id"] == node_id)
        and (not q or contains(line, q.casefold()))
    )


def contains(line: dict[str, Any], text: str) -> bool:
    if text in line["message"].casefold():
        return True
    return line["extra_data"] is not None and text in str(line["extra_data"]).casefold()


def as_line(line: dict[str, Any]) -> LogLine:
    others = {name: value for name, value in line.items() if name not in ("at", "ingested")}
    return LogLine(timestamp=as_time(line["at"]), ingested_at=as_time(line.get("ingested", line["at"])), **others)


def as_time(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, tz=UTC)


# --- reading through the cache ----------------------------------------------------------------------------------------


def read_walk_to(source: Source, end: Position | None, reader: User | None) -> tuple[Walk | None, str | None]:
    """Return a read that reaches lines before `end` (None: now), and an error.

    The read ends at a full step after `end`, so that nobody can cause many reads with ends that differ little. The caller
    leaves out what lies after `end`.
    """
    if end is None or end.at >= milliseconds(timezone.now()):
        return read_walk(source, None, reader)
    walk, error = None, None
    for step in STEPS_MS:
        walk, error = read_walk(source, -(-end.at // step) * step, reader)
        if walk is None or walk.reached < end.at or any(get_position(line) < end for line in walk.lines):
            break
    return walk, error


def read_walk(source: Source, end: int | None, reader: User | None) -> tuple[Walk | None, str | None]:
    """Return the lines before `end` (None: now) and an error, from the cache while it is fresh.

    If AWS fails or is silent, returns the last good read, or None, together with the error.
    """
    key = f"logs:{source.key}:{'tail' if end is None else end}"
    kept = soft_cache.read_as(key, lambda fields: Walk(**fields))
    fresh = soft_cache.read(f"{key}:fresh")
    if fresh is not None and (kept or fresh):
        return kept, fresh or None
    if kept and not soft_cache.add(f"{key}:reading", seconds=READING_SECONDS):
        return kept, None  # another request is reading now; this copy is seconds old
    if end is not None and (wait := EARLIER_READS.spend(reader)):
        sentence = describe_too_many("earlier log lines", wait)
        raise PortalError("too_many_log_reads", sentence, 429, retry_after=wait, limit=EARLIER_READS)
    try:
        read = partial(read_and_cache, key, source, end)
        return call_shared(source.target, "logs:FilterLogEvents", key, read), None
    except AwsError as error:
        if error.code in REFUSED:
            soft_cache.delete(f"{key}:reading")
        return kept, summarize_error(error)


def read_and_cache(key: str, source: Source, end: int | None) -> Walk:
    """Read the lines and cache them, even if the caller no longer waits. A failure is cached too. *Raises* AwsError."""
    try:
        walk = walk_back(source, end)
    except AwsError as error:
        soft_cache.write(f"{key}:fresh", summarize_error(error), seconds=FRESH_SECONDS)
        raise
    finally:
        soft_cache.delete(f"{key}:reading")
    soft_cache.write(key, asdict(walk), seconds=CACHE_SECONDS if end is None else 10 * FRESH_SECONDS)
    soft_cache.write(f"{key}:fresh", "", seconds=FRESH_SECONDS)
    return walk


def walk_back(source: Source, end: int | None) -> Walk:
    """Read the newest lines before `end` (None: now).

    *Raises* AwsError.
    *Costs* usually one call.
    """
    read_at = timezone.now()
    began = milliseconds(source.began) - 60_000
    upper = milliseconds(read_at) + 60_000 if end is None else end  # the tasks' clocks may be ahead
    reading = read_span(source, began, upper)
    start = began
    if not reading.events and not reading.is_complete:
        # CloudWatch did not finish searching this span. Read a shorter one; the next page continues from there.
        start = max(began, upper - SHORT_SPAN_MS)
        reading = read_span(source, start, upper)
    lines: list[dict[str, Any]] = []
    characters = 0
    for event in join_pieces(reading.events):
        characters += len(event.message)
        if characters > TAIL_CHARACTERS and lines and event.at < lines[-1]["at"]:
            return Walk(lines, int(lines[-1]["at"]), began, read_at)
        own = {
            "id": event.id,
            "at": event.at,
            "ingested": event.ingested_at,
            "node_id": event.stream.rpartition("/")[2],
        }
        lines.append(own | read_line(event.message))
    if reading.is_complete or not lines:
        return Walk(lines, start, began, read_at)
    # Some lines of the oldest millisecond may be missing, so leave them to the next page.
    whole = [line for line in lines if line["at"] > lines[-1]["at"]] or lines
    return Walk(whole, int(whole[-1]["at"]), began, read_at)


def join_pieces(events: list[logs.LogEvent]) -> list[logs.LogEvent]:
    """Return the lines, newest first, with those whole that Docker splits: each piece of PIECE_BYTES is an event."""
    joined: list[logs.LogEvent | None] = []
    newer: dict[str, int] = {}  # by stream: the place of the event that came next
    for event in events:
        place = newer.get(event.stream)
        rest = joined[place] if place is not None else None
        # A character that was split as well stands there as two marks of three bytes.
        is_piece = PIECE_BYTES <= len(event.message.encode()) <= PIECE_BYTES + 6
        if is_piece and place is not None and rest is not None and rest.at - event.at <= PIECES_WITHIN_MS:
            joined[place] = None
            event = replace(event, message=event.message + rest.message, ingested_at=rest.ingested_at)
        newer[event.stream] = len(joined)
        joined.append(event)
    return [event for event in joined if event is not None]


def read_span(source: Source, start: int, end: int) -> logs.LogReading:
    return logs.newest_events(
        source.target,
        str(source.log_group),
        stream_prefix=source.stream_prefix,
        start=start,
        end=end,
        most=TAIL_LINES,
    )


def milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)
