"""The page that stops an upgrade."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from portal.access import Policy, get_page_organization, person, policy
from portal.web.context import page_context
from portal.web.forms import attempt
from upgrades.commands.stop import stop_upgrade
from upgrades.estimates import find_usual_seconds
from upgrades.pages.context import find_upgrade, stop_rule
from upgrades.pages.decide import find_pause
from upgrades.states import PlatformService
from upgrades.stop_effects import describe_stops


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def stop(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Render what a stop would do to each service; POST requests the stop."""
    organization = get_page_organization(request, slug)
    upgrade = find_upgrade(organization, upgrade_id)
    status, refused = 200, {}
    if request.method == "POST":
        _, refusal = attempt(lambda: stop_upgrade(upgrade, actor=person(request)))
        if refusal is None:
            return redirect("upgrades:detail", slug, upgrade_id)
        status, refused = refusal.status, {"stop_blocked_reason": refusal.message}
        upgrade = find_upgrade(organization, upgrade_id)
    usual = find_usual_seconds(organization, PlatformService.values)
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "stop_effects": describe_stops(upgrade, usual),
        "pause": find_pause(request, upgrade, usual),
        **stop_rule(request, upgrade),
        **refused,
    }
    return render(request, "upgrades/stop.html", context, status=status)
