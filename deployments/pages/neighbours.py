"""The deployments before and after one in the filtered list that it was opened from (portal/web/neighbours.py)."""

from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse

from deployments.lists import find_neighbours
from deployments.models import NEWEST_FIRST, Agent, Deployment
from deployments.pages.forms import ListFilters
from portal.web.neighbours import Neighbours, opened_from, read_list


def build_neighbours(request: HttpRequest, deployment: Deployment) -> Neighbours | None:
    """Return the neighbours in the list; None if the page was not opened from one, or its filters are invalid.

    *Costs* one query, and one for a filter by agent.
    """
    query = read_list(request)
    if query is None:
        return None
    agents = Agent.objects.visible_to(request.user).filter(organization=deployment.organization)
    form = ListFilters(agents, query)
    if not form.is_valid():
        return None
    given = form.cleaned_data
    before, after = find_neighbours(
        Deployment.objects.visible_to(request.user),
        deployment,
        status=given["status"] or None,
        agent_id=given["agent"].pk if given["agent"] else None,
        q=given["q"] or None,
        sort=given["sort"] or NEWEST_FIRST,
    )
    kept = {name: str(query[name]) for name in ("status", "agent", "q", "sort") if query.get(name)}

    def address(found: UUID | None) -> str | None:
        if found is None:
            return None
        return f"{reverse('deployments:detail', args=[deployment.organization.slug, found])}?{opened_from(kept)}"

    return Neighbours(address(before), address(after), urlencode(kept))
