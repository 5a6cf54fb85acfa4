"""Pages of deployments and of their events. Totals come from counters, not from counting rows."""

import uuid

from django.contrib.auth.models import AnonymousUser
from django.db.models import Sum

from deployments.models import NEWEST_FIRST, Deployment, DeploymentCount, DeploymentEvent
from portal.models import Organization, User
from portal.pagination import Page

# Totals for a text filter cannot come from counters. They are counted up to this many rows.
MAX_COUNTED = 10_000


def deployments_page(
    user: User | AnonymousUser,
    organization: Organization,
    *,
    skip: int,
    limit: int,
    status: str | None = None,
    agent_id: uuid.UUID | str | None = None,
    q: str | None = None,
    sort: str = NEWEST_FIRST,
    total: int | None = None,
    columns: tuple[str, ...] = (),
) -> Page[Deployment]:
    """Return one page of for_list().

    `total`: if the caller knows it. `columns`: read only these, and none of the organization.
    *Costs* one query, and one for the total unless it is known or the page itself shows it.
    """
    rows = Deployment.objects.visible_to(user).for_list(organization, status=status, agent_id=agent_id, q=q, sort=sort)
    if columns:
        rows = rows.select_related(None).select_related("agent").only(*columns)
    items = list(rows[skip : skip + limit])
    if total is None:
        total = infer_total(items, skip=skip, limit=limit)
    if total is None and q:
        total = Deployment.objects.matching(organization, status=status, agent_id=agent_id, q=q)[:MAX_COUNTED].count()
    elif total is None:
        counts = DeploymentCount.objects.filter(organization=organization)
        counts = counts.filter(status=status) if status else counts
        counts = counts.filter(agent_id=agent_id) if agent_id else counts
        total = counts.aggregate(total=Sum("count"))["total"] or 0
    return Page(items=items, total=total, skip=skip, limit=limit)


def events_page(
    deployment: Deployment,
    *,
    skip: int,
    limit: int,
    event_type: str | None = None,
    status: str | None = None,
) -> Page[DeploymentEvent]:
    """Return one page of a deployment's events, newest first. The total comes from the deployment's own counters.

    Without a filter the page starts at a sequence number, so that skip=150000 costs the same as skip=0.

    *Costs* one query.
    """
    rows = DeploymentEvent.objects.for_timeline(deployment, event_type=event_type, status=status)
    total = events_total(deployment, event_type=event_type, status=status)
    if event_type or status:
        items = list(rows[skip : skip + limit])
    else:
        items = list(rows.filter(sequence__lte=max(total - skip, 0))[:limit])
    return Page(items=items, total=total, skip=skip, limit=limit)


def events_total(deployment: Deployment, *, event_type: str | None = None, status: str | None = None) -> int:
    """Return how many events of this type and status there are, from counters. *Costs* no query."""
    if not event_type and not status:
        return deployment.events_count
    total = 0
    for key, count in deployment.event_counts.items():
        its_type, _, its_status = key.partition("|")
        if event_type in (None, its_type) and status in (None, its_status):
            total += count
    return total


def infer_total(items: list[Deployment], *, skip: int, limit: int) -> int | None:
    """Return the total if a page that is not full shows it, else None."""
    if len(items) < limit and (items or skip == 0):
        return skip + len(items)
    return None
