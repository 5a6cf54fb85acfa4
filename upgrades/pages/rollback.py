"""The page that rolls an upgrade back."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from portal.access import Policy, get_page_organization, person, policy, session_ends_at
from portal.web.context import page_context
from portal.web.forms import attempt
from upgrades.checks.preflight import run as run_preflight
from upgrades.commands.rollback import rollback_upgrade
from upgrades.estimates import estimate_seconds
from upgrades.models import Upgrade
from upgrades.pages.context import find_upgrade
from upgrades.pages.forms import RollbackForm
from upgrades.rollback_plan import plan_rollback, with_diffs


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def rollback(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Render what a rollback would do to each service; POST records and starts it."""
    organization = get_page_organization(request, slug)
    upgrade = find_upgrade(organization, upgrade_id)
    form = RollbackForm(organization, request.POST if request.method == "POST" else None)
    status, refusal = 200, None
    if request.method == "POST":
        made, refusal = attempt(lambda: roll_back(request, form, upgrade)) if form.is_valid() else (None, None)
        if made:
            return redirect("upgrades:detail", slug, made.upgrade_id)
        status = refusal.status if refusal else 422
    plan = with_diffs(plan_rollback(upgrade))
    form.show(plan.services)
    preflight = None
    if not plan.refusal:
        preflight = run_preflight(organization, plan.services, session_ends_at=session_ends_at(request))
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "plan": plan,
        "form": form,
        "refusal": refusal,
        "conflict": refusal.extra.get("upgrade_id") if refusal else None,
        "preflight": preflight,
        "expected_seconds": estimate_seconds(organization, plan.services),
    }
    return render(request, "upgrades/rollback.html", context, status=status)


def roll_back(request: HttpRequest, form: RollbackForm, upgrade: Upgrade) -> Upgrade:
    asked = {key: value for key, value in form.cleaned_data.items() if key != "confirmation"}
    return rollback_upgrade(upgrade, actor=person(request), session_ends_at=session_ends_at(request), **asked)
