"""The page that decides at a pause of an upgrade, and what the upgrade's page shows about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from portal.access import Policy, get_page_organization, is_fresh, person, policy
from portal.web.context import page_context
from portal.web.forms import attempt
from upgrades.commands.decide import decide_rollout, describe_approvers, explain_second_person
from upgrades.estimates import find_usual_seconds
from upgrades.models import Decision, Rollout, Upgrade
from upgrades.pages.context import find_upgrade
from upgrades.pages.forms import DecideForm
from upgrades.pages.rollout_stages import STAGE_NAMES, describe_next
from upgrades.states import DecisionAction, PlatformService
from upgrades.stop_effects import describe_stop


@dataclass(frozen=True)
class Pause:
    """The pause of an upgrade that waits, with its decision if there is one.

    `go_on`: what continuing does. `undo`: what rolling back does, and about how long it takes. `approvers`: who may
    continue the upgrade, if a second person is required. `why_not`: why this person may not.
    """

    rollout: Rollout
    hook: dict[str, Any]
    stage_name: str | None
    expires_at: datetime | None
    go_on: str
    undo: str
    decision: Decision | None
    approvers: str | None
    why_not: str | None


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def decide(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Render the pause that waits and what each decision does; POST records the decision at the pause shown."""
    organization = get_page_organization(request, slug)
    upgrade = find_upgrade(organization, upgrade_id)
    form = DecideForm(request.POST if request.method == "POST" else None)
    status, refusal = 200, None
    if request.method == "POST":
        decided, refusal = attempt(lambda: decide_on(request, form, upgrade)) if form.is_valid() else (None, None)
        if decided:
            label = DecisionAction(form.cleaned_data["action"]).label.lower()
            messages.success(request, f"Decided: {label}. The portal sends it to ECS.")
            return redirect("upgrades:detail", slug, upgrade_id)
        status = refusal.status if refusal else 422
        upgrade = find_upgrade(organization, upgrade_id)
    usual = find_usual_seconds(organization, PlatformService.values)
    pause = find_pause(request, upgrade, usual)
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "pause": pause,
        "form": form,
        "refusal": refusal,
    }
    return render(request, "upgrades/decide.html", context, status=status)


def decide_on(request: HttpRequest, form: DecideForm, upgrade: Upgrade) -> Upgrade:
    given = form.cleaned_data | {"action": DecisionAction(form.cleaned_data["action"])}
    return decide_rollout(upgrade, actor=person(request), is_fresh=is_fresh(request), **given)


def find_pause(request: HttpRequest, upgrade: Upgrade, usual_seconds: Mapping[str, float]) -> Pause | None:
    """Return the pause that waits. None if none does. An upgrade rolls one service after the other.

    `upgrade`: from find_upgrade. `usual_seconds`: a rollout's usual duration, by service.
    *Costs* one query if one waits and a second person is required.
    """
    rollout = next((each for each in upgrade.rollouts.all() if each.waiting_hook), None)
    if rollout is None or rollout.waiting_hook is None:
        return None
    hook = rollout.waiting_hook
    approvers = describe_approvers(upgrade) if upgrade.organization.requires_second_approver else None
    return Pause(
        rollout=rollout,
        hook=hook,
        stage_name=STAGE_NAMES.get(hook["stage"] or ""),
        expires_at=rollout.hook_expires_at,
        go_on=describe_next(rollout),
        undo=describe_stop(rollout, usual_seconds),
        decision=next((each for each in rollout.decisions.all() if each.hook_id == hook["id"]), None),
        approvers=approvers,
        why_not=explain_second_person(upgrade, person(request), approvers),
    )
