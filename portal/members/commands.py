"""What admins of an organization do to its members. The rules about role and number live here.

Each command: `require`, one transaction, the audit row in it. Changes of one organization's members wait for each other,
so that it never loses its last admin to two of them. Staff do the same in Django admin (admin.py), bound by none of this.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models.functions import Lower

from portal.access import require
from portal.audit import record
from portal.errors import PortalError, existing
from portal.idempotency import KeyUse
from portal.models import AuditKind, Membership, Organization, Role, User

MOST_MEMBERS = 200


class Added(NamedTuple):
    """`is_new`: False for a request that was sent again."""

    membership: Membership
    is_new: bool


def add_member(
    organization: Organization, *, actor: User, email: str, role: Role, idempotency_key: str | None = None
) -> Added:
    """Make whoever has this address a member; for an address without an account one is made, without a password.

    The organization's own audit trail says the same in both cases: that an account was made is for staff to read. One
    thing about an account elsewhere is told, that staff have switched it off: its owner could not sign in, and somebody
    has to ask for it.

    Raises PortalError: 403, 404, 409 `already_member`, `switched_off`, `too_many_members`, `removed_since`, 422
    `idempotency_mismatch`.
    """
    require(actor, organization, Role.ADMIN)
    request = {"email": email, "role": role}
    key = KeyUse.of("add_member", request, organization=organization, user=actor, key=idempotency_key)
    with one_at_a_time(organization, actor=actor):
        earlier = key.find_earlier()
        if earlier:
            return Added(added_earlier(organization, earlier), is_new=False)
        check_room(organization, email)
        membership = Membership.objects.create(
            organization=organization, user=account_of(email, actor=actor, organization=organization), role=role
        )
        key.keep(str(membership.pk))
        record_membership(AuditKind.MEMBERSHIP_ADDED, membership, actor=actor)
    return Added(membership, is_new=True)


def added_earlier(organization: Organization, membership_id: str) -> Membership:
    """What the same request made before."""
    membership = Membership.objects.for_list(organization).filter(pk=membership_id).first()
    if membership is None:
        message = "This form added somebody who was removed since. Open the page again to add them once more."
        raise PortalError("removed_since", message, 409)
    return membership


def check_room(organization: Organization, email: str) -> None:
    """Raises PortalError 409 `already_member`, `too_many_members`."""
    members = Membership.objects.for_list(organization)
    there = members.alias(address=Lower("user__email")).filter(address=email.lower()).first()
    if there:
        message = (
            f"{there.user.email} is a member already, with the role {there.role}. Change it in the list of members."
        )
        raise PortalError("already_member", message, 409, errors={"email": [message]})
    if members.count() >= MOST_MEMBERS:
        message = f"{organization.name} has {MOST_MEMBERS} members, and may not have more. Remove one first."
        raise PortalError("too_many_members", message, 409)


def account_of(email: str, *, actor: User, organization: Organization) -> User:
    """The account with this address; a new one where there is none. Raises PortalError 409 `switched_off`."""
    user = find_account(email) or make_account(email, actor=actor, organization=organization)
    if not user.is_active:
        message = (
            f"The account of {user.email} is switched off, so nobody can sign in with it. Ask staff to switch it on."
        )
        raise PortalError("switched_off", message, 409, errors={"email": [message]})
    return user


def find_account(email: str) -> User | None:
    return User.objects.alias(address=Lower("email")).filter(address=email.lower()).first()


def make_account(email: str, *, actor: User, organization: Organization) -> User:
    """Without a password: its owner sets one by the link in the mail (accounts.py)."""
    try:
        with transaction.atomic():
            user = User.objects.create_user(email)
    except IntegrityError:
        # Another organization, which this one does not wait for, was faster.
        return User.objects.get_by_natural_key(email)
    # Of no organization, so that its admins do not read here which addresses had an account before.
    data = {"added_to": organization.slug}
    record(AuditKind.PERSON_CREATED, organization=None, actor=actor, subject=user.email, data=data)
    return user


def change_role(membership: Membership, *, actor: User, role: Role) -> None:
    """Effective with the member's next request. The same role changes nothing.

    Raises PortalError: 403, 404, 409 `last_admin`.
    """
    require(actor, membership.organization, Role.ADMIN)
    with one_at_a_time(membership.organization, actor=actor):
        now = as_it_is(membership)
        if now.role == role:
            return
        keep_an_admin(now)
        before = copy.copy(now)
        now.role = role
        now.save(update_fields=["role"])
        record_membership(AuditKind.MEMBERSHIP_CHANGED, now, actor=actor, before=before)


def remove_member(membership: Membership, *, actor: User) -> None:
    """The account stays, and everything that was done with it. Raises PortalError: 403, 404, 409 `last_admin`."""
    require(actor, membership.organization, Role.ADMIN)
    with one_at_a_time(membership.organization, actor=actor):
        now = as_it_is(membership)
        keep_an_admin(now)
        record_membership(AuditKind.MEMBERSHIP_REMOVED, now, actor=actor)
        now.delete()


def keep_an_admin(membership: Membership) -> None:
    """Raises PortalError 409 `last_admin` where nobody else could keep the members when this one is admin no more."""
    why_not = why_it_stays(membership)
    if why_not:
        raise PortalError("last_admin", why_not, 409)


def why_it_stays(membership: Membership) -> str | None:
    """The sentence for the last admin who can sign in; None for everybody else. One query for an admin."""
    if membership.role != Role.ADMIN or not membership.user.is_active:
        return None
    admins = Membership.objects.filter(organization=membership.organization_id, role=Role.ADMIN, user__is_active=True)
    if admins.exclude(pk=membership.pk).exists():
        return None
    return (
        f"{membership.user.email} is the only admin of {membership.organization.name} who can sign in. "
        "Make somebody else an admin first."
    )


@contextmanager
def one_at_a_time(organization: Organization, *, actor: User) -> Iterator[None]:
    """A transaction that no other change of the organization's members runs beside.

    Whoever lost the role while waiting for it is refused.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        require(actor, locked, Role.ADMIN)
        yield


def as_it_is(membership: Membership) -> Membership:
    """Locked too, for staff do not wait for us. Raises PortalError 404 when it was removed meanwhile."""
    locked = Membership.objects.select_for_update(of=("self",)).select_related("organization", "user")
    return existing(locked.filter(pk=membership.pk).first())


def record_membership(kind: AuditKind, membership: Membership, *, actor: Any, before: Membership | None = None) -> None:
    """The audit row of a change, whoever made it."""
    data: dict[str, Any] = {"email": membership.user.email, "role": membership.role}
    if before:
        data["before"] = {"email": before.user.email, "role": before.role}
    record(kind, organization=membership.organization, actor=actor, subject=membership.user.email, data=data)
