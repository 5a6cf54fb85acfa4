"""The page that starts an upgrade: the choices, their plan, and the start of exactly what the plan shows."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from portal.access import Policy, get_page_organization, is_fresh, person, policy, session_ends_at
from portal.models import Organization
from portal.web.context import page_context
from portal.web.forms import attempt
from portal.web.htmx import render_page, wants_fragment
from upgrades.checks import preflight
from upgrades.checks.preflight import Preflight
from upgrades.commands.refusals import MAX_REASON_LENGTH
from upgrades.commands.trigger import trigger_upgrade
from upgrades.inventory.catalogue import read_catalogue
from upgrades.models import Upgrade
from upgrades.pages.forms import ChoicesForm, TriggerForm
from upgrades.pages.plan import build_plan
from upgrades.pages.version_choices import version_options
from upgrades.scope import SERVICE_OF, Change
from upgrades.states import PlatformService, get_services

# The field beside which the command's refusal is shown, by error code.
FIELD_OF = {
    "version_unavailable": "version",
    "registry_unavailable": "version",
    "not_supported": "service",
    "service_disabled": "service",
    "upgrade_in_progress": "service",
    "override_reason_too_short": "override_reason",
}
# The kinds of change, grouped by the service that they affect.
CHANGES = [
    (service.label, [change for change in Change if SERVICE_OF.get(change) == service]) for service in PlatformService
] + [("All three", [Change.TOGETHER])]
# The targets in rolling order, with the guide's words from "Choosing the Right Upgrade Scope" (scope.py).
TARGETS = [
    ("agent", "Agent service", "request-path or connector-execution changes"),
    ("orchestrator", "Orchestrator", "workflow, provider or orchestration-path changes"),
    ("customer-portal", "Customer portal", "control-plane or portal-experience changes"),
    ("all", "All three", "a coordinated rollout where services must move together"),
]


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the form and the plan for the choices in the query string; POST starts the plan that was shown.

    The fragment is the plan only. Viewers see everything, with the reason why they may not start it.
    """
    organization = get_page_organization(request, slug)
    if request.method == "POST":
        return start(request, organization)
    form = TriggerForm(organization, initial={"reason": request.GET.get("reason", "")[:MAX_REASON_LENGTH]})
    # Without JavaScript the checks are part of the page; with it the page loads them afterwards.
    checks_now = request.GET.get("checks") == "1" and not wants_fragment(request)
    return show_plan(request, organization, ChoicesForm(request.GET), form, checks_now=checks_now)


def start(request: HttpRequest, organization: Organization) -> HttpResponse:
    """Start the upgrade and redirect to its page.

    If it is refused, render the form again with all input kept and the error beside its field.
    """
    form = TriggerForm(organization, request.POST)
    status, blocker, checks_now = 422, None, False
    upgrade, refusal = attempt(lambda: trigger(request, form, organization)) if form.is_valid() else (None, None)
    if upgrade:
        return redirect("upgrades:detail", organization.slug, upgrade.upgrade_id)
    if refusal:
        form.add_error(FIELD_OF.get(refusal.code), refusal.message)
        status, blocker = refusal.status, refusal.extra.get("upgrade_id")
        checks_now = refusal.code in ("preflight_failed", "override_reason_too_short")
    form.renew_key()
    asked = ChoicesForm.from_trigger(request.POST)
    page = show_plan(request, organization, asked, form, status=status, checks_now=checks_now, blocker=blocker)
    for name, value in (refusal.headers if refusal else {}).items():
        page[name] = value
    return page


def show_plan(
    request: HttpRequest,
    organization: Organization,
    asked: ChoicesForm,
    form: TriggerForm,
    *,
    status: int = 200,
    checks_now: bool = False,
    blocker: str | None = None,
) -> HttpResponse:
    """Render the form with the plan for its choices.

    `checks_now`: run pre-flight before the page is sent; otherwise the page loads it afterwards.
    `blocker`: the upgrade that prevents this one.
    """
    plan = build_plan(organization, asked.choices())
    # The plan depends on the choices, but the list of versions does not, so a fragment needs no catalogue.
    may_read = plan.reading is not None and not plan.reading.error and not wants_fragment(request)
    catalogue = read_catalogue(organization, plan.reading) if may_read else None
    context = page_context(request, organization) | {
        "form": form,
        "errors": form.errors if form.is_bound else asked.errors,
        "plan": plan,
        "preflight": run_preflight(request, organization, plan.target) if checks_now and plan.target else None,
        "blocker": blocker,
        "catalogue": catalogue,
        "versions": version_options(catalogue, plan.choices.version),
        "changes": CHANGES,
        "targets": TARGETS,
    }
    return render_page(request, "upgrades/new.html", "upgrades/_plan_fragment.html", context, status=status)


@policy(Policy.VIEWER)
@require_safe
def preflight_panel(request: HttpRequest, slug: str) -> HttpResponse:
    """Render pre-flight for the target in the query string.

    A request that is not from the form is redirected to the form with its checks.
    """
    organization = get_page_organization(request, slug)
    choices = ChoicesForm(request.GET).choices()
    if not wants_fragment(request) or choices.service is None:
        query = "&".join(part for part in (choices.query(), "checks=1") if part)
        return redirect(f"{reverse('upgrades:new', args=[slug])}?{query}")
    context = page_context(request, organization) | {
        "form": TriggerForm(organization),
        "plan": {"target": choices.service, "choices": choices},
        "preflight": run_preflight(request, organization, choices.service),
    }
    fragment = "upgrades/_preflight_now.html"
    return render_page(request, fragment, fragment, context)


def run_preflight(request: HttpRequest, organization: Organization, target: str) -> Preflight:
    return preflight.run(organization, get_services(target), session_ends_at=session_ends_at(request))


def trigger(request: HttpRequest, form: TriggerForm, organization: Organization) -> Upgrade:
    asked = {key: value for key, value in form.cleaned_data.items() if key != "confirmation"}
    ends_at, fresh = session_ends_at(request), is_fresh(request)
    return trigger_upgrade(organization, actor=person(request), session_ends_at=ends_at, is_fresh=fresh, **asked)
