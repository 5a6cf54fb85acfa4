"""The doorbell's other end, and the sweep that needs no doorbell. Messages carry an organization's id and a cluster."""

import logging
from datetime import timedelta

from celery import shared_task
from django.db.models import BooleanField, ExpressionWrapper, Min, Q
from django.db.models.functions import Now

from deployments.models import Deployment
from deployments.reconcile import reconcile as one_turn
from portal.doorbell import ring

logger = logging.getLogger(__name__)

# What no worker took within this time is carried out by the sweep itself, broker or no broker.
OVERDUE = timedelta(seconds=4)
CLUSTERS_A_SWEEP = 100
TURNS_A_MESSAGE = 10


@shared_task
def reconcile(organization_id: str, cluster: str) -> None:
    """Turns for one cluster, until nothing of it is due. A late, doubled or needless message changes nothing."""
    for _ in range(TURNS_A_MESSAGE):
        if not one_turn(organization_id, cluster):
            return


def sweep() -> None:
    """Find every cluster with something due: ring for it, and take a turn ourselves where it has been due too long.

    After one message that the broker did not take, no more are tried in this sweep: each would cost its time-out.
    """
    is_overdue = ExpressionWrapper(Q(due_at__lt=Now() - OVERDUE), output_field=BooleanField())
    due = (
        Deployment.objects.due()
        .order_by()
        .values("organization_id", "cluster")
        .annotate(due_at=Min("next_check_at"))
        .annotate(overdue=is_overdue)
        .order_by("due_at")
        .values_list("organization_id", "cluster", "overdue")[:CLUSTERS_A_SWEEP]
    )
    broker_takes = True
    for organization_id, cluster, overdue in due:
        place = (str(organization_id), cluster)
        broker_takes = broker_takes and (overdue or ring("deployments.tasks.reconcile", *place))
        if overdue or not broker_takes:
            logger.warning("sweep takes a turn for cluster %s itself", cluster)
            one_turn(*place)
