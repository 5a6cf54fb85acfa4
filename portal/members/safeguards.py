"""What an organization may require of its members beyond a role. Each is off by default."""

from django.db import models

from portal.access import has_two_factor, require, require_fresh
from portal.audit import record
from portal.errors import PortalError
from portal.members.commands import lock_members
from portal.models import AuditKind, Organization, Role, User


class Safeguard(models.TextChoices):
    """A safeguard, named as its field of Organization."""

    REAUTHENTICATION = "requires_reauthentication", "Re-authentication before risky changes"
    MFA = "requires_mfa", "Two-factor authentication"


def switch_safeguard(
    organization: Organization, *, actor: User, safeguard: Safeguard, is_on: bool, is_fresh: bool
) -> None:
    """Switch a safeguard on or off. The current value is a no-op.

    *Raises* PortalError: 403 `forbidden`, `reauthentication_required`, 404, 409 `mfa_missing`.
    """
    require(actor, organization, Role.ADMIN)
    require_fresh(is_fresh)
    if safeguard == Safeguard.MFA and is_on and not has_two_factor(actor):
        message = "Set up two-factor authentication for yourself first. Otherwise you would lose access here."
        raise PortalError("mfa_missing", message, 409)
    with lock_members(organization, actor=actor):
        now = Organization.objects.get(pk=organization.pk)
        was_on = getattr(now, safeguard)
        if was_on == is_on:
            return
        setattr(now, safeguard, is_on)
        now.save(update_fields=[safeguard])
        changes = {safeguard.value: {"before": was_on, "after": is_on}}
        record(
            AuditKind.ORGANIZATION_CHANGED, organization=now, actor=actor, subject=now.slug, data={"changes": changes}
        )
