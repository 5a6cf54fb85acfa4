"""A deployment's logs through the API, read from the local AWS: all tasks, filters, pages and the shared tail."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from deployments.models import Agent, Deployment
from portal.cloudwatch import logs
from portal.cloudwatch.logs import read_logs
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, assert_refused, make_deployment
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


class Group:
    """The deployment's log group. Puts lines as tasks would."""

    def __init__(self, local_aws: LocalAws, deployment: Deployment) -> None:
        self.local_aws, self.deployment = local_aws, deployment
        self.name = f"/test/{deployment.pk}"
        self.client = local_aws.client("logs")
        self.client.create_log_group(logGroupName=self.name)
        self.streams: set[str] = set()
        self.now = timezone.now().replace(microsecond=0)

    def put(
        self, *messages: str, task: str = "t1", ago: float = 30, prefix: str | None = None, step: float = 1
    ) -> None:
        """Put lines of one task, `step` seconds apart. The last one is `ago` seconds old."""
        stream = f"{prefix or self.deployment.service_name}/agent/{task}"
        if stream not in self.streams:
            self.client.create_log_stream(logGroupName=self.name, logStreamName=stream)
            self.streams.add(stream)
        end = self.now - timedelta(seconds=ago)
        times = [end - timedelta(seconds=step * (len(messages) - 1 - number)) for number in range(len(messages))]
        self.client.put_log_events(
            logGroupName=self.name,
            logStreamName=stream,
            logEvents=[
                {"timestamp": int(at.timestamp() * 1000), "message": message}
                for at, message in zip(times, messages, strict=True)
            ],
        )


@pytest.fixture
def deployment(cast: Cast, agent: Agent, local_aws: LocalAws) -> Deployment:
    made = make_deployment(cast, agent)
    fields: dict[str, Any] = {"log_group": f"/test/{made.pk}", "created_at": timezone.now() - timedelta(days=3)}
    Deployment.objects.filter(pk=made.pk).update(**fields)
    return Deployment.objects.select_related("organization").get(pk=made.pk)


@pytest.fixture
def group(local_aws: LocalAws, deployment: Deployment) -> Group:
    local_aws.throttling(scale=100)  # several tests in a row would exceed five reads a second
    return Group(local_aws, deployment)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the reads of CloudWatch Logs and let them pass."""
    made: list[Any] = []
    original = logs.logs.newest_events

    def counted(*args: Any, **options: Any) -> Any:
        made.append(options)
        return original(*args, **options)

    monkeypatch.setattr(logs.logs, "newest_events", counted)
    return made


def messages(page: Any) -> list[str]:
    return [line.message for line in page.items]


# --- it works -------------------------------------------------------------------------------------------------------


def test_the_answer_has_its_shape(cast: Cast, client_for: SignIn, deployment: Deployment, group: Group) -> None:
    group.put('{"level": "error", "message": "pool exhausted", "size": 20}', ago=60)

    answer = client_for(cast.viewer).get(f"/deployments/{deployment.pk}/logs").json()

    (item,) = answer["items"]
    assert item == {
        "id": item["id"],
        "agent_id": str(deployment.agent_id),
        "level": "ERROR",
        "message": "pool exhausted",
        "node_id": "t1",
        "timestamp": (group.now - timedelta(seconds=60)).isoformat().replace("+00:00", "Z"),
        "extra_data": {"size": 20},
    }
    assert {**answer, "items": [], "read_at": "x"} == {
        "deployment_id": str(deployment.pk),
        "deployment_status": "ready",
        "items": [],
        "skip": 0,
        "limit": 100,
        "level": None,
        "q": None,
        "since": None,
        "until": None,
        "next_cursor": None,
        "has_more": False,
        "read_at": "x",
        "error": None,
    }


def test_skip_is_an_offset_within_the_reading(
    cast: Cast, client_for: SignIn, deployment: Deployment, group: Group
) -> None:
    group.put("a", "b", "c", "d", ago=40, step=10)
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployment.pk}/logs"

    answer = client.get(path, {"skip": 1, "limit": 2}).json()
    rest = client.get(path, {"cursor": answer["next_cursor"], "skip": 0}).json()

    assert [item["message"] for item in answer["items"]] == ["c", "b"]
    assert (answer["skip"], answer["has_more"]) == (1, True)
    assert [item["message"] for item in rest["items"]] == ["a"]


def test_only_the_tasks_of_this_deployment_newest_first(deployment: Deployment, group: Group) -> None:
    group.put("a1", "a2", task="aaa", ago=40, step=20)
    group.put("b1", task="bbb", ago=50)
    group.put("old", task="stopped", ago=86_400 * 2)
    group.put("other", prefix=f"{deployment.service_name}-x", ago=10)

    assert messages(read_logs(deployment.cloudwatch)) == ["a2", "b1", "a1", "old"]


def test_filters_by_level_text_and_time(deployment: Deployment, group: Group) -> None:
    group.put(
        "INFO Started", "ERROR Lost Connection", "INFO idle", '{"level": "error", "user": "Connie"}', ago=10, step=10
    )
    at = group.now

    assert messages(read_logs(deployment.cloudwatch, level="ERROR", q="lost")) == ["ERROR Lost Connection"]
    assert len(read_logs(deployment.cloudwatch, q="CONN").items) == 2  # also finds a JSON line's fields
    since, until = at - timedelta(seconds=30), at - timedelta(seconds=20)
    assert messages(read_logs(deployment.cloudwatch, since=since, until=until)) == ["ERROR Lost Connection"]
    assert messages(read_logs(deployment.cloudwatch, until=since)) == ["INFO Started"]


def test_pages_go_back_without_a_gap_or_a_repeat(deployment: Deployment, group: Group) -> None:
    group.put(*[f"line {number}" for number in range(10)], ago=20, step=0)  # all in one millisecond
    group.put(*[f"older {number}" for number in range(5)], ago=4000)

    seen: list[str] = []
    cursor = None
    for _ in range(20):
        page = read_logs(deployment.cloudwatch, limit=4, cursor=cursor)
        seen += messages(page)
        cursor = page.next_cursor
        if not page.has_more:
            break

    assert sorted(seen[:10]) == sorted(f"line {number}" for number in range(10))
    assert seen[10:] == [f"older {number}" for number in range(4, -1, -1)]


def test_an_empty_page_has_a_cursor_to_continue(
    deployment: Deployment, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "TAIL_LINES", 20)
    group.put("needle", ago=300)
    group.put(*["hay"] * 60, ago=10)

    first = read_logs(deployment.cloudwatch, q="needle", limit=5)
    assert (first.items, first.has_more) == ([], True)
    page, pages = first, 1
    while page.has_more and not page.items:
        page = read_logs(deployment.cloudwatch, q="needle", limit=5, cursor=page.next_cursor)
        pages += 1

    assert messages(page) == ["needle"]
    assert pages <= 6


def test_a_deployment_without_a_group_or_lines_is_empty(deployment: Deployment, local_aws: LocalAws) -> None:
    assert read_logs(deployment.cloudwatch).items == []  # the group does not exist
    deployment.log_group = None
    assert (read_logs(deployment.cloudwatch).items, read_logs(deployment.cloudwatch).error) == ([], None)


def test_hostile_lines_reach_the_answer_harmless(
    cast: Cast, client_for: SignIn, deployment: Deployment, group: Group
) -> None:
    group.put("\x1b[31mred\x1b[0m", "<script>alert(1)</script>", "x" * 200_000, '{"message": "\\u0000 \\ud800"}')

    response = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/logs")

    shown = [item["message"] for item in response.json()["items"]]
    assert shown[3] == "red"
    assert shown[2] == "<script>alert(1)</script>"
    assert len(shown[1]) < 17_000
    assert "truncated: 16,384 of 200,000 characters" in shown[1]
    assert shown[0] == "\ufffd \ufffd"
    assert b"\\u001b" not in response.content


# --- shared and cached ----------------------------------------------------------------------------------------------


def test_many_viewers_share_one_tail(deployment: Deployment, group: Group, calls: list[Any]) -> None:
    group.put("INFO a", "ERROR b")
    read_logs(deployment.cloudwatch)
    made = len(calls)

    for level in (None, "ERROR", "INFO"):
        for limit in (1, 100):
            read_logs(deployment.cloudwatch, level=level, limit=limit)
    read_logs(deployment.cloudwatch, since=group.now - timedelta(hours=1))

    assert len(calls) == made == 1


def test_a_fresh_read_sees_new_lines(deployment: Deployment, group: Group) -> None:
    group.put("first", ago=60)
    read_logs(deployment.cloudwatch)
    group.put("second", ago=10)

    cache.delete(f"logs:{deployment.pk}:tail:fresh")  # three seconds pass

    assert messages(read_logs(deployment.cloudwatch)) == ["second", "first"]


@pytest.mark.parametrize("fault", ["throttle", "access_denied", "server_error"])
def test_failing_aws_keeps_the_last_lines_with_their_age(
    cast: Cast, client_for: SignIn, deployment: Deployment, group: Group, local_aws: LocalAws, fault: str
) -> None:
    group.put("kept")
    read_at = read_logs(deployment.cloudwatch).read_at
    cache.delete(f"logs:{deployment.pk}:tail:fresh")
    local_aws.fault(fault, action="FilterLogEvents")

    answer = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/logs").json()

    assert [item["message"] for item in answer["items"]] == ["kept"]
    assert "logs:FilterLogEvents" in answer["error"]
    assert read_at
    assert datetime.fromisoformat(answer["read_at"]) == read_at


def test_without_any_read_it_is_502_and_aws_is_asked_once(
    cast: Cast, client_for: SignIn, deployment: Deployment, local_aws: LocalAws, calls: list[Any]
) -> None:
    local_aws.fault("throttle", action="FilterLogEvents")
    client = client_for(cast.viewer)

    for _ in range(3):
        refused = assert_refused(client.get(f"{DEPLOYMENTS}/{deployment.pk}/logs"), 502, "aws_unavailable")

    assert "logs:FilterLogEvents: ThrottlingException (AWS request " in refused["detail"]
    assert len(calls) == 1


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("level=LOUD", "level"),
        ("level=error", "level"),
        ("since=yesterday", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("skip=-1", "skip"),
        ("skip=1&cursor=12:a", "skip"),
        (f"q={'x' * 201}", "q"),
    ],
)
def test_bad_input_is_named(cast: Cast, client_for: SignIn, deployment: Deployment, query: str, field: str) -> None:
    response = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/logs?{query}")

    assert set(assert_refused(response, 400, "invalid")["errors"]) == {field}


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("2026-11-28T10:00:00+01:00", "2026-11-28T09:00:00Z"),  # the + of a query string is a space
        ("2026-11-28T10:00:00%2B0100", "2026-11-28T09:00:00Z"),
        ("2026-11-28T10:00:00.5-01:00", "2026-11-28T11:00:00.500000Z"),
        ("2026-11-28%2016:03:10%20UTC", "2026-11-28T16:03:10Z"),
        ("2026-11-28+16:03:10+UTC", "2026-11-28T16:03:10Z"),
        ("2026-11-28+16:03", "2026-11-28T16:03:00Z"),
    ],
)
def test_times_are_read_as_people_and_scripts_write_them(
    cast: Cast, client_for: SignIn, deployment: Deployment, text: str, since: str
) -> None:
    client, page = client_for(cast.viewer), f"/o/acme/deployments/{deployment.pk}/"

    assert client.get(f"{DEPLOYMENTS}/{deployment.pk}/logs?since={text}").json()["since"] == since
    assert f"{client.get(f'{page}?since={text}').context['window'].since:%H:%M}" == since[11:16]


@pytest.mark.parametrize("cursor", ["x", "12", "-1:", "1e9:", "9" * 17 + ":", "١٢:"])
def test_a_made_up_cursor_is_refused(cast: Cast, client_for: SignIn, deployment: Deployment, cursor: str) -> None:
    response = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/logs", {"cursor": cursor})

    assert_refused(response, 400, "bad_cursor")


# --- how much one person can make the portal read ---------------------------------------------------------------------


def test_ends_near_each_other_share_a_read_and_filter_exactly(
    deployment: Deployment, group: Group, calls: list[Any]
) -> None:
    group.put(*(str(number) for number in range(50)), ago=300, step=0.5)
    minute = group.now.replace(second=0) - timedelta(minutes=4)
    first = minute - timedelta(seconds=59)

    ends = [first + timedelta(milliseconds=700 * number) for number in range(60)]
    shown = {end: messages(read_logs(deployment.cloudwatch, until=end)) for end in ends}

    last = group.now - timedelta(seconds=300)
    times = {str(number): last - timedelta(seconds=0.5 * (49 - number)) for number in range(50)}
    for end, found in shown.items():
        assert found == [name for name in reversed(times) if times[name] < end]
    assert len(calls) == 1


def test_lines_before_an_end_in_a_busy_minute_are_found(
    deployment: Deployment, group: Group, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lines after the end than one read returns: the next finer steps are read."""
    monkeypatch.setattr(logs, "TAIL_LINES", 20)
    group.now = group.now.replace(second=50) - timedelta(minutes=5)
    group.put(*(str(number) for number in range(400)), ago=0, step=0.02)

    end = group.now - timedelta(seconds=3)
    seen, cursor = [], None
    for _ in range(6):
        page = read_logs(deployment.cloudwatch, until=end, cursor=cursor, limit=10)
        seen += messages(page)
        cursor = page.next_cursor

    assert seen[:40] == [str(number) for number in range(248, 208, -1)]


def test_one_person_reads_earlier_lines_thirty_times_a_minute(
    cast: Cast, client_for: SignIn, deployment: Deployment, group: Group, calls: list[Any]
) -> None:
    group.put("line", ago=7200)
    path, page = f"{DEPLOYMENTS}/{deployment.pk}/logs", f"/o/acme/deployments/{deployment.pk}/"
    viewer, other = client_for(cast.viewer), client_for(cast.operator)
    ends = [group.now - timedelta(minutes=2 * number) for number in range(1, 75)]
    answers = [viewer.get(path, {"until": end.isoformat().replace("+00:00", "Z")}) for end in ends]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert 14 <= len(refused) <= 44  # the minute may end meanwhile
    assert refused[0].json()["code"] == "too_many_log_reads"
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert refused[0].headers["RateLimit"] == f'"earlier-log-reads";r=0;t={refused[0].headers["Retry-After"]}'
    assert answers[0].headers["RateLimit-Policy"] == '"earlier-log-reads";q=30;w=60'
    assert answers[0].headers["RateLimit"].startswith('"earlier-log-reads";r=29;t=')
    assert viewer.get(path).status_code == other.get(path, {"until": "2026-01-01T00:00:00Z"}).status_code == 200
    window = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z"}
    text = viewer.get(page, window, headers={"HX-Request": "true", "HX-Target": "logs"})
    assert text.status_code == 200
