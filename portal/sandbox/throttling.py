"""Request throttling at AWS's limits: token buckets per account, region and category, in wall time.

Burst and sustained rate per second: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from portal.sandbox.errors import AwsError
from portal.sandbox.protocol import ApiRequest

LIMITS: dict[str, tuple[float, float]] = {
    "service modify": (50, 5),
    "service read": (100, 20),
    "service deployment": (50, 20),
    "service revision": (50, 20),
    "task definition modify": (20, 1),
    "task definition read": (50, 20),
    "cluster resource read": (100, 20),
    "cluster modify": (20, 1),
    "cluster read": (50, 20),
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
    "filter log events": (5, 5),
    "get log events": (10, 10),
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
    "get metric data": (50, 50),
}

CATEGORIES = {
    "CreateService": "service modify",
    "UpdateService": "service modify",
    "DeleteService": "service modify",
    # AWS lists no category for these writes.
    "StopServiceDeployment": "service modify",
    "ContinueServiceDeployment": "service modify",
    "DescribeServices": "service read",
    "ListServices": "service read",
    "DescribeServiceDeployments": "service deployment",
    "ListServiceDeployments": "service deployment",
    "DescribeServiceRevisions": "service revision",
    "RegisterTaskDefinition": "task definition modify",
    "DeregisterTaskDefinition": "task definition modify",
    "DeleteTaskDefinitions": "task definition modify",
    "DescribeTaskDefinition": "task definition read",
    "ListTaskDefinitions": "task definition read",
    "ListTaskDefinitionFamilies": "task definition read",
    "ListTasks": "cluster resource read",
    "DescribeTasks": "cluster resource read",
    "CreateCluster": "cluster modify",
    "UpdateCluster": "cluster modify",
    "DeleteCluster": "cluster modify",
    "DescribeClusters": "cluster read",
    "ListClusters": "cluster read",
}

# Actions of services other than ECS.
OTHER_CATEGORIES = {
    ("logs", "FilterLogEvents"): "filter log events",
    ("logs", "GetLogEvents"): "get log events",
    ("monitoring", "GetMetricData"): "get metric data",
}


@dataclass
class Throttling:
    """All buckets. `scale` multiplies both burst and rate."""

    enabled: bool = True
    scale: float = 1.0
    wall: Callable[[], float] = time.monotonic
    _buckets: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)

    def check(self, request: ApiRequest) -> None:
        """Take one token, or raise ThrottlingException if the bucket is empty."""
        is_ecs = request.service == "ecs"
        category = CATEGORIES.get(request.action) if is_ecs else OTHER_CATEGORIES.get((request.service, request.action))
        if not self.enabled or category is None:
            return
        burst, rate = (limit * self.scale for limit in LIMITS[category])
        key = (request.account, request.region, category)
        now = self.wall()
        tokens, at = self._buckets.get(key, (burst, now))
        tokens = min(burst, tokens + (now - at) * rate)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if tokens < 1:
            raise AwsError("ThrottlingException", "Rate exceeded")

    def reset(self) -> None:
        """Refill the buckets and restore AWS's limits."""
        self.enabled, self.scale = True, 1.0
        self._buckets.clear()
