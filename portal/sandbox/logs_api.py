"""The CloudWatch Logs actions: lines of tasks, generated on demand, merged with lines from PutLogEvents in moto.

Groups and streams live in moto; a task's group and stream are created there when a call needs them. For order, limits
and tokens see https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html and others.
"""

import base64
import binascii
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from portal.sandbox import moto_state
from portal.sandbox.engine import Engine
from portal.sandbox.errors import AwsError
from portal.sandbox.log_lines import INGESTED_AFTER_MS, Line, Stream, lines
from portal.sandbox.log_patterns import compile_pattern
from portal.sandbox.partitions import partition
from portal.sandbox.protocol import ApiRequest
from portal.sandbox.records import Service, Task

Json = dict[str, Any]
Position = tuple[int, str, int]

MAX_EVENTS, MAX_BYTES, MAX_STREAMS = 10_000, 1_000_000, 50
LINES_READ_PER_CALL = 5_000
LINES_KEPT_MS = 7 * 86_400_000
OLDEST_PUT_MS, NEWEST_PUT_MS = 14 * 86_400_000, 7_200_000
FIRST_NEWEST_FIRST_MS = 1_704_067_200_000  # 2024-01-01: FilterLogEvents, startFromHead


class LogsApi:
    """CloudWatch Logs' actions by name, with the engine's tasks as log streams."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.actions: dict[str, Callable[[ApiRequest], Json]] = {
            "FilterLogEvents": self.filter_log_events,
            "GetLogEvents": self.get_log_events,
            "DescribeLogStreams": self.describe_log_streams,
            "PutLogEvents": self.put_log_events,
        }

    def filter_log_events(self, request: ApiRequest) -> Json:
        """Return one page of the lines of all streams. It may be short or empty although there are more pages."""
        params = request.params
        group, streams = self._group(request)
        names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
        if names and prefix:
            raise invalid("logStreamNames and logStreamNamePrefix cannot be specified together.")
        limit = read_limit(params, most=MAX_EVENTS)
        matches = compile_pattern(str(params.get("filterPattern") or ""))
        since, until = int(params.get("startTime") or 0), params.get("endTime")
        newest_first = params.get("startFromHead") is False
        after = None
        if params.get("nextToken"):
            newest_first, after = read_token(params["nextToken"])
        elif newest_first and since < FIRST_NEWEST_FIRST_MS:
            raise invalid("startFromHead can be false only with a startTime on or after 2024-01-01.")
        known = moto_state.log_streams(request.account, request.region, group)
        if names and set(names) - set(known):
            raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
        wanted = [name for name in known if name.startswith(prefix or "") and (not names or name in names)]
        chosen = {name: streams.get(name) for name in wanted}
        source = self._merged(request, group, chosen, since, until, newest_first=newest_first, after=after)
        page, position = read_page(source, limit, matches)
        token = write_token(position, newest_first=newest_first) if position else None
        events = [
            {
                "logStreamName": line.stream,
                "timestamp": line.timestamp,
                "message": line.message,
                "ingestionTime": line.ingested_ms,
                "eventId": line.event_id,
            }
            for line in page
        ]
        return {"events": events, "searchedLogStreams": [], **({"nextToken": token} if token else {})}

    def get_log_events(self, request: ApiRequest) -> Json:
        """Return one page of one stream, oldest first in both directions. At the end the token does not change."""
        params = request.params
        group, streams = self._group(request)
        name = str(params.get("logStreamName") or "")
        limit = read_limit(params, most=MAX_EVENTS)
        since, until = int(params.get("startTime") or 0), params.get("endTime")
        until = int(until) - 1 if until is not None else None
        backward, after = not params.get("startFromHead"), None
        if params.get("nextToken"):
            backward, after = read_token(params["nextToken"])
            if not backward and params.get("startFromHead") is False:
                raise invalid("startFromHead must be true with a nextForwardToken.")
        if name not in moto_state.log_streams(request.account, request.region, group):
            raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
        chosen = {name: streams.get(name)}
        source = self._merged(request, group, chosen, since, until, newest_first=backward, after=after)
        page, _ = read_page(source, limit, compile_pattern(""))
        page.sort()
        first = get_position(page[0]) if page else after or (since, "", 0)
        last = get_position(page[-1]) if page else after or (since, "", 0)
        events = [
            {
                "timestamp": line.timestamp,
                "message": line.message,
                "ingestionTime": line.ingested_ms,
            }
            for line in page
        ]
        return {
            "events": events,
            "nextForwardToken": write_token(last, newest_first=False),
            "nextBackwardToken": write_token(first, newest_first=True),
        }

    def describe_log_streams(self, request: ApiRequest) -> Json:
        params = request.params
        group, found = self._group(request)
        limit = read_limit(params, most=MAX_STREAMS)
        prefix, order = params.get("logStreamNamePrefix") or "", params.get("orderBy") or "LogStreamName"
        if prefix and order == "LastEventTime":
            raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        known = moto_state.log_streams(request.account, request.region, group)
        streams = [self._describe(request, group, name, found.get(name)) for name in known if name.startswith(prefix)]
        by_name = order == "LogStreamName"
        streams.sort(
            key=lambda each: (0 if by_name else each.get("lastEventTimestamp", 0), each["logStreamName"]),
            reverse=bool(params.get("descending")),
        )
        start = 0
        if params.get("nextToken"):
            _, (start, _, _) = read_token(params["nextToken"])
        token = write_token((start + limit, "", 0), newest_first=False) if start + limit < len(streams) else None
        return {"logStreams": streams[start : start + limit], **({"nextToken": token} if token else {})}

    def put_log_events(self, request: ApiRequest) -> Json:
        """Put lines into a stream. Rejects lines that are too old or too new by the sandbox clock instead of moto's."""
        params = request.params
        group, _ = self._group(request)
        name, events = str(params.get("logStreamName") or ""), list(params.get("logEvents") or [])
        if name not in moto_state.log_streams(request.account, request.region, group):
            raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
        times = [int(event["timestamp"]) for event in events]
        if times != sorted(times):
            raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
        now = int(self.engine.now() * 1000)
        old = sum(at < now - OLDEST_PUT_MS for at in times)
        new = sum(at > now + NEWEST_PUT_MS for at in times)
        taken = events[old : len(events) - new]
        if taken:
            moto_state.put_log_events(request.account, request.region, group, name, taken, now)
        rejected = {"tooOldLogEventEndIndex": old} if old else {}
        rejected |= {"tooNewLogEventStartIndex": len(events) - new} if new else {}
        return {"nextSequenceToken": "1", **({"rejectedLogEventsInfo": rejected} if rejected else {})}

    # Handled by moto

    def prepare_for_moto(self, request: ApiRequest) -> None:
        """Create the groups and streams of all tasks in moto, so that its own actions see them."""
        for group in sorted({group for group, _ in self._services(request)}):
            self._streams(request, group)

    def after_moto(self, request: ApiRequest) -> None:
        """Drop the lines of a deleted group or stream. The tasks that wrote to it have no log from then on."""
        if request.action not in ("DeleteLogGroup", "DeleteLogStream"):
            return
        group, name = str(request.params.get("logGroupName")), request.params.get("logStreamName")
        for service, task, stream in self._lives(request, group):
            if name in (None, stream.name):
                task.logs_lost = True
                service.changes += 1

    # Shared

    def _group(self, request: ApiRequest) -> tuple[str, dict[str, Stream]]:
        """Return the group's name and the streams of tasks in it. Raises ResourceNotFoundException."""
        params = request.params
        name, identifier = params.get("logGroupName"), params.get("logGroupIdentifier")
        if bool(name) == bool(identifier):
            raise invalid("Exactly one of logGroupName and logGroupIdentifier must be specified.")
        group = str(name or identifier).removesuffix(":*").rpartition(":log-group:")[2]
        streams = self._streams(request, group)
        if not moto_state.has_log_group(request.account, request.region, group):
            raise AwsError("ResourceNotFoundException", "The specified log group does not exist.")
        return group, streams

    def _services(self, request: ApiRequest) -> Iterator[tuple[str, Service]]:
        """Yield (log group, service) for the services of the caller's account that log to the call's region."""
        for service in list(self.engine.services.values()):
            if service.key.account == request.account:
                groups = {
                    options["awslogs-group"]
                    for revision in service.revisions.values()
                    for options in map(log_options, revision.containers)
                    if options.get("awslogs-group") and get_region(options, service) == request.region
                }
                yield from ((group, service) for group in groups)

    def _lives(self, request: ApiRequest, group: str) -> Iterator[tuple[Service, Task, Stream]]:
        for found, service in self._services(request):
            if found == group:
                self.engine.get(service.key)
                yield from find_task_streams(service, request.region, group)

    def _streams(self, request: ApiRequest, group: str) -> dict[str, Stream]:
        """Return the task streams of a group by name, and create new ones in moto."""
        found = {}
        for _, _, stream in self._lives(request, group):
            moto_state.ensure_log_stream(request.account, request.region, group, stream.name, stream.started_ms)
            found[stream.name] = stream
        return found

    def _merged(
        self,
        request: ApiRequest,
        group: str,
        streams: dict[str, Stream | None],
        since: int,
        until: Any,
        *,
        newest_first: bool,
        after: Position | None,
    ) -> Iterator[Line]:
        """Yield the lines of all named streams in one order, starting after a position."""
        now = int(self.engine.now() * 1000)
        last = min(now, int(until)) if until is not None else now
        first = max(since, now - LINES_KEPT_MS)
        if after:
            first, last = (first, min(last, after[0])) if newest_first else (max(first, after[0]), last)
        sources: list[Iterable[Line]] = [
            lines(stream, since=first, until=last, newest_first=newest_first) for stream in streams.values() if stream
        ]
        # Lines from PutLogEvents may be newer than the sandbox clock. They are returned too.
        put_until = int(until) if until is not None else None
        for name in streams:
            put = moto_state.put_log_lines(request.account, request.region, group, name)
            if put:
                kept = [line for line in put if line.timestamp >= since]
                kept = [line for line in kept if put_until is None or line.timestamp <= put_until]
                sources.append(sorted(kept, reverse=newest_first))
        for line in heapq.merge(*sources, reverse=newest_first):
            if after is None or (get_position(line) < after if newest_first else get_position(line) > after):
                yield line

    def _describe(self, request: ApiRequest, group: str, name: str, stream: Stream | None) -> Json:
        put = moto_state.put_log_lines(request.account, request.region, group, name)
        times = [line.timestamp for line in put]
        now = int(self.engine.now() * 1000)
        if stream:
            newest = next(lines(stream, since=0, until=now, newest_first=True), None)
            times += [stream.started_ms] + ([newest.timestamp] if newest else [])
        place = f"{partition(request.region)}:logs:{request.region}:{request.account}"
        arn = f"arn:{place}:log-group:{group}:log-stream:{name}"
        created = stream.started_ms if stream else min(times, default=now)
        described: Json = {"logStreamName": name, "arn": arn, "creationTime": created, "storedBytes": 0}
        if times:
            described["firstEventTimestamp"], described["lastEventTimestamp"] = min(times), max(times)
            described["lastIngestionTime"] = max(times) + INGESTED_AFTER_MS
            described["uploadSequenceToken"] = "1"
        return described


def read_page(source: Iterator[Line], limit: int, matches: Callable[[str], bool]) -> tuple[list[Line], Position | None]:
    """Return the matching lines of one page, and the position to continue from if there are more."""
    page: list[Line] = []
    read = size = 0
    position = None
    for line in source:
        is_full = len(page) >= limit or read >= LINES_READ_PER_CALL
        if is_full or (page and size + len(line.message.encode()) > MAX_BYTES):
            return page, position
        read, position = read + 1, get_position(line)
        if matches(line.message):
            page.append(line)
            size += len(line.message.encode())
    return page, None


def get_position(line: Line) -> Position:
    return line.timestamp, line.stream, line.number


def write_token(position: Position, *, newest_first: bool) -> str:
    """Return an opaque token that contains its direction: `f/` or `b/`, like the tokens of GetLogEvents."""
    text = base64.urlsafe_b64encode(json.dumps(position).encode()).decode()
    return f"{'b' if newest_first else 'f'}/{text}"


def read_token(token: Any) -> tuple[bool, Position]:
    direction, _, text = str(token).partition("/")
    try:
        at, stream, number = json.loads(base64.urlsafe_b64decode(text.encode()))
        return {"b": True, "f": False}[direction], (int(at), str(stream), int(number))
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise invalid("The specified nextToken is invalid.") from error


def read_limit(params: Json, *, most: int) -> int:
    limit = params.get("limit")
    if limit is None:
        return most
    if not 1 <= int(limit) <= most:
        bound = f"less than or equal to {most}" if int(limit) > most else "greater than or equal to 1"
        raise invalid(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            f"Member must have value {bound}"
        )
    return int(limit)


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def log_options(container: Json) -> Json:
    """Return the options of a container's awslogs driver, or an empty dictionary if it has none."""
    configuration = container.get("logConfiguration") or {}
    return dict(configuration.get("options") or {}) if configuration.get("logDriver") == "awslogs" else {}


def get_region(options: Json, service: Service) -> str:
    return str(options.get("awslogs-region") or service.key.region)


def find_task_streams(service: Service, region: str, group: str) -> Iterator[tuple[Service, Task, Stream]]:
    """Yield the streams of the service's started tasks that log to this group in this region."""
    for task in (*service.past_tasks, *service.tasks):
        if task.started_at is None or task.logs_lost:
            continue
        for container in service.revisions[task.revision_arn].containers:
            options = log_options(container)
            if options.get("awslogs-group") == group and get_region(options, service) == region:
                yield service, task, build_stream(task, container, group)


def build_stream(task: Task, container: Json, group: str) -> Stream:
    prefix = log_options(container).get("awslogs-stream-prefix")
    return Stream(
        group=group,
        name=f"{prefix}/{container['name']}/{task.id}" if prefix else task.id,
        task_id=task.id,
        container=container["name"],
        image=container["image"],
        started_ms=int((task.started_at or 0) * 1000),
        stopping_ms=int(task.stopping_at * 1000) if task.stopping_at is not None else None,
        has_crashed=container["name"] in task.exit_codes,
        exit_code=task.exit_codes.get(container["name"], task.exit_code or 0),
    )
