"""TENANCY AND ROLES: the one door.

Three walls, each tested by itself: every route declares a `policy` and AccessMiddleware refuses one that does not; every
read of tenant data starts with `visible_to(user)`, so another organization's object is a 404; every command begins with
`require`, so a role that is too low is a 403.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse

from portal.errors import NOT_FOUND, PortalError, error_body, is_api
from portal.models import Membership, Organization, Role, User

Person = User | AnonymousUser
View = TypeVar("View", bound=Callable[..., Any])


class Policy(Enum):
    """Who may call a route. The role is enforced where the object is known; here it is declared and tested."""

    PUBLIC = "anybody"
    SIGNED_IN = "anybody who is signed in"
    VIEWER = "members of the organization"
    OPERATOR = "operators and admins of the organization"
    ADMIN = "admins of the organization"
    STAFF = "staff"


# Routes of libraries, by URL namespace or view module; each library keeps its own door, declared here.
LIBRARY_POLICIES = {
    "django.contrib.admin": Policy.STAFF,
    "allauth.account": Policy.PUBLIC,
    "allauth.mfa": Policy.PUBLIC,
    "allauth.usersessions": Policy.SIGNED_IN,
}


def policy(declared: Policy) -> Callable[[View], View]:
    """Declare who may call the view. Outermost decorator of every view."""

    def declare(view: View) -> View:
        view.policy = declared  # type: ignore[attr-defined]
        return view

    return declare


def policy_of(view: Callable[..., Any]) -> Policy | None:
    declared = getattr(view, "policy", None)
    if isinstance(declared, Policy):
        return declared
    module = getattr(getattr(view, "view_class", view), "__module__", "")
    for prefix, library_policy in LIBRARY_POLICIES.items():
        if module.startswith(prefix) or _admin_site_of(view) and prefix == "django.contrib.admin":
            return library_policy
    return None


def _admin_site_of(view: Callable[..., Any]) -> bool:
    return hasattr(view, "admin_site") or hasattr(view, "model_admin")


class AccessMiddleware:
    """Refuses a view without a policy, and an anonymous caller of one that is not public."""

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
        declared = policy_of(view)
        if declared is None:
            raise PortalError("no_policy", "This route declares no policy, so nobody may call it.", 403)
        if declared in (Policy.PUBLIC, Policy.STAFF) or request.user.is_authenticated:
            return None
        return sign_in_first(request)


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """401 as JSON for the API; for a fragment 401 and a redirect of the whole page; for a page the sign-in page."""
    if is_api(request):
        return JsonResponse(error_body("not_authenticated", "Sign in first: POST /api/v1/auth/login."), status=401)
    login = reverse("account_login")
    if request.headers.get("HX-Request") == "true":
        # A 302 would paste the sign-in page into the fragment.
        return HttpResponse(status=401, headers={"HX-Redirect": login})
    return HttpResponseRedirect(f"{login}?{urlencode({'next': request.get_full_path()})}")


def role_in(user: Person, organization: Organization) -> Role | None:
    """The person's role; None for an outsider and for a suspended organization."""
    if not user.is_authenticated or not user.is_active or not organization.is_active:
        return None
    role = Membership.objects.filter(organization=organization, user=user).values_list("role", flat=True).first()
    return Role(role) if role else None


def require(user: Person, organization: Organization, needed: Role) -> Role:
    """Return the person's role. Raises PortalError 404 for an outsider, 403 for a role below `needed`."""
    role = role_in(user, organization)
    if role is None:
        raise PortalError("not_found", NOT_FOUND, 404)
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
    organization = Organization.objects.visible_to(request.user).filter(slug=slug).first()
    if organization is None:
        raise PortalError("not_found", NOT_FOUND, 404)
    return organization


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
