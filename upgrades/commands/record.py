"""Records a new upgrade or rollback: its rows, its audit event, its dispatch. Used by trigger.py and rollback.py.

The page and the API call the same commands, and the rules about roles and states are enforced there. Each command calls
`require` first, then writes everything, including the audit event, in one transaction, and then dispatches the task.
"""

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit import record
from portal.errors import PortalError, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, User
from portal.wakeup import dispatch
from upgrades.checks.preflight import Preflight
from upgrades.commands.refusals import refuse_running
from upgrades.estimates import estimate_seconds
from upgrades.events import record_event
from upgrades.inventory.ecs_services import service_name
from upgrades.models import OPEN_ROLLOUT_CONSTRAINT, Kind, Rollout, Upgrade, UpgradeCheck
from upgrades.notifications import notify_started
from upgrades.states import EventKind, Phase, Stage, inline_label


def create_once(organization: Organization, services: list[str], key: KeyUse, make: Callable[[], Upgrade]) -> Upgrade:
    """Create an upgrade of these services unless one of them is already rolling.

    If the same request was sent before, return the upgrade that it created. Two requests may race: the database accepts
    one, and the other gets the answer that it would have got a moment later.
    """
    try:
        refuse_running(organization, services)
        return make()
    except (PortalError, IntegrityError) as error:
        earlier = find_earlier_upgrade(organization, key)
        if earlier:
            return earlier
        if not isinstance(error, IntegrityError) or not is_unique_violation(error, OPEN_ROLLOUT_CONSTRAINT):
            raise
        refuse_running(organization, services)
        # The blocking upgrade has ended meanwhile.
        return make()


def find_earlier_upgrade(organization: Organization, key: KeyUse) -> Upgrade | None:
    """Return the upgrade that the same request created earlier, or None. Raises PortalError 422 `idempotency_mismatch`."""
    subject = key.find_earlier()
    return Upgrade.objects.get(upgrade_id=subject, organization=organization) if subject else None


def record_upgrade(
    organization: Organization,
    actor: User,
    services: list[str],
    request: dict[str, Any],
    key: KeyUse,
    checked: Preflight,
    *,
    requested: dict[str, dict[str, Any]],
    rolls_back: Upgrade | None = None,
) -> Upgrade:
    """Write all rows of an upgrade in one transaction.

    `wanted`: for each service, the fields of its rollout that say what should run.
    Raises IntegrityError if another request was faster.
    """
    overridden = [check.name for check in checked.failed]
    with transaction.atomic():
        upgrade = Upgrade.objects.create(
            upgrade_id=new_upgrade_id(),
            organization=organization,
            kind=Kind.ROLLBACK if rolls_back else Kind.UPGRADE,
            rolls_back=rolls_back,
            target=request["service"],
            version=request["version"],
            force_new_deployment=request["force_new_deployment"],
            reason=request["reason"],
            override_reason=request.get("override_reason", "") if overridden else "",
            initiated_by=actor,
            initiated_by_email=actor.email,
            estimated_seconds=estimate_seconds(organization, services),
            cluster=organization.cluster or "",
            region=organization.deployment_region,
            role_arn=organization.deployment_role_arn,
        )
        record_rollouts(upgrade, services, requested)
        record_checks(upgrade, checked)
        if rolls_back:
            record_event(
                rolls_back, EventKind.ROLLED_BACK, f"{upgrade.upgrade_id} is rolling this upgrade back.", actor=actor
            )
        key.store(upgrade.upgrade_id)
        record(
            AuditKind.UPGRADE_ROLLBACK_TRIGGERED if rolls_back else AuditKind.UPGRADE_TRIGGERED,
            organization=organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data=request | ({"failed_checks": overridden} if overridden else {}),
        )
        record_event(upgrade, EventKind.TRIGGERED, describe_request(request, services, overridden), actor=actor)
        notify_started(upgrade)
        transaction.on_commit(lambda: dispatch_upgrade(upgrade), robust=True)
    return upgrade


def record_rollouts(upgrade: Upgrade, services: list[str], requested: dict[str, dict[str, Any]]) -> None:
    """Create the rollouts, always in the same order, so that overlapping requests cannot deadlock on the unique index."""
    for position, service in enumerate(services):
        is_first = position == 0
        Rollout.objects.create(
            upgrade=upgrade,
            organization=upgrade.organization,
            service=service,
            service_name=service_name(upgrade.organization, service),
            position=position,
            phase=Phase.DUE if is_first else Phase.WAITING,
            next_check_at=Now() if is_first else None,
            deadline_at=Now() + timedelta(seconds=settings.UPGRADE_DEADLINE_SECONDS) if is_first else None,
            **requested[service],
        )


def record_checks(upgrade: Upgrade, checked: Preflight) -> None:
    """Store the pre-flight results of the trigger. They are never changed afterwards."""
    UpgradeCheck.objects.bulk_create(
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
    )


def describe_request(request: dict[str, Any], services: list[str], overridden: list[str]) -> str:
    names = ", then ".join(inline_label(service) for service in services)
    destination = f"back to {request['version']}" if "rolls_back" in request else f"to {request['version']}"
    forced = ", forced" if request["force_new_deployment"] else ""
    said = f"{names.capitalize()} {destination}{forced}. {request['reason']}".strip()
    if overridden:
        said += f" Started despite failed pre-flight checks ({', '.join(overridden)}): {request['override_reason']}"
    return said


def new_upgrade_id() -> str:
    """Return a new id: `upgrade-YYYY-MMDD-HHMMSS-<6 hex>`, in UTC."""
    return f"upgrade-{timezone.now():%Y-%m%d-%H%M%S}-{secrets.token_hex(3)}"


def dispatch_upgrade(upgrade: Upgrade) -> None:
    """Dispatch the upgrade's open rollouts to a worker now. The sweep would find them a second or two later."""
    for pk in upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).values_list("pk", flat=True):
        dispatch("upgrades.tasks.advance_rollout", pk)
