"""The page of one upgrade, which polls while the upgrade runs."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, get_role, open_page, policy
from portal.web.context import page_context
from portal.web.htmx import answer_unchanged, make_tag, render_page, wants_fragment
from upgrades.checks.matrix import get_matrix_rows
from upgrades.estimates import find_usual_seconds, time_left
from upgrades.inventory.comparison import can_compare
from upgrades.models import Upgrade, UpgradeEvent, ValidationRun
from upgrades.pages.context import find_with_timeline, stop_rule
from upgrades.pages.decide import find_pause
from upgrades.pages.forms import TimelineFilters
from upgrades.pages.live_tag import LiveUpgrade, live_upgrade
from upgrades.pages.neighbours import build_neighbours
from upgrades.pages.next_steps import next_steps
from upgrades.pages.results import SERVICES
from upgrades.pages.rollout_cards import build_rollout_cards
from upgrades.pages.timeline import KIND_LABELS, build_timeline
from upgrades.rollback_plan import services_that_advanced
from upgrades.states import OPEN, Phase, PlatformService, Status
from upgrades.stop_effects import describe_stops


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Render the page of one upgrade, or its live block for a poll.

    When the state is final, the block comes without polling attributes, so polling stops.
    """
    statement, values = live_upgrade(upgrade_id)
    organization = get_page_organization(request, slug)
    opened = open_page(request, organization, statement, values)
    live = LiveUpgrade(*opened.live)
    tag = None
    if live.is_covered:
        rules = (organization.name, organization.requires_second_approver, organization.link_templates)
        tag = make_tag(
            request,
            "live",
            get_role(request.user, organization),
            opened.silent_processes,
            live.shown,
            live.step,
            *rules,
        )
        unchanged = answer_unchanged(request, tag, times=live.times or "")
        if unchanged:
            return unchanged
    upgrade, events = find_with_timeline(organization, upgrade_id)
    usual = find_usual_seconds(organization, PlatformService.values) if upgrade.is_open else {}
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "message": upgrade.message,
        "rollout_cards": build_rollout_cards(upgrade, events),
        "compared": [] if upgrade.is_open else [each for each in upgrade.rollouts.all() if can_compare(each)],
        "next": next_steps(upgrade),
        "time_left": time_left(upgrade, now=timezone.now(), usual=usual),
        **validation_context(upgrade),
        **timeline_context(request, events),
        "may_roll_back": may_roll_back(upgrade),
        "pause": find_pause(request, upgrade, usual),
        **stop_context(request, upgrade, usual),
    }
    if not wants_fragment(request):
        context["neighbours"] = build_neighbours(request, upgrade)
    return render_page(request, "upgrades/detail.html", "upgrades/_live.html", context, tag=tag)


def stop_context(request: HttpRequest, upgrade: Upgrade, usual: dict[str, float]) -> dict[str, Any]:
    """Return whether Stop is offered, and what it does to the rollout that runs now. `usual`: as find_usual_seconds."""
    rule = stop_rule(request, upgrade)
    effects = describe_stops(upgrade, usual) if rule["may_stop"] else []
    running = [effect for effect in effects if effect.rollout.phase in (Phase.CALLING, Phase.WATCHING)]
    return rule | {"stop_effect": next(iter(running), None)}


def may_roll_back(upgrade: Upgrade) -> bool:
    """Return whether the record allows a rollback: a service advanced, and no rollback is open or has succeeded."""
    newest = next(iter(upgrade.rollbacks.all()), None)
    went_back = newest is not None and newest.status in (*OPEN, Status.SUCCESS)
    return not upgrade.is_open and not went_back and bool(services_that_advanced(upgrade))


def timeline_context(request: HttpRequest, events: list[UpgradeEvent]) -> dict[str, Any]:
    """Return the part of the timeline that the query string asks for."""
    form = TimelineFilters(request.GET)
    given = form.cleaned_data if form.is_valid() else {}
    timeline = build_timeline(events, kind=given.get("kind") or "", skip=given.get("skip") or 0)
    errors = " ".join(f"{name}: {' '.join(str(one) for one in said)}" for name, said in form.errors.items())
    return {
        "timeline": timeline,
        "timeline_errors": errors,
        "kind_labels": KIND_LABELS,
        "service_labels": SERVICES,
    }


def validation_context(upgrade: Upgrade) -> dict[str, Any]:
    """Return the validation matrix and whether the portal still runs its own checks."""
    run = getattr(upgrade, "validation_run", None)
    return {
        "matrix": get_matrix_rows(upgrade),
        "run": run,
        "is_probing": run is not None and not run.is_done,
        "may_validate": not upgrade.is_open and upgrade.has_advanced,
        "live_seconds": live_seconds(upgrade, run),
    }


def live_seconds(upgrade: Upgrade, run: ValidationRun | None) -> int | None:
    """Return the polling interval in seconds while the upgrade, its validation or an early success's rest is not over.

    None stops polling.
    """
    if upgrade.is_open:
        return 2
    if run is not None and not run.is_done:
        return 5
    return 10 if any(rollout.is_draining for rollout in upgrade.rollouts.all()) else None
