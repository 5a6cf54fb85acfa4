"""Template tags and filters for the pages of deployments: `{% load deployments %}`."""

from typing import Any

from django import template

from deployments.models import Deployment, counts_by_status
from deployments.pages.revisions import build_sides
from deployments.states import Status
from portal.models import Organization

register = template.Library()


@register.filter
def vcpu(units: int | str) -> str:
    """Convert CPU units to vCPU.

    >>> vcpu(256), vcpu("1024")
    ('0.25', '1')
    """
    return f"{int(units) / 1024:g}"


@register.inclusion_tag("deployments/_rolling.html")
def rolling(deployment: Deployment, organization: Organization) -> dict[str, Any]:
    """Render the live and the target revision side by side; nothing unless the deployment rolls from one to another.

    *Costs* two queries while it rolls, unless both revisions are loaded.
    """
    live, target = (deployment.live_revision, deployment.target_revision) if deployment.is_rolling else (None, None)
    sides = build_sides(live, target) if live and target else []
    return {"deployment": deployment, "organization": organization, "live": live, "target": target, "sides": sides}


@register.inclusion_tag("deployments/_by_status.html")
def deployments_by_status(organization: Organization) -> dict[str, Any]:
    """Render the overview's counts of deployments by status. *Costs* one query."""
    counts = counts_by_status(organization)
    statuses = [{"value": status.value, "label": status.label, "count": counts[status]} for status in Status]
    return {"organization": organization, "statuses": statuses, "total": sum(counts.values())}
