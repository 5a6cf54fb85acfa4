"""Builds the logs region of a page from the shared reading of CloudWatch Logs: records, oldest first.

AWS errors are not raised. The region shows them as a sentence, with the last lines that were read and their time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import QueryDict

from portal.cloudwatch.log_lines import LEVELS
from portal.cloudwatch.logs import TAIL_LINES, LogPage, read_logs, write_cursor_before
from portal.cloudwatch.records import Record, count_levels, group_lines
from portal.cloudwatch.source import Source
from portal.errors import PortalError
from portal.models import User
from portal.web.observe.time_window import Window, moment

RECORDS_SHOWN = 200
# CloudWatch may return a line some seconds after its ingestion time.
INDEXING = timedelta(seconds=15)
# A follower's record may go on with lines that arrive later.
BEFORE_NEWER = timedelta(minutes=15)
MAX_TEXT = 200
OLDEST_FIRST, NEWEST_FIRST = "oldest", "newest"


@dataclass(frozen=True)
class Filters:
    """What the person asked for. `level` is the lowest level shown; empty: any, also lines without a level."""

    q: str
    level: str
    task: str

    def __bool__(self) -> bool:
        return bool(self.q or self.level or self.task)

    def choose(self, records: list[Record], *, level: str | None = None) -> list[Record]:
        """Return the records that match. `level` replaces the filter's own; empty: any."""
        wanted = self.level if level is None else level
        asked: dict[str, Any] = {"level": wanted or None, "node_id": self.task or None, "q": self.q or None}
        return [record for record in records if record.matches(**asked)]


@dataclass(frozen=True)
class Logs:
    """The records to show, in the chosen order. `after`: the ingestion time from which a follower continues."""

    records: list[Record]
    filters: Filters
    order: str
    line: str
    levels: list[tuple[str, int]]
    tasks: list[str]
    is_following: bool
    is_line_missing: bool
    next_cursor: str | None
    read_at: datetime | None
    error: str | None
    note: str | None
    after: str

    @property
    def is_newest_first(self) -> bool:
        return self.order == NEWEST_FIRST


def build_logs(query: QueryDict, source: Source, window: Window, *, reader: User) -> Logs:
    """Build the newest matching records of the window, with counts of levels and the tasks of the same reading.

    A record that begins before the reading lacks its first lines.
    """
    page = read_page(query, source, window, reader)
    filters = read_filters(query)
    everything = group_lines(reversed(page.items))
    matching = filters.choose(everything)
    shown, next_cursor = matching, page.next_cursor
    if len(matching) > RECORDS_SHOWN:
        shown = matching[-RECORDS_SHOWN:]
        next_cursor = write_cursor_before(shown[0].lines[0])
    order = NEWEST_FIRST if query.get("order") == NEWEST_FIRST else OLDEST_FIRST
    line = query.get("line", "")
    return Logs(
        records=shown[::-1] if order == NEWEST_FIRST else shown,
        filters=filters,
        order=order,
        line=line,
        levels=count_levels(filters.choose(everything, level="")),
        tasks=sorted({record.node_id for record in everything} | ({filters.task} - {""})),
        is_following="follow" in query and window.is_live,
        is_line_missing=bool(line) and all(record.id != line for record in shown),
        next_cursor=next_cursor,
        read_at=page.read_at,
        error=page.error,
        note=page.note,
        after=exact(max((record.ingested_at for record in everything), default=window.until)),
    )


def build_poll(query: QueryDict, source: Source, window: Window) -> dict[str, Any]:
    """Build the context with a follower's newer records and the time to continue from."""
    after = moment(query.get("after")) or window.until
    newer, until = newer_records(query, source, after)
    return {"logs": {"after": exact(until), "filters": read_filters(query)}, "newer": newer}


def newer_records(query: QueryDict, source: Source, after: datetime) -> tuple[list[Record], datetime]:
    """Return the records with a line that CloudWatch received after `after`, and until when that is complete.

    Such a line may be long past, if a task sent it late. deployments.js knows which records it shows already.
    """
    page = read_logs(source, limit=TAIL_LINES, since=after - BEFORE_NEWER)
    records = group_lines(reversed(page.items))
    newest = max((record.ingested_at for record in records), default=after)
    fresh = [record for record in records if record.ingested_at > after - INDEXING]
    return read_filters(query).choose(fresh), max(newest, after)


def read_page(query: QueryDict, source: Source, window: Window, reader: User) -> LogPage:
    """Return one reading of lines; if the person reads too often, an empty one that says so."""
    # A live window has no end, so that all its viewers share one cached tail.
    until = None if window.is_live else window.until
    cursor = query.get("cursor") or None
    try:
        return read_logs(source, limit=TAIL_LINES, since=window.since, until=until, cursor=cursor, reader=reader)
    except PortalError as error:
        if error.status != 429:
            raise
        return LogPage([], read_at=None, error=error.message)


def read_filters(query: QueryDict) -> Filters:
    level = query.get("level", "").upper()
    return Filters(
        q=query.get("q", "")[:MAX_TEXT],
        level=level if level in LEVELS else "",
        task=query.get("task", "")[:MAX_TEXT],
    )


def as_text_lines(records: list[Record]) -> Iterator[str]:
    """Yield records as a terminal would show them: time, level, task, message and fields."""
    for record in records:
        words = [
            exact(record.timestamp),
            f"{record.level or '-':8}",
            record.node_id,
            record.message,
            record.fields_text,
        ]
        yield " ".join(word for word in words if word) + "\n"


def exact(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
