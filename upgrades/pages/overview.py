"""The platform services panel of the overview."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, get_role, open_page, policy
from portal.database.statements import Given
from portal.database.together import attach
from portal.models import Organization
from portal.web.attention import find_attention
from portal.web.htmx import answer_unchanged, make_tag, render_page
from portal.web.overview_rows import Rows, read_overview
from upgrades.inventory.running import read_running_services, read_services, select_record
from upgrades.models import ROLLOUT_IN_ROW, UPGRADE_IN_ROW, Rollout, Upgrade
from upgrades.pages import attention
from upgrades.pages.lanes import build_lanes, select_open, take_open
from upgrades.pages.overview_tag import LiveOverview, live_overview

RECENT = 5


@policy(Policy.VIEWER)
@require_safe
def platform_services(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the live block of the overview. A request that is not from htmx is redirected to the overview."""
    organization = get_page_organization(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("overview", slug)
    opened = open_page(request, organization, live_overview())
    live = LiveOverview(*opened.live)
    reading = read_services(organization, organization.cluster, live.ends) if organization.cluster else None
    shown, tag = live.find_shown(organization, reading), None
    if shown is not None:
        role = get_role(request.user, organization)
        tag = make_tag(request, "overview", role, opened.silent_processes, *shown)
        unchanged = answer_unchanged(request, tag, as_of=reading.read_at if reading else None)
        if unchanged:
            return unchanged
    fragment = "upgrades/_platform_services.html"
    return render_page(request, fragment, fragment, build_overview_context(request, organization), tag=tag)


def select_rows() -> dict[str, QuerySet[Any]]:
    """Return what the overview shows of upgrades: what runs by the record, the open ones, and the newest ones."""
    newest = Upgrade.objects.filter(organization=Given("organization")).newest_first()[:RECENT]
    of_newest = Rollout.objects.filter(upgrade__in=newest.values("pk")).only(*ROLLOUT_IN_ROW)
    return {
        **select_record(),
        **select_open(),
        "recent_upgrades": newest.select_related("initiated_by").only(*UPGRADE_IN_ROW),
        "recent_rollouts": of_newest.order_by("position"),
    }


def take_recent(rows: Rows) -> list[Upgrade]:
    """Return the newest upgrades of the overview's rows, with their rollouts."""
    attach(rows["recent_upgrades"], "rollouts", rows["recent_rollouts"])
    return rows["recent_upgrades"]


def build_overview_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Return the context of the overview's live block: what needs attention, the open upgrades, and what runs.

    *Costs* the statements of the overview's rows and of the frame, one while an upgrade is open, one if the newest upgrade
    of a service is not validated, and one for a new reading of ECS.
    """
    rows = read_overview(request, organization)
    reading = read_running_services(organization, record=rows)
    upgrades = take_open(organization, rows)
    found = attention.find_attention(organization, reading, upgrades)
    return {
        "organization": organization,
        "reading": reading,
        "unread": "ECS could not be read." if reading and reading.error else "",
        "attention": find_attention(organization, rows, open_page(request, organization).silent_processes, found),
        "open_upgrades": build_lanes(organization, upgrades),
    }
