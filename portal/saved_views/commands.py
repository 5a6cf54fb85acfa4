"""Commands on saved views, with the rules about who may.

Everybody keeps their own views. Admins share a view with the organization, and change and remove shared ones. A view that
is no longer shared is its owner's again. Each person chooses a default for each list, among their own and shared views.

Changes of shared views are in the audit trail. Own views are a person's preference and are not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, transaction

from portal.access import require
from portal.audit import record
from portal.errors import PortalError, found_or_404, is_unique_violation
from portal.models import AuditKind, DefaultView, Membership, Organization, Role, SavedView, SavedViewQuerySet, User

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
        with unique_name():
            view.save(force_insert=True)
        if is_default:
            choose_default(view, actor=actor, is_default=True)
        if is_shared:
            record_view(AuditKind.VIEW_SHARED, view, actor)
    return view


def change_view(view: SavedView, *, actor: User, name: str, is_shared: bool) -> SavedView:
    """Rename the view, share it, or stop sharing it. *Raises* PortalError: 403, 404, 409 `name_taken`."""
    require_right(view, actor, is_shared=is_shared)
    before = {"name": view.name, "is_shared": view.is_shared}
    after = {"name": name, "is_shared": is_shared}
    changes = {key: {"before": before[key], "after": after[key]} for key in before if before[key] != after[key]}
    if not changes:
        return view
    with transaction.atomic():
        with unique_name():
            found_or_404(find_judged(view).update(**after) or None)
        view.name, view.is_shared = name, is_shared
        if not is_shared:
            DefaultView.objects.filter(view=view).exclude(user=view.user_id).delete()
        if is_shared and not before["is_shared"]:
            record_view(AuditKind.VIEW_SHARED, view, actor)
        elif before["is_shared"]:
            record_view(AuditKind.VIEW_CHANGED, view, actor, changes=changes)
    return view


def remove_view(view: SavedView, *, actor: User) -> None:
    """Delete the view. Those whose default it was see the unfiltered list. *Raises* PortalError: 403, 404."""
    require_right(view, actor)
    with transaction.atomic():
        _, deleted = find_judged(view).delete()
        found_or_404(deleted.get(SavedView._meta.label))
        if view.is_shared:
            record_view(AuditKind.VIEW_REMOVED, view, actor)


def choose_default(view: SavedView, *, actor: User, is_default: bool) -> None:
    """Open the view's list with this view for the person, or unfiltered again. *Raises* PortalError 404."""
    require_member(actor, view.organization, Role.VIEWER)
    place: Any = {"organization": view.organization, "user": actor, "list": view.list}
    with transaction.atomic():
        found_or_404(find_judged(view).select_for_update(no_key=True).first())
        if is_default:
            DefaultView.objects.update_or_create(**place, defaults={"view": view})
        else:
            DefaultView.objects.filter(**place, view=view).delete()


def find_judged(view: SavedView) -> SavedViewQuerySet:
    """Return the row of the view, if it still exists and is as shared as when the right to change it was judged."""
    return SavedView.objects.filter(pk=view.pk, is_shared=view.is_shared)


def require_right(view: SavedView, actor: User, *, is_shared: bool = False) -> None:
    """Raise PortalError 403 or 404 unless the person may change the view, or share it if `is_shared`."""
    require_member(actor, view.organization, Role.ADMIN if view.is_shared or is_shared else Role.VIEWER)


def require_member(actor: User, organization: Organization, needed: Role) -> None:
    """Raise PortalError 404 for an outsider, 403 for a role below `needed` and for staff who entered: they only read."""
    require(actor, organization, needed)
    if not Membership.objects.accepted().filter(organization=organization, user=actor).exists():
        raise PortalError("forbidden", "Only members save views. Staff who entered an organization only read.", 403)


@contextmanager
def unique_name() -> Iterator[None]:
    """Translate the database's unique violation of a view's name into PortalError 409 `name_taken`."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if not is_unique_violation(error, "saved_view_once_by_name"):
            raise
        message = "There is already a view of this list with this name."
        raise PortalError("name_taken", message, 409, errors={"name": [message]}) from error


def record_view(kind: AuditKind, view: SavedView, actor: User, **more: Any) -> None:
    data = {"name": view.name, "list": view.list, "query": view.query} | more
    record(kind, organization=view.organization, actor=actor, subject=str(view.pk), data=data)
