"""Records a new upgrade or rollback: its rows, its audit event, its dispatch. Used by trigger.py and rollback.py.

The page and the API call the same commands, and the rules about roles and states are enforced there. Each command calls
`require` first, then writes everything, including the audit event, in one transaction, and then dispatches the task.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit import record
from portal.database.statements import insert, insert_sql, set_inserted
from portal.errors import PortalError, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, User
from portal.request_id import request_id_var
from portal.wakeup import dispatch
from upgrades.checks.preflight import Preflight
from upgrades.commands.refusals import Blocker, build_override, refuse_blocked, refuse_running
from upgrades.estimates import estimate_seconds
from upgrades.events import record_event
from upgrades.inventory.ecs_services import service_name
from upgrades.models import OPEN_ROLLOUT_CONSTRAINT, Kind, Rollout, Upgrade, UpgradeCheck
from upgrades.notifications import notify_started
from upgrades.states import EventKind, Phase, Stage, inline_label

CREATE = """
WITH made AS ({insert} RETURNING id, organization_id, upgrade_id){key}
SELECT id FROM made
"""


@dataclass(frozen=True)
class UpgradeRequest:
    """The request for an upgrade or a rollback, as it is recorded. `service`: one service or `all`."""

    organization: Organization
    actor: User
    service: str
    version: str
    force_new_deployment: bool = False
    reason: str = ""
    override_reason: str = ""
    rolls_back: Upgrade | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the request for its audit event and for the fingerprint of its idempotency key."""
        data = {
            "service": self.service,
            "version": self.version,
            "force_new_deployment": self.force_new_deployment,
            "reason": self.reason,
        } | build_override(self.override_reason)
        return data | ({"rolls_back": self.rolls_back.upgrade_id} if self.rolls_back else {})


@dataclass(frozen=True)
class PreparedUpgrade:
    """An upgrade that is ready to be recorded.

    `requested`: for each service, in rolling order, the fields of its rollout that say what should run.
    """

    request: UpgradeRequest
    checked: Preflight
    requested: dict[str, dict[str, Any]]

    @property
    def services(self) -> list[str]:
        return list(self.requested)

    @property
    def overridden(self) -> list[str]:
        """Return the names of the failed checks that the request's `override_reason` overrides."""
        return [check.name for check in self.checked.failed]


def create_once(
    organization: Organization,
    services: list[str],
    key: KeyUse,
    prepare: Callable[[], PreparedUpgrade],
    *,
    blocker: Blocker | None,
) -> Upgrade:
    """Record an upgrade of these services unless one of them is already rolling (`blocker`).

    If the same request was sent before, return the upgrade that it created. Two requests may race: the database accepts
    one, and the other gets the answer that it would have got a moment later.
    """
    try:
        refuse_blocked(blocker)
        return record_upgrade(prepare(), key)
    except (PortalError, IntegrityError) as error:
        earlier = find_earlier_upgrade(organization, key)
        if earlier:
            return earlier
        if not isinstance(error, IntegrityError) or not is_unique_violation(error, OPEN_ROLLOUT_CONSTRAINT):
            raise
        refuse_running(organization, services)
        # The blocking upgrade has ended meanwhile.
        return record_upgrade(prepare(), key)


def find_earlier_upgrade(organization: Organization, key: KeyUse) -> Upgrade | None:
    """Return the upgrade that the same request created earlier, or None. Raises PortalError 422 `idempotency_mismatch`."""
    subject = key.find_earlier()
    return Upgrade.objects.get(upgrade_id=subject, organization=organization) if subject else None


def record_upgrade(prepared: PreparedUpgrade, key: KeyUse) -> Upgrade:
    """Write all rows of an upgrade in one transaction. Raises IntegrityError if another request was faster."""
    request, overridden = prepared.request, prepared.overridden
    actor, rolls_back = request.actor, request.rolls_back
    with transaction.atomic():
        upgrade = create_upgrade(prepared, key)
        rollouts = upgrade.recorded = record_rollouts(upgrade, prepared.requested)
        record_checks(upgrade, prepared.checked)
        if rolls_back:
            record_event(
                rolls_back, EventKind.ROLLED_BACK, f"{upgrade.upgrade_id} is rolling this upgrade back.", actor=actor
            )
        record_event(upgrade, EventKind.TRIGGERED, describe_request(prepared), actor=actor)
        notify_started(upgrade, rollouts)
        record(
            AuditKind.UPGRADE_ROLLBACK_TRIGGERED if rolls_back else AuditKind.UPGRADE_TRIGGERED,
            organization=request.organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data=request.as_data() | ({"failed_checks": overridden} if overridden else {}),
        )
        transaction.on_commit(lambda: dispatch_rollout(rollouts[0].pk), robust=True)
    return upgrade


def create_upgrade(prepared: PreparedUpgrade, key: KeyUse) -> Upgrade:
    """Insert the upgrade and store the key. *Costs* one statement, beside the estimate."""
    request, organization = prepared.request, prepared.request.organization
    upgrade = Upgrade(
        upgrade_id=new_upgrade_id(),
        organization=organization,
        kind=Kind.ROLLBACK if request.rolls_back else Kind.UPGRADE,
        rolls_back=request.rolls_back,
        target=request.service,
        version=request.version,
        force_new_deployment=request.force_new_deployment,
        reason=request.reason,
        override_reason=request.override_reason if prepared.overridden else "",
        initiated_by=request.actor,
        initiated_by_email=request.actor.email,
        estimated_seconds=estimate_seconds(organization, prepared.services),
        cluster=organization.cluster or "",
        region=organization.deployment_region,
        role_arn=organization.deployment_role_arn,
        request_id=request_id_var.get(),
    )
    statement, parameters = insert_sql([upgrade])
    store, key_parameters = key.store_sql("made", subject="upgrade_id")
    used = f", used AS ({store})" if store else ""
    with connection.cursor() as cursor:
        cursor.execute(CREATE.format(insert=statement, key=used), [*parameters, *key_parameters])
        set_inserted(upgrade, *cursor.fetchone())
    return upgrade


def record_rollouts(upgrade: Upgrade, requested: dict[str, dict[str, Any]]) -> list[Rollout]:
    """Create the rollouts, always in the same order, so that overlapping requests cannot deadlock on the unique index."""
    rollouts = [
        Rollout(
            upgrade=upgrade,
            organization=upgrade.organization,
            service=service,
            service_name=service_name(upgrade.organization, service),
            position=position,
            phase=Phase.WAITING if position else Phase.DUE,
            next_check_at=None if position else Now(),
            deadline_at=None if position else Now() + timedelta(seconds=settings.UPGRADE_DEADLINE_SECONDS),
            **fields,
        )
        for position, (service, fields) in enumerate(requested.items())
    ]
    insert(rollouts)
    return rollouts


def record_checks(upgrade: Upgrade, checked: Preflight) -> None:
    """Store the pre-flight results of the trigger. They are never changed afterwards."""
    insert(
        [
            UpgradeCheck(
                organization_id=upgrade.organization_id,
                upgrade=upgrade,
                stage=Stage.PREFLIGHT,
                name=check.name,
                position=position,
                status=check.status,
                detail=check.detail,
                evidence=check.evidence,
                checked_at=check.checked_at,
            )
            for position, check in enumerate(checked.checks)
        ]
    )


def describe_request(prepared: PreparedUpgrade) -> str:
    request = prepared.request
    names = ", then ".join(inline_label(service) for service in prepared.services)
    destination = f"back to {request.version}" if request.rolls_back else f"to {request.version}"
    forced = ", forced" if request.force_new_deployment else ""
    said = f"{names.capitalize()} {destination}{forced}. {request.reason}".strip()
    if prepared.overridden:
        checks = ", ".join(prepared.overridden)
        said += f" Started despite failed pre-flight checks ({checks}): {request.override_reason}"
    return said


def new_upgrade_id() -> str:
    """Return a new id: `upgrade-YYYY-MMDD-HHMMSS-<6 hex>`, in UTC."""
    return f"upgrade-{timezone.now():%Y-%m%d-%H%M%S}-{secrets.token_hex(3)}"


def dispatch_upgrade(upgrade: Upgrade) -> None:
    """Dispatch the upgrade's open rollouts to a worker now. The sweep would find them a second or two later."""
    for pk in upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).values_list("pk", flat=True):
        dispatch_rollout(pk)


def dispatch_rollout(pk: int) -> None:
    dispatch("upgrades.tasks.advance_rollout", pk)
