"""Commands on the members of an organization, with the rules about roles and numbers.

Admins add, change and remove members, which always needs a fresh re-authentication (`is_fresh`); a person accepts,
declines and leaves. A membership counts once it is accepted.

Each command calls `require`, runs in one transaction and writes the audit row in it. Changes to one organization's
members run one at a time, so that two of them cannot remove its last two admins. Staff can do the same in Django admin,
where of these rules only the re-authentication applies.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models.functions import Lower
from django.utils import timezone

from portal import tenancy
from portal.access import require, require_fresh
from portal.audit import record
from portal.errors import PortalError, found_or_404
from portal.idempotency import KeyUse
from portal.models import AuditKind, Membership, Organization, Role, User

MAX_MEMBERS = 200
# A person's context has only organizations whose membership they have accepted.
OF_INVITATION = "a person reads and answers their own invitations"


class Added(NamedTuple):
    """The result of `add_member`. `is_new` is False for a repeated request."""

    membership: Membership
    is_new: bool


def add_member(
    organization: Organization,
    *,
    actor: User,
    email: str,
    role: Role,
    is_fresh: bool,
    idempotency_key: str | None = None,
) -> Added:
    """Invite the person with this e-mail address. Without an account, one is created without a password.

    The membership counts once the person accepts it (`accept_membership`).
    The organization's audit trail looks the same in both cases; only staff can see that an account was created. Only
    one fact about an existing account is revealed: that staff have switched it off. Otherwise its owner could not sign
    in, and no one would know why.

    *Raises* PortalError: 403, 404, 409 `already_member`, `switched_off`, `too_many_members`, `removed_since`, 422
    `idempotency_mismatch`.
    """
    require(actor, organization, Role.ADMIN)
    require_fresh(is_fresh)
    request = {"email": email, "role": role}
    key = KeyUse.for_request("add_member", request, organization=organization, user=actor, key=idempotency_key)
    with lock_members(organization, actor=actor):
        earlier = key.find_earlier()
        if earlier:
            return Added(find_earlier_addition(organization, earlier), is_new=False)
        check_room(organization, email)
        membership = Membership.objects.create(
            organization=organization,
            user=get_or_create_account(email, actor=actor, organization=organization),
            role=role,
        )
        key.store(str(membership.pk))
        record_membership(AuditKind.MEMBERSHIP_ADDED, membership, actor=actor)
    return Added(membership, is_new=True)


def find_earlier_addition(organization: Organization, membership_id: str) -> Membership:
    """Return the membership that the same request created before."""
    membership = Membership.objects.for_list(organization).filter(pk=membership_id).first()
    if membership is None:
        message = "This form added a member who has since been removed. Open the page again to add them again."
        raise PortalError("removed_since", message, 409)
    return membership


def check_room(organization: Organization, email: str) -> None:
    """Check that the person can be added. Raises PortalError 409 `already_member`, `too_many_members`."""
    members = Membership.objects.for_list(organization)
    there = members.alias(address=Lower("user__email")).filter(address=email.lower()).first()
    if there:
        message = (
            f"{there.user.email} is already a member with the role {there.role}. Change it in the list of members."
        )
        raise PortalError("already_member", message, 409, errors={"email": [message]})
    if members.count() >= MAX_MEMBERS:
        message = f"{organization.name} already has {MAX_MEMBERS} members, the maximum. Remove one first."
        raise PortalError("too_many_members", message, 409)


def get_or_create_account(email: str, *, actor: User, organization: Organization) -> User:
    """Return the account with this address, or create it. Raises PortalError 409 `switched_off`."""
    user = find_account(email) or make_account(email, actor=actor, organization=organization)
    if not user.is_active:
        message = f"The account of {user.email} is switched off, so it cannot sign in. Ask staff to switch it on."
        raise PortalError("switched_off", message, 409, errors={"email": [message]})
    return user


def find_account(email: str) -> User | None:
    return User.objects.alias(address=Lower("email")).filter(address=email.lower()).first()


def make_account(email: str, *, actor: User, organization: Organization) -> User:
    """Create an account without a password. Its owner sets one with the link in the e-mail (portal/accounts)."""
    try:
        with transaction.atomic():
            user = User.objects.create_user(email)
    except IntegrityError:
        # Another organization just added the same address. Organizations do not wait for each other.
        return User.objects.get_by_natural_key(email)
    # Belongs to no organization, so that admins cannot see which addresses already had an account.
    data = {"added_to": organization.slug}
    record(AuditKind.PERSON_CREATED, organization=None, actor=actor, subject=user.email, data=data)
    return user


def change_role(membership: Membership, *, actor: User, role: Role, is_fresh: bool) -> None:
    """Change the role, effective with the member's next request. The current role is a no-op.

    *Raises* PortalError: 403, 404, 409 `last_admin`.
    """
    require(actor, membership.organization, Role.ADMIN)
    require_fresh(is_fresh)
    with lock_members(membership.organization, actor=actor):
        now = lock_membership(membership)
        if now.role == role:
            return
        require_other_admin(now)
        before = copy.copy(now)
        now.role = role
        now.save(update_fields=["role"])
        record_membership(AuditKind.MEMBERSHIP_CHANGED, now, actor=actor, before=before)


def remove_member(membership: Membership, *, actor: User, is_fresh: bool) -> None:
    """Remove the member. Keeps the account and its history. Raises PortalError: 403, 404, 409 `last_admin`."""
    require(actor, membership.organization, Role.ADMIN)
    require_fresh(is_fresh)
    with lock_members(membership.organization, actor=actor):
        now = lock_membership(membership)
        require_other_admin(now)
        record_membership(AuditKind.MEMBERSHIP_REMOVED, now, actor=actor)
        delete_membership(now)


def leave_organization(organization: Organization, *, actor: User) -> None:
    """End the person's own membership. Raises PortalError: 404, 409 `last_admin`."""
    with lock_members(organization, actor=actor, needed=Role.VIEWER):
        now = Membership.objects.select_related("organization", "user").get(organization=organization, user=actor)
        require_other_admin(now)
        record_membership(AuditKind.MEMBERSHIP_LEFT, now, actor=actor)
        delete_membership(now)


def delete_membership(membership: Membership) -> None:
    """Delete the membership, and the person's default organization if it is this one."""
    clear_default_organization(membership)
    membership.delete()


def clear_default_organization(membership: Membership) -> None:
    """Clear the person's default organization if it is the one of this membership."""
    User.objects.filter(pk=membership.user_id, default_organization=membership.organization_id).update(
        default_organization=None
    )


@tenancy.all_organizations(OF_INVITATION)
@transaction.atomic
def accept_membership(membership_id: int, *, actor: User) -> Membership:
    """Accept an invitation: the membership counts from now on. Raises PortalError 404 if there is none to accept."""
    membership = lock_invitation(membership_id, actor)
    membership.accepted_at = timezone.now()
    membership.save(update_fields=["accepted_at"])
    actor.access = None  # it was read before this one counted
    record_membership(AuditKind.MEMBERSHIP_ACCEPTED, membership, actor=actor)
    return membership


@tenancy.all_organizations(OF_INVITATION)
@transaction.atomic
def decline_membership(membership_id: int, *, actor: User) -> Membership:
    """Decline an invitation, which deletes it. Raises PortalError 404 if there is none to decline."""
    membership = lock_invitation(membership_id, actor)
    record_membership(AuditKind.MEMBERSHIP_DECLINED, membership, actor=actor)
    membership.delete()
    return membership


@tenancy.all_organizations(OF_INVITATION)
def list_invitations(user: User) -> list[Membership]:
    """Return the memberships that the person can still accept. *Costs* one query."""
    return list(Membership.objects.invitations(user))


@tenancy.all_organizations(OF_INVITATION)
def accept_first_invitation(user: User) -> None:
    """Accept the invitation of a person who sets their first password, with the link in its e-mail.

    Of several invitations none is accepted, because the password does not say which: the start page asks.
    """
    invitations = Membership.objects.invitations(user).values_list("pk", flat=True)[:2]
    if len(invitations) == 1:
        accept_membership(invitations[0], actor=user)


def choose_default_organization(organization: Organization | None, *, actor: User) -> None:
    """Set what the person's API requests without X-Organization act on; None for no default. Raises PortalError 404."""
    if organization:
        require(actor, organization, Role.VIEWER)
    User.objects.filter(pk=actor.pk).update(default_organization=organization)


def require_other_admin(membership: Membership) -> None:
    """Raise PortalError 409 `last_admin` if this is the only admin who can sign in."""
    why_not = last_admin_reason(membership)
    if why_not:
        raise PortalError("last_admin", why_not, 409)


def last_admin_reason(membership: Membership) -> str | None:
    """Return why the last admin who can sign in must stay; None for other members. *Costs* one query for an admin."""
    if membership.role != Role.ADMIN or not membership.accepted_at or not membership.user.is_active:
        return None
    accepted = Membership.objects.accepted().filter(organization=membership.organization_id)
    admins = accepted.filter(role=Role.ADMIN, user__is_active=True)
    if admins.exclude(pk=membership.pk).exists():
        return None
    return (
        f"{membership.user.email} is the only admin of {membership.organization.name} who can sign in. "
        "Make another member an admin first."
    )


@contextmanager
def lock_members(organization: Organization, *, actor: User, needed: Role = Role.ADMIN) -> Iterator[None]:
    """Open a transaction that excludes every other change of the organization's members.

    The role is checked again after the wait for the lock.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        actor.access = None  # it was read before the wait
        require(actor, locked, needed)
        yield


def lock_membership(membership: Membership) -> Membership:
    """Read the membership again and lock it, because Django admin takes no lock. Raises PortalError 404 if gone."""
    locked = Membership.objects.select_for_update(of=("self",)).select_related("organization", "user")
    return found_or_404(locked.filter(pk=membership.pk).first())


def lock_invitation(membership_id: int, user: User) -> Membership:
    """Return the person's invitation, locked. Raises PortalError 404 if there is none, or no longer."""
    locked = Membership.objects.invitations(user).select_for_update(of=("self",)).select_related("organization", "user")
    return found_or_404(locked.filter(pk=membership_id).first())


def record_membership(kind: AuditKind, membership: Membership, *, actor: Any, before: Membership | None = None) -> None:
    """Write the audit row of a change to a membership."""
    data: dict[str, Any] = {"email": membership.user.email, "role": membership.role}
    if before:
        data["before"] = {"email": before.user.email, "role": before.role}
    record(kind, organization=membership.organization, actor=actor, subject=membership.user.email, data=data)
