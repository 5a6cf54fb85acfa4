"""The command that changes an organization's links to other systems (portal/outside_links.py)."""

from portal.access import require
from portal.audit import record
from portal.members.commands import lock_members
from portal.models import AuditKind, Organization, Role, User
from portal.outside_links import LABELS


def change_links(organization: Organization, *, actor: User, **links: str) -> Organization:
    """Store the templates of the links, by the columns of LABELS; an empty one removes the link.

    *Raises* PortalError: 403 `forbidden`, 404.
    """
    require(actor, organization, Role.ADMIN)
    with lock_members(organization, actor=actor):
        now = Organization.objects.get(pk=organization.pk)
        before = {name: getattr(now, name) for name in LABELS}
        changes = {
            name: {"before": before[name], "after": links[name]} for name in LABELS if before[name] != links[name]
        }
        if changes:
            for name in changes:
                setattr(now, name, links[name])
            now.save(update_fields=list(changes))
            record(
                AuditKind.ORGANIZATION_CHANGED,
                organization=now,
                actor=actor,
                subject=now.slug,
                data={"changes": changes},
            )
        return now
