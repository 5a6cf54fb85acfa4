"""Commands on saved views, with the rules about who may.

Everybody keeps their own views. Admins share a view with the organization, and change and remove shared ones. A view that
is no longer shared is its owner's again. Each person chooses a default for each list, among their own and shared views.

Changes of shared views are in the audit trail. Own views are a person's preference and are not.
"""

from typing import Any

from django.db import IntegrityError, transaction

from portal.access import require
from portal.audit import record
from portal.errors import PortalError, found_or_404, is_unique_violation
from portal.models import AuditKind, DefaultView, Membership, Organization, Role, SavedView, User

MAX_VIEWS = 50  # of one person in one organization


def save_view(
    organization: Organization, *, actor: User, listed: str, name: str, query: str, is_shared: bool, is_default: bool
) -> SavedView:
    """Save filters under a name that the person has not used for this list.

    *Raises* PortalError: 403, 404, 409 `too_many_views`, `name_taken`.
    """
    require_member(actor, organization, Role.ADMIN if is_shared else Role.VIEWER)
    view = SavedView(organization=organization, user=actor, list=listed, name=name, query=query, is_shared=is_shared)
    with transaction.atomic():
        # One at a time, so that the count is correct.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if SavedView.objects.filter(organization=organization, user=actor).count() >= MAX_VIEWS:
            message = f"You already have {MAX_VIEWS} saved views, the maximum. Delete one first."
            raise PortalError("too_many_views", message, 409)
        store(view, force_insert=True)
        if is_default:
            choose_default(view, actor=actor, is_default=True)
        if is_shared:
            record_view(AuditKind.VIEW_SHARED, view, actor)
    return view


def change_view(view: SavedView, *, actor: User, name: str, is_shared: bool) -> SavedView:
    """Rename the view, share it, or stop sharing it. *Raises* PortalError: 403, 404, 409 `name_taken`."""
    with transaction.atomic():
        locked = lock(view)
        require_right(locked, actor, is_shared=is_shared)
        before = {"name": locked.name, "is_shared": locked.is_shared}
        after = {"name": name, "is_shared": is_shared}
        changes = {key: {"before": before[key], "after": after[key]} for key in before if before[key] != after[key]}
        if not changes:
            return locked
        locked.name, locked.is_shared = name, is_shared
        store(locked, update_fields=["name", "is_shared"])
        if not is_shared:
            DefaultView.objects.filter(view=locked).exclude(user=locked.user_id).delete()
        if is_shared and not before["is_shared"]:
            record_view(AuditKind.VIEW_SHARED, locked, actor)
        elif before["is_shared"]:
            record_view(AuditKind.VIEW_CHANGED, locked, actor, changes=changes)
    return locked


def remove_view(view: SavedView, *, actor: User) -> None:
    """Delete the view. Those whose default it was see the unfiltered list. *Raises* PortalError: 403, 404."""
    with transaction.atomic():
        locked = lock(view)
        require_right(locked, actor)
        if locked.is_shared:
            record_view(AuditKind.VIEW_REMOVED, locked, actor)
        locked.delete()


def choose_default(view: SavedView, *, actor: User, is_default: bool) -> None:
    """Open the view's list with this view for the person, or unfiltered again. *Raises* PortalError 404."""
    require_member(actor, view.organization, Role.VIEWER)
    place: Any = {"organization": view.organization, "user": actor, "list": view.list}
    with transaction.atomic():
        lock(view)
        if is_default:
            DefaultView.objects.update_or_create(**place, defaults={"view": view})
        else:
            DefaultView.objects.filter(**place, view=view).delete()


def lock(view: SavedView) -> SavedView:
    """Return the view as it is now, until the transaction ends. *Raises* PortalError 404 if it was deleted meanwhile."""
    rows = SavedView.objects.select_related("organization").select_for_update(of=("self",), no_key=True)
    return found_or_404(rows.filter(pk=view.pk).first())


def require_right(view: SavedView, actor: User, *, is_shared: bool = False) -> None:
    """Raise PortalError 403 or 404 unless the person may change the view, or share it if `is_shared`."""
    require_member(actor, view.organization, Role.ADMIN if view.is_shared or is_shared else Role.VIEWER)


def require_member(actor: User, organization: Organization, needed: Role) -> None:
    """Raise PortalError 404 for an outsider, 403 for a role below `needed` and for staff who entered: they only read."""
    require(actor, organization, needed)
    if not Membership.objects.accepted().filter(organization=organization, user=actor).exists():
        raise PortalError("forbidden", "Only members save views. Staff who entered an organization only read.", 403)


def store(view: SavedView, **options: Any) -> None:
    try:
        with transaction.atomic():
            view.save(**options)
    except IntegrityError as error:
        if not is_unique_violation(error, "saved_view_once_by_name"):
            raise
        message = "There is already a view of this list with this name."
        raise PortalError("name_taken", message, 409, errors={"name": [message]}) from error


def record_view(kind: AuditKind, view: SavedView, actor: User, **more: Any) -> None:
    data = {"name": view.name, "list": view.list, "query": view.query} | more
    record(kind, organization=view.organization, actor=actor, subject=str(view.pk), data=data)
