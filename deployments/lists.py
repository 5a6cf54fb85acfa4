"""Pages of deployments and of their events. Totals come from counters, not from counting rows.

An organization may be an organization, or in a statement of the API a placeholder (portal/api/json_rows.py). In the same
way, a filter may be a value or a placeholder.
"""

import functools
import operator
import uuid
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Count, F, Func, IntegerField, OuterRef, Q, QuerySet, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, Lower

from deployments.models import (
    BY_AGENT,
    NEWEST_FIRST,
    SORTS,
    Agent,
    Deployment,
    DeploymentCount,
    DeploymentEvent,
    DeploymentEventQuerySet,
    DeploymentQuerySet,
)
from deployments.states import EventType, Status
from portal.models import Organization, User
from portal.pagination import Page, aggregate_rows

ID_DIGITS = 32
LOWER_NAME = "lower_name"  # of the agent, for the order by it
# The first and the last of the ids that begin with some digits, or a placeholder for each.
IdRange = tuple[Any, Any]


def deployments_page(
    user: User | AnonymousUser,
    organization: Organization,
    *,
    skip: int,
    limit: int,
    status: str | None = None,
    agent_id: uuid.UUID | None = None,
    q: str | None = None,
    sort: str = NEWEST_FIRST,
    total: int | None = None,
    columns: tuple[str, ...] = (),
) -> Page[Deployment]:
    """Return one page of the organization's deployments, with agent and organization.

    `total`: if the caller knows it. `columns`: read only these, and none of the organization.
    *Costs* one query, and one for the total unless it is known or the page itself shows it.
    """
    filters: dict[str, Any] = {"status": status, "agent_id": agent_id, "q": q, "ids": find_id_range(q)}
    visible = Deployment.objects.visible_to(user).select_related("agent", "organization")
    if columns:
        visible = visible.select_related(None).select_related("agent").only(*columns)
    items = list(deployments_rows(visible, organization, skip=skip, limit=limit, sort=sort, **filters))
    if total is None:
        total = infer_total(items, skip=skip, limit=limit)
    if total is None:
        counted = Organization.objects.filter(pk=organization.pk).order_by()
        total = counted.values_list(deployments_total(organization, **filters), flat=True).get()
    return Page(items=items, total=total, skip=skip, limit=limit)


def infer_total(items: list[Deployment], *, skip: int, limit: int) -> int | None:
    """Return the total if a page that is not full shows it, else None."""
    if len(items) < limit and (items or skip == 0):
        return skip + len(items)
    return None


def deployments_rows(
    among: DeploymentQuerySet,
    organization: Organization | Combinable,
    *,
    skip: int,
    limit: int,
    status: Any = None,
    agent_id: Any = None,
    q: Any = None,
    ids: IdRange | None = None,
    sort: str = NEWEST_FIRST,
) -> DeploymentQuerySet:
    """Return a page of the organization's deployments in a total order: `sort`, a key of SORTS.

    `q` is a part of the agent's name, and `ids` the range of the ids that begin with it, if any can.

    An index leads to the rows of a page, however many there are. No index finds a part of a name: `q` and the sort by
    agent go through the agents, which are few, and take each one's newest deployments.
    """
    found = among.matching(organization, status=status, agent_id=agent_id).order_by(*SORTS[sort])
    agents = Agent.objects.filter(organization=further_in(organization))
    if agent_id:
        agents = agents.filter(pk=agent_id)
    if q:
        named = agents.filter(name__icontains=q).order_by()
        picked: QuerySet[Any] = pick_newest(named, status, skip + limit if sort == NEWEST_FIRST else None)
        if ids:
            begun = Deployment.objects.matching(further_in(organization), status=status, agent_id=agent_id)
            picked = picked.union(begun.filter(pk__range=ids).order_by().values_list("pk"))
        found = found.filter(pk__in=picked)
    elif sort == BY_AGENT:
        in_order = agents.order_by(Lower("name"), "id")
        ids_in_order = in_order.values_list(unnest(newest_of_agent(status, skip + limit).values("pk")))
        return found.filter(pk__in=ids_in_order[skip : skip + limit])
    return found[skip : skip + limit]


def pick_newest(agents: QuerySet[Agent], status: Any, most: int | None) -> QuerySet[Any]:
    """Return the ids of the newest `most` deployments of these agents; all for None."""
    newest = newest_of_agent(status, most)
    ids = agents.values_list(unnest(newest.values("pk")))
    return (
        ids
        if most is None
        else ids.order_by(unnest(newest.values("created_at")).desc(), unnest(newest.values("pk")).desc())[:most]
    )


def newest_of_agent(status: Any, most: int | None) -> DeploymentQuerySet:
    """Return the newest deployments of an agent, inside of a query of agents. An index has all that is read."""
    its = Deployment.objects.matching(OuterRef("organization"), status=status, agent_id=OuterRef("pk"))
    return its.order_by("-created_at", "-id")[:most]


def unnest(rows: QuerySet[Any]) -> Func:
    """Return a row for each value of the inner query. Two of them side by side go through their values together."""
    return Func(ArraySubquery(rows), function="unnest")


def further_in(organization: Organization | Combinable) -> Any:
    """Return the organization for a query inside of the one that refers to it."""
    return OuterRef(organization) if isinstance(organization, OuterRef) else organization


def find_neighbours(
    among: DeploymentQuerySet,
    deployment: Deployment,
    *,
    status: str | None,
    agent_id: uuid.UUID | None,
    q: str | None,
    sort: str,
) -> tuple[uuid.UUID | None, uuid.UUID | None]:
    """Return the ids of the deployments before and after this one in the list with these filters.

    Its own status may have changed since, so that it need not be in the list any more.

    *Costs* one query: for each key of the order, the nearest row that is equal in the keys before it.
    """
    found = among.matching(deployment.organization, status=status, agent_id=agent_id)
    if q:
        ids = find_id_range(q)
        found = found.filter(Q(agent__name__icontains=q) | (Q(pk__range=ids) if ids else Q()))
    keys = [name_and_direction(key) for key in SORTS[sort]]
    if sort == BY_AGENT:
        found = found.annotate(**{LOWER_NAME: Lower("agent__name")})
    own = {name: deployment.agent.name.lower() if name == LOWER_NAME else getattr(deployment, name) for name, _ in keys}
    parts = []
    for is_after in (False, True):
        order = [f"{'-' if is_descending == is_after else ''}{name}" for name, is_descending in keys]
        for depth, (name, is_descending) in enumerate(keys):
            beyond = {f"{name}__{'lt' if is_descending == is_after else 'gt'}": own[name]}
            equal = {each: own[each] for each, _ in keys[:depth]}
            rows = found.filter(**equal, **beyond).order_by(*order)
            parts.append(rows.values_list("pk", Value(is_after), Value(depth))[:1])
    by_depth = sorted(parts[0].union(*parts[1:], all=True), key=operator.itemgetter(2))
    nearest = {is_after: pk for pk, is_after, _ in by_depth}
    return nearest.get(False), nearest.get(True)


def name_and_direction(key: Any) -> tuple[str, bool]:
    """Return the column of a key of SORTS, and whether it descends."""
    return (key.removeprefix("-"), key.startswith("-")) if isinstance(key, str) else (LOWER_NAME, False)


def deployments_total(
    organization: Organization | Combinable,
    *,
    status: Any = None,
    agent_id: Any = None,
    q: Any = None,
    ids: IdRange | None = None,
) -> Combinable:
    """Return the number of deployments that match, from counters; without counters those that `ids` alone finds."""
    counts = DeploymentCount.objects.filter(organization=organization)
    counts = counts.filter(status=status) if status else counts
    counts = counts.filter(agent=agent_id) if agent_id else counts
    counts = counts.filter(agent__name__icontains=q) if q else counts
    total = aggregate_rows(counts, Sum("count"))
    if not ids:
        return total
    begun = Deployment.objects.matching(organization, status=status, agent_id=agent_id).filter(pk__range=ids)
    return total + aggregate_rows(begun.exclude(agent__name__icontains=q), Count("*"))


def find_id_range(text: str | None) -> IdRange | None:
    """Return the first and the last id that begin with these hexadecimal digits; None if no id can begin with the text."""
    digits = (text or "").replace("-", "").lower()
    if not digits or len(digits) > ID_DIGITS or set(digits) - set("0123456789abcdef"):
        return None
    return uuid.UUID(digits.ljust(ID_DIGITS, "0")), uuid.UUID(digits.ljust(ID_DIGITS, "f"))


def events_rows(
    deployment: OuterRef, *, skip: Any, limit: int, event_type: str | None = None, status: str | None = None
) -> DeploymentEventQuerySet:
    """Return a page of the deployment's events, newest first, inside of a query of deployments.

    Without a filter the page is a range of sequence numbers, so that skip=150000 costs the same as skip=0.
    """
    rows = DeploymentEvent.objects.for_timeline(deployment, event_type=event_type, status=status)
    if event_type or status:
        return rows[skip : skip + limit]
    newest = OuterRef("events_count") - skip
    return rows.filter(sequence__lte=newest, sequence__gt=newest - limit)


def events_total(*, event_type: str | None = None, status: str | None = None) -> Combinable:
    """Return how many events of this type and status a deployment has, from its counters."""
    if not event_type and not status:
        return F("events_count")
    counters = [
        Coalesce(Cast(KeyTextTransform(f"{each}|{its_status}", "event_counts"), IntegerField()), 0)
        for each in ([event_type] if event_type else EventType.values)
        for its_status in ([status] if status else Status.values)
    ]
    return functools.reduce(operator.add, counters)
