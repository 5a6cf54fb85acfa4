"""The platform services panel of the overview."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, open_page, policy
from portal.models import Organization
from portal.web.attention import find_attention
from portal.web.htmx import render_page
from upgrades.inventory.running import read_running_services
from upgrades.pages import attention
from upgrades.pages.lanes import build_lanes, find_open_upgrades


@policy(Policy.VIEWER)
@require_safe
def platform_services(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the live block of the overview. A request that is not from htmx is redirected to the overview."""
    organization = get_page_organization(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("overview", slug)
    fragment = "upgrades/_platform_services.html"
    return render_page(request, fragment, fragment, build_overview_context(request, organization))


def build_overview_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Return the context of the overview's live block: what needs attention, the open upgrades, and what runs.

    *Costs* six queries and up to four more, independent of the past: lanes (2) only while an upgrade is open.
    """
    reading = read_running_services(organization)
    upgrades = find_open_upgrades(organization)
    found = attention.find_attention(organization, reading, upgrades)
    return {
        "organization": organization,
        "reading": reading,
        "unread": "ECS could not be read." if reading and reading.error else "",
        "attention": find_attention(organization, open_page(request, organization).silent_processes, found),
        "open_upgrades": build_lanes(organization, upgrades),
    }
