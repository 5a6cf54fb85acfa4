"""TENANCY AND ROLES: the one door.

Three walls, each tested by itself: every route declares a `policy` and AccessMiddleware refuses one that does not; every
read of tenant data starts with `visible_to(user)`, so another organization's object is a 404; every command begins with
`require`, so a role that is too low is a 403.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlencode

from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from rest_framework.request import Request

from portal.errors import NOT_FOUND, PortalError, error_body, existing, is_api, respond
from portal.models import Membership, Organization, Role, User
from portal.web.htmx import page_of

Person = User | AnonymousUser
View = TypeVar("View", bound=Callable[..., Any])


class Policy(Enum):
    """Who may call a route. The role is enforced where the object is known; here it is declared and tested."""

    PUBLIC = "anybody"
    SIGNED_IN = "anybody who is signed in"
    VIEWER = "members of the organization"
    OPERATOR = "operators and admins of the organization"
    ADMIN = "admins of the organization"
    STAFF = "staff, in production with two-factor authentication"
    CLOSED = "nobody: a library's route that the portal does not use"


# The views of allauth, one by one: a view that a new release adds is refused until somebody has decided about it.
# E-mail addresses and names are kept by staff, so allauth's pages about them are closed.
LIBRARY_POLICIES = {
    "allauth.account.views.LoginView": Policy.PUBLIC,
    "allauth.account.views.LogoutView": Policy.PUBLIC,
    "allauth.account.views.AccountInactiveView": Policy.PUBLIC,
    "allauth.account.views.SignupView": Policy.PUBLIC,  # says that sign-up is closed
    "allauth.account.views.PasswordResetView": Policy.PUBLIC,
    "allauth.account.views.PasswordResetDoneView": Policy.PUBLIC,
    "allauth.account.views.PasswordResetFromKeyView": Policy.PUBLIC,
    "allauth.account.views.PasswordResetFromKeyDoneView": Policy.PUBLIC,
    "allauth.account.views.PasswordChangeView": Policy.SIGNED_IN,
    "allauth.account.views.PasswordSetView": Policy.SIGNED_IN,
    "allauth.account.views.ReauthenticateView": Policy.SIGNED_IN,
    "allauth.account.views.EmailView": Policy.CLOSED,
    "allauth.account.views.ConfirmEmailView": Policy.CLOSED,
    "allauth.account.views.email_verification_sent": Policy.CLOSED,
    "allauth.account.views.ConfirmLoginCodeView": Policy.CLOSED,
    "allauth.mfa.base.views.AuthenticateView": Policy.PUBLIC,  # the second step of a sign-in
    "allauth.mfa.base.views.IndexView": Policy.SIGNED_IN,
    "allauth.mfa.base.views.ReauthenticateView": Policy.SIGNED_IN,
    "allauth.mfa.totp.views.ActivateTOTPView": Policy.SIGNED_IN,
    "allauth.mfa.totp.views.DeactivateTOTPView": Policy.SIGNED_IN,
    "allauth.mfa.recovery_codes.views.ViewRecoveryCodesView": Policy.SIGNED_IN,
    "allauth.mfa.recovery_codes.views.GenerateRecoveryCodesView": Policy.SIGNED_IN,
    "allauth.mfa.recovery_codes.views.DownloadRecoveryCodesView": Policy.SIGNED_IN,
    "allauth.mfa.webauthn.views.LoginWebAuthnView": Policy.PUBLIC,
    "allauth.mfa.webauthn.views.ListWebAuthnView": Policy.SIGNED_IN,
    "allauth.mfa.webauthn.views.AddWebAuthnView": Policy.SIGNED_IN,
    "allauth.mfa.webauthn.views.EditWebAuthnView": Policy.SIGNED_IN,
    "allauth.mfa.webauthn.views.RemoveWebAuthnView": Policy.SIGNED_IN,
    "allauth.mfa.webauthn.views.ReauthenticateWebAuthnView": Policy.SIGNED_IN,
    "allauth.usersessions.views.ListUserSessionsView": Policy.SIGNED_IN,
}


def policy(declared: Policy) -> Callable[[View], View]:
    """Declare who may call the view. Outermost decorator of every view."""

    def declare(view: View) -> View:
        view.policy = declared  # type: ignore[attr-defined]
        return view

    return declare


def policy_of(view: Callable[..., Any]) -> Policy | None:
    """Who may call the view; None when nobody has declared it, and then nobody may."""
    declared = getattr(view, "policy", None)
    if isinstance(declared, Policy):
        return declared
    if isinstance(getattr(view, "admin_site", None) or getattr(view, "model_admin", None), AdminSite | ModelAdmin):
        return Policy.STAFF
    named = getattr(view, "view_class", view)
    return LIBRARY_POLICIES.get(f"{named.__module__}.{getattr(named, '__qualname__', '')}")


class AccessMiddleware:
    """Refuses a view without a policy, an anonymous caller of one that is not public, and all but staff in the admin."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated:
            # A tenant's page must not come back from a cache after sign-out.
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        # Answered here and not raised: Django turns what process_view raises into a 500.
        declared = policy_of(view)
        if declared is None:
            return respond(request, PortalError("no_policy", "This route declares no policy: nobody may call it.", 403))
        if declared is Policy.CLOSED:
            return respond(request, PortalError("not_found", NOT_FOUND, 404))
        if declared is Policy.PUBLIC:
            return None
        if not request.user.is_authenticated:
            return sign_in_first(request)
        return None if declared is not Policy.STAFF else staff_only(request)


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """401 as JSON for the API; for a fragment 401 and a redirect of the whole page; for a page the sign-in page.

    Signing in leads back: to the page that asked for the fragment, or to the page that was asked for.
    """
    if is_api(request):
        return JsonResponse(error_body("not_authenticated", "Sign in first: POST /api/v1/auth/login."), status=401)
    if request.headers.get("HX-Request") == "true":
        # A 302 would paste the sign-in page into the fragment.
        return HttpResponse(status=401, headers={"HX-Redirect": sign_in_url(page_of(request))})
    return HttpResponseRedirect(sign_in_url(request.get_full_path()))


def sign_in_url(then: str | None) -> str:
    """Return the address of the sign-in page, with the page to open after it."""
    login = reverse("account_login")
    return f"{login}?{urlencode({'next': then})}" if then else login


def person(request: HttpRequest | Request) -> User:
    """The signed-in person; AccessMiddleware has turned everybody else away."""
    assert isinstance(request.user, User)  # noqa: S101
    return request.user


def session_ends_at(request: HttpRequest | Request) -> datetime | None:
    """When the caller's session ends, as it is stored: being used does not prolong it. One query."""
    key = request.session.session_key
    return Session.objects.filter(session_key=key).values_list("expire_date", flat=True).first() if key else None


def is_staff(user: Person) -> bool:
    """Whether the person may use Django admin: staff, in production only with two-factor authentication."""
    if not user.is_authenticated or not user.is_active or not user.is_staff:
        return False
    return settings.LOCAL or has_two_factor(user)


def has_two_factor(user: User) -> bool:
    """Whether signing in takes a second step. Recovery codes alone are none. One query."""
    return bool(is_mfa_enabled(user, [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]))


def staff_only(request: HttpRequest) -> HttpResponse | None:
    """None for staff; 403 for others; staff without two-factor authentication are sent to set it up."""
    if is_staff(request.user):
        return None
    if not request.user.is_staff:
        return respond(request, PortalError("forbidden", "Django admin is for staff; ask one of them.", 403))
    messages.warning(
        request, "Django admin needs two-factor authentication: activate one of these, then open it again."
    )
    return HttpResponseRedirect(reverse("mfa_index"))


def role_in(user: Person, organization: Organization) -> Role | None:
    """The person's role; None for an outsider and for a suspended organization."""
    if not user.is_authenticated or not user.is_active or not organization.is_active:
        return None
    role = Membership.objects.filter(organization=organization, user=user).values_list("role", flat=True).first()
    return Role(role) if role else None


def require(user: Person, organization: Organization, needed: Role) -> Role:
    """Return the person's role. Raises PortalError 404 for an outsider, 403 for a role below `needed`."""
    role = existing(role_in(user, organization))
    if not role.includes(needed):
        raise PortalError(
            "forbidden",
            f"Your role in {organization.name} is {role.value}; this needs {needed.value}. "
            "An admin of the organization can change it.",
            403,
        )
    return role


def organization_of_page(request: HttpRequest, slug: str) -> Organization:
    """The organization of a page's address. Raises PortalError 404 for an outsider."""
    return existing(Organization.objects.visible_to(request.user).filter(slug=slug).first())


def organization_of_api(request: HttpRequest) -> Organization:
    """The organization that a list, create or trigger route acts on: `X-Organization`, else the only membership.

    Raises PortalError 404 for a slug that is unknown or foreign, 400 `organization_required` without a header when the
    person has several memberships, 404 when they have none.
    """
    slug = request.headers.get("X-Organization")
    if slug is not None:
        return organization_of_page(request, slug)
    organizations = list(Organization.objects.visible_to(request.user)[:2])
    if not organizations:
        raise PortalError("not_found", "You are a member of no organization; ask its admin to add you.", 404)
    if len(organizations) > 1:
        raise PortalError(
            "organization_required",
            "You belong to several organizations: name one in the X-Organization header by its slug "
            "(GET /api/v1/auth/session lists them).",
            400,
        )
    return organizations[0]


def organizations(request: HttpRequest) -> dict[str, Any]:
    """Context processor: `my_organizations`, for the switcher in the frame of every page."""

    def mine() -> list[Organization]:
        user = getattr(request, "user", AnonymousUser())
        return list(Organization.objects.visible_to(user))

    return {"my_organizations": mine}
