"""The Celery task that reconciles a cluster, and the periodic sweep that picks up work whose message was lost.

A message carries only an organization's id and a cluster.
"""

from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.contrib.postgres.aggregates import BoolAnd
from django.db.models import BooleanField, ExpressionWrapper, Min, Q
from django.db.models.functions import Now

from deployments.engine.reconciler import reconcile as run_turn
from deployments.models import Deployment
from portal.tenancy import all_organizations
from portal.wakeup import dispatch_or_run

# The sweep itself reconciles work that no worker has claimed within this time, with or without a broker.
OVERDUE = timedelta(seconds=4)
CLUSTERS_PER_SWEEP = 100
TURNS_PER_MESSAGE = 10


@shared_task
def reconcile(organization_id: str, cluster: str) -> None:
    """Take turns for one cluster until nothing is due. A late, duplicate or needless message does no harm."""
    for _ in range(TURNS_PER_MESSAGE):
        if not run_turn(organization_id, cluster):
            return


def find_due_clusters() -> list[tuple[UUID, str, bool]]:
    """Return the clusters with due deployments: organization, cluster, and whether they are overdue.

    Clusters with changing or viewed deployments come first.

    *Costs* one query.
    """
    is_overdue = ExpressionWrapper(Q(due_at__lt=Now() - OVERDUE), output_field=BooleanField())
    places = Deployment.objects.due().order_by().values("organization_id", "cluster")
    due = places.annotate(due_at=Min("next_check_at"), is_steady=BoolAnd("has_read_slot")).annotate(overdue=is_overdue)
    due = due.order_by("is_steady", "due_at")
    with all_organizations("the sweep looks for work everywhere"):
        return list(due.values_list("organization_id", "cluster", "overdue")[:CLUSTERS_PER_SWEEP])


def sweep() -> None:
    """Dispatch a task for every cluster with due deployments, and reconcile overdue clusters directly."""
    calls = (((str(organization_id), cluster), overdue) for organization_id, cluster, overdue in find_due_clusters())
    dispatch_or_run("deployments.tasks.reconcile", calls, run_turn)
