"""The account page of the signed-in person. allauth's pages are linked from it."""

from allauth.mfa.webauthn.views import login_webauthn
from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal import soft_cache
from portal.access import Policy, get_page_organization, has_two_factor, person, policy
from portal.client_ip import get_present_client_ip
from portal.errors import PortalError, found_or_404, too_many_requests
from portal.members.commands import (
    accept_membership,
    choose_default_organization,
    decline_membership,
    last_admin_reason,
    leave_organization,
    list_invitations,
)
from portal.models import Membership, Organization
from portal.times import zone_names
from portal.web.forms import attempt

CHALLENGES_PER_MINUTE = 30


@policy(Policy.SIGNED_IN)
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Render the person, their memberships and roles, and links to password, two-factor authentication and devices."""
    user = person(request)
    memberships = Membership.objects.accepted().filter(user=user, organization__is_active=True)
    context = {
        "memberships": memberships.select_related("organization"),
        "invitations": list_invitations(user),
        "has_two_factor": has_two_factor(user),
        "zones": zone_names(),
    }
    return render(request, "portal/accounts/account.html", context)


@policy(Policy.SIGNED_IN)
@require_POST
def accept(request: HttpRequest, membership_id: int) -> HttpResponse:
    membership = accept_membership(membership_id, actor=person(request))
    messages.success(request, f"You are now a member of {membership.organization.name} as {membership.role}.")
    return redirect("overview", membership.organization.slug)


@policy(Policy.SIGNED_IN)
@require_POST
def decline(request: HttpRequest, membership_id: int) -> HttpResponse:
    membership = decline_membership(membership_id, actor=person(request))
    messages.success(request, f"You declined the invitation of {membership.organization.name}.")
    return redirect("account")


@policy(Policy.SIGNED_IN)
@require_http_methods(["GET", "HEAD", "POST"])
def leave(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the confirmation with its consequences, and end the person's own membership."""
    # Does not check the second factor, so that a person who does not want one can leave.
    organization = found_or_404(Organization.objects.visible_to(request.user).filter(slug=slug).first())
    status = 200
    if request.method == "POST":
        _, refusal = attempt(lambda: leave_organization(organization, actor=person(request)))
        if refusal is None:
            messages.success(request, f"You left {organization.name}.")
            return redirect("account")
        status = refusal.status
    own = Membership.objects.select_related("organization", "user").filter(user=person(request))
    context = {"left": organization, "last_admin_reason": last_admin_reason(own.get(organization=organization))}
    return render(request, "portal/accounts/leave.html", context, status=status)


@policy(Policy.SIGNED_IN)
@require_POST
def default_organization(request: HttpRequest) -> HttpResponse:
    """Choose the organization of API requests without X-Organization. An empty `organization` chooses none."""
    slug = request.POST.get("organization", "")
    organization = get_page_organization(request, slug) if slug else None
    choose_default_organization(organization, actor=person(request))
    messages.success(
        request,
        f"API requests without X-Organization act on {organization.name} from now on."
        if organization
        else "You have no default organization from now on.",
    )
    return redirect("account")


@policy(Policy.SIGNED_IN)
@require_POST
def times(request: HttpRequest) -> HttpResponse:
    """Choose the time zone of pages, and dates or ages. *Raises* PortalError 422 `bad_time_zone` for an unknown zone."""
    user, zone = person(request), request.POST.get("zone", "")
    if zone not in zone_names():
        raise PortalError("bad_time_zone", "Choose a time zone of the list.", 422)
    user.time_zone, user.has_absolute_times = zone, request.POST.get("times") == "absolute"
    user.save(update_fields=["time_zone", "has_absolute_times"])
    messages.success(request, f"Times are {zone} from now on.")
    return redirect("account")


@policy(Policy.SIGNED_IN)
@require_POST
def sign_out_device(request: HttpRequest, device_id: int) -> HttpResponse:
    """End one of the person's sessions. Ending this one signs out. Raises PortalError 404, also for another person's."""
    device = found_or_404(UserSession.objects.filter(user=person(request), pk=device_id).first())
    is_current = device.is_current()
    end_sessions(request, [device])
    if not is_current:
        messages.success(request, "The device is signed out.")
    return redirect("usersessions_list")


@policy(Policy.SIGNED_IN)
@require_safe
def accounts(request: HttpRequest) -> HttpResponse:
    """Redirect to the account page. allauth would redirect to its e-mail page, which is closed."""
    return redirect("account")


@policy(Policy.PUBLIC)
def passkey(request: HttpRequest) -> HttpResponse:
    """Sign in with a passkey, in place of allauth's view: it stores a session for each challenge, so these are counted.

    allauth counts only the answers to a challenge. 429 for more than CHALLENGES_PER_MINUTE from one address.
    """
    minute = int(timezone.now().timestamp()) // 60
    key = f"passkey-challenges:{get_present_client_ip()}:{minute}"
    if request.method != "POST" and soft_cache.count(key, seconds=60) > CHALLENGES_PER_MINUTE:
        return too_many_requests(request)
    response: HttpResponse = login_webauthn(request)
    return response
