"""The platform services panel of the overview."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, policy
from portal.web.htmx import render_page
from upgrades.inventory.running import build_overview_context


@policy(Policy.VIEWER)
@require_safe
def platform_services(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the live block of the overview. A request that is not from htmx is redirected to the overview."""
    organization = get_page_organization(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("overview", slug)
    context = build_overview_context(organization)
    fragment = "upgrades/_platform_services.html"
    return render_page(request, fragment, fragment, context)
