"""Prometheus gauges for deployments of agents, summed over all organizations."""

from django.db.models import Max, Sum

from deployments.models import Deployment, DeploymentCount
from deployments.states import Status
from portal.monitoring.prometheus import Gauges, gauge, gauge_by, seconds_since


def gauges() -> Gauges:
    """Yield the gauges. *Costs* two queries."""
    counted = dict(DeploymentCount.objects.order_by().values_list("status").annotate(Sum("count")))
    yield gauge_by(
        "status", "deployments", "Recorded deployments.", [(status, counted.get(status, 0)) for status in Status.values]
    )
    waiting = Deployment.objects.due().aggregate(longest=Max(seconds_since("next_check_at")))["longest"]
    yield gauge(
        "deployment_due_seconds", "How long the most overdue deployment has waited for its check.", waiting or 0
    )
