"""The CSV files of deployments, agents and a deployment's events: the rows of the page with its filters."""

from operator import attrgetter
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from deployments.lists import deployments_page
from deployments.models import NEWEST_FIRST, Agent
from deployments.pages.context import find_deployment
from deployments.pages.forms import ListFilters, TimelineFilters
from deployments.pages.timeline_region import in_window
from portal.access import Policy, get_page_organization, policy
from portal.web.csv import MAX_ROWS, check_filters, csv_response
from portal.web.observe.download import check_window
from portal.web.observe.time_window import parse_window

DEPLOYMENT_COLUMNS = {
    "deployment_id": "pk",
    "agent": "agent.name",
    "agent_id": "agent_id",
    "status": "status",
    "status_at": "status_at",
    "running_replicas": "running_replicas",
    "replicas": "replicas",
    "version": "version",
    "service": "service_name",
    "error_message": "error_message",
    "created_at": "created_at",
}
AGENT_COLUMNS = ("id", "name", "status", "image", "cpu", "memory", "description", "created_at")
EVENT_COLUMNS = ("created_at", "event_type", "status", "actor", "detail", "error_message", "node_id", "id")


@policy(Policy.VIEWER)
@require_safe
def deployments_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the filtered list, MAX_ROWS at most. *Raises* PortalError 400 for an invalid filter."""
    organization = get_page_organization(request, slug)
    agents = Agent.objects.visible_to(request.user).filter(organization=organization)
    form = ListFilters(agents, request.GET)
    check_filters(form)
    given = form.cleaned_data
    page = deployments_page(
        request.user,
        organization,
        skip=0,
        limit=MAX_ROWS,
        status=given["status"] or None,
        agent_id=given["agent"].pk if given["agent"] else None,
        q=given["q"] or None,
        sort=given["sort"] or NEWEST_FIRST,
        total=0,  # a file names none
    )
    rows = map(attrgetter(*DEPLOYMENT_COLUMNS.values()), page.items)
    return csv_response(f"{slug}-deployments", list(DEPLOYMENT_COLUMNS), rows)


@policy(Policy.VIEWER)
@require_safe
def agents_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the agents whose name has `q`, MAX_ROWS at most. `status` is that of the API."""
    organization = get_page_organization(request, slug)
    q = request.GET.get("q", "").strip()[:80]
    agents = Agent.objects.visible_to(request.user).for_list(organization, q=q or None)[:MAX_ROWS]
    return csv_response(f"{slug}-agents", ["agent_id", *AGENT_COLUMNS[1:]], map(attrgetter(*AGENT_COLUMNS), agents))


@policy(Policy.VIEWER)
@require_safe
def events_csv(request: HttpRequest, slug: str, deployment_id: UUID) -> HttpResponse:
    """Return the events of the page's window and filters, newest first, MAX_ROWS at most. 400 for an invalid filter."""
    organization = get_page_organization(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    form = TimelineFilters(request.GET)
    check_filters(form)
    window = parse_window(request.GET, now=timezone.now())
    check_window(window)
    filters = {name: form.cleaned_data[name] or None for name in ("event_type", "status")}
    events = in_window(deployment, window, **filters)[:MAX_ROWS]
    name = f"{slugify(deployment.agent.name) or 'agent'}-{deployment.short_id}-events"
    return csv_response(name, [*EVENT_COLUMNS[:-1], "event_id"], map(attrgetter(*EVENT_COLUMNS), events))
