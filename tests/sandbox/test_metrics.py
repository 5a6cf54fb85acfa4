"""CloudWatch metrics of services: the points at each time, and queries."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws import LocalAws

Json = dict[str, Any]
Curve = dict[float, float]

CPU, MEMORY = ("AWS/ECS", "CPUUtilization"), ("AWS/ECS", "MemoryUtilization")
RUNNING, DESIRED, PENDING = (
    ("ECS/ContainerInsights", f"{name}TaskCount") for name in ("Running", "Desired", "Pending")
)


class Place:
    """One seeded service and a client of CloudWatch."""

    def __init__(self, aws: LocalAws, *, age_seconds: float, **body: Any) -> None:
        self.aws, self.cluster = aws, f"c-{uuid.uuid4().hex[:8]}"
        service = {"name": "web", "desired_count": 2, "age_seconds": age_seconds, **body}
        aws.seed(cluster=self.cluster, services=[service])
        self.cloudwatch, self.ecs = aws.client("cloudwatch"), aws.client()

    def query(self, metric: tuple[str, str], *, period: int = 60, stat: str = "Average", name: str = "m0") -> Json:
        dimensions = [{"Name": "ClusterName", "Value": self.cluster}, {"Name": "ServiceName", "Value": "web"}]
        wanted = {"Namespace": metric[0], "MetricName": metric[1], "Dimensions": dimensions}
        return {"Id": name, "MetricStat": {"Metric": wanted, "Period": period, "Stat": stat}}

    def window(self, seconds: float, *, until: float | None = None) -> Json:
        """Return start and end of the last `seconds`, rounded to the minute."""
        end = (until or self.aws.now()) // 60 * 60
        return {"StartTime": datetime.fromtimestamp(end - seconds, UTC), "EndTime": datetime.fromtimestamp(end, UTC)}

    def data(self, *queries: Json, seconds: float = 3600, **options: Any) -> Json:
        asked = {**self.window(seconds), "ScanBy": "TimestampAscending", **options}
        return dict(self.cloudwatch.get_metric_data(MetricDataQueries=list(queries), **asked))

    def curve(
        self, metric: tuple[str, str], *, seconds: float = 3600, period: int = 60, stat: str = "Average"
    ) -> Curve:
        (result,) = self.data(self.query(metric, period=period, stat=stat), seconds=seconds)["MetricDataResults"]
        times = [at.timestamp() for at in result["Timestamps"]]
        return dict(zip(times, result["Values"], strict=True))

    def update(self, **change: Any) -> None:
        self.ecs.update_service(cluster=self.cluster, service="web", **change)


@pytest.fixture
def place(aws: LocalAws) -> Place:
    return Place(aws, age_seconds=2 * 86400)


@pytest.mark.parametrize("metric", [CPU, MEMORY])
def test_running_service_has_a_point_each_minute(place: Place, metric: tuple[str, str]) -> None:
    curve = place.curve(metric)

    assert len(curve) == 60
    assert all(at % 60 == 0 for at in curve)
    assert all(0 < value < 100 for value in curve.values())
    assert len(set(curve.values())) > 50


def test_points_never_change_after_they_appear(place: Place) -> None:
    first = place.curve(CPU, seconds=7200)
    place.aws.advance(600)
    later = place.curve(CPU, seconds=7800)

    assert {at: value for at, value in later.items() if at in first} == first
    assert len(later) == len(first) + 10


def test_metrics_start_with_the_creation_of_the_service(place: Place) -> None:
    curve = place.curve(CPU, seconds=4 * 86400, period=3600)

    assert 48 <= len(curve) <= 49
    assert max(curve.values()) - min(curve.values()) > 8


def test_stopped_service_has_zero_counts_and_no_utilization(place: Place) -> None:
    place.update(desiredCount=0)
    place.aws.advance(600)

    stopped = place.aws.now() - 420
    assert not [at for at in place.curve(CPU) if at > stopped]
    assert {value for at, value in place.curve(RUNNING).items() if at > stopped} == {0}
    assert {value for at, value in place.curve(DESIRED).items() if at > stopped} == {0}


def test_counts_follow_the_service(place: Place) -> None:
    place.update(desiredCount=5)
    place.aws.advance(300)

    running, pending = place.curve(RUNNING), place.curve(PENDING)

    assert (min(running.values()), max(running.values())) == (2, 5)
    assert list(running.values())[-1] == 5
    assert max(pending.values()) >= 1
    assert list(pending.values())[-1] == 0


def test_cpu_rises_after_a_start(place: Place) -> None:
    place.aws.advance(60)
    before = list(place.curve(CPU, seconds=600).values())

    place.update(forceNewDeployment=True)
    place.aws.advance(180)

    assert max(place.curve(CPU, seconds=180).values()) > max(before) + 8


def test_deleted_service_keeps_its_past_and_gets_no_more_points(place: Place) -> None:
    place.ecs.delete_service(cluster=place.cluster, service="web", force=True)
    place.aws.advance(1200)

    for metric in (CPU, RUNNING, DESIRED):
        curve = place.curve(metric)
        assert 38 <= len(curve) <= 42
        assert max(curve) < place.aws.now() - 1000


def test_periods_aggregate_minutes(place: Place) -> None:
    minutes = place.curve(CPU, seconds=600)
    window = place.window(600)
    stats = {
        stat: place.data(place.query(CPU, period=300, stat=stat), **window)["MetricDataResults"][0]
        for stat in ("Average", "Minimum", "Maximum", "Sum", "SampleCount")
    }

    first = [value for _, value in sorted(minutes.items())][:5]
    assert [at.timestamp() for at in stats["Average"]["Timestamps"]] == sorted(minutes)[::5]
    assert stats["Average"]["Values"][0] == pytest.approx(sum(first) / 5, abs=1e-4)
    assert stats["SampleCount"]["Values"] == [10, 10]
    assert stats["Minimum"]["Values"][0] < min(first) <= max(first) < stats["Maximum"]["Values"][0]
    assert stats["Sum"]["Values"][0] == pytest.approx(sum(first) * 2, abs=1e-3)


def test_newest_comes_first_unless_asked_otherwise(place: Place) -> None:
    query = place.query(CPU)
    asked = {"MetricDataQueries": [query], **place.window(600)}

    (plain,) = place.cloudwatch.get_metric_data(**asked)["MetricDataResults"]
    (ascending,) = place.cloudwatch.get_metric_data(**asked, ScanBy="TimestampAscending")["MetricDataResults"]

    assert plain["Timestamps"] == sorted(plain["Timestamps"], reverse=True)
    assert ascending["Values"] == plain["Values"][::-1]


def test_pages_together_hold_all_points(place: Place) -> None:
    queries = [place.query(CPU), place.query(RUNNING, name="m1")]
    window = place.window(600)
    whole = place.data(*queries, **window)["MetricDataResults"]

    pages: list[Json] = []
    token: Json = {}
    while True:
        page = place.data(*queries, **window, MaxDatapoints=7, **token)
        pages.append(page)
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}

    assert len(pages) == 3
    assert pages[0]["MetricDataResults"][0]["StatusCode"] == "PartialData"
    for number, result in enumerate(whole):
        values = [value for page in pages for value in page["MetricDataResults"][number]["Values"]]
        assert values == result["Values"]
        assert pages[-1]["MetricDataResults"][number]["StatusCode"] == "Complete"


def test_start_is_rounded_down_to_the_minute_and_end_is_excluded(place: Place) -> None:
    minute = place.aws.now() // 60 * 60
    start, end = datetime.fromtimestamp(minute - 570, UTC), datetime.fromtimestamp(minute - 300, UTC)

    (result,) = place.data(place.query(CPU), StartTime=start, EndTime=end)["MetricDataResults"]

    assert [at.timestamp() for at in result["Timestamps"]] == [minute - 600 + 60 * number for number in range(5)]


def test_statistics_of_one_metric(place: Place) -> None:
    query = place.query(CPU)["MetricStat"]["Metric"]
    asked = {**query, **place.window(600), "Period": 300, "Statistics": ["Average", "Maximum"]}

    reply = place.cloudwatch.get_metric_statistics(**asked)

    assert reply["Label"] == "CPUUtilization"
    assert {each["Unit"] for each in reply["Datapoints"]} == {"Percent"}
    curve = place.curve(CPU, seconds=600, period=300)
    assert {each["Timestamp"].timestamp(): each["Average"] for each in reply["Datapoints"]} == curve
    with pytest.raises(ClientError, match="exceeds the limit of 1,440"):
        place.cloudwatch.get_metric_statistics(**{**asked, **place.window(2 * 86400), "Period": 60})


def test_metrics_of_a_service_are_listed(place: Place) -> None:
    asked = [{"Name": "ClusterName", "Value": place.cluster}]

    names = {
        each["MetricName"]
        for namespace in ("AWS/ECS", "ECS/ContainerInsights")
        for each in place.cloudwatch.list_metrics(Namespace=namespace, Dimensions=asked)["Metrics"]
    }

    assert names == {"CPUUtilization", "MemoryUtilization", "RunningTaskCount", "DesiredTaskCount", "PendingTaskCount"}


def test_unknown_service_and_metric_have_no_points(place: Place) -> None:
    stranger = place.query(CPU)
    stranger["MetricStat"]["Metric"]["Dimensions"][1]["Value"] = "nobody"
    unknown = place.query(("AWS/ECS", "DiskUtilization"), name="m1")

    results = place.data(stranger, unknown)["MetricDataResults"]

    assert [(each["Values"], each["StatusCode"]) for each in results] == [([], "Complete")] * 2


def test_invalid_range_and_period_are_refused(place: Place) -> None:
    now = place.window(0)["EndTime"]

    for options in (
        {"StartTime": now, "EndTime": now},
        {"StartTime": now, "EndTime": datetime(2020, 1, 1, tzinfo=UTC)},
    ):
        with pytest.raises(ClientError, match="ValidationError"):
            place.data(place.query(CPU), **options)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        place.data(place.query(CPU, period=90))


def test_other_namespaces_return_what_was_put_there(aws: LocalAws) -> None:
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": f"m-{uuid.uuid4().hex}", "Value": 1}])

    assert len(cloudwatch.list_metrics(Namespace="Mine")["Metrics"]) >= 1


@pytest.mark.parametrize("kind", ["throttle", "access_denied", "server_error"])
def test_faults_apply_to_metric_reads(place: Place, kind: str) -> None:
    place.aws.fault(kind, action="GetMetricData", times=1)

    with pytest.raises(ClientError):
        place.data(place.query(CPU))

    assert place.data(place.query(CPU))["MetricDataResults"][0]["Values"]


def test_metric_reads_have_their_own_limit(place: Place) -> None:
    place.aws.throttling(scale=0.1)
    codes = []
    for _ in range(12):
        try:
            place.data(place.query(CPU), seconds=60)
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])

    assert codes
    assert set(codes) == {"ThrottlingException"}
