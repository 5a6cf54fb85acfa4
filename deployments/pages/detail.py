"""The page of one deployment: its state, and a time window with timeline, metrics and logs."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from deployments import commands
from deployments.models import Deployment
from deployments.pages.action_words import build_actions
from deployments.pages.context import find_deployment
from deployments.pages.live_tags import LiveDeployment, live_deployment
from deployments.pages.neighbours import build_neighbours
from deployments.pages.timeline_region import EVENT_LABELS, build_links_around, build_timeline, list_marks
from deployments.states import Status
from portal.access import Policy, get_page_organization, get_role, open_page, person, policy
from portal.cloudwatch.last_error import read_last_error
from portal.errors import NOT_FOUND, PortalError
from portal.web.context import page_context
from portal.web.htmx import answer_unchanged, make_tag, render_page, wants_fragment
from portal.web.observe.changes import find_changes
from portal.web.observe.download import list_downloads
from portal.web.observe.logs import build_logs, build_poll
from portal.web.observe.metrics import build_metrics, find_chosen_moment
from portal.web.observe.time_window import RANGES, Window, around_event, parse_window

# Polling intervals of the pages in seconds: short while something is changing, longer otherwise.
CHANGING, WATCHED_STEADY, STEADY = 2, 4, 15
REGIONS = ("state", "last-error", "window", "timeline", "metrics", "logs", "log-poll")
FRAGMENTS = {
    "state": "deployments/_live.html",
    "last-error": "deployments/_last_error.html",
    "timeline": "deployments/_timeline.html",
} | {name: f"portal/web/observe/_{name.replace('-', '_')}.html" for name in ("window", "metrics", "logs", "log-poll")}
# Those that show only rows that the tag of the deployment covers. `state` brings the timeline of a live window along.
REVISED = (None, "state", "timeline")


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, deployment_id: UUID) -> HttpResponse:
    """Render the page of one deployment, or one region of it. The page and its regions share one URL.

    htmx names the region it needs in a header. Only the regions read CloudWatch, so the page renders whatever AWS does.
    `?whole=1`, for browsers without JavaScript, renders everything in one response.
    """
    window = parse_window(request.GET, now=timezone.now())
    region = request.headers.get("HX-Target", "state") if wants_fragment(request) else None
    if region not in (None, *REGIONS):
        raise PortalError("not_found", NOT_FOUND, 404)
    statement, values = live_deployment(deployment_id, window.since)
    organization = get_page_organization(request, slug)
    live = LiveDeployment(*open_page(request, organization, statement, values).live)
    commands.mark_unmarked([deployment_id] if live.needs_mark else [])
    tag = None
    if live.revision is not None and region in REVISED:
        tag = make_tag(
            request,
            region or "state",
            get_role(request.user, organization),
            live.revision,
            live.agent_name,
            live.oldest_event,
        )
        unchanged = answer_unchanged(request, tag, times=live.times)
        if unchanged:
            return unchanged
    deployment = find_deployment(request, organization, deployment_id)
    context = page_context(request, organization) | {
        "deployment": deployment,
        "here": request.path,
        "window": window,
        "ranges": RANGES,
        "is_whole": "whole" in request.GET,
        "is_changing": not deployment.is_settled,
        "poll_seconds": WATCHED_STEADY if deployment.is_settled else CHANGING,
    }
    if region is None:
        context["neighbours"] = build_neighbours(request, deployment)
    context |= region_context(request, deployment, window, region, may_not_reason=context["may_not_reason"])
    fragment = FRAGMENTS[region or "state"]
    return render_page(request, "deployments/detail.html", fragment, context, tag=tag)


def region_context(
    request: HttpRequest, deployment: Deployment, window: Window, region: str | None, *, may_not_reason: str | None
) -> dict[str, Any]:
    """Build the context of a region, or of the page. Only `metrics`, `logs` and the whole page read from AWS.

    The last error of a failed deployment is read meanwhile, and its own region asks for it until it is known.
    """
    is_whole = region is None and "whole" in request.GET
    context: dict[str, Any] = {}
    if region in (None, "state"):
        context["actions"] = build_actions(deployment, may_not_reason)
    if region in (None, "state", "last-error") and deployment.status == Status.FAILED:
        context["last_error"] = read_last_error(deployment.cloudwatch, deployment.status_at)
        is_shown = window.since <= deployment.status_at <= window.until
        context["around_failure"] = None if is_shown else around_event(deployment.status_at)
    if region in (None, "window", "timeline") or (region == "state" and window.is_live):
        context["timeline"] = build_timeline(request.GET, deployment, window)
        context["event_labels"] = EVENT_LABELS
        context["brings_timeline"] = region == "window"
        context["link_around"] = build_links_around(request.path, request.GET)
    if region == "metrics" or is_whole:
        marks = [*list_marks(deployment, window, request.GET.get("at", "")), *find_chosen_moment(request.GET)]
        changes = find_changes(deployment.organization, window.since, window.until)
        context["metrics"] = build_metrics(deployment.cloudwatch, window, marks, changes, reader=person(request))
    if region == "logs" or is_whole:
        place = [deployment.organization.slug, deployment.pk]
        context["downloads"] = list_downloads(lambda form: reverse("deployments:log_download", args=[*place, form]))
        context["logs"] = build_logs(request.GET, deployment.cloudwatch, window, reader=person(request))
    if region == "log-poll":
        context |= build_poll(request.GET, deployment.cloudwatch, window)
    return context
