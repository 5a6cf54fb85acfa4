"""Template tags and filters for the pages of deployments: `{% load deployments %}`."""

from typing import Any

from django import template

from deployments.models import Deployment, with_every_status
from deployments.pages.revisions import build_sides
from deployments.pages.search import find_deployments
from deployments.states import Status
from portal.models import Organization
from portal.web.overview_rows import read_overview

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


@register.inclusion_tag("_outside_links.html")
def deployment_links(deployment: Deployment) -> dict[str, Any]:
    """Render the organization's links to other systems for a deployment."""
    links = deployment.organization.fill_links(
        region=deployment.organization.deployment_region,
        cluster=deployment.cluster,
        service=deployment.service_name,
        log_group=deployment.log_group,
        agent=deployment.agent.name,
        deployment=str(deployment.pk),
        version=deployment.version,
    )
    return {"links": links, "label": "Other systems"}


@register.inclusion_tag("deployments/_by_status.html", takes_context=True)
def deployments_by_status(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    """Render the overview's counts of deployments by status."""
    counts = with_every_status(read_overview(context["request"], organization)["deployments_by_status"])
    others = [each.label.lower() for each in Status if not counts[each]]
    return {
        "organization": organization,
        "statuses": [
            {"value": each.value, "label": each.label, "count": counts[each]} for each in Status if counts[each]
        ],
        "without": " or ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others),
    }


register.simple_tag(find_deployments)
