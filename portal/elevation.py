"""Access of staff to one organization as a viewer, with a reason and for a limited time.

Staff who are not members are outsiders: a tenant's page is a 404. In Django admin they can enter one organization. For
STAFF_ACCESS_MINUTES they see its pages (not the API) as a viewer does. The organization's audit trail says who entered
and why, what they read, and how it ended.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse

from portal import tenancy
from portal.access import is_staff
from portal.audit import record, record_repeated
from portal.errors import PortalError
from portal.models import AuditKind, Elevation, Organization, User
from portal.models.elevation import REASON_LENGTH


def enter(organization: Organization, *, staff: User, reason: str) -> Elevation:
    """Let a member of staff into the organization. Ends their access to another one.

    *Raises* PortalError 403 for others, 409 `suspended`, 422 `no_reason`.
    """
    if not is_staff(staff):
        raise PortalError("forbidden", "Only staff can enter an organization.", 403)
    if not organization.is_active:
        raise PortalError("suspended", f"{organization.name} is suspended. Nobody can open its pages.", 409)
    reason = reason.strip()[:REASON_LENGTH]
    if not reason:
        raise PortalError("no_reason", "Give a reason. The organization sees it in its activity.", 422)
    for earlier in Elevation.objects.open().filter(staff=staff):
        end(earlier, actor=staff)
    with transaction.atomic():
        elevation = Elevation.objects.create(
            organization=organization,
            staff=staff,
            reason=reason,
            expires_at=Now() + timedelta(minutes=settings.STAFF_ACCESS_MINUTES),
        )
        elevation.refresh_from_db(fields=["expires_at"])
        until = f"{elevation.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        data = {"reason": reason, "until": until}
        record(AuditKind.STAFF_ENTERED, organization=organization, actor=staff, subject=staff.email, data=data)
    return elevation


def end(elevation: Elevation, *, actor: User | None) -> None:
    """End the access, once. `actor`: the person who leaves, None for the portal after the time is over."""
    rows = Elevation.objects.open().filter(pk=elevation.pk)
    with transaction.atomic():
        left_early = rows.filter(expires_at__gt=Now()).update(ended_at=Now())
        if not left_early and not rows.update(ended_at=Now()):
            return
        kind = AuditKind.STAFF_LEFT if left_early else AuditKind.STAFF_ACCESS_EXPIRED
        person = actor if left_early else None
        record(kind, organization=elevation.organization, actor=person, subject=elevation.staff.email)


@tenancy.all_organizations("the access of staff to any organization ends")
def end_expired() -> None:
    """Record the end of each access whose time is over. It gave no access since then."""
    for elevation in Elevation.objects.open().filter(expires_at__lte=Now()).select_related("organization", "staff"):
        end(elevation, actor=None)


class ElevationMiddleware:
    """Give staff who entered an organization its pages, and record what they read: each page once a minute.

    *Costs* two queries for staff on an organization's page; none for others.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        entered = getattr(request.user, "entered", None)
        if entered and response.status_code < 400:
            record_repeated(
                AuditKind.STAFF_READ,
                organization=entered.organization,
                actor=request.user,
                subject=request.path[:254],
                is_counted=False,
            )
        return response

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> None:
        user = request.user
        if "slug" in kwargs and isinstance(user, User) and user.is_staff and is_staff(user):
            with tenancy.all_organizations("staff are no members of the organization that they entered"):
                found = Elevation.objects.valid().filter(staff=user, organization__slug=kwargs["slug"])
                user.entered = found.select_related("organization").first()
            if user.entered:
                tenancy.enter_also(user.entered.organization_id)
