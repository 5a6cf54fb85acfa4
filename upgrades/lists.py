"""Pages of the history of upgrades. Totals come from counters where they can.

An organization may be an organization, or in a statement of the API a placeholder. In the same way, a filter may be a
value or a placeholder (portal/api/json_rows.py).
"""

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Sum, Value
from django.db.models.expressions import Combinable

from portal.models import Organization, User
from portal.pagination import Page, aggregate_rows
from upgrades.models import Rollout, Upgrade, UpgradeCount, UpgradeQuerySet, attach_rollouts
from upgrades.states import ALL_SERVICES


def history_page(
    user: User | AnonymousUser, organization: Organization, *, skip: int, limit: int, **filters: Any
) -> Page[Upgrade]:
    """Return one page of an organization's upgrades, with what a row shows. *Costs* three queries, however many there are.

    Only with the filters `version`, `initiated_by` and a single `service` the total costs more, the more upgrades match.
    """
    found = Upgrade.objects.for_history(user, organization, **filters).for_rows()
    items = attach_rollouts(found[skip : skip + limit])
    counted = Organization.objects.filter(pk=organization.pk).order_by()
    total = counted.values_list(upgrades_total(organization, **filters), flat=True).get()
    return Page(items=items, total=total, skip=skip, limit=limit)


def find_neighbours(among: UpgradeQuerySet, upgrade: Upgrade, **filters: Any) -> tuple[str | None, str | None]:
    """Return the ids of the upgrades before and after this one in the history with these filters, newest first.

    *Costs* one query.
    """
    found = among.filter(organization=upgrade.organization).matching(**filters)
    at, key = upgrade.created_at, upgrade.pk
    newer = found.filter(created_at__gte=at).exclude(created_at=at, pk__lte=key).order_by("created_at", "id")
    older = found.filter(created_at__lte=at).exclude(created_at=at, pk__gte=key).order_by("-created_at", "-id")
    parts = [rows.values_list("upgrade_id", Value(is_after))[:1] for rows, is_after in ((newer, False), (older, True))]
    ids = {is_after: found_id for found_id, is_after in parts[0].union(parts[1], all=True)}
    return ids.get(False), ids.get(True)


def upgrades_total(
    organization: Organization | Combinable,
    *,
    service: str | None = None,
    status: Any = None,
    validation: Any = None,
    **others: Any,
) -> Combinable:
    """Return the number of upgrades that match: from counters, else counted through an index."""
    if any(others.values()) or (service not in (None, "", ALL_SERVICES) and (status or validation)):
        rows = Upgrade.objects.filter(organization=organization)
        matching = rows.matching(service=service, status=status, validation=validation, **others)
        return aggregate_rows(matching, Count("*"))
    if service and service != ALL_SERVICES:
        return aggregate_rows(Rollout.objects.filter(organization=organization, service=service), Count("*"))
    counts = UpgradeCount.objects.filter(organization=organization)
    counts = counts.filter(target=service) if service else counts
    counts = counts.filter(status=status) if status else counts
    counts = counts.filter(validation=validation) if validation else counts
    return aggregate_rows(counts, Sum("count"))
