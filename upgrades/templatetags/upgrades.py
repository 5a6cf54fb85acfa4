"""What the overview shows of upgrades: `{% load upgrades %}`, then one tag for each part."""

from typing import Any

from django import template

from portal.models import Organization
from upgrades.models import Upgrade
from upgrades.platform import read_platform
from upgrades.states import OPEN

register = template.Library()

RECENT = 5


@register.inclusion_tag("upgrades/_platform_services.html", takes_context=True)
def platform_services(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    return {"organization": organization, "reading": read_platform(organization), "request": context["request"]}


@register.inclusion_tag("upgrades/_open.html", takes_context=True)
def open_upgrade(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    """What happens now: the newest open upgrade."""
    upgrades = of(context, organization).filter(status__in=OPEN)
    return {"organization": organization, "upgrade": upgrades.first()}


@register.inclusion_tag("upgrades/_recent.html", takes_context=True)
def recent_upgrades(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    return {"organization": organization, "upgrades": of(context, organization)[:RECENT]}


def of(context: dict[str, Any], organization: Organization) -> Any:
    return Upgrade.objects.for_history(context["request"].user, organization)
