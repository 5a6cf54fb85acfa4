"""The logs and metrics of one service in the time of an upgrade: why its new tasks stopped, and what changed."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, person, policy
from portal.errors import NOT_FOUND, PortalError, found_or_404
from portal.models import Organization
from portal.web.context import page_context
from portal.web.htmx import render_page, wants_fragment
from portal.web.observe.changes import find_changes
from portal.web.observe.charts import Event
from portal.web.observe.download import check_form, check_window, download_records, list_downloads
from portal.web.observe.logs import build_logs, build_poll
from portal.web.observe.metrics import build_metrics, find_chosen_moment
from portal.web.observe.time_window import RANGES, Window, parse_window, spanning
from upgrades.inventory.logs import find_source
from upgrades.models import Rollout

REGIONS = ("window", "metrics", "logs", "log-poll")
WINDOW = ("range", "since", "until")


@policy(Policy.VIEWER)
@require_safe
def service_logs(request: HttpRequest, slug: str, upgrade_id: str, service: str) -> HttpResponse:
    """Render the page, or one region of it. Only the regions read CloudWatch, so the page renders whatever AWS does.

    Without a time window in the query, it is that of the rollout. `?whole=1`, for browsers without JavaScript, renders
    everything in one response.
    """
    organization = get_page_organization(request, slug)
    rollout = find_rollout(organization, upgrade_id, service)
    region = request.headers.get("HX-Target", "window") if wants_fragment(request) else None
    if region not in (None, *REGIONS):
        raise PortalError("not_found", NOT_FOUND, 404)
    window = find_window(request, rollout, now=timezone.now())
    context = page_context(request, organization) | {
        "upgrade": rollout.upgrade,
        "rollout": rollout,
        "here": request.path,
        "window": window,
        "ranges": RANGES,
        "is_whole": "whole" in request.GET,
        **region_context(request, rollout, window, region),
    }
    name = (region or "window").replace("-", "_")
    response = render_page(request, "upgrades/service_logs.html", f"portal/web/observe/_{name}.html", context)
    response["Vary"] = f"{response['Vary']}, HX-Target"
    return response


@policy(Policy.VIEWER)
@require_safe
def download_logs(request: HttpRequest, slug: str, upgrade_id: str, service: str, form: str) -> HttpResponse:
    """Return the records that the page shows for the same query. The file is named by service and upgrade.

    *Raises* PortalError 400 for an invalid window, 404 for another form.
    """
    check_form(form)
    rollout = find_rollout(get_page_organization(request, slug), upgrade_id, service)
    window = find_window(request, rollout, now=timezone.now())
    check_window(window)
    logs = build_logs(request.GET, find_source(rollout), window, reader=person(request))
    return download_records(logs, form, name=f"{service}-{upgrade_id}")


def find_rollout(organization: Organization, upgrade_id: str, service: str) -> Rollout:
    """Return the rollout of the organization's upgrade. *Raises* PortalError 404."""
    named = Rollout.objects.filter(organization=organization, upgrade__upgrade_id=upgrade_id, service=service)
    return found_or_404(named.select_related("upgrade__organization", "organization").first())


def find_window(request: HttpRequest, rollout: Rollout, *, now: datetime) -> Window:
    """Return the window of the query, else that of the rollout, which follows the present while the rollout is open."""
    if any(request.GET.get(name) for name in WINDOW):
        return parse_window(request.GET, now=now)
    began = rollout.started_at or rollout.upgrade.created_at
    return spanning(began, rollout.completed_at, now=now)


def region_context(request: HttpRequest, rollout: Rollout, window: Window, region: str | None) -> dict[str, Any]:
    """Build the context of a region. Only `metrics`, `logs` and the whole page read from AWS."""
    is_whole = region is None and "whole" in request.GET
    context: dict[str, Any] = {}
    if region in ("metrics", "logs", "log-poll") or is_whole:
        source = find_source(rollout)
        if region == "metrics" or is_whole:
            marks = [*list_marks(rollout), *find_chosen_moment(request.GET)]
            changes = find_changes(rollout.organization, window.since, window.until)
            context["metrics"] = build_metrics(source, window, marks, changes, reader=person(request))
        if region == "logs" or is_whole:
            context["logs"] = build_logs(request.GET, source, window, reader=person(request))
            place = [rollout.organization.slug, rollout.upgrade.upgrade_id, rollout.service]
            context["downloads"] = list_downloads(lambda form: reverse("upgrades:log_download", args=[*place, form]))
        if region == "log-poll":
            context |= build_poll(request.GET, source, window)
    return context


def list_marks(rollout: Rollout) -> list[Event]:
    """Return the begin and the end of the rollout, to mark them on the charts."""
    began = [Event(rollout.started_at, "Rollout started")] if rollout.started_at else []
    label = f"Rollout ended: {rollout.get_status_display()}"
    ended = [Event(rollout.completed_at, label)] if rollout.completed_at else []
    return began + ended
