"""The page "is it safe?": choices, their plan, and the start of what the plan shows."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from portal.access import Policy, organization_of_page, person, policy, session_ends_at
from portal.errors import PortalError
from portal.htmx import render_page
from portal.models import Organization
from portal.pages import page_context
from upgrades import commands
from upgrades.commands import MAX_REASON_LENGTH
from upgrades.forms import ChoicesForm, TriggerForm
from upgrades.models import Upgrade
from upgrades.plans import plan_of
from upgrades.scope import SERVICE_OF, Change
from upgrades.states import PlatformService

# Where a refusal of the command is said: beside the field that has to do with it.
FIELD_OF = {"version_unavailable": "version", "service_disabled": "service", "upgrade_in_progress": "service"}
# What each change needs, under the service that it is about.
CHANGES = [
    (service.label, [change for change in Change if SERVICE_OF.get(change) == service]) for service in PlatformService
] + [("All three", [Change.TOGETHER])]
# The guide's table "Choosing the Right Upgrade Scope" (spec/source-2), in rolling order.
TARGETS = [
    ("agent", "Agent service", "request-path or connector-execution changes"),
    ("orchestrator", "Orchestrator", "workflow, provider or orchestration-path changes"),
    ("customer-portal", "Customer portal", "control-plane or portal-experience changes"),
    ("all", "All three", "a coordinated rollout where services must move together"),
]


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Is it safe? The address holds the choices, the fragment is their plan; POST starts the plan that was shown.

    Viewers see everything with the reason why they may not send it.
    """
    organization = organization_of_page(request, slug)
    if request.method == "POST":
        return start(request, organization)
    reason = request.GET.get("reason", "")[:MAX_REASON_LENGTH]
    return show_plan(
        request, organization, ChoicesForm(request.GET), TriggerForm(organization, initial={"reason": reason})
    )


def start(request: HttpRequest, organization: Organization) -> HttpResponse:
    """Refused, the page comes back with all that was chosen and typed, and says what refused beside its field."""
    form = TriggerForm(organization, request.POST)
    status, blocker = 422, None
    if form.is_valid():
        try:
            upgrade = trigger(request, form, organization)
            return redirect("upgrades:detail", organization.slug, upgrade.upgrade_id)
        except PortalError as error:
            if error.status in (403, 404):
                raise
            form.add_error(FIELD_OF.get(error.code), error.message)
            status, blocker = error.status, error.extra.get("upgrade_id")
    form.renew_key()
    return show_plan(
        request, organization, ChoicesForm.of_trigger(request.POST), form, status=status, extra={"blocker": blocker}
    )


def show_plan(
    request: HttpRequest,
    organization: Organization,
    asked: ChoicesForm,
    form: TriggerForm,
    *,
    status: int = 200,
    extra: dict[str, Any] | None = None,
) -> HttpResponse:
    context = page_context(request, organization) | {
        "asked": asked,
        "form": form,
        "errors": form.errors if form.is_bound else asked.errors,
        "plan": plan_of(organization, asked.choices()),
        "changes": CHANGES,
        "targets": TARGETS,
        **(extra or {}),
    }
    return render_page(request, "upgrades/new.html", "upgrades/_plan.html", context, status=status)


def trigger(request: HttpRequest, form: TriggerForm, organization: Organization) -> Upgrade:
    asked = {key: value for key, value in form.cleaned_data.items() if key != "confirmation"}
    return commands.trigger_upgrade(
        organization, actor=person(request), session_ends_at=session_ends_at(request), **asked
    )
