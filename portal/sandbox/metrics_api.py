"""The CloudWatch reads of ECS metrics: GetMetricData, GetMetricStatistics and ListMetrics for services of the engine.

Calls about other namespaces are left to moto. For limits, rounding and order see
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html and API_GetMetricStatistics.html.
"""

import base64
import binascii
import math
import re
from typing import Any

from portal.sandbox.ecs_api import epoch
from portal.sandbox.engine import Engine
from portal.sandbox.errors import AwsError
from portal.sandbox.metrics import DAY, METRICS, MINUTE, Minute, Point, minutes, points
from portal.sandbox.protocol import ApiRequest
from portal.sandbox.records import ServiceKey
from portal.sandbox.rounding import round_down

Json = dict[str, Any]

OWN_NAMESPACES = {namespace for namespace, _ in METRICS}
STATISTICS = ("Average", "Minimum", "Maximum", "Sum", "SampleCount")
PERCENTILE = re.compile(r"^p(\d{1,2}(?:\.\d+)?|100)$")
MAX_QUERIES, MAX_DATAPOINTS, MAX_STATISTICS_DATAPOINTS = 500, 100_800, 1_440
METRICS_PER_PAGE = 500


class MetricsApi:
    """CloudWatch's reads of the metrics of the engine's services."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def handle(self, request: ApiRequest) -> Json | None:
        """Answer a call about ECS metrics, or return None for a call that is left to moto."""
        params = request.params
        queries = params.get("MetricDataQueries")
        if request.protocol != "json":
            return None
        if request.action == "GetMetricData" and queries and any(get_namespace(each) for each in queries):
            return self.get_metric_data(request)
        if request.action == "GetMetricStatistics" and params.get("Namespace") in OWN_NAMESPACES:
            return self.get_metric_statistics(request)
        if request.action == "ListMetrics" and params.get("Namespace") in OWN_NAMESPACES:
            return self.list_metrics(request)
        return None

    def get_metric_data(self, request: ApiRequest) -> Json:
        """Return the points of all queries, at most MaxDatapoints per page. Queries with more points are `PartialData`."""
        params = request.params
        queries = params["MetricDataQueries"]
        if len(queries) > MAX_QUERIES:
            raise invalid(f"The collection MetricDataQueries must not have a size greater than {MAX_QUERIES}.")
        start, end = read_range(params)
        newest_first = params.get("ScanBy") != "TimestampAscending"
        page_size = int(params.get("MaxDatapoints") or MAX_DATAPOINTS)
        offset = read_token(params.get("NextToken"))
        seen = 0
        results = []
        known: dict[ServiceKey, list[Minute]] = {}
        for query in queries:
            found = [] if query.get("ReturnData") is False else self._query(request, query, start, end, known)
            found.sort(reverse=newest_first)
            page = found[max(0, offset - seen) : max(0, offset + page_size - seen)]
            is_complete = seen + len(found) <= offset + page_size
            seen += len(found)
            if query.get("ReturnData") is not False:
                results.append(
                    {
                        "Id": query["Id"],
                        "Label": query.get("Label") or query["MetricStat"]["Metric"]["MetricName"],
                        "Timestamps": [at for at, _ in page],
                        "Values": [value for _, value in page],
                        "StatusCode": "Complete" if is_complete else "PartialData",
                    }
                )
        token = {"NextToken": write_token(offset + page_size)} if seen > offset + page_size else {}
        return {"MetricDataResults": results, "Messages": [], **token}

    def _query(
        self, request: ApiRequest, query: Json, start: int, end: int, known: dict[ServiceKey, list[Minute]]
    ) -> list[tuple[int, float]]:
        if "MetricStat" not in query:
            raise invalid(
                "The local AWS does not support expressions over ECS metrics. Query each metric with MetricStat."
            )
        stat = query["MetricStat"]
        metric = stat["Metric"]
        period = read_period(stat.get("Period"))
        buckets = self._buckets(request, metric, start, end, period=period, unit=stat.get("Unit"), known=known)
        return [(at, statistic(str(stat["Stat"]), found)) for at, found in buckets]

    def get_metric_statistics(self, request: ApiRequest) -> Json:
        params = request.params
        statistics = [*(params.get("Statistics") or []), *(params.get("ExtendedStatistics") or [])]
        if not statistics:
            raise AwsError("InvalidParameterCombination", "Must specify either Statistics or ExtendedStatistics")
        start, end = read_range(params)
        period = read_period(params.get("Period"))
        wanted = math.ceil((end - start) / period)
        if wanted > MAX_STATISTICS_DATAPOINTS:
            raise AwsError(
                "InvalidParameterCombination",
                f"You have requested up to {wanted:,} datapoints, which exceeds the limit of 1,440. You may reduce the "
                "datapoints requested by increasing Period, or decreasing the time range.",
            )
        unit = METRICS.get((params["Namespace"], params["MetricName"]), "None")
        datapoints = []
        for at, found in self._buckets(request, params, start, end, period=period, unit=params.get("Unit"), known={}):
            values: Json = {name: statistic(name, found) for name in params.get("Statistics") or []}
            extended = {name: statistic(name, found) for name in params.get("ExtendedStatistics") or []}
            if extended:
                values["ExtendedStatistics"] = extended
            datapoints.append({"Timestamp": at, "Unit": unit, **values})
        return {"Label": params["MetricName"], "Datapoints": datapoints}

    def list_metrics(self, request: ApiRequest) -> Json:
        """List the metrics of existing and deleted services."""
        params = request.params
        filters = [(each["Name"], each.get("Value")) for each in params.get("Dimensions") or []]
        found = []
        for service in list(self.engine.services.values()):
            key = service.key
            if (key.account, key.region) != (request.account, request.region):
                continue
            dimensions = {"ClusterName": key.cluster, "ServiceName": key.name}
            if all(name in dimensions and value in (None, dimensions[name]) for name, value in filters):
                found += [
                    {
                        "Namespace": namespace,
                        "MetricName": name,
                        "Dimensions": [{"Name": each, "Value": value} for each, value in dimensions.items()],
                    }
                    for namespace, name in METRICS
                    if namespace == params["Namespace"] and params.get("MetricName") in (None, name)
                ]
        start = read_token(params.get("NextToken"))
        end = start + METRICS_PER_PAGE
        return {"Metrics": found[start:end], **({"NextToken": write_token(end)} if end < len(found) else {})}

    def _buckets(
        self,
        request: ApiRequest,
        metric: Json,
        start: int,
        end: int,
        *,
        period: int,
        unit: str | None,
        known: dict[ServiceKey, list[Minute]],
    ) -> list[tuple[int, list[Point]]]:
        """Return the metric's points by period; none for an unknown metric, other dimensions or another unit.

        `known` caches each service's minutes for the other metrics of the same call.
        """
        dimensions = {each["Name"]: each["Value"] for each in metric.get("Dimensions") or []}
        kind = (metric.get("Namespace"), metric.get("MetricName"))
        if kind not in METRICS or set(dimensions) != {"ClusterName", "ServiceName"}:
            return []
        key = ServiceKey(request.account, request.region, dimensions["ClusterName"], dimensions["ServiceName"])
        service = self.engine.get(key)
        if service is None or unit not in (None, METRICS[kind]):
            return []
        now = self.engine.now()
        if key not in known:
            known[key] = list(minutes(service, start=start, end=end, now=now))
        # CloudWatch keeps one-minute points for 15 days, points of longer periods for longer.
        oldest = now - 15 * DAY if period < 300 else 0
        buckets: dict[int, list[Point]] = {}
        for point in points(service, *kind, (minute for minute in known[key] if minute.at >= oldest)):
            buckets.setdefault(start + round_down(point.at - start, period), []).append(point)
        return sorted(buckets.items())


def get_namespace(query: Json) -> str | None:
    namespace = ((query.get("MetricStat") or {}).get("Metric") or {}).get("Namespace")
    return namespace if namespace in OWN_NAMESPACES else None


def read_range(params: Json) -> tuple[int, int]:
    """Return the start, rounded down to the minute as CloudWatch does, and the end, rounded up to the second."""
    start, end = epoch(params.get("StartTime")), epoch(params.get("EndTime"))
    if start is None or end is None:
        raise invalid("The parameters StartTime and EndTime are required.")
    if start == end:
        raise invalid("The parameter StartTime must not equal parameter EndTime.")
    if start > end:
        raise invalid("The parameter EndTime must be greater than StartTime.")
    return round_down(int(start), MINUTE), math.ceil(end)


def read_period(period: Any) -> int:
    """Return the period in seconds. Periods below a minute become a minute, as there are no high-resolution metrics."""
    if period in (1, 5, 10, 20, 30):
        return MINUTE
    if not isinstance(period, int) or period < MINUTE or period % MINUTE:
        raise AwsError("InvalidParameterValue", f"Period must be 1, 5, 10, 20, 30 or a multiple of 60, not {period}.")
    return period


def statistic(name: str, found: list[Point]) -> float:
    """Return one statistic over the samples of a period."""
    samples = sum(point.samples for point in found)
    total = sum(point.average * point.samples for point in found)
    percentile = PERCENTILE.match(name)
    if percentile:
        ordered = sorted(point.average for point in found)
        return ordered[min(len(ordered) - 1, int(len(ordered) * float(percentile[1]) / 100))]
    values = {
        "Average": total / samples,
        "Minimum": min(point.minimum for point in found),
        "Maximum": max(point.maximum for point in found),
        "Sum": total,
        "SampleCount": float(samples),
    }
    if name not in values:
        raise AwsError(
            "InvalidParameterValue", f"The statistic must be one of {', '.join(STATISTICS)}, pNN, not {name}."
        )
    return round(values[name], 6)


def write_token(offset: int) -> str:
    return base64.b64encode(f"points:{offset}".encode()).decode()


def read_token(token: Any) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(str(token), validate=True).decode().removeprefix("points:"))
    except (binascii.Error, ValueError) as error:
        raise AwsError("InvalidNextToken", "The token specified is invalid.") from error


def invalid(message: str) -> AwsError:
    return AwsError("ValidationError", message)
