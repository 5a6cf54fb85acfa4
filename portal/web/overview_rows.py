"""The rows that the overview shows, of all apps, read in one statement.

settings.OVERVIEW names the functions that say what each app needs: query sets by name, of the organization that is the
placeholder `organization`. The app finds its rows by these names.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.module_loading import import_string

from portal.database.together import Together
from portal.models import Organization

Rows = dict[str, list[Any]]


def read_overview(request: HttpRequest, organization: Organization) -> Rows:
    """Return the rows by name. Called again, return the same. *Costs* one query for each request."""
    rows: Rows | None = getattr(request, "overview_rows", None)
    if rows is None:
        rows = make_overview().read(organization=organization.pk)
        request.overview_rows = rows  # type: ignore[attr-defined] # ours
    return rows


@cache
def make_overview() -> Together:
    parts: dict[str, QuerySet[Any]] = {}
    for name in settings.OVERVIEW:
        needed: Callable[[], dict[str, QuerySet[Any]]] = import_string(name)
        parts |= needed()
    return Together(**parts)
