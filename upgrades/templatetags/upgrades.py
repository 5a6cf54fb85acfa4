"""What the overview shows of upgrades: `{% load upgrades %}`, then one tag for each part."""

from typing import Any

from django import template

from portal.models import Organization
from upgrades.models import Upgrade
from upgrades.platform import now_context

register = template.Library()

RECENT = 5


@register.inclusion_tag("upgrades/_platform_services.html", takes_context=True)
def platform_services(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    """What happens now and what runs: the block that refreshes itself (views.platform_services)."""
    return {**now_context(organization), "user": context["user"], "request": context["request"]}


@register.inclusion_tag("upgrades/_recent.html", takes_context=True)
def recent_upgrades(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    upgrades = Upgrade.objects.for_history(context["request"].user, organization)[:RECENT]
    return {"organization": organization, "upgrades": upgrades}
