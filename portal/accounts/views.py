"""The page about the signed-in person; allauth's pages hang below it."""

from allauth.core.internal.httpkit import authenticated_user
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from portal.access import Policy, has_two_factor, policy
from portal.models import Membership


@policy(Policy.SIGNED_IN)
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Who this is, where they are a member and as what, and the way to password, two-factor and devices."""
    person = authenticated_user(request)
    memberships = Membership.objects.filter(user=person, organization__is_active=True)
    context = {
        "memberships": memberships.select_related("organization"),
        "has_two_factor": has_two_factor(person),
    }
    return render(request, "portal/accounts/account.html", context)


@policy(Policy.SIGNED_IN)
@require_safe
def accounts(request: HttpRequest) -> HttpResponse:
    """The folder of allauth's pages; allauth itself would send people to its closed page of e-mail addresses."""
    return redirect("account")
