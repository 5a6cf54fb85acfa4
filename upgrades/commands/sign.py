"""Commands on the validation of an upgrade: sign a check, rerun the portal's own checks.

As in record.py, each command calls `require` first and writes everything, including the audit event, in one transaction.
The lock on the upgrade's row serializes signers and probes.
"""

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from portal.access import require
from portal.audit import record
from portal.errors import PortalError
from portal.models import AuditKind, Role, User
from upgrades.checks.matrix import find_validation_run, open_matrix, probing_ends_at, update_validation, write_row
from upgrades.events import record_event
from upgrades.models import Upgrade, UpgradeCheck, ValidationRun
from upgrades.states import CheckStatus, EventKind, Stage

MAX_NOTE_LENGTH = 2000


def sign_check(upgrade: Upgrade, *, actor: User, check: str, status: CheckStatus, note: str = "") -> Upgrade:
    """Sign one row of the validation matrix. The last signature counts, each is audited, and no probe overwrites it.

    Raises PortalError: 403, 404, 400 `note_required`, 409 `upgrade_in_progress`, `nothing_to_validate`.
    """
    require(actor, upgrade.organization, Role.OPERATOR)
    with transaction.atomic():
        locked = Upgrade.objects.locked(upgrade.pk)
        refuse_validation(locked)
        open_matrix(locked)
        row = locked.checks.get(stage=Stage.VALIDATION, name=check)
        refuse_without_note(row, status, note)
        was = row.status
        signature = {"checked_by": actor, "checked_by_email": actor.email, "note": note, "checked_at": Now()}
        write_row(row, status=status, actor=actor, **signature)
        record(
            AuditKind.UPGRADE_CHECK_SIGNED,
            organization=locked.organization,
            actor=actor,
            subject=locked.upgrade_id,
            data={"check": check, "status": status, "note": note, "was": was},
        )
        update_validation(locked, actor=actor)
    return locked


def refuse_validation(upgrade: Upgrade) -> None:
    if upgrade.is_open:
        raise PortalError(
            "upgrade_in_progress",
            f"{upgrade.upgrade_id} has not ended, so there is nothing to validate yet.",
            409,
            upgrade_id=upgrade.upgrade_id,
        )
    if not upgrade.has_advanced:
        raise PortalError(
            "nothing_to_validate",
            f"{upgrade.upgrade_id} ended {upgrade.status} and advanced no service, so there is nothing to validate.",
            409,
        )


def refuse_without_note(row: UpgradeCheck, status: CheckStatus, note: str) -> None:
    """Raise a 400 if a note is missing: for a failure, or for a pass that contradicts the portal's own check."""
    if note.strip():
        return
    label = row.label
    if status == CheckStatus.FAIL:
        why = f"Say in a note what failed: {label.lower()}."
    elif row.evidence.get("probed") == CheckStatus.FAIL:
        why = f"The portal's own check failed ({label.lower()}). Say in a note why it passes anyway."
    else:
        return
    raise PortalError("note_required", why, 400, errors={"note": [why]})


def probe_again(upgrade: Upgrade, *, actor: User) -> Upgrade:
    """Rerun the portal's own validation. Signed rows stay. If it is still running, nothing changes.

    Raises PortalError: 403, 404, 409 `upgrade_in_progress`, `nothing_to_validate`.
    """
    require(actor, upgrade.organization, Role.OPERATOR)
    with transaction.atomic():
        locked = Upgrade.objects.locked(upgrade.pk)
        refuse_validation(locked)
        run = find_validation_run(locked)
        if run is None:
            open_matrix(locked)
        elif run.is_done:
            ValidationRun.objects.filter(pk=run.pk).update(
                is_done=False,
                steady_since=None,
                ends_at=probing_ends_at(),
                next_check_at=Now(),
                lease_until=None,
                lease_epoch=F("lease_epoch") + 1,
            )
        if run is None or run.is_done:
            record(
                AuditKind.UPGRADE_PROBED_AGAIN,
                organization=locked.organization,
                actor=actor,
                subject=locked.upgrade_id,
            )
            record_event(locked, EventKind.VALIDATED, "The portal reruns its checks.", actor=actor)
            update_validation(locked, actor=actor)
    return locked
