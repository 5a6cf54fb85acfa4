"""Amazon CloudWatch: reads CPU, memory and running tasks of one ECS service.

CPU and memory have no points while no task runs:
docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html.
RunningTaskCount exists only when the cluster has Container Insights enabled:
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portal.aws.credentials import AwsTarget, live_client
from portal.aws.errors import complete, incomplete, need, translated

QUERIES = {
    "cpu": ("AWS/ECS", "CPUUtilization", "Average"),
    "memory": ("AWS/ECS", "MemoryUtilization", "Average"),
    "running": ("ECS/ContainerInsights", "RunningTaskCount", "Average"),
}


@dataclass(frozen=True)
class Point:
    """One period that starts at `at`. CPU and memory are in percent of what the tasks reserve."""

    at: datetime
    cpu: float | None
    memory: float | None
    running: float | None


def service_metrics(
    target: AwsTarget, *, cluster: str, service: str, start: datetime, end: datetime, period_seconds: int
) -> list[Point]:
    """Read the points of the range, oldest first, without empty periods. One call. Raises AwsError."""
    dimensions = [{"Name": "ClusterName", "Value": cluster}, {"Name": "ServiceName", "Value": service}]
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions},
                "Period": period_seconds,
                "Stat": statistic,
            },
        }
        for name, (namespace, metric, statistic) in QUERIES.items()
    ]
    action = "cloudwatch:GetMetricData"
    with translated(action):
        reply = live_client(target, "cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=start, EndTime=end, ScanBy="TimestampDescending"
        )
    with complete(action):
        results = reply["MetricDataResults"]
        for result in results:
            if len(result["Timestamps"]) != len(result["Values"]):
                raise incomplete("Values" if result["Timestamps"] else "Timestamps", action)
        return _points(results)


def _points(results: list[dict[str, Any]]) -> list[Point]:
    """Join the series by time, in whatever order CloudWatch lists them."""
    by_time: dict[datetime, dict[str, float]] = {}
    for result in results:
        for at, value in zip(result["Timestamps"], result["Values"], strict=True):
            by_time.setdefault(at, {})[need(result, "Id")] = float(value)
    return [
        Point(at=at.astimezone(UTC), cpu=values.get("cpu"), memory=values.get("memory"), running=values.get("running"))
        for at, values in sorted(by_time.items())
    ]
