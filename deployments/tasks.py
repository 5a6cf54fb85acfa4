"""The doorbell's other end, and the sweep that needs no doorbell. Messages carry an organization's id and a cluster."""

import logging
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.contrib.postgres.aggregates import BoolAnd
from django.db.models import BooleanField, ExpressionWrapper, Min, Q
from django.db.models.functions import Now

from deployments.engine.reconciler import reconcile as one_turn
from deployments.models import Deployment
from portal.wakeup import ring

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


def due_clusters() -> list[tuple[UUID, str, bool]]:
    """Organization, cluster and whether it has been due too long: what changes or is watched first. One query."""
    is_overdue = ExpressionWrapper(Q(due_at__lt=Now() - OVERDUE), output_field=BooleanField())
    places = Deployment.objects.due().order_by().values("organization_id", "cluster")
    due = places.annotate(due_at=Min("next_check_at"), is_steady=BoolAnd("has_read_slot")).annotate(overdue=is_overdue)
    due = due.order_by("is_steady", "due_at")
    return list(due.values_list("organization_id", "cluster", "overdue")[:CLUSTERS_A_SWEEP])


def sweep() -> None:
    """Find every cluster with something due: ring for it, and take a turn ourselves where it has been due too long.

    After one message that the broker did not take, no more are tried in this sweep: each would cost its time-out.
    """
    broker_takes = True
    for organization_id, cluster, overdue in due_clusters():
        place = (str(organization_id), cluster)
        broker_takes = broker_takes and (overdue or ring("deployments.tasks.reconcile", *place))
        if overdue or not broker_takes:
            logger.warning("sweep takes a turn for cluster %s itself", cluster)
            one_turn(*place)
