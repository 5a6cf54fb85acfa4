"""How the pages of lists use saved views: the default one, and a query string without what is not a filter."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest
from django.urls import reverse

from portal.access import NOTHING_LIVE, open_page, person
from portal.database.statements import Given
from portal.database.together import Part
from portal.models import Organization, SavedView, ViewedList
from portal.web.htmx import wants_fragment

# The query with which the navigation opens a list. The address without a query is always the unfiltered list.
DEFAULT_QUERY = "view=default"
VIEW_NAMES = {ViewedList.DEPLOYMENTS: "deployments:list", ViewedList.UPGRADES: "upgrades:history"}
NO_FILTERS = {"skip", "view"}


def get_address(organization: Organization, listed: str, query: str) -> str:
    """Return the address of the list with the filters."""
    return f"{reverse(VIEW_NAMES[ViewedList(listed)], args=[organization.slug])}?{query}"


def find_default(request: HttpRequest, organization: Organization, listed: ViewedList) -> str | None:
    """Return the address of the person's default view, if the page asks for it and they chose one.

    *Costs* one query on a page that asks for the default, else none.
    """
    if request.META["QUERY_STRING"] != DEFAULT_QUERY or wants_fragment(request):
        return None
    user = person(request)
    chosen = SavedView.objects.offered(user, organization).filter(list=listed, defaults__user=user)
    query = chosen.values_list("query", flat=True).first()
    return get_address(organization, listed, query) if query else None


def open_list(
    request: HttpRequest,
    organization: Organization,
    listed: ViewedList,
    live: str = NOTHING_LIVE,
    values: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """Return the columns of `live`, as `open_page` reads them, and for a whole page read the saved views with them.

    The tag `{% saved_views %}` shows these. *Costs* one query.
    """
    if wants_fragment(request):
        return open_page(request, organization, live, values).live
    views = offered_views()
    own = {"user": person(request).pk, "listed": listed}
    statement = f"SELECT live.*, {views.sql} FROM ({live}) AS live"  # noqa: S608 - our own
    *columns, text = open_page(request, organization, statement, {**(values or {}), **own}).live
    request.saved_views = views.make(text)  # type: ignore[attr-defined] # ours
    return tuple(columns)


@cache
def offered_views() -> Part:
    given: dict[str, Any] = {name: Given(name) for name in ("user", "organization")}
    return Part(SavedView.objects.offered(**given).filter(list=Given("listed")))


def clean_query(text: str) -> str:
    """Return the filters of a query string, in the order of their names, without empty ones and the place in the list.

    >>> clean_query("?status=failed&q=&skip=50&agent=1")
    'agent=1&status=failed'
    """
    pairs = parse_qsl(text.removeprefix("?"))
    return urlencode(sorted((name, value) for name, value in pairs if name not in NO_FILTERS))


def describe_query(query: str) -> list[tuple[str, str]]:
    """Return the filters by label, as a person reads them.

    >>> describe_query("status=failed&initiated_by=ann%40example.com")
    [('Status', 'failed'), ('Initiated by', 'ann@example.com')]
    """
    return [(name.replace("_", " ").capitalize(), value) for name, value in parse_qsl(query)]
