"""Template tags and filters for upgrades: `{% load upgrades %}`. Each part of the overview has one tag."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

from django import template

from portal.models import AuditKind, Organization
from portal.times import to_zone
from portal.web.overview_rows import read_overview
from upgrades.inventory.catalogue import Catalogue
from upgrades.inventory.ecs_services import UnderWay
from upgrades.models import Rollout, Upgrade
from upgrades.pages.overview import build_overview_context, take_recent
from upgrades.pages.results import (
    Chip,
    build_check_chip,
    build_result_chips,
    build_rows,
    build_state_chips,
    build_validation_chip,
    list_facts,
    sort_checks,
    upgrade_title,
)
from upgrades.pages.search import find_upgrades
from upgrades.states import EventKind, Outcome, PlatformService, Status

register = template.Library()

LABELS = {
    "status": Status.choices,
    "outcome": Outcome.choices,
    "service": PlatformService.choices,
    "event": EventKind.choices,
    "audit": AuditKind.choices,
}


@register.inclusion_tag("upgrades/_platform_services.html", takes_context=True)
def platform_services(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    """Render what needs attention, the open upgrades and the running services: the block that polls (pages/overview.py)."""
    request = context["request"]
    return {**build_overview_context(request, organization), "user": context["user"], "request": request}


@register.inclusion_tag("_outside_links.html")
def rollout_links(rollout: Rollout, upgrade: Upgrade) -> dict[str, Any]:
    """Render the organization's links to other systems for the service of a rollout."""
    links = upgrade.organization.fill_links(
        region=upgrade.region,
        cluster=upgrade.cluster,
        service=rollout.service_name,
        upgrade=upgrade.upgrade_id,
        version=rollout.to_version or upgrade.version,
    )
    return {"links": links, "label": f"Other systems: {rollout.get_service_display()}"}


@register.inclusion_tag("upgrades/_recent.html", takes_context=True)
def recent_upgrades(context: dict[str, Any], organization: Organization) -> dict[str, Any]:
    rows = read_overview(context["request"], organization)
    return {"organization": organization, "upgrade_rows": build_rows(take_recent(rows))}


register.simple_tag(find_upgrades)
register.filter("result_chips", build_result_chips)
register.filter("state_chips", build_state_chips)
register.filter("validation_chip", build_validation_chip)
register.filter("upgrade_title", upgrade_title)
register.filter("sort_checks", sort_checks)
register.filter("facts", list_facts)


@register.filter
def check_chip(check: Any) -> Chip:
    """Return the result of a check, which may also be a record of the evidence."""
    if isinstance(check, dict):
        check = SimpleNamespace(**{"name": "", "detail": "", "checked_at": ""} | check)
    return build_check_chip(check)


@register.filter
def moment(at: str | None) -> str:
    """Format an API time for a page: `2026-05-01T12:00:00.123456Z` as `2026-05-01 12:00:00`, None as an empty text."""
    return at[:19].replace("T", " ") if at else ""


@register.filter
def parse_time(at: str | None) -> datetime | None:
    """Return an API time for the filters of times, which show it in the person's zone."""
    return datetime.fromisoformat(at) if at else None


@register.filter
def describe(described: UnderWay | Catalogue) -> str:
    """Return its description with the times in the person's zone."""
    return described.describe(to_zone)


@register.filter
def code_label(code: str, kind: str) -> str:
    """Return the label that pages use for a code of the API, or the code itself if it is unknown.

    >>> code_label("rolled_back", "outcome")
    'Rolled back by ECS'
    """
    return str(dict(LABELS[kind]).get(code, code))
