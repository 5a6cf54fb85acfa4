"""The validation matrix of an upgrade: its rows, how they are written, and the validation state that follows from them.

Rows are written under the lock on the upgrade's row, together with the upgrade's own state (`settle`).
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from portal.audit import record
from portal.models import AuditKind, User
from upgrades.events import record_event
from upgrades.models import Upgrade, UpgradeCheck, ValidationRun
from upgrades.states import (
    AUTOMATIC,
    CheckResult,
    CheckStatus,
    EventKind,
    MatrixRow,
    Stage,
    Validation,
    judge_validation,
)

NOT_YET = "Not checked yet."
FOR_A_PERSON = "A person must check and sign this."


def open_matrix(upgrade: Upgrade) -> None:
    """Create the rows and the background run, due immediately. Existing ones stay. The caller holds the upgrade's lock.

    The run ends settings.UPGRADE_VALIDATION_SECONDS after the database's time of this transaction.
    """
    UpgradeCheck.objects.bulk_create(build_blank_rows(upgrade), ignore_conflicts=True)
    ValidationRun.objects.bulk_create(
        [
            ValidationRun(
                organization_id=upgrade.organization_id, upgrade=upgrade, ends_at=probing_ends_at(), next_check_at=Now()
            )
        ],
        ignore_conflicts=True,
    )


def probing_ends_at() -> Any:
    return Now() + timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)


def build_blank_rows(upgrade: Upgrade) -> list[UpgradeCheck]:
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


def get_matrix_rows(upgrade: Upgrade) -> list[UpgradeCheck]:
    """Return the whole matrix in order, or unsaved blank rows if the upgrade has none.

    *Costs* one query, none if the checks are prefetched.
    """
    return [check for check in upgrade.checks.all() if check.stage == Stage.VALIDATION] or build_blank_rows(upgrade)


def find_validation_run(upgrade: Upgrade) -> ValidationRun | None:
    """Return the background run, None if there is none. *Costs* one query."""
    return ValidationRun.objects.filter(upgrade=upgrade).first()


def write_row(check: UpgradeCheck, *, status: CheckStatus, actor: User | None, **fields: Any) -> bool:
    """Write the result of a row, with a timeline entry if it changed. A probe (`actor` None) never overwrites a signature.

    `check`: the row as it was read; it holds the new values afterwards.
    *Returns* whether the row was written.
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
        detail = check.note if actor else check.detail
        message = f"{check.label}: {status.label.lower()}. {detail}".strip()
        record_event(check.upgrade, EventKind.CHECK_RECORDED, message, actor=actor)
    return True


def update_validation(upgrade: Upgrade, *, actor: User | None) -> None:
    """Update the upgrade's validation to match its rows, under its lock. `actor`: the last signer, None for a probe."""
    rows = UpgradeCheck.objects.filter(upgrade=upgrade, stage=Stage.VALIDATION)
    results = [
        CheckResult(CheckStatus(status), is_signed=signer is not None)
        for status, signer in rows.values_list("status", "checked_by")
    ]
    is_probing = ValidationRun.objects.filter(upgrade=upgrade, is_done=False).exists()
    validation = judge_validation(results, is_probing=is_probing)
    was = upgrade.validation
    if validation == was:
        return
    Upgrade.objects.filter(pk=upgrade.pk).update(validation=validation)
    upgrade.validation = validation
    record_event(upgrade, EventKind.VALIDATED, f"{validation.label}.", actor=actor)
    if validation in (Validation.PASSED, Validation.FAILED):
        record(
            AuditKind.UPGRADE_VALIDATED,
            organization=upgrade.organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data={"validation": validation, "was": was},
        )
