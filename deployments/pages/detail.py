"""The pages of deployments: list, new, one deployment with its window of time. Same queries and commands as the API.

What is done to deployments is in act_views.py, agents are in agent_views.py.
"""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from deployments import commands
from deployments.lists import deployments_page
from deployments.models import NEWEST_FIRST, Agent, Deployment, counts_by_status
from deployments.pages.action_words import actions_of
from deployments.pages.context import find_deployment
from deployments.pages.forms import SORT_WORDS, DeploymentForm, ListFilters, refuse
from deployments.pages.live_regions import exact, log_text, logs_of, metrics_of, newer_lines
from deployments.pages.time_window import RANGES, Window, moment, window_of
from deployments.pages.timeline_region import timeline_of
from deployments.states import Status
from portal.access import Policy, organization_of_page, person, policy
from portal.errors import NOT_FOUND, PortalError
from portal.models import Organization, User
from portal.pagination import DEFAULT_LIMIT
from portal.web.context import page_context
from portal.web.htmx import render_page, wants_fragment

# Seconds between two looks at a page: soon while something changes, else now and then.
CHANGING, WATCHED_STEADY, STEADY = 2, 4, 15
REGIONS = ("state", "window", "timeline", "metrics", "logs", "log-poll")


@policy(Policy.VIEWER)
@require_safe
def list_deployments(request: HttpRequest, slug: str) -> HttpResponse:
    """What runs, with the filters in the address; the fragment asks for itself with the same filters."""
    organization = organization_of_page(request, slug)
    return render_page(request, "deployments/list.html", "deployments/_rows.html", list_context(request, organization))


def list_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    agents = Agent.objects.visible_to(request.user).filter(organization=organization).order_by("name", "id")
    form = ListFilters(agents, request.GET)
    form.full_clean()
    given = form.cleaned_data
    filters = {"status": "", "agent": None, "q": "", "sort": NEWEST_FIRST} | {k: v for k, v in given.items() if v}
    agent = filters["agent"]
    page = deployments_page(
        request.user,
        organization,
        skip=given.get("skip") or 0,
        limit=DEFAULT_LIMIT,
        status=filters["status"] or None,
        agent_id=agent.pk if agent else None,
        q=filters["q"] or None,
        sort=filters["sort"],
    )
    commands.mark_watched(*page.items)
    query = {name: request.GET[name] for name in ("status", "agent", "q", "sort") if request.GET.get(name)}
    is_changing = any(not deployment.is_settled for deployment in page.items)
    return page_context(request, organization) | {
        "page": page,
        "form": form,
        "filters": filters,
        "agents": agents,
        "sorts": SORT_WORDS.items(),
        "statuses": status_chips(organization, query),
        "query_without_skip": urlencode(query),
        "poll_seconds": CHANGING if is_changing else STEADY,
        "with_boxes": True,
    }


def status_chips(organization: Organization, query: dict[str, str]) -> list[dict[str, Any]]:
    """All and each status with how many there are in the organization, as links that keep the other filters."""
    counts = counts_by_status(organization)
    chips = [("", "All", sum(counts.values())), *((s.value, s.label, counts[s]) for s in Status)]
    address = reverse("deployments:list", args=[organization.slug])
    return [
        {
            "value": value,
            "label": label,
            "count": count,
            "is_chosen": query.get("status", "") == value,
            "href": f"{address}?{urlencode({**query, 'status': value})}" if value else with_query(address, query),
        }
        for value, label, count in chips
    ]


def with_query(address: str, query: dict[str, str]) -> str:
    others = urlencode({name: value for name, value in query.items() if name != "status"})
    return f"{address}?{others}" if others else address


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Deploy an agent. Viewers see the form with the reason why they may not send it."""
    organization = organization_of_page(request, slug)
    agents = Agent.objects.visible_to(request.user).filter(organization=organization).order_by("name", "id")
    form = DeploymentForm(organization, agents, request.POST or None, initial={"agent": request.GET.get("agent")})
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                deployment = deploy(form, actor=person(request))
                return redirect("deployments:detail", slug, deployment.pk)
            except PortalError as error:
                status = refuse(form, error)
    context = page_context(request, organization) | {"form": form, "agents": agents}
    return render(request, "deployments/new.html", context, status=status)


def deploy(form: DeploymentForm, *, actor: User) -> Deployment:
    asked = form.cleaned_data
    return commands.create_deployment(
        asked["agent"],
        actor=actor,
        replicas=asked["replicas"],
        version=asked["version"] or None,
        idempotency_key=asked["idempotency_key"],
    )


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, deployment_id: UUID) -> HttpResponse:
    """One deployment, live. One address for the page and its regions: htmx names the region that it wants.

    Reading CloudWatch is left to the regions, so that the page stands whatever AWS does; `?whole=1`, for a browser
    without JavaScript, waits for all of it.
    """
    organization = organization_of_page(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    commands.mark_watched(deployment)
    window = window_of(request.GET, now=timezone.now())
    region = request.headers.get("HX-Target", "state") if wants_fragment(request) else None
    if region not in (None, *REGIONS):
        raise PortalError("not_found", NOT_FOUND, 404)
    context = page_context(request, organization) | {
        "deployment": deployment,
        "here": request.path,
        "window": window,
        "ranges": RANGES,
        "is_whole": "whole" in request.GET,
        "is_changing": not deployment.is_settled,
        "poll_seconds": WATCHED_STEADY if deployment.is_settled else CHANGING,
    }
    context |= region_context(request, deployment, window, region, may_not_reason=context["may_not_reason"])
    fragment = f"deployments/_{(region or 'state').replace('-', '_')}.html"
    response = render_page(request, "deployments/detail.html", fragment, context)
    response["Vary"] = f"{response['Vary']}, HX-Target"
    return response


def region_context(
    request: HttpRequest, deployment: Deployment, window: Window, region: str | None, *, may_not_reason: str | None
) -> dict[str, Any]:
    """What a region shows, or all that the page does. Only `metrics`, `logs` and the whole page ask AWS."""
    is_whole = region is None and "whole" in request.GET
    context: dict[str, Any] = {}
    if region in (None, "state"):
        context["actions"] = actions_of(deployment, may_not_reason)
    if region in (None, "window", "timeline"):
        context["timeline"] = timeline_of(request.GET, deployment, window)
    if region == "metrics" or is_whole:
        context["metrics"] = metrics_of(deployment, window)
    if region == "logs" or is_whole:
        context["logs"] = logs_of(request.GET, deployment, window)
    if region == "log-poll":
        context |= poll_context(request, deployment, window)
    return context


def poll_context(request: HttpRequest, deployment: Deployment, window: Window) -> dict[str, Any]:
    """The newer lines, and from when on to ask the next time."""
    after = moment(request.GET.get("after")) or window.until
    newer = newer_lines(request.GET, deployment, after)
    newest = exact(newer[0].line.timestamp) if newer else exact(after)
    return {"logs": {"newest": newest, "q": request.GET.get("q", "")}, "newer": newer}


@policy(Policy.VIEWER)
@require_safe
def download_logs(request: HttpRequest, slug: str, deployment_id: UUID) -> HttpResponse:
    """The lines that the page shows for the same address, as text with their times."""
    organization = organization_of_page(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    window = window_of(request.GET, now=timezone.now())
    name = f"{deployment.agent_id}-{deployment.short_id}-{window.since:%Y%m%dT%H%M%SZ}.txt"
    return HttpResponse(
        log_text(request.GET, deployment, window),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"},
    )
