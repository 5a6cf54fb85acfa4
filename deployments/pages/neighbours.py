"""The deployments before and after one in the filtered list that it was opened from.

The list's filters are in the query string of the deployment's page, as one parameter.
"""

from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, QueryDict

from deployments.lists import find_neighbours
from deployments.models import NEWEST_FIRST, Agent, Deployment
from deployments.pages.forms import ListFilters

LIST = "list"
UNFILTERED = "all"


@dataclass(frozen=True)
class Neighbours:
    """`query`: the list's filters, for the way back. `link`: the parameter that keeps them."""

    before: UUID | None
    after: UUID | None
    query: str
    link: str


def opened_from(query: dict[str, str]) -> str:
    """Return the parameter with the list's filters, for a link to a deployment."""
    return urlencode({LIST: urlencode(query) or UNFILTERED})


def build_neighbours(request: HttpRequest, deployment: Deployment) -> Neighbours | None:
    """Return the neighbours in the list; None if the page was not opened from one, or its filters are invalid.

    *Costs* one query, and one for a filter by agent.
    """
    named = request.GET.get(LIST)
    if named is None:
        return None
    query = QueryDict("" if named == UNFILTERED else named[:1000])
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
    kept = {name: query[name] for name in ("status", "agent", "q", "sort") if query.get(name)}
    return Neighbours(before, after, urlencode(kept), opened_from(kept))
