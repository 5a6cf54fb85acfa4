"""Template tags and filters for the pages of deployments: `{% load deployments %}`."""

from typing import Any

from django import template

from deployments.models import counts_by_status
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


@register.inclusion_tag("deployments/_by_status.html")
def deployments_by_status(organization: Organization) -> dict[str, Any]:
    """Render the overview's counts of deployments by status. *Costs* one query."""
    counts = counts_by_status(organization)
    others = [each.label.lower() for each in Status if not counts[each]]
    return {
        "organization": organization,
        "statuses": [
            {"value": each.value, "label": each.label, "count": counts[each]} for each in Status if counts[each]
        ],
        "without": " or ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others),
    }
