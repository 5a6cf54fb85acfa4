"""The last error in the logs of a service that failed, for a page that names it beside the reason of ECS."""

from datetime import UTC, datetime, timedelta
from functools import partial

from portal import soft_cache
from portal.aws.bulkhead import begin_shared
from portal.aws.errors import AwsError, AwsUnavailable
from portal.cloudwatch.logs import as_line, milliseconds, walk_back
from portal.cloudwatch.records import Record, group_lines
from portal.cloudwatch.source import Source

# The logs of a service that has failed rarely change. A failed read is tried again sooner.
KEPT_SECONDS, FAILED_SECONDS = 600, 30
BEFORE, AFTER = timedelta(minutes=30), timedelta(minutes=1)
LONGEST = 300


def read_last_error(source: Source, failed_at: datetime) -> str | None:
    """Return the last error that the service's tasks logged before it failed; empty if none is known; None: not read yet.

    Never waits for AWS: the first caller begins the read, and the page shows the line when it asks again.
    *Costs* at most one FilterLogEvents call in KEPT_SECONDS, for all viewers.
    """
    key = build_key(source.key, failed_at)
    kept = soft_cache.read(key)
    if kept is not None:
        return str(kept)
    if source.log_group is None:
        soft_cache.write(key, "", seconds=KEPT_SECONDS)
        return ""
    try:
        begin_shared(source.target, "logs:FilterLogEvents", key, partial(find_and_keep, key, source, failed_at))
    except AwsUnavailable:  # AWS is silent
        return ""
    return None


def read_known_errors(failed: list[tuple[str, datetime]]) -> list[str] | None:
    """Return what read_last_error would return for these services, by `Source.key` and time; None if one is not known.

    Makes no AWS call. *Costs* one command of Redis.
    """
    keys = [build_key(source_key, failed_at) for source_key, failed_at in failed]
    known = soft_cache.read_many(keys) if keys else {}
    return [str(known[key]) for key in keys] if len(known) == len(keys) else None


def build_key(source_key: str, failed_at: datetime) -> str:
    return soft_cache.build_key("last-error", source_key, failed_at.astimezone(UTC).isoformat())


def find_and_keep(key: str, source: Source, failed_at: datetime) -> None:
    """Read the log and keep the line that read_last_error returns. *Raises* AwsError."""
    try:
        walk = walk_back(source, milliseconds(failed_at + AFTER))
    except AwsError:
        soft_cache.write(key, "", seconds=FAILED_SECONDS)
        raise
    since = milliseconds(failed_at - BEFORE)
    lines = [as_line(line) for line in reversed(walk.lines) if line["at"] >= since]
    soft_cache.write(key, choose_error(group_lines(lines)), seconds=KEPT_SECONDS)


def choose_error(records: list[Record]) -> str:
    """Return what the newest stack trace among the errors says, else what the newest error says; empty if there is none.

    A process often logs after its stack trace that it exits, which says nothing about the cause.
    """
    errors = [record for record in records if record.matches(level="ERROR", node_id=None, q=None)]
    if not errors:
        return ""
    chosen = ([record for record in errors if record.has_trace or record.trace_error] or errors)[-1]
    text, cause = chosen.conclusion, chosen.cause
    return (f"{text}: {cause}" if cause and cause not in text else text)[:LONGEST]
