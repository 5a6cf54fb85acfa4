"""The setting that only a second person may continue a paused upgrade, and who may approve.

Rolling back at a pause and stopping an upgrade never need one. The decision itself is in upgrades/commands/decide.py.
"""

from portal.access import require
from portal.audit import record
from portal.errors import PortalError
from portal.members.commands import lock_members
from portal.models import AuditKind, Membership, Organization, Role, User

FEWEST_APPROVERS = 2


def require_second_approver(organization: Organization, *, actor: User, is_required: bool) -> None:
    """Switch the requirement of a second person on or off. The current value is a no-op.

    The lock on the organization's members serializes this with changes of its members.
    *Raises* PortalError: 403, 404, 409 `too_few_approvers`.
    """
    require(actor, organization, Role.ADMIN)
    with lock_members(organization, actor=actor):
        now = Organization.objects.get(pk=organization.pk)
        if now.requires_second_approver == is_required:
            return
        why_not = find_too_few_approvers(organization) if is_required else None
        if why_not:
            raise PortalError("too_few_approvers", why_not, 409)
        now.requires_second_approver = is_required
        now.save(update_fields=["requires_second_approver"])
        changes = {"requires_second_approver": {"before": not is_required, "after": is_required}}
        record(
            AuditKind.ORGANIZATION_CHANGED,
            organization=now,
            actor=actor,
            subject=now.slug,
            data={"changes": changes},
        )


def find_too_few_approvers(organization: Organization) -> str | None:
    """Return why a second person cannot be required; None if enough members may approve. *Costs* one query."""
    emails = find_approvers(organization)
    if len(emails) >= FEWEST_APPROVERS:
        return None
    who = f"only {emails[0]} may" if emails else "no active member may"
    return (
        f"A second person needs {FEWEST_APPROVERS} active members who are operators or admins, but {who} approve. "
        "Add a member, or give one the role operator."
    )


def find_approvers(organization: Organization, *, but: User | None = None) -> list[str]:
    """Return the e-mail addresses of the members who may approve, without `but`. *Costs* one query."""
    members = Membership.objects.who_may_approve(organization)
    return [each.user.email for each in members if but is None or each.user_id != but.pk]
