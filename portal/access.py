"""Access control: route policies, tenant isolation and roles.

Independent checks, each with its own tests:

- Every route declares a `policy`. AccessMiddleware refuses a route without one.
- Every read of tenant data starts with `visible_to(user)`, so another organization's object is a 404.
- Every command begins with `require`, so a role that is too low is a 403.
- A request with an API token also needs the route's scope. The roles above hold for its person as well.
- Every view passes the organization that it found to `require_second_factor`. Where the organization requires a second
  factor, a person without one gets a 403.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlencode

from allauth.account import app_settings as account_settings
from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import exceptions
from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from rest_framework.request import Request

from portal.accounts.sessions import SessionStore
from portal.accounts.tokens import is_in_query, read_bearer
from portal.api_token import get_present_token
from portal.attempts import note_organization
from portal.errors import MFA_REQUIRED, NOT_FOUND, NOT_STORABLE, PortalError, error_body, found_or_404, is_api, respond
from portal.models import Membership, Organization, Role, Scope, User
from portal.models.people import HEARTBEAT_FRESH_SECONDS, HEARTBEATS
from portal.tenancy import enter_all_organizations
from portal.web.htmx import get_page_path, get_referring_path

Person = User | AnonymousUser
# How the addresses of downloads end.
FILES = (".csv", ".txt")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
UNKNOWN_BEARER = (
    "This API token is unknown, expired or revoked, or its person or organization has no access any more. "
    "Make a new one under Account or Settings."
)
EXPOSED_IN_ADDRESS = (
    "Send the API token in the header Authorization: Bearer, never in an address, which is logged. "
    "Nothing was done. Revoke this token and make a new one."
)
View = TypeVar("View", bound=Callable[..., Any])


class Policy(Enum):
    """The callers that a route allows. A role is declared here and enforced where the object is known."""

    PUBLIC = "anyone"
    SIGNED_IN = "anyone who is signed in"
    VIEWER = "members of the organization"
    OPERATOR = "operators and admins of the organization"
    ADMIN = "admins of the organization"
    STAFF = "staff, in production with two-factor authentication"
    CLOSED = "no one: a library route that the portal does not use"


# The policy of each allauth view. A view that a new release adds is refused until it is listed here.
# Staff manage e-mail addresses and names, so allauth's pages for them are closed.
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
    """Declare who may call the view. Must be the outermost decorator of every view."""

    def declare(view: View) -> View:
        view.policy = declared  # type: ignore[attr-defined] # a function takes attributes
        return view

    return declare


def get_policy(view: Callable[..., Any]) -> Policy | None:
    """Return the policy of the view. None means that none is declared, so the view is refused."""
    declared = getattr(view, "policy", None)
    if isinstance(declared, Policy):
        return declared
    if isinstance(getattr(view, "admin_site", None) or getattr(view, "model_admin", None), AdminSite | ModelAdmin):
        return Policy.STAFF
    named = getattr(view, "view_class", view)
    return LIBRARY_POLICIES.get(f"{named.__module__}.{getattr(named, '__qualname__', '')}")


class AccessMiddleware:
    """Refuse views without a policy, anonymous callers of non-public views, and everyone but staff in the admin."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated:
            # A browser must not show a tenant's page from its cache after sign-out.
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        # Return the error instead of raising it: Django turns an exception in process_view into a 500.
        return refuse(request, view)


def refuse(request: HttpRequest, view: Callable[..., Any]) -> HttpResponse | None:
    """Return the refusal of a request that may not call the view, else None. Staff then work inside all organizations."""
    if is_in_query(request):
        return respond(request, PortalError("token_in_query", EXPOSED_IN_ADDRESS, 400))
    declared = get_policy(view)
    if declared is None:
        return respond(request, PortalError("no_policy", "This route declares no policy, so it is closed.", 403))
    if declared is Policy.CLOSED:
        return respond(request, PortalError("not_found", NOT_FOUND, 404))
    if declared is Policy.PUBLIC:
        return refuse_scope(request, view) if read_bearer(request) and request.method not in SAFE_METHODS else None
    if not request.user.is_authenticated:
        return sign_in_first(request)
    if get_present_token():
        return refuse_scope(request, view)
    return None if declared is not Policy.STAFF else open_admin(request)


def get_scope(view: Callable[..., Any], method: str | None) -> Scope | None:
    """Return the scope that a token needs for this method of an API route. None: no token may use it."""
    return Scope.READ if method in SAFE_METHODS else getattr(view, "scope", None)


def refuse_scope(request: HttpRequest, view: Callable[..., Any]) -> HttpResponse | None:
    """Return a 403 if the request is authenticated by a token without the route's scope, else None."""
    token = get_present_token() if request.user.is_authenticated else None
    if token is None:
        return None
    needed = get_scope(view, request.method)
    if needed is None:
        return respond(request, PortalError("token_not_accepted", "This needs a session: sign in as a person.", 403))
    if not token.allows(needed):
        note_organization(next(iter(list_organizations(request.user))))
        message = f"The token {token.name} lacks the scope {needed.value}. It has: {token.scope_names}."
        return respond(request, PortalError("scope_missing", message, 403, scope=needed.value))
    return None


def open_admin(request: HttpRequest) -> HttpResponse | None:
    """Let staff work inside all organizations. Return the refusal of everybody else."""
    refusal = staff_only(request)
    if refusal is None:
        enter_all_organizations()
    return refusal


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """Answer an anonymous request: 401 with HX-Redirect for a fragment, redirect to sign-in for a page, else 401 JSON.

    Sign-in then returns to the requested page, or to the page that requested the fragment or sent the form.
    """
    is_fragment = request.headers.get("HX-Request") == "true"
    if is_api(request) and read_bearer(request):
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return JsonResponse(error_body("invalid_token", UNKNOWN_BEARER), status=401, headers=challenge)
    if is_api(request) or not (is_fragment or asks_for_html(request)):
        return JsonResponse(error_body("not_authenticated", "Sign in first: POST /api/v1/auth/login."), status=401)
    if is_fragment:
        # A 302 would paste the sign-in page into the fragment.
        return HttpResponse(status=401, headers={"HX-Redirect": sign_in_url(get_page_path(request))})
    requested = request.get_full_path()
    is_read = request.method in ("GET", "HEAD")
    return HttpResponseRedirect(sign_in_url(requested if is_read else get_referring_path(request) or requested))


def asks_for_html(request: HttpRequest) -> bool:
    """Return whether the client accepts HTML by name, as browsers do. A script sends `*/*`.

    If there is no Accept header, return whether the address is that of a page and not of a file.
    """
    accept = request.headers.get("Accept")
    return "text/html" in accept if accept is not None else not request.path.endswith(FILES)


def sign_in_url(then: str | None) -> str:
    """Return the address of the sign-in page, with the page to open after it."""
    login = reverse("account_login")
    return f"{login}?{urlencode({'next': then})}" if then else login


def person(request: HttpRequest | Request) -> User:
    """Return the signed-in person. AccessMiddleware has refused everyone else."""
    if not isinstance(request.user, User):
        raise TypeError("The request has no signed-in person: the view's policy must require one.")
    return request.user


def session_ends_at(request: HttpRequest | Request) -> datetime | None:
    """Return when the caller's session ends at the latest. Activity does not extend that. *Costs* no query."""
    session = request.session
    return session.ends_at if isinstance(session, SessionStore) and session.session_key else None


class ReauthenticationRequired(PortalError, exceptions.ReauthenticationRequired):  # type: ignore[misc] # no types
    """The request needs a password or code of the last minutes.

    A page leads to allauth's form for it (portal/accounts/reauthentication.py); the API answers 403.
    """

    def __init__(self) -> None:
        minutes = account_settings.REAUTHENTICATION_TIMEOUT // 60
        message = (
            "Confirm that it is you: send your password or a code to POST /api/v1/auth/reauthenticate, then send this "
            f"request again within {minutes} minutes."
        )
        if get_present_token():
            message = "This asks for the password or a code, which a token cannot give: a person does it in a session."
        super().__init__("reauthentication_required", message, 403)


def is_fresh(request: HttpRequest | Request) -> bool:
    """Return whether the person re-authenticated in this session within the last minutes. *Costs* no query.

    A token never has. Signing in does not count, as on allauth's pages: a session taken over in its first minutes must not
    be enough.
    """
    if get_present_token():
        return False
    if not get_adapter().is_reauthentication_required(app="allauth.account"):
        return True
    records = get_authentication_records(request, person(request))
    at = max((entry["at"] for entry in records if entry.get("reauthenticated")), default=None)
    return at is not None and time.time() - at < account_settings.REAUTHENTICATION_TIMEOUT


def require_fresh(is_fresh: bool) -> None:
    """Raise PortalError 403 `reauthentication_required` unless the caller's session `is_fresh`."""
    if not is_fresh:
        raise ReauthenticationRequired


def is_staff(user: Person) -> bool:
    """Return whether the person may use Django admin: staff, and in production only with two-factor authentication."""
    if not user.is_authenticated or not user.is_active or not user.is_staff:
        return False
    return settings.LOCAL or has_two_factor(user)


def has_two_factor(user: User) -> bool:
    """Return whether the person has a second factor. Recovery codes do not count as one.

    *Costs* one query, none for the person of a request.
    """
    if user.access is not None:
        return user.access.has_second_factor
    return bool(is_mfa_enabled(user, [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]))


def staff_only(request: HttpRequest) -> HttpResponse | None:
    """Return None for staff, else a 403. Redirect staff without two-factor authentication to its set-up page."""
    if is_staff(request.user):
        return None
    if not request.user.is_staff:
        return respond(request, PortalError("forbidden", "Django admin is for staff only.", 403))
    messages.warning(
        request, "Django admin requires two-factor authentication. Set it up here, then open Django admin again."
    )
    return HttpResponseRedirect(reverse("mfa_index"))


def get_role(user: Person, organization: Organization) -> Role | None:
    """Return the person's role. None for an outsider, before the person accepts, and for a suspended organization.

    Staff who entered the organization have the role of a viewer on its pages (portal/elevation.py).
    *Costs* one query, none for the person of a request.
    """
    if not user.is_authenticated or not user.is_active or not organization.is_active:
        return None
    if user.access is not None:
        role: str | None = user.access.roles.get(organization.pk)
    else:
        own = Membership.objects.accepted().filter(organization=organization, user=user)
        role = own.values_list("role", flat=True).first()
    if role is None and user.entered and user.entered.organization_id == organization.pk:
        return Role.VIEWER
    return Role(role) if role else None


def require(user: Person, organization: Organization, needed: Role) -> Role:
    """Return the person's role. Raises PortalError 404 for an outsider, 403 for a role below `needed`."""
    note_organization(organization)
    role = found_or_404(get_role(user, organization))
    if not role.includes(needed):
        raise PortalError(
            "forbidden",
            f"Your role in {organization.name} is {role.value}; this needs {needed.value}. "
            "An admin of the organization can change it.",
            403,
        )
    return role


def require_second_factor(user: Person, organization: Organization) -> Organization:
    """Return the organization, unless it requires a second factor that the person does not have.

    Every view that finds an organization, or an object of one, calls this before it shows anything.

    *Raises* PortalError 403 `mfa_required_by_organization`.
    """
    if organization.requires_mfa and not (user.is_authenticated and has_two_factor(user)):
        raise PortalError(
            MFA_REQUIRED,
            f"{organization.name} requires two-factor authentication, and your account has none. "
            "Set it up under Account, then open this again.",
            403,
        )
    return organization


def list_organizations(user: Person) -> list[Organization]:
    """Return the organizations that the person sees, by name. *Costs* one query, none for the person of a request."""
    if not user.is_authenticated or user.access is None:
        return list(Organization.objects.visible_to(user))
    entered = [user.entered.organization] if user.entered and user.entered.organization.is_active else []
    return [*user.access.organizations, *(each for each in entered if each.pk not in user.access.roles)]


def get_page_organization(request: HttpRequest, slug: str) -> Organization:
    """Return the organization named in a page's URL. *Costs* no query.

    *Raises* PortalError 404 for an outsider, 403 `mfa_required_by_organization`.
    """
    named = (each for each in list_organizations(request.user) if each.slug == slug)
    organization = found_or_404(next(named, None))
    note_organization(organization)
    return require_second_factor(request.user, organization)


@dataclass(frozen=True)
class Opened:
    """What a page shows beside its content. `live`: the row that says what its live fragment shows now; else None."""

    silent_processes: list[str]
    live: tuple[Any, ...]


NOTHING_LIVE = "SELECT NULL"
HEARD_OF = (
    "SELECT name FROM portal_heartbeat WHERE beat_at > statement_timestamp() - make_interval(secs => %(fresh_seconds)s)"
)


def open_page(
    request: HttpRequest, organization: Organization, live: str = NOTHING_LIVE, values: Mapping[str, Any] | None = None
) -> Opened:
    """Read what the page needs beside its content, in one statement. Called again, return the same.

    `live`: a SELECT with the `values` that it names, and with `organization`: a value, not the column, so that PostgreSQL
    knows whether it reads the rows of a large one.
    *Costs* one statement for each request.
    """
    opened: Opened | None = getattr(request, "opened", None)
    if opened is None:
        statement = (
            f"SELECT ARRAY({HEARD_OF}), live.* FROM portal_organization AS organization "  # noqa: S608 - our own
            f"LEFT JOIN LATERAL ({live}) AS live ON true WHERE organization.id = %(organization)s"
        )
        with connection.cursor() as cursor:
            own: dict[str, Any] = {"fresh_seconds": HEARTBEAT_FRESH_SECONDS, "organization": organization.pk}
            cursor.execute(statement, {**(values or {}), **own})
            fresh, *rest = found_or_404(cursor.fetchone())
        opened = Opened([name for name in HEARTBEATS if name not in fresh], tuple(rest))
        request.opened = opened  # type: ignore[attr-defined] # ours
    return opened


def get_api_organization(request: HttpRequest) -> Organization:
    """Return the organization that a list, create or trigger route acts on.

    It is the one that `X-Organization` names, else the person's default organization, else their only one. A token has
    only one.

    *Raises* PortalError 404 for an unknown slug, for another organization's slug, and for a person without memberships;
    400 `organization_required` if the header is missing and the person has several memberships and no default, or one
    that they cannot use now; 403 `mfa_required_by_organization`. No other organization replaces the chosen one.
    """
    slug = request.headers.get("X-Organization")
    if slug is not None:
        if "\x00" in slug:
            raise PortalError("bad_request", NOT_STORABLE, 400)
        return get_page_organization(request, slug)
    organizations = list_organizations(request.user)
    default = person(request).default_organization_id if not get_present_token() else None
    if default:
        chosen = next((each for each in organizations if each.pk == default), None)
        if chosen:
            return require_second_factor(request.user, chosen)
        message = "Your default organization is not available to you. Name one in the X-Organization header."
        raise PortalError("organization_required", message, 400)
    if not organizations:
        raise PortalError("not_found", "You are not a member of any organization. Ask an admin to add you.", 404)
    if len(organizations) > 1:
        raise PortalError(
            "organization_required",
            "You belong to several organizations. Name one by its slug in the X-Organization header "
            "(GET /api/v1/auth/session lists them), or choose a default organization on the account page.",
            400,
        )
    return require_second_factor(request.user, organizations[0])


def organizations(request: HttpRequest) -> dict[str, Any]:
    """Provide `my_organizations` to every template, for the organization switcher."""

    def load() -> list[Organization]:
        return list_organizations(getattr(request, "user", AnonymousUser()))

    return {"my_organizations": load}
