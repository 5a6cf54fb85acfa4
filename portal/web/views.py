"""The start page, and the overview of one organization."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, list_organizations, person, policy
from portal.members.commands import list_invitations
from portal.web.activity import build_recent
from portal.web.context import page_context
from portal.web.overview_rows import read_overview


@policy(Policy.SIGNED_IN)
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the person's only organization. With several, show a choice; with none, what to do.

    Invitations are shown first.
    """
    organizations = list_organizations(request.user)
    invitations = list_invitations(person(request))
    if len(organizations) == 1 and not invitations:
        return redirect("overview", organizations[0].slug)
    context = {"organizations": organizations, "invitations": invitations}
    return render(request, "portal/web/home.html", context)


@policy(Policy.VIEWER)
@require_safe
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the overview. Each app adds its part through a template tag, and what needs attention (attention.py)."""
    organization = get_page_organization(request, slug)
    context = page_context(request, organization) | {
        "activity": build_recent(organization, read_overview(request, organization))
    }
    return render(request, "portal/web/overview.html", context)
