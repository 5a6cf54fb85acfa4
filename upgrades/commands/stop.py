"""Stops an upgrade."""

from django.db import transaction
from django.db.models.functions import Now

from portal.access import require
from portal.audit import record
from portal.errors import PortalError
from portal.models import AuditKind, Role, User
from upgrades.commands.record import dispatch_upgrade
from upgrades.events import record_event
from upgrades.models import Upgrade
from upgrades.states import OPEN, EventKind, Phase


def stop_upgrade(upgrade: Upgrade, *, actor: User) -> Upgrade:
    """Request a stop: ECS rolls the running rollout back, later services are not attempted. Repeating it is harmless.

    Raises PortalError: 403, 404, 409 `upgrade_ended`.
    """
    require(actor, upgrade.organization, Role.OPERATOR)
    with transaction.atomic():
        # One statement checks and marks, so an upgrade that ends meanwhile is not marked.
        marked = Upgrade.objects.filter(pk=upgrade.pk, status__in=OPEN, stop_requested_at__isnull=True).update(
            stop_requested_at=Now(), stop_requested_by=actor
        )
        if marked:
            record_event(upgrade, EventKind.STOP_REQUESTED, "ECS will roll back the running rollout.", actor=actor)
            upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).update(next_check_at=Now())
            record(
                AuditKind.UPGRADE_STOP_REQUESTED,
                organization=upgrade.organization,
                actor=actor,
                subject=upgrade.upgrade_id,
            )
            transaction.on_commit(lambda: dispatch_upgrade(upgrade), robust=True)
    upgrade.refresh_from_db()
    if not upgrade.is_open and not marked:
        raise PortalError(
            "upgrade_ended", f"{upgrade.upgrade_id} has ended {upgrade.status}, so there is nothing to stop.", 409
        )
    return upgrade
