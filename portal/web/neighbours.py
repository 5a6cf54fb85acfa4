"""The objects before and after one in the filtered list that it was opened from.

The list's filters are in the query string of the object's page, as one parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import HttpRequest, QueryDict
from django.urls import reverse

LIST = "list"
UNFILTERED = "all"
MAX_LENGTH = 1000


@dataclass(frozen=True)
class Neighbours:
    """`before`, `after`: addresses. `query`: the list's filters, for the way back."""

    before: str | None
    after: str | None
    query: str


def make_neighbours(view_name: str, slug: str, found: Sequence[object], query: dict[str, str]) -> Neighbours:
    """Return the neighbours with these ids, the one before and the one after; None: there is none.

    `view_name`: of an object's page. `query`: the list's filters.
    """
    before, after = (
        f"{reverse(view_name, args=[slug, each])}?{opened_from(query)}" if each is not None else None for each in found
    )
    return Neighbours(before, after, urlencode(query))


def opened_from(query: dict[str, str]) -> str:
    """Return the parameter with the list's filters, for a link to an object."""
    return urlencode({LIST: urlencode(query) or UNFILTERED})


def read_list(request: HttpRequest) -> QueryDict | None:
    """Return the filters of the list that the page was opened from; None if it was not opened from one."""
    named = request.GET.get(LIST)
    if named is None:
        return None
    return QueryDict("" if named == UNFILTERED else named[:MAX_LENGTH])
