"""The account page of the signed-in person. allauth's pages are linked from it."""

from allauth.core.internal.httpkit import authenticated_user
from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from portal.access import Policy, has_two_factor, policy
from portal.errors import found_or_404
from portal.models import Membership


@policy(Policy.SIGNED_IN)
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Render the person, their memberships and roles, and links to password, two-factor authentication and devices."""
    person = authenticated_user(request)
    memberships = Membership.objects.filter(user=person, organization__is_active=True)
    context = {
        "memberships": memberships.select_related("organization"),
        "has_two_factor": has_two_factor(person),
    }
    return render(request, "portal/accounts/account.html", context)


@policy(Policy.SIGNED_IN)
@require_POST
def sign_out_device(request: HttpRequest, device_id: int) -> HttpResponse:
    """End one of the person's sessions. Ending this one signs out. Raises PortalError 404, also for another person's."""
    device = found_or_404(UserSession.objects.filter(user=authenticated_user(request), pk=device_id).first())
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
