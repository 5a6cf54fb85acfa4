"""Amazon CloudWatch Logs: reads the newest lines of all streams with a common prefix.

FilterLogEvents is limited to about five calls a second per account and region
(docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html), so callers share and cache the results.
"""

from dataclasses import dataclass
from typing import Any

from portal.aws.credentials import AwsTarget, live_client
from portal.aws.errors import AwsRefused, complete, need, translated
from portal.aws.permissions import Scope, Use

PAGES_PER_READ = 3
# FilterLogEvents can list the newest lines first only from 2024-01-01 on. The portal has no older logs.
NEWEST_FIRST_SINCE = 1_704_067_200_000


@dataclass(frozen=True)
class LogEvent:
    """One line. Times are in milliseconds since the epoch; `id` orders lines within one millisecond.

    `ingested_at`: when CloudWatch received it, which may be long after it was written.
    """

    id: str
    at: int
    stream: str
    message: str
    ingested_at: int


@dataclass(frozen=True)
class LogReading:
    """The lines of a time range, newest first. Incomplete if there were too many to read; then the oldest are missing."""

    events: list[LogEvent]
    is_complete: bool


def newest_events(target: AwsTarget, group: str, *, stream_prefix: str, start: int, end: int, most: int) -> LogReading:
    """Read about `most` of the newest lines from `start` to `end` (milliseconds, both included).

    A group that does not exist yet has no lines.
    *Costs* usually one call, at most PAGES_PER_READ: CloudWatch may return short or empty pages before the last one.
    *Raises* AwsError.
    """
    events: list[LogEvent] = []
    token: dict[str, Any] = {}
    scope = Scope(Use.LOGS, log_group=group)
    for _ in range(PAGES_PER_READ):
        try:
            with translated("logs:FilterLogEvents"):
                reply = live_client(target, "logs", scope=scope).filter_log_events(
                    logGroupName=group,
                    logStreamNamePrefix=stream_prefix,
                    startTime=max(start, NEWEST_FIRST_SINCE),
                    endTime=max(end, NEWEST_FIRST_SINCE) + 1,
                    startFromHead=False,
                    limit=most,
                    **token,
                )
        except AwsRefused as error:
            if error.code == "ResourceNotFoundException":
                return LogReading([], is_complete=True)
            raise
        with complete("logs:FilterLogEvents"):
            events += [_event(raw) for raw in reply["events"]]
        token = {"nextToken": reply["nextToken"]} if reply.get("nextToken") else {}
        if not token or len(events) >= most:
            break
    return LogReading(_newest_first(events, stream_prefix, start, end), is_complete=not token)


def _event(raw: dict[str, Any]) -> LogEvent:
    """Convert a line. An empty message is a line as well."""
    return LogEvent(
        id=need(raw, "eventId"),
        at=raw["timestamp"],
        stream=need(raw, "logStreamName"),
        message=raw["message"],
        ingested_at=raw.get("ingestionTime") or raw["timestamp"],
    )


def _newest_first(events: list[LogEvent], prefix: str, start: int, end: int) -> list[LogEvent]:
    matching = [event for event in events if event.stream.startswith(prefix) and start <= event.at <= end]
    return sorted(matching, key=lambda event: (event.at, event.id), reverse=True)
