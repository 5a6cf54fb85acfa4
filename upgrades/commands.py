"""What people do to upgrades. Both doors, page and API, call these; the rules about role and state live here.

Each command: `require` first, one transaction, the audit row in it, then the doorbell.
"""

import secrets
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from portal.access import require
from portal.audit import AuditKind, record
from portal.aws import ecs
from portal.aws.errors import AwsError
from portal.doorbell import ring
from portal.errors import PortalError, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import Organization, Role, User
from upgrades.announcements import announce_started
from upgrades.estimates import estimate_seconds
from upgrades.events import tell
from upgrades.models import OPEN_ROLLOUT_CONSTRAINT, Rollout, Upgrade
from upgrades.platform import service_name
from upgrades.states import OPEN, EventKind, Phase, PlatformService, in_a_sentence, services_of
from upgrades.versions import LATEST

MAX_REASON_LENGTH = 2000


def trigger_upgrade(
    organization: Organization,
    *,
    actor: User,
    service: str,
    version: str = LATEST,
    force_new_deployment: bool = False,
    reason: str = "",
    idempotency_key: str | None = None,
) -> Upgrade:
    """Record an upgrade; from the commit on it will be carried out, whatever the broker does.

    1. Role, key, and what can be said without AWS. 2. One look at ECS, when a single service is named: a disabled one is
    refused. 3. One transaction: upgrade, rollouts, key, audit row. 4. The doorbell.

    Raises PortalError: 403, 404, 400 `no_cluster`, `version_unavailable`, `service_disabled`, 409 `upgrade_in_progress`
    (with `upgrade_id`), 422 `idempotency_mismatch`. Costs at most one AWS call.
    """
    require(actor, organization, Role.OPERATOR)
    request = {
        "service": service,
        "version": version,
        "force_new_deployment": force_new_deployment,
        "reason": reason,
    }
    key = KeyUse.of("trigger_upgrade", request, organization=organization, user=actor, key=idempotency_key)
    earlier = earlier_upgrade(organization, key)
    if earlier:
        return earlier
    refuse_impossible(organization, version)
    services = services_of(service)
    try:
        refuse_running(organization, services)
        if len(services) == 1:
            refuse_disabled(organization, services[0])
        return record_upgrade(organization, actor, services, request, key)
    except (PortalError, IntegrityError) as error:
        # Two requests raced; the database let one in. The other gets what it would have got a moment later: where the
        # two are the same request, sent again, the same upgrade.
        earlier = earlier_upgrade(organization, key)
        if earlier:
            return earlier
        if not isinstance(error, IntegrityError) or not is_unique_violation(error, OPEN_ROLLOUT_CONSTRAINT):
            raise
        refuse_running(organization, services)
        # What blocked has ended in between: the slot is free.
        return record_upgrade(organization, actor, services, request, key)


def earlier_upgrade(organization: Organization, key: KeyUse) -> Upgrade | None:
    """What the same request made when it was sent before. Raises PortalError 422 `idempotency_mismatch`."""
    subject = key.find_earlier()
    return Upgrade.objects.get(upgrade_id=subject, organization=organization) if subject else None


def refuse_impossible(organization: Organization, version: str) -> None:
    if organization.cluster is None:
        raise PortalError(
            "no_cluster",
            f"{organization.name} has neither an ECS cluster nor a stack. Staff can set them in the admin.",
            400,
        )
    if not organization.deployment_stack:
        raise PortalError(
            "no_stack",
            f"{organization.name} has no stack, so its services cannot be named. Staff can set it in the admin.",
            400,
        )
    if version != LATEST:
        raise PortalError(
            "version_unavailable",
            f"Version {version} cannot be chosen: version selection is limited to `latest` "
            "(GET /api/v1/deployments/versions).",
            400,
        )


def refuse_running(organization: Organization, services: list[str]) -> None:
    """409 naming the upgrade that blocks, when any of the services has an open rollout."""
    blocker = (
        Rollout.objects.unfinished()
        .filter(organization=organization, service__in=services)
        .select_related("upgrade")
        .first()
    )
    if blocker:
        label = PlatformService(blocker.service).label
        raise PortalError(
            "upgrade_in_progress",
            f"{label} is part of {blocker.upgrade.upgrade_id}, which has not ended. Wait for it or stop it.",
            409,
            upgrade_id=blocker.upgrade.upgrade_id,
        )


def refuse_disabled(organization: Organization, service: str) -> None:
    """400 for a service whose desired count is 0. ECS not answering is no reason to refuse: the engine looks again."""
    name = service_name(organization, service)
    try:
        reading = ecs.describe_services(organization.aws_target, str(organization.cluster), [name])
    except AwsError:
        return
    found = reading.services.get(name)
    if found is not None and found.desired_count == 0:
        raise PortalError(
            "service_disabled",
            f"{name} has a desired count of 0: it is disabled, so there is nothing to roll. Scale it up in ECS first.",
            400,
        )


def record_upgrade(
    organization: Organization, actor: User, services: list[str], request: dict[str, Any], key: KeyUse
) -> Upgrade:
    """The one transaction: all rows or none. Raises IntegrityError when another request was faster."""
    with transaction.atomic():
        upgrade = Upgrade.objects.create(
            upgrade_id=new_upgrade_id(),
            organization=organization,
            target=request["service"],
            version=request["version"],
            force_new_deployment=request["force_new_deployment"],
            reason=request["reason"],
            initiated_by=actor,
            initiated_by_email=actor.email,
            estimated_seconds=estimate_seconds(organization, services),
            cluster=organization.cluster or "",
            region=organization.deployment_region,
            role_arn=organization.deployment_role_arn,
        )
        # Always in the same order, so that two requests that overlap cannot deadlock on the open-rollout index.
        for position, service in enumerate(services):
            is_first = position == 0
            Rollout.objects.create(
                upgrade=upgrade,
                organization=organization,
                service=service,
                service_name=service_name(organization, service),
                position=position,
                phase=Phase.DUE if is_first else Phase.WAITING,
                next_check_at=Now() if is_first else None,
                deadline_at=Now() + timedelta(seconds=settings.UPGRADE_DEADLINE_SECONDS) if is_first else None,
            )
        key.keep(upgrade.upgrade_id)
        record(
            AuditKind.UPGRADE_TRIGGERED,
            organization=organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data=request,
        )
        tell(upgrade, EventKind.TRIGGERED, describe_request(request, services), actor=actor)
        announce_started(upgrade)
        transaction.on_commit(lambda: ring_for(upgrade), robust=True)
    return upgrade


def describe_request(request: dict[str, Any], services: list[str]) -> str:
    names = ", then ".join(in_a_sentence(service) for service in services)
    forced = ", forced" if request["force_new_deployment"] else ""
    return f"{names.capitalize()} to {request['version']}{forced}. {request['reason']}".strip()


def stop_upgrade(upgrade: Upgrade, *, actor: User) -> Upgrade:
    """Ask for a stop: ECS rolls the running rollout back, later services are not attempted. Asking again is harmless.

    Raises PortalError: 403, 404, 409 `upgrade_ended`.
    """
    require(actor, upgrade.organization, Role.OPERATOR)
    with transaction.atomic():
        # The guard and the mark are one statement: an upgrade that ends meanwhile is not marked.
        marked = Upgrade.objects.filter(pk=upgrade.pk, status__in=OPEN, stop_requested_at__isnull=True).update(
            stop_requested_at=Now(), stop_requested_by=actor
        )
        if marked:
            record(
                AuditKind.UPGRADE_STOP_REQUESTED,
                organization=upgrade.organization,
                actor=actor,
                subject=upgrade.upgrade_id,
            )
            tell(upgrade, EventKind.STOP_REQUESTED, "ECS rolls back what still runs.", actor=actor)
            upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).update(next_check_at=Now())
            transaction.on_commit(lambda: ring_for(upgrade), robust=True)
    upgrade.refresh_from_db()
    if not upgrade.is_open and not marked:
        raise PortalError(
            "upgrade_ended", f"{upgrade.upgrade_id} has ended {upgrade.status}: nothing of it runs any more.", 409
        )
    return upgrade


def new_upgrade_id() -> str:
    """`upgrade-YYYY-MMDD-HHMMSS-<6 hex>`, UTC (spec/api.md section 4)."""
    return f"upgrade-{timezone.now():%Y-%m%d-%H%M%S}-{secrets.token_hex(3)}"


def ring_for(upgrade: Upgrade) -> None:
    """Tell a worker now; the sweep would find the rollout within a second or two anyway."""
    for pk in upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).values_list("pk", flat=True):
        ring("upgrades.tasks.advance_rollout", pk)
