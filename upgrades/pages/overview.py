"""The platform services panel of the overview."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, policy
from portal.models import Organization
from portal.web.htmx import render_page
from upgrades.inventory.running import read_running_services
from upgrades.models import Upgrade
from upgrades.states import OPEN


@policy(Policy.VIEWER)
@require_safe
def platform_services(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the live block of the overview. A request that is not from htmx is redirected to the overview."""
    organization = get_page_organization(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("overview", slug)
    fragment = "upgrades/_platform_services.html"
    return render_page(request, fragment, fragment, build_overview_context(organization))


def build_overview_context(organization: Organization) -> dict[str, Any]:
    """Return the context of the overview's live block: all open upgrades, which may run in parallel, and what runs."""
    open_upgrades = Upgrade.objects.filter(organization=organization, status__in=OPEN).for_record().newest_first()
    return {
        "organization": organization,
        "reading": read_running_services(organization),
        "open_upgrades": list(open_upgrades),
    }
