"""The list of an organization's deployments: filters, status chips, paging."""

from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.db.models import UUIDField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from deployments import commands
from deployments.lists import deployments_page
from deployments.models import NEWEST_FIRST, Agent, count_rows, with_every_status
from deployments.pages.detail import CHANGING, STEADY
from deployments.pages.forms import SORT_LABELS, ListFilters
from deployments.pages.live_tags import LiveList, live_list
from deployments.states import Status
from portal.access import Policy, get_page_organization, get_role, policy
from portal.database.statements import Given
from portal.database.together import Together
from portal.models import Organization, ViewedList
from portal.pagination import DEFAULT_LIMIT
from portal.saved_views.lists import find_default, open_list
from portal.web.context import page_context
from portal.web.csv import MAX_ROWS
from portal.web.htmx import answer_unchanged, make_tag, render_page
from portal.web.neighbours import opened_from

# What a row shows, and what decides how often the list is asked for again.
COLUMNS = (
    *("agent__name", "status", "status_at", "running_replicas", "replicas", "version", "error_message"),
    *("observed_generation", "requested_generation"),
)


@policy(Policy.VIEWER)
@require_safe
def list_deployments(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the list, or redirect to it with the person's default view.

    The filters are in the query string, and the fragment polls with the same filters.
    """
    organization = get_page_organization(request, slug)
    default = find_default(request, organization, ViewedList.DEPLOYMENTS)
    if default:
        return redirect(default)
    asked = live_list(request.GET)
    if asked is None:
        open_list(request, organization, ViewedList.DEPLOYMENTS)
        context, tag = list_context(request, organization), None
        commands.mark_watched(*context["page"].items)
    else:
        live = LiveList(*open_list(request, organization, ViewedList.DEPLOYMENTS, *asked))
        commands.mark_unmarked(live.unmarked or [])
        tag = make_tag(request, "rows", get_role(request.user, organization), live.rows, live.counts, live.has_agents)
        unchanged = answer_unchanged(request, tag)
        if unchanged:
            return unchanged
        context = list_context(request, organization)
    return render_page(request, "deployments/list.html", "deployments/_rows.html", context, tag=tag)


def list_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    choices = make_choices().read(organization=organization.pk)
    form = ListFilters(Agent.objects.filter(organization=organization), request.GET)
    form.full_clean()
    given = form.cleaned_data
    filters = {"status": "", "agent": None, "q": "", "sort": NEWEST_FIRST} | {k: v for k, v in given.items() if v}
    agent = filters["agent"]
    counts = with_every_status(choices["counts"])
    total = counts[filters["status"]] if filters["status"] else sum(counts.values())
    page = deployments_page(
        request.user,
        organization,
        skip=given.get("skip") or 0,
        limit=DEFAULT_LIMIT,
        status=filters["status"] or None,
        agent_id=agent.pk if agent else None,
        q=filters["q"] or None,
        sort=filters["sort"],
        total=None if agent or filters["q"] else total,
        columns=COLUMNS,
    )
    query = {name: request.GET[name] for name in ("status", "agent", "q", "sort") if request.GET.get(name)}
    is_changing = any(not deployment.is_settled for deployment in page.items)
    return page_context(request, organization) | {
        "page": page,
        "form": form,
        "filters": filters,
        "agents": choices["agents"],
        "sorts": SORT_LABELS.items(),
        "statuses": status_chips(organization, counts, query),
        "query_without_skip": urlencode(query),
        "opened_from": opened_from(query),
        "csv_url": reverse("deployments:csv", args=[organization.slug]),
        "most_rows": MAX_ROWS,
        "poll_seconds": CHANGING if is_changing else STEADY,
        "with_boxes": True,
        "labels": dict(Status.choices),
    }


@cache
def make_choices() -> Together:
    """Return the statement of id and name of an organization's agents, and of the number of its deployments by status."""
    own = Given("organization", UUIDField())
    agents = Agent.objects.filter(organization=own).order_by("name", "id")
    return Together(agents=agents.values_list("pk", "name"), counts=count_rows(own))


def status_chips(organization: Organization, counts: dict[str, int], query: dict[str, str]) -> list[dict[str, Any]]:
    """Return a link for "All" and for each status, with counts. The links keep the other filters."""
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
