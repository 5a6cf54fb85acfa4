"""The history of upgrades: the page and its CSV file."""

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, policy
from portal.models import ViewedList
from portal.pagination import DEFAULT_LIMIT, Page
from portal.saved_views.lists import find_default, open_list
from portal.web.context import page_context
from portal.web.csv import MAX_ROWS, check_filters, csv_response
from portal.web.htmx import render_page
from portal.web.neighbours import opened_from
from upgrades.lists import history_page
from upgrades.models import Upgrade
from upgrades.pages.forms import HISTORY_FILTERS, TARGET_CHOICES, HistoryFilters
from upgrades.pages.history_csv import HEADER, history_rows
from upgrades.pages.results import build_rows
from upgrades.states import UPGRADE_STATUSES, Validation


@policy(Policy.VIEWER)
@require_safe
def history(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the history with the filters of the query string, or redirect to it with the person's default view."""
    organization = get_page_organization(request, slug)
    default = find_default(request, organization, ViewedList.UPGRADES)
    if default:
        return redirect(default)
    open_list(request, organization, ViewedList.UPGRADES)
    form = HistoryFilters(request.GET)
    given = form.cleaned_data if form.is_valid() else {}
    # An invalid filter shows no rows. The form keeps what was typed so that it can be corrected.
    filters = {name: given.get(name) or request.GET.get(name, "") for name in HISTORY_FILTERS}
    skip = given.get("skip") or 0
    empty: Page[Upgrade] = Page([], 0, skip, DEFAULT_LIMIT)
    shown = {name: value or None for name, value in filters.items()}
    page = (
        history_page(request.user, organization, skip=skip, limit=DEFAULT_LIMIT, **shown) if form.is_valid() else empty
    )
    query = {name: value for name, value in filters.items() if value}
    context = page_context(request, organization) | {
        "page": page,
        "upgrade_rows": build_rows(page.items),
        "form": form,
        "filters": filters,
        "statuses": [(status.value, status.label) for status in UPGRADE_STATUSES],
        "services": TARGET_CHOICES,
        "validations": Validation.choices,
        "query_without_skip": urlencode(query),
        "opened_from": opened_from(query),
        "csv_url": reverse("upgrades:history_csv", args=[slug]),
        "most_rows": MAX_ROWS,
    }
    return render_page(request, "upgrades/history.html", "upgrades/_history_rows.html", context)


@policy(Policy.VIEWER)
@require_safe
def history_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the filtered history as CSV: the newest MAX_ROWS upgrades at most, or 400 for an invalid filter."""
    organization = get_page_organization(request, slug)
    form = HistoryFilters(request.GET)
    check_filters(form)
    filters = {name: form.cleaned_data[name] for name in HISTORY_FILTERS}
    upgrades = Upgrade.objects.for_history(request.user, organization, **filters)
    return csv_response(f"{slug}-upgrades", HEADER, history_rows(upgrades))
