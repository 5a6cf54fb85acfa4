"""The Celery task that reconciles a cluster, and the periodic sweep that picks up work whose message was lost.

A message carries only an organization's id and a cluster.
"""

from datetime import timedelta
from uuid import UUID

from celery import shared_task

from deployments.engine.reconciler import reconcile as run_turn
from portal.leases import find_due
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

    Clusters with changing or viewed deployments come first. Needs no context: each turn works inside its organization.

    *Costs* one query.
    """
    return [
        (organization_id, cluster, is_overdue)
        for organization_id, cluster, is_overdue in find_due("deployments_due_clusters", OVERDUE, CLUSTERS_PER_SWEEP)
    ]


def sweep() -> None:
    """Dispatch a task for every cluster with due deployments, and reconcile overdue clusters directly."""
    calls = (((str(organization_id), cluster), overdue) for organization_id, cluster, overdue in find_due_clusters())
    dispatch_or_run("deployments.tasks.reconcile", calls, run_turn)
