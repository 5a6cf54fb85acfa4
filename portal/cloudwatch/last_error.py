"""The last error in the logs of a service that failed, for a page that names it beside the reason of ECS."""

from datetime import datetime, timedelta

from django.utils import timezone

from portal import soft_cache
from portal.cloudwatch.logs import TAIL_LINES, read_logs
from portal.cloudwatch.records import Record, group_lines
from portal.cloudwatch.source import Source

# The logs of a service that has failed rarely change. A failed read is tried again sooner.
KEPT_SECONDS, FAILED_SECONDS = 600, 30
BEFORE, AFTER = timedelta(minutes=30), timedelta(minutes=1)
LONGEST = 300


def read_last_error(source: Source, failed_at: datetime) -> str | None:
    """Return the last error that the service's tasks logged before it failed; None if there is none or AWS is silent.

    *Costs* at most one read of read_logs in KEPT_SECONDS, for all viewers.
    """
    key = soft_cache.build_key("last-error", source.key, failed_at.isoformat())
    kept = soft_cache.read(key)
    if kept is not None:
        return str(kept) or None
    until = failed_at + AFTER
    page = read_logs(
        source,
        limit=TAIL_LINES,
        since=failed_at - BEFORE,
        until=until if until < timezone.now() else None,
    )
    found = choose_error(group_lines(reversed(page.items)))
    soft_cache.write(key, found, seconds=FAILED_SECONDS if page.error else KEPT_SECONDS)
    return found or None


def choose_error(records: list[Record]) -> str:
    """Return the conclusion of the newest stack trace among the errors, else the newest error; empty if there is none.

    A process often logs after its stack trace that it exits, which says nothing about the cause.
    """
    errors = [record for record in records if record.matches(level="ERROR", node_id=None, q=None)]
    traces = [record for record in errors if len(record.lines) > 1]
    if traces:
        return traces[-1].conclusion[:LONGEST]
    return errors[-1].first_line[:LONGEST] if errors else ""
