"""The validation matrix of an upgrade: its rows, how they are written, what the upgrade comes to by them.

Rows are written under the lock of the upgrade's row, and the upgrade's own state with them (`settle`).
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from portal.audit import record
from portal.models import AuditKind, User
from upgrades.events import tell
from upgrades.models import Upgrade, UpgradeCheck, ValidationRun
from upgrades.states import (
    AUTOMATIC,
    CheckResult,
    CheckStatus,
    EventKind,
    MatrixRow,
    Stage,
    Validation,
    validation_of,
)

NOT_YET = "Not checked yet."
FOR_A_PERSON = "For a person to check and sign."


def open_matrix(upgrade: Upgrade) -> None:
    """Make the rows and the background run, due at once; those that there are stay. The caller holds the upgrade's lock.

    The run's end is the database's time of the commit plus settings.UPGRADE_VALIDATION_SECONDS.
    """
    UpgradeCheck.objects.bulk_create(blank_rows(upgrade), ignore_conflicts=True)
    ValidationRun.objects.bulk_create(
        [
            ValidationRun(
                organization_id=upgrade.organization_id, upgrade=upgrade, ends_at=end_of_probing(), next_check_at=Now()
            )
        ],
        ignore_conflicts=True,
    )


def end_of_probing() -> Any:
    return Now() + timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)


def blank_rows(upgrade: Upgrade) -> list[UpgradeCheck]:
    return [
        UpgradeCheck(
            organization_id=upgrade.organization_id,
            upgrade=upgrade,
            stage=Stage.VALIDATION,
            name=row,
            position=position,
            detail=NOT_YET if row in AUTOMATIC else FOR_A_PERSON,
        )
        for position, row in enumerate(MatrixRow)
    ]


def rows_of(upgrade: Upgrade) -> list[UpgradeCheck]:
    """The whole matrix in its order; blank rows, not stored, where the upgrade has none. One query, or the prefetched."""
    return [check for check in upgrade.checks.all() if check.stage == Stage.VALIDATION] or blank_rows(upgrade)


def run_of(upgrade: Upgrade) -> ValidationRun | None:
    """The background run; None where there is none. One query."""
    return ValidationRun.objects.filter(upgrade=upgrade).first()


def write_row(check: UpgradeCheck, *, status: CheckStatus, actor: User | None, **fields: Any) -> bool:
    """Write what came of a row, and tell it where it changed. A probe (`actor` None) writes nothing over a signature.

    `check` is the row as it was read; it holds the new values afterwards. Returns whether it was written.
    """
    rows = UpgradeCheck.objects.filter(pk=check.pk)
    if actor is None:
        rows = rows.filter(checked_by__isnull=True)
    is_first = check.checked_at is None and fields.get("checked_at") is not None
    is_news = actor is not None or check.status != status or is_first
    if not rows.update(status=status, **fields):
        return False
    for name, value in {"status": status, **fields}.items():
        setattr(check, name, value)
    if is_news:
        said = check.note if actor else check.detail
        message = f"{check.label}: {status.label.lower()}. {said}".strip()
        tell(check.upgrade, EventKind.CHECK_RECORDED, message, actor=actor)
    return True


def settle(upgrade: Upgrade, *, actor: User | None) -> None:
    """Bring the upgrade's validation in line with its rows, under its lock. `actor`: who signed last, None for a probe."""
    rows = UpgradeCheck.objects.filter(upgrade=upgrade, stage=Stage.VALIDATION)
    results = [
        CheckResult(CheckStatus(status), is_signed=signer is not None)
        for status, signer in rows.values_list("status", "checked_by")
    ]
    is_probing = ValidationRun.objects.filter(upgrade=upgrade, is_done=False).exists()
    validation = validation_of(results, is_probing=is_probing)
    was = upgrade.validation
    if validation == was:
        return
    Upgrade.objects.filter(pk=upgrade.pk).update(validation=validation)
    upgrade.validation = validation
    tell(upgrade, EventKind.VALIDATED, f"{validation.label}.", actor=actor)
    if validation in (Validation.PASSED, Validation.FAILED):
        record(
            AuditKind.UPGRADE_VALIDATED,
            organization=upgrade.organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data={"validation": validation, "was": was},
        )
