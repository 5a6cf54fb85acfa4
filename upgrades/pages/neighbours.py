"""The upgrades before and after one in the filtered history that it was opened from (portal/web/neighbours.py)."""

from django.http import HttpRequest

from portal.web.neighbours import Neighbours, make_neighbours, read_list
from upgrades.lists import find_neighbours
from upgrades.models import Upgrade
from upgrades.pages.forms import HISTORY_FILTERS, HistoryFilters


def build_neighbours(request: HttpRequest, upgrade: Upgrade) -> Neighbours | None:
    """Return the neighbours in the history; None if the page was not opened from it, or its filters are invalid.

    *Costs* one query.
    """
    query = read_list(request)
    if query is None:
        return None
    form = HistoryFilters(query)
    if not form.is_valid():
        return None
    filters = {name: form.cleaned_data[name] or None for name in HISTORY_FILTERS}
    found = find_neighbours(Upgrade.objects.visible_to(request.user), upgrade, **filters)
    kept = {name: str(query[name]) for name in HISTORY_FILTERS if query.get(name)}
    return make_neighbours("upgrades:detail", upgrade.organization.slug, found, kept)
