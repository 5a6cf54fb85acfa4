"""The pages of upgrades: what runs, live page, history. Same queries and commands as the API."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from portal.access import Policy, organization_of_page, person, policy, role_in, session_ends_at
from portal.errors import PortalError, existing
from portal.models import Organization, Role
from portal.pagination import DEFAULT_LIMIT, paginate
from portal.web.context import page_context
from portal.web.csv import MOST_ROWS, check_filters, csv_response
from portal.web.htmx import render_page
from upgrades.checks.matrix import rows_of, run_of
from upgrades.checks.preflight import run as run_preflight
from upgrades.commands import record
from upgrades.estimates import estimate_seconds, time_left
from upgrades.inventory.running import now_context
from upgrades.models import Upgrade, UpgradeEvent, ValidationRun
from upgrades.pages.forms import TARGET_CHOICES, HistoryFilters, RollbackForm, TimelineFilters
from upgrades.pages.history_csv import HEADER, history_rows
from upgrades.pages.next_steps import next_steps
from upgrades.pages.rollout_cards import lanes_of
from upgrades.pages.timeline import timeline_of
from upgrades.rollback_plan import plan_rollback, services_that_advanced, with_diffs
from upgrades.states import OPEN, TERMINAL, UPGRADE_STATUSES, EventKind, Status, Validation

HISTORY_FILTERS = ("status", "service", "version", "initiated_by", "validation")


@policy(Policy.VIEWER)
@require_safe
def platform_services(request: HttpRequest, slug: str) -> HttpResponse:
    """The live block of the overview. Opened by itself it leads back to the page that it belongs to."""
    organization = organization_of_page(request, slug)
    if not request.headers.get("HX-Request"):
        return redirect("overview", slug)
    context = now_context(organization)
    fragment = "upgrades/_platform_services.html"
    return render_page(request, fragment, fragment, context)


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """One upgrade, live while it is open: the fragment polls until the state is final, then comes without its poll."""
    organization = organization_of_page(request, slug)
    upgrade = find_upgrade(request, organization, upgrade_id)
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "message": upgrade.message,
        "lanes": lanes_of(upgrade),
        "next": next_steps(upgrade),
        "time_left": time_left(upgrade, now=timezone.now()),
        **validation_context(upgrade),
        **timeline_context(request, upgrade),
        "may_roll_back": may_roll_back(upgrade),
        **stop_rule(request, upgrade),
    }
    return render_page(request, "upgrades/detail.html", "upgrades/_live.html", context)


def may_roll_back(upgrade: Upgrade) -> bool:
    """As far as the record says: something advanced, and no rollback of it rolls or has succeeded."""
    newest = next(iter(upgrade.rollbacks.all()), None)
    went_back = newest is not None and newest.status in (*OPEN, Status.SUCCESS)
    return not upgrade.is_open and not went_back and bool(services_that_advanced(upgrade))


def timeline_context(request: HttpRequest, upgrade: Upgrade) -> dict[str, Any]:
    """What the address asks of the timeline. Two queries."""
    form = TimelineFilters(request.GET)
    given = form.cleaned_data if form.is_valid() else {}
    timeline = timeline_of(upgrade, kind=given.get("kind") or "", skip=given.get("skip") or 0)
    errors = " ".join(f"{name}: {' '.join(str(one) for one in said)}" for name, said in form.errors.items())
    return {"timeline": timeline, "timeline_errors": errors}


def validation_context(upgrade: Upgrade) -> dict[str, Any]:
    """The matrix, and whether the portal still checks by itself. Two queries."""
    run = run_of(upgrade)
    return {
        "matrix": rows_of(upgrade),
        "run": run,
        "is_probing": run is not None and not run.is_done,
        "may_validate": not upgrade.is_open and upgrade.has_advanced,
        "live_seconds": live_seconds(upgrade, run),
    }


def live_seconds(upgrade: Upgrade, run: ValidationRun | None) -> int | None:
    """How often the page asks again: while tasks move, and while the portal still checks what they do; then never."""
    if upgrade.is_open:
        return 2
    return 5 if run is not None and not run.is_done else None


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def stop(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Ask first what a stop will do; then ask ECS for it."""
    organization = organization_of_page(request, slug)
    upgrade = find_upgrade(request, organization, upgrade_id)
    status, refused = 200, {}
    if request.method == "POST":
        try:
            record.stop_upgrade(upgrade, actor=person(request))
            messages.success(request, "Stop asked for. ECS rolls the running rollout back; watch it here.")
            return redirect("upgrades:detail", slug, upgrade_id)
        except PortalError as error:
            if error.status != 409:
                raise
            status, refused = 409, {"stop_blocked_reason": error.message}
            upgrade = find_upgrade(request, organization, upgrade_id)
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "lanes": lanes_of(upgrade),
        **stop_rule(request, upgrade),
        **refused,
    }
    return render(request, "upgrades/stop.html", context, status=status)


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def rollback(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Say first what a rollback will do, service by service, and what it cannot; then record it."""
    organization = organization_of_page(request, slug)
    upgrade = find_upgrade(request, organization, upgrade_id)
    form = RollbackForm(organization, request.POST if request.method == "POST" else None)
    status, refused, conflict = 200, None, None
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                made = roll_back(request, form, upgrade)
                return redirect("upgrades:detail", slug, made.upgrade_id)
            except PortalError as error:
                if error.status in (403, 404):
                    raise
                status, refused, conflict = error.status, error.message, error.extra.get("upgrade_id")
    plan = with_diffs(plan_rollback(upgrade))
    form.show(plan.services)
    preflight = None
    if not plan.refusal:
        preflight = run_preflight(organization, plan.services, session_ends_at=session_ends_at(request))
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "plan": plan,
        "form": form,
        "refused": refused,
        "conflict": conflict,
        "preflight": preflight,
        "expected_seconds": estimate_seconds(organization, plan.services),
    }
    return render(request, "upgrades/rollback.html", context, status=status)


def roll_back(request: HttpRequest, form: RollbackForm, upgrade: Upgrade) -> Upgrade:
    asked = {key: value for key, value in form.cleaned_data.items() if key != "confirmation"}
    return record.rollback_upgrade(upgrade, actor=person(request), session_ends_at=session_ends_at(request), **asked)


@policy(Policy.VIEWER)
@require_safe
def history(request: HttpRequest, slug: str) -> HttpResponse:
    """Who, when, what, how many services, what came of it. The address holds the filters."""
    organization = organization_of_page(request, slug)
    form = HistoryFilters(request.GET)
    given = form.cleaned_data if form.is_valid() else {}
    # A filter that cannot be shows no rows; all that was typed stays in the form, to be mended.
    filters = {name: given.get(name) or request.GET.get(name, "") for name in HISTORY_FILTERS}
    upgrades = Upgrade.objects.for_history(request.user, organization, **filters)
    page = paginate(upgrades if form.is_valid() else upgrades.none(), skip=given.get("skip") or 0, limit=DEFAULT_LIMIT)
    context = page_context(request, organization) | {
        "page": page,
        "form": form,
        "filters": filters,
        "statuses": [(status.value, status.label) for status in UPGRADE_STATUSES],
        "services": TARGET_CHOICES,
        "validations": Validation.choices,
        "query_without_skip": urlencode({name: value for name, value in filters.items() if value}),
        "csv_url": reverse("upgrades:history_csv", args=[slug]),
        "most_rows": MOST_ROWS,
    }
    return render_page(request, "upgrades/history.html", "upgrades/_history_rows.html", context)


@policy(Policy.VIEWER)
@require_safe
def history_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """What the history's filters find, the newest MOST_ROWS at most. 400 for a filter that makes no sense."""
    organization = organization_of_page(request, slug)
    form = HistoryFilters(request.GET)
    check_filters(form)
    filters = {name: form.cleaned_data[name] for name in HISTORY_FILTERS}
    upgrades = Upgrade.objects.for_history(request.user, organization, **filters)
    return csv_response(f"{slug}-upgrades", HEADER, history_rows(upgrades))


def find_upgrade(request: HttpRequest, organization: Organization, upgrade_id: str) -> Upgrade:
    """Raises PortalError 404 for another organization's upgrade as for one that does not exist."""
    of_ecs = UpgradeEvent.objects.filter(kind=EventKind.ECS).order_by("-created_at", "-id")
    events = Prefetch("rollouts__events", of_ecs)
    return existing(
        Upgrade.objects.visible_to(request.user)
        .for_record()
        .select_related("rolls_back")
        .prefetch_related(events, "rollbacks__rollouts", "checks")
        .filter(organization=organization, upgrade_id=upgrade_id)
        .first()
    )


def stop_rule(request: HttpRequest, upgrade: Upgrade) -> dict[str, Any]:
    """Whether Stop is offered, and why not."""
    role = role_in(request.user, upgrade.organization)
    reason = None
    if upgrade.status in TERMINAL:
        reason = f"It has ended {upgrade.status}: nothing of it runs any more."
    elif upgrade.stop_requested_at:
        reason = "A stop was asked for already."
    elif role is None or not role.includes(Role.OPERATOR):
        reason = f"Your role is {role}: stopping an upgrade needs operator."
    return {"may_stop": reason is None, "stop_blocked_reason": reason}
