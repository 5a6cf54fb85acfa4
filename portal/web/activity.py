"""The Activity page: an organization's audit trail as a page and as CSV."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, policy
from portal.database.statements import Given
from portal.models import AuditEvent, AuditKind, AuditQuerySet, Organization
from portal.pagination import DEFAULT_LIMIT, MAX_SKIP, paginate
from portal.web.context import page_context
from portal.web.csv import MAX_ROWS, check_filters, csv_response
from portal.web.htmx import render_page
from portal.web.overview_rows import Rows

# The page of a row's object, by the prefix of the row's kind. Named by string: portal imports no app.
PAGES = {"upgrade.": "upgrades:detail", "deployment.": "deployments:detail", "agent.": "agents:detail"}

# Kinds of rows that belong to no organization.
OF_THE_SITE = ("session.", "person.")
KINDS = [(value, label) for value, label in AuditKind.choices if not value.startswith(OF_THE_SITE)]

FILTERS = ("kind", "who", "subject", "since")
RECENT = 8


class ActivityFilters(forms.Form):
    """The filters in the URL. An unknown value is reported, never ignored."""

    kind = forms.ChoiceField(required=False, choices=[("", "Anything"), *KINDS], label="What")
    who = forms.CharField(required=False, max_length=254)
    subject = forms.CharField(required=False, max_length=254, label="Target")
    since = forms.DateField(required=False, label="Since")
    skip = forms.IntegerField(required=False, min_value=0, max_value=MAX_SKIP, widget=forms.HiddenInput)


@policy(Policy.VIEWER)
@require_safe
def activity(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the events, newest first. The URL contains the filters."""
    organization = get_page_organization(request, slug)
    form = ActivityFilters(request.GET)
    page = paginate(found_events(request, organization, form), skip=get_skip(form), limit=DEFAULT_LIMIT)
    titles = find_titles(organization, page.items)
    context = page_context(request, organization) | {
        "form": form,
        "page": page,
        "rows": [(event, name_target(event, organization, titles), build_details(event)) for event in page.items],
        "kinds": KINDS,
        "query_without_skip": urlencode({name: request.GET[name] for name in FILTERS if request.GET.get(name)}),
        "csv_url": reverse("activity_csv", args=[organization.slug]),
        "most_rows": MAX_ROWS,
    }
    return render_page(request, "portal/web/activity.html", "portal/web/_activity_rows.html", context)


@policy(Policy.VIEWER)
@require_safe
def activity_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the filtered events as CSV, at most the newest MAX_ROWS. 400 for an invalid filter."""
    organization = get_page_organization(request, slug)
    form = ActivityFilters(request.GET)
    check_filters(form)
    events = found_events(request, organization, form)[:MAX_ROWS]
    header = ["at", "kind", "actor", "subject", "data", "request_id", "audit_id"]
    rows = (
        [event.created_at, event.kind, event.actor_email, event.subject, as_json(event), event.request_id, event.pk]
        for event in events
    )
    return csv_response(f"{organization.slug}-activity", header, rows)


def found_events(request: HttpRequest, organization: Organization, form: ActivityFilters) -> AuditQuerySet:
    """Return the filtered events. None for invalid filters, which the page reports."""
    events = AuditEvent.objects.visible_to(request.user).filter(organization=organization).newest_first()
    if not form.is_valid():
        return events.none()
    given = form.cleaned_data
    return events.matching(**{name: given[name] for name in FILTERS})


def get_skip(form: ActivityFilters) -> int:
    return (form.cleaned_data.get("skip") or 0) if form.is_valid() else 0


@dataclass(frozen=True)
class Target:
    """The object of an event. `name`: its title or name, else its id, a long one in short (`is_id`).

    `id`: the id of an upgrade, or the name of a deployment's service, beside a title or name only.
    """

    name: str
    id: str
    url: str | None
    is_id: bool


@dataclass(frozen=True)
class Entry:
    """One line of the overview's recent activity."""

    at: datetime
    what: str
    target: Target
    who: str


def select_recent() -> dict[str, QuerySet[Any]]:
    """Return the newest events that the overview shows."""
    return {"activity": AuditEvent.objects.filter(organization=Given("organization")).newest_first()[:RECENT]}


def build_recent(organization: Organization, rows: Rows) -> list[Entry]:
    """Return the entries for the overview from its rows."""
    events: list[AuditEvent] = rows["activity"]
    titles = find_titles(organization, events, rows)
    return [
        Entry(
            at=event.created_at,
            what=event.get_kind_display(),
            target=name_target(event, organization, titles),
            who=event.actor_email,
        )
        for event in events
    ]


def find_titles(organization: Organization, events: list[AuditEvent], rows: Rows | None = None) -> dict[str, str]:
    """Return the titles of the events' objects by subject.

    *Costs* what settings.SUBJECT_TITLES costs, if any event is of such a kind. `rows`: those of the overview.
    """
    titles: dict[str, str] = {}
    for beginning, name in settings.SUBJECT_TITLES.items():
        subjects = [event.subject for event in events if event.kind.startswith(beginning)]
        find: Callable[[Organization, list[str], Rows | None], dict[str, str]] = import_string(name)
        titles |= find(organization, subjects, rows) if subjects else {}
    return titles


def name_target(event: AuditEvent, organization: Organization, titles: dict[str, str]) -> Target:
    url, title, name = subject_url(event, organization), titles.get(event.subject), event.data.get("name")
    if title:
        return Target(title, event.subject, url, is_id=False)
    if isinstance(name, str) and name:
        return Target(name, str(event.data.get("service_name", "")), url, is_id=False)
    return Target(name_subject(event), "", url, is_id=True)


def name_subject(event: AuditEvent) -> str:
    """Return the name of the event's object if its data says it, else its id, a long one in short."""
    name = event.data.get("name") or event.data.get("service_name")
    if isinstance(name, str) and name:
        return name
    try:
        return str(uuid.UUID(event.subject))[:8]
    except ValueError:
        return event.subject


def subject_url(event: AuditEvent, organization: Organization) -> str | None:
    if event.subject == organization.slug:  # the refusal of something that was not created
        return None
    for beginning, page in PAGES.items():
        if event.kind.startswith(beginning):
            try:
                return reverse(page, args=[organization.slug, event.subject])
            except NoReverseMatch:
                return None
    return None


def build_details(event: AuditEvent) -> list[tuple[str, str]]:
    """Return the names and values of the event's data, without the target's name. Values other than text are JSON."""
    target = name_subject(event)
    return [
        (name.replace("_", " "), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in event.data.items()
        if value not in ("", None, {}, [], target)
    ]


def as_json(event: AuditEvent) -> str:
    """Return the data as JSON with escaped semicolons. After one, a spreadsheet may start a new cell with a formula."""
    return json.dumps(event.data, ensure_ascii=False, sort_keys=True).replace(";", "\\u003b")
