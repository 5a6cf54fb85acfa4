"""Records what leaves no trace in the data: refused attempts, exports, shown recovery codes, sign-ins past a limit."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch

from portal.accounts.signals import TOO_MANY, record_failed_sign_in
from portal.attempts import Attempt, attempt_var
from portal.audit import record_repeated
from portal.errors import PortalError, is_api
from portal.models import AuditKind, Membership, Organization

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
# The statuses of refusals. The code is used if a page shows the refusal without an error of a command.
REFUSED = {403: "forbidden", 409: "conflict"}
# The kind of a refused attempt, by the id in the route; without an id, by the package of the view.
KINDS_BY_ID = {
    "upgrade_id": AuditKind.UPGRADE_REFUSED,
    "deployment_id": AuditKind.DEPLOYMENT_REFUSED,
    "agent_id": AuditKind.AGENT_REFUSED,
    "membership_id": AuditKind.MEMBERSHIP_REFUSED,
    "channel_id": AuditKind.CHANNEL_REFUSED,
    "token_id": AuditKind.TOKEN_REFUSED,
    "view_id": AuditKind.VIEW_REFUSED,
}
KINDS_BY_PACKAGE = {
    "upgrades": AuditKind.UPGRADE_REFUSED,
    "deployments.pages.agents": AuditKind.AGENT_REFUSED,
    "deployments.api.agents": AuditKind.AGENT_REFUSED,
    "deployments": AuditKind.DEPLOYMENT_REFUSED,
    "portal.members": AuditKind.MEMBERSHIP_REFUSED,
    "portal.tokens": AuditKind.TOKEN_REFUSED,
    "portal.saved_views": AuditKind.VIEW_REFUSED,
}
RECOVERY_CODES = {
    "mfa_view_recovery_codes": AuditKind.PERSON_RECOVERY_CODES_VIEWED,
    "mfa_download_recovery_codes": AuditKind.PERSON_RECOVERY_CODES_DOWNLOADED,
}
# allauth's pages that check who somebody is. Their forms record a wrong password or code, the API its own limits.
SIGN_IN_PAGES = {
    "account_login",
    "account_reauthenticate",
    "mfa_login_webauthn",
    "mfa_reauthenticate",
    "mfa_reauthenticate_webauthn",
}
MAX_QUERY = 1000


class AuditMiddleware:
    """Records when the response is known. A refusal has rolled back the request's own transactions by then."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        attempt = Attempt()
        token = attempt_var.set(attempt)
        try:
            response = self.get_response(request)
        finally:
            attempt_var.reset(token)
        match = request.resolver_match
        if match and response.status_code == 429 and match.view_name in SIGN_IN_PAGES:
            person: Any = request.user if request.user.is_authenticated else None
            record_failed_sign_in(person, step=TOO_MANY, actor=person)
        elif match and request.user.is_authenticated:
            if request.method not in SAFE:
                record_refusal(request, match, attempt, response.status_code)
            elif request.method == "GET" and response.status_code == 200:
                record_download(request, match, attempt, response)
        return response


def record_refusal(request: HttpRequest, match: ResolverMatch, attempt: Attempt, status: int) -> None:
    """Record a refused action on an organization. A missing CSRF token is not one: another site may have sent it."""
    error: PortalError | None = attempt.refusal
    if attempt.organization is None or not REFUSED.keys() & {status, error.status if error else status}:
        return
    same = {"action": get_action(match), "code": error.code if error else REFUSED[status]}
    record_repeated(
        get_refused_kind(match),
        organization=attempt.organization,
        actor=request.user,
        subject=get_subject(match, attempt.organization),
        same=same | {"via": "api" if is_api(request) else "page"},
        more={"reason": error.message} if error else {},
    )


def get_refused_kind(match: ResolverMatch) -> AuditKind:
    for name, kind in KINDS_BY_ID.items():
        if name in match.kwargs:
            return kind
    module = match.func.__module__
    return next(
        (kind for package, kind in KINDS_BY_PACKAGE.items() if f"{module}.".startswith(f"{package}.")),
        AuditKind.CHANNEL_REFUSED if "kind" in match.kwargs else AuditKind.ORGANIZATION_REFUSED,
    )


def get_subject(match: ResolverMatch, organization: Organization) -> str:
    """Return the id of the object in the route, a member's e-mail address, or the organization's slug."""
    if "membership_id" in match.kwargs:
        found = Membership.objects.filter(pk=match.kwargs["membership_id"], organization=organization)
        return found.values_list("user__email", flat=True).first() or str(match.kwargs["membership_id"])
    return next((str(match.kwargs[name]) for name in KINDS_BY_ID if name in match.kwargs), organization.slug)


def get_action(match: ResolverMatch) -> str:
    """Return what was tried: the command in the route, else the name of the view."""
    name: Any = match.kwargs.get("command") or getattr(match.func, "cls", match.func).__name__
    return str(name).replace("_", " ")


def record_download(request: HttpRequest, match: ResolverMatch, attempt: Attempt, response: HttpResponse) -> None:
    """Record a file of an organization's data, or a person's recovery codes."""
    codes = RECOVERY_CODES.get(match.view_name)
    if codes:
        person: Any = request.user
        record_repeated(codes, organization=None, actor=person, subject=person.email)
        return
    file = get_file_name(response)
    if file and attempt.organization:
        more = {"filters": request.GET.urlencode()[:MAX_QUERY]}
        kind = AuditKind.DATA_EXPORTED
        record_repeated(kind, organization=attempt.organization, actor=request.user, subject=file, more=more)


def get_file_name(response: HttpResponse) -> str | None:
    """Return the name of the file that the answer is to be saved as; None for a page.

    >>> get_file_name(HttpResponse(headers={"Content-Disposition": 'attachment; filename="acme-activity.csv"'}))
    'acme-activity.csv'
    """
    kind, _, name = response.get("Content-Disposition", "").partition("; filename=")
    return name.strip('"')[:254] if kind == "attachment" else None
