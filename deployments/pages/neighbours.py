"""The deployments before and after one in the filtered list that it was opened from (portal/web/neighbours.py)."""

from django.http import HttpRequest

from deployments.lists import find_neighbours
from deployments.models import NEWEST_FIRST, Agent, Deployment
from deployments.pages.forms import ListFilters
from portal.web.neighbours import Neighbours, make_neighbours, read_list


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
    found = find_neighbours(
        Deployment.objects.visible_to(request.user),
        deployment,
        status=given["status"] or None,
        agent_id=given["agent"].pk if given["agent"] else None,
        q=given["q"] or None,
        sort=given["sort"] or NEWEST_FIRST,
    )
    kept = {name: str(query[name]) for name in ("status", "agent", "q", "sort") if query.get(name)}
    return make_neighbours("deployments:detail", deployment.organization.slug, found, kept)
