"""CloudWatch Logs of tasks: generated lines, paged reads and deleted groups."""

import json
import uuid
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError

from portal.sandbox.log_patterns import compile_pattern
from tests.local_aws import LocalAws
from tests.sandbox.conftest import Ecs

Json = dict[str, Any]


class Place:
    """One seeded service, its log group and a client of CloudWatch Logs."""

    def __init__(self, aws: LocalAws, **body: Any) -> None:
        self.aws, self.cluster = aws, f"c-{uuid.uuid4().hex[:8]}"
        self.group = f"/ecs/{self.cluster}/app"
        self.service = {"name": "web", "family": f"{self.cluster}-app", "desired_count": 2, **body}
        aws.seed(cluster=self.cluster, services=[self.service])
        self.logs, self.ecs = aws.client("logs"), aws.client()

    def now(self) -> int:
        return int(self.aws.now() * 1000)

    def read(self, **options: Any) -> list[Json]:
        """Read all pages of FilterLogEvents."""
        found = []
        while True:
            page = self.logs.filter_log_events(logGroupName=self.group, **options)
            found += page["events"]
            if "nextToken" not in page:
                return found
            options["nextToken"] = page["nextToken"]

    def streams(self) -> list[str]:
        return [each["logStreamName"] for each in self.logs.describe_log_streams(logGroupName=self.group)["logStreams"]]

    def update(self, **change: Any) -> None:
        self.ecs.update_service(cluster=self.cluster, service="web", **change)


@pytest.fixture
def place(aws: LocalAws) -> Place:
    return Place(aws, age_seconds=1800)


def test_each_running_task_has_a_stream_named_after_it(place: Place) -> None:
    tasks = place.ecs.list_tasks(cluster=place.cluster, serviceName="web")["taskArns"]

    assert place.streams() == sorted(f"app/app/{arn.rsplit('/', 1)[-1]}" for arn in tasks)
    groups = place.logs.describe_log_groups(logGroupNamePrefix=place.group)["logGroups"]
    assert [each["logGroupName"] for each in groups] == [place.group]


def test_lines_are_of_all_levels_in_json_and_in_plain_text(place: Place) -> None:
    messages = [each["message"] for each in place.read()]

    parsed = [json.loads(message) for message in messages if message.startswith("{")]
    assert {each["level"] for each in parsed} == {"debug", "info", "warn", "error"}
    assert all({"time", "message", "logger"} <= set(each) for each in parsed)
    plain = [message for message in messages if not message.startswith("{")]
    assert any(" INFO " in message for message in plain)
    assert any("\x1b[3" in message for message in plain)
    assert 300 < len(messages) < 1000


def test_lines_come_oldest_first_with_unique_stable_ids(place: Place) -> None:
    first = place.read()
    again = place.read()

    assert first == again
    times = [each["timestamp"] for each in first]
    assert times == sorted(times)
    assert times[-1] <= place.now()
    assert len({each["eventId"] for each in first}) == len(first)
    assert all(len(each["eventId"]) == 56 for each in first)


def test_follower_sees_every_line_once(place: Place) -> None:
    followed = place.read(startTime=place.now() - 60_000)
    since = place.now() - 60_000

    place.update(forceNewDeployment=True)
    for _ in range(40):
        place.aws.advance(3)
        newest = max((each["timestamp"] for each in followed), default=since)
        known = {each["eventId"] for each in followed}
        followed += [each for each in place.read(startTime=newest) if each["eventId"] not in known]

    ids = [each["eventId"] for each in followed]
    assert sorted(ids) == sorted(each["eventId"] for each in place.read(startTime=since))
    assert sum("SIGTERM received" in each["message"] for each in followed) == 2
    assert sum("starting, task" in each["message"] for each in followed) == 2


def test_streams_of_stopped_tasks_stay_readable(place: Place) -> None:
    before = place.streams()

    place.update(desiredCount=0)
    place.aws.advance(2 * 3600)

    assert place.ecs.list_tasks(cluster=place.cluster, serviceName="web", desiredStatus="STOPPED")["taskArns"] == []
    assert place.streams() == before
    page = place.logs.get_log_events(logGroupName=place.group, logStreamName=before[0], limit=1)["events"]
    assert page[0]["message"].endswith("stopped, exit code 0")


def test_crash_leaves_a_traceback_and_the_exit(place: Place) -> None:
    place.aws.fault("crash", cluster=place.cluster, service="web", exit_code=3)
    since = place.now()

    place.update(forceNewDeployment=True)
    place.aws.advance(12)

    messages = [each["message"] for each in place.read(startTime=since)]
    assert "Traceback (most recent call last):" in messages
    assert any("Essential container exited with code 3" in message for message in messages)


def test_task_that_never_started_wrote_nothing(place: Place) -> None:
    before = place.streams()
    place.aws.fault("image_pull", cluster=place.cluster, service="web")

    place.update(forceNewDeployment=True)
    place.aws.advance(30)

    assert place.streams() == before


def test_pages_respect_the_limit_and_hold_all_lines(place: Place) -> None:
    whole = place.read()

    options: Json = {"limit": 50}
    sizes, paged = [], []
    while True:
        page = place.logs.filter_log_events(logGroupName=place.group, **options)
        sizes.append(len(page["events"]))
        paged += page["events"]
        if "nextToken" not in page:
            break
        options["nextToken"] = page["nextToken"]

    assert paged == whole
    assert max(sizes) == 50
    backwards = place.read(startTime=whole[0]["timestamp"], startFromHead=False, limit=100)
    assert backwards == whole[::-1]


def test_long_history_comes_in_bounded_pages_that_may_be_empty(aws: LocalAws) -> None:
    place = Place(aws, age_seconds=30 * 86400)

    page = place.logs.filter_log_events(logGroupName=place.group, filterPattern='"no line says this"')

    assert page["events"] == []
    assert page["nextToken"]
    assert place.logs.filter_log_events(logGroupName=place.group)["events"][0]["timestamp"] > (
        place.now() - 7 * 86_400_000 - 1
    )


def test_time_range_includes_both_of_its_ends(place: Place) -> None:
    whole = place.read()
    first, last = whole[10]["timestamp"], whole[20]["timestamp"]

    found = place.read(startTime=first, endTime=last)

    assert found == [each for each in whole if first <= each["timestamp"] <= last]


def test_streams_are_chosen_by_prefix_or_name_but_not_both(place: Place) -> None:
    one, other = place.streams()

    assert {each["logStreamName"] for each in place.read(logStreamNamePrefix=one[:-4])} == {one}
    assert {each["logStreamName"] for each in place.read(logStreamNames=[other])} == {other}
    with pytest.raises(ClientError, match="InvalidParameterException"):
        place.read(logStreamNames=[one], logStreamNamePrefix="app")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        place.read(logStreamNames=["nobody"])


def test_stream_is_read_from_either_end_to_a_repeated_token(place: Place) -> None:
    stream = place.streams()[0]
    whole = [each["message"] for each in place.read(logStreamNames=[stream])]
    asked = {"logGroupName": place.group, "logStreamName": stream, "limit": 40}

    newest = place.logs.get_log_events(**asked)
    older = place.logs.get_log_events(**asked, nextToken=newest["nextBackwardToken"])
    forward, token = [], None
    while True:
        options: Json = {"nextToken": token} if token else {}
        page = place.logs.get_log_events(**asked, startFromHead=True, **options)
        forward += [each["message"] for each in page["events"]]
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]

    assert [each["message"] for each in newest["events"]] == whole[-40:]
    assert [each["message"] for each in older["events"]] == whole[-80:-40]
    assert forward == whole
    place.aws.advance(60)
    later = place.logs.get_log_events(**asked, startFromHead=True, nextToken=token)
    assert later["events"][0]["timestamp"] > place.now() - 60_000


def test_end_time_of_one_stream_is_excluded(place: Place) -> None:
    stream = place.streams()[0]
    third = place.logs.get_log_events(logGroupName=place.group, logStreamName=stream, startFromHead=True)["events"][2]

    page = place.logs.get_log_events(
        logGroupName=place.group, logStreamName=stream, startFromHead=True, endTime=third["timestamp"]
    )

    assert len(page["events"]) == 2


def test_put_lines_are_merged_with_those_of_tasks(place: Place) -> None:
    stream = place.streams()[0]
    at = place.now() - 1000
    message = "\x00<script>alert(1)</script> " + "x" * 1000

    place.logs.put_log_events(
        logGroupName=place.group, logStreamName=stream, logEvents=[{"timestamp": at, "message": message}]
    )

    found = [each for each in place.read(startTime=at - 60_000) if each["message"] == message]
    assert [(each["timestamp"], each["logStreamName"]) for each in found] == [(at, stream)]
    times = [each["timestamp"] for each in place.read()]
    assert times == sorted(times)


def test_line_outside_the_time_limits_is_rejected(place: Place) -> None:
    at = place.now()
    events = [{"timestamp": at - 15 * 86_400_000, "message": "old"}, {"timestamp": at, "message": "mine"}]

    reply = place.logs.put_log_events(logGroupName=place.group, logStreamName=place.streams()[0], logEvents=events)

    assert reply["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    assert [each["message"] for each in place.read(startTime=at)] == ["mine"]


def test_newest_streams_are_described_first_on_request(place: Place) -> None:
    place.update(desiredCount=1)
    place.aws.advance(120)

    reply = place.logs.describe_log_streams(logGroupName=place.group, orderBy="LastEventTime", descending=True, limit=1)

    assert reply["logStreams"][0]["lastEventTimestamp"] > place.now() - 60_000
    assert "nextToken" in reply
    with pytest.raises(ClientError, match="InvalidParameterException"):
        place.logs.describe_log_streams(logGroupName=place.group, orderBy="LastEventTime", logStreamNamePrefix="a")


def test_deleted_group_loses_its_lines(place: Place) -> None:
    place.read()

    place.logs.delete_log_group(logGroupName=place.group)

    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        place.read()
    place.update(forceNewDeployment=True)
    place.aws.advance(60)
    assert len(place.streams()) == 2


def test_unknown_group_token_and_limit_are_refused(place: Place) -> None:
    with pytest.raises(ClientError, match="The specified log group does not exist"):
        place.logs.filter_log_events(logGroupName="/ecs/nobody")
    with pytest.raises(ClientError, match="nextToken is invalid"):
        place.logs.filter_log_events(logGroupName=place.group, nextToken="never given")
    with pytest.raises(ClientError, match="less than or equal to 10000"):
        place.logs.filter_log_events(logGroupName=place.group, limit=10001)


def test_filter_pattern_narrows_what_is_read(place: Place) -> None:
    errors = place.read(filterPattern='{ $.level = "error" }')
    either = place.read(filterPattern='?" ERROR" ?"\\"error\\""')

    assert errors
    assert {json.loads(each["message"])["level"] for each in errors} == {"error"}
    assert len(either) > len(errors)


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        ("", "anything", True),
        ("ERROR", "an ERROR here", True),
        ("ERROR", "an error here", False),
        ("ERROR timeout", "ERROR: timeout", True),
        ("ERROR timeout", "ERROR", False),
        ("?ERROR ?WARN", "WARN", True),
        ("?ERROR ?WARN", "INFO", False),
        ("ERROR -timeout", "ERROR timeout", False),
        ('"two words"', "these two words", True),
        ('"two words"', "words two", False),
        ("%time[ -]?out%", "a time-out", True),
        ("%time[ -]?out%", "a pause", False),
        ('{ $.level = "error" }', '{"level": "error"}', True),
        ('{ $.level = "err*" }', '{"level": "error"}', True),
        ('{ $.level != "error" }', '{"level": "info"}', True),
        ('{ $.level = "error" }', 'level = "error"', False),
        ("{ $.ms > 100 }", '{"ms": 101}', True),
        ("{ $.ms > 100 }", '{"ms": 100}', False),
        ('{ $.a = 1 && ($.b = "x" || $.c IS TRUE) }', '{"a": 1, "c": true}', True),
        ('{ $.a = 1 && ($.b = "x" || $.c IS TRUE) }', '{"a": 1, "c": false}', False),
        ("{ $.a[1].b = 2 }", '{"a": [0, {"b": 2}]}', True),
        ("{ $.a NOT EXISTS }", '{"b": 1}', True),
    ],
)
def test_filter_patterns_are_those_of_cloudwatch(pattern: str, message: str, matches: bool) -> None:
    assert compile_pattern(pattern)(message) is matches


@pytest.mark.parametrize(
    "pattern", ["{ $.a = }", "{ $.a ~ 1 }", "{ level = 1 }", "{ $.a = 1", "%(%", "[a, b]", '"open']
)
def test_broken_filter_pattern_is_refused(place: Place, pattern: str) -> None:
    with pytest.raises(ClientError, match="InvalidParameterException"):
        place.read(filterPattern=pattern)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("throttle", "ThrottlingException"), ("access_denied", "AccessDeniedException"), ("server_error", "500")],
)
def test_faults_apply_to_log_reads(place: Place, kind: str, code: str) -> None:
    place.aws.fault(kind, action="FilterLogEvents", times=1)

    with pytest.raises(ClientError) as refused:
        place.read()

    error = refused.value.response
    assert code in (error["Error"]["Code"], str(error["ResponseMetadata"]["HTTPStatusCode"]))
    assert place.read()


def test_log_reads_have_their_own_limits(place: Place) -> None:
    place.aws.throttling()
    done: Counter[str] = Counter()

    for _ in range(12):
        for action, options in (("filter_log_events", {"limit": 1}), ("describe_log_streams", {})):
            try:
                getattr(place.logs, action)(logGroupName=place.group, **options)
                done[action] += 1
            except ClientError as error:
                done[error.response["Error"]["Code"]] += 1

    assert 5 <= done["filter_log_events"] < 12
    assert done["describe_log_streams"] == 12
    assert done["ThrottlingException"] == 12 - done["filter_log_events"]


def test_containers_without_awslogs_have_no_group(ecs: Ecs) -> None:
    ecs.client.create_service(
        cluster=ecs.cluster, serviceName="silent", taskDefinition=ecs.register("silent"), desiredCount=1
    )
    ecs.pass_time(30)

    groups = ecs.faults().client("logs").describe_log_groups()["logGroups"]

    assert not any("silent" in each["logGroupName"] for each in groups)
