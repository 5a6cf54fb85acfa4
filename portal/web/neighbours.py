"""The objects before and after one in the filtered list that it was opened from.

The list's filters are in the query string of the object's page, as one parameter.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import HttpRequest, QueryDict

LIST = "list"
UNFILTERED = "all"
MAX_LENGTH = 1000


@dataclass(frozen=True)
class Neighbours:
    """`before`, `after`: addresses. `query`: the list's filters, for the way back."""

    before: str | None
    after: str | None
    query: str


def opened_from(query: dict[str, str]) -> str:
    """Return the parameter with the list's filters, for a link to an object."""
    return urlencode({LIST: urlencode(query) or UNFILTERED})


def read_list(request: HttpRequest) -> QueryDict | None:
    """Return the filters of the list that the page was opened from; None if it was not opened from one."""
    named = request.GET.get(LIST)
    if named is None:
        return None
    return QueryDict("" if named == UNFILTERED else named[:MAX_LENGTH])
