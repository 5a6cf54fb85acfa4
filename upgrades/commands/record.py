"""What people do to upgrades. Both doors, page and API, call these; the rules about role and state live here.

Each command: `require` first, one transaction, the audit row in it, then the doorbell.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from portal.access import require
from portal.audit import record
from portal.errors import PortalError, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User
from portal.wakeup import ring
from upgrades.checks.preflight import BLOCKING_SECONDS, Preflight, preflight_to_start
from upgrades.estimates import estimate_seconds
from upgrades.events import tell
from upgrades.inventory.catalogue import resolve
from upgrades.inventory.images import LATEST, Wanted, short
from upgrades.inventory.running import FRESH_SECONDS, ServiceNow, read_platform, service_name
from upgrades.models import OPEN_ROLLOUT_CONSTRAINT, Kind, Rollout, Upgrade, UpgradeCheck
from upgrades.notifications import announce_started
from upgrades.rollback_plan import plan_rollback, services_that_advanced
from upgrades.states import ALL_SERVICES, OPEN, EventKind, Phase, PlatformService, Stage, in_a_sentence, services_of

MAX_REASON_LENGTH = 2000
SHORTEST_OVERRIDE = 5
OVERRIDE_RULE = f"At least {SHORTEST_OVERRIDE} letters or digits; recorded and shown where a check failed."


def trigger_upgrade(
    organization: Organization,
    *,
    actor: User,
    service: str,
    version: str = LATEST,
    force_new_deployment: bool = False,
    reason: str = "",
    override_reason: str = "",
    images: dict[str, str] | None = None,
    session_ends_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Upgrade:
    """Record an upgrade; from the commit on it will be carried out, whatever the broker does.

    1. Role, key, and what can be said without AWS. 2. The version becomes an image with its digest, for each service.
    3. ECS and the platform are asked: a service that is named alone and is disabled, or deployed by another controller, is
    refused, and so is what fails in pre-flight, unless `override_reason` says why it is to start all the same. 4. One
    transaction: upgrade, rollouts, checks, key, audit row. 5. The doorbell.

    `images`: the digests that a person was shown and agreed to, by service; where a tag stands for another by now it is
    refused. `session_ends_at`: of the session behind it; None for a command without one. Raises PortalError: 403, 404, 400
    `no_cluster`, `no_stack`, `version_unavailable`, `not_supported`, `service_disabled`, `override_reason_too_short`, 409
    `upgrade_in_progress` (with `upgrade_id`), `plan_changed`, `preflight_failed` (with `checks`), 422
    `idempotency_mismatch`, 502 `registry_unavailable`. Costs some three AWS calls a service and waits for pre-flight, 4 s
    at most.
    """
    require(actor, organization, Role.OPERATOR)
    request = {
        "service": service,
        "version": version,
        "force_new_deployment": force_new_deployment,
        "reason": reason,
    } | override_of(override_reason)
    key = KeyUse.of("trigger_upgrade", request, organization=organization, user=actor, key=idempotency_key)
    earlier = earlier_upgrade(organization, key)
    if earlier:
        return earlier
    refuse_unplaced(organization)
    refuse_empty_words(override_reason)
    services = services_of(service)

    def make() -> Upgrade:
        # Both wait for others, so they do it side by side; resolving a version does without the database.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="resolve") as pool:
            resolving = pool.submit(resolve, organization, services, version)
            checked = preflight_to_start(organization, services, session_ends_at=session_ends_at)
            if len(services) == 1:
                refuse_alone(organization, services[0])
            found = resolving.result()
        refuse_moved(images or {}, found)
        wanted = {name: {"wanted_version": what.version, "wanted_image": what.image} for name, what in found.items()}
        refuse_failed(checked, override_reason)
        return record_upgrade(organization, actor, services, request, key, checked, wanted=wanted)

    return make_once(organization, services, key, make)


def rollback_upgrade(
    upgrade: Upgrade,
    *,
    actor: User,
    reason: str = "",
    services: list[str] | None = None,
    override_reason: str = "",
    session_ends_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Upgrade:
    """Record a rollback of an ended upgrade: a new upgrade to the task definitions that it recorded as the previous ones.

    What cannot be rolled back stays as it is (rollback.py says why); where ECS does not say, the rollback is recorded and
    the engine looks before it touches anything. `services`: what a person was shown and agreed to; another plan by now
    is refused.

    Raises PortalError: 403, 404, 400 `rollback_impossible`, `no_cluster`, `no_stack`,
    `override_reason_too_short`, 409 `upgrade_in_progress` (with `upgrade_id`), `plan_changed`, `preflight_failed` (with
    `checks`), 422 `idempotency_mismatch`. Costs the AWS calls of plan_rollback and waits for pre-flight, 4 s at most.
    """
    organization = upgrade.organization
    require(actor, organization, Role.OPERATOR)
    asked = {"rolls_back": upgrade.upgrade_id, "reason": reason} | override_of(override_reason)
    key = KeyUse.of("rollback_upgrade", asked, organization=organization, user=actor, key=idempotency_key)
    earlier = earlier_upgrade(organization, key)
    if earlier:
        return earlier
    refuse_unplaced(organization)
    refuse_open(upgrade)
    refuse_empty_words(override_reason)
    touched = services_that_advanced(upgrade)

    def make() -> Upgrade:
        plan = plan_rollback(upgrade)
        if plan.blocker:
            refuse_running(organization, touched)
        if plan.refusal:
            raise PortalError("rollback_impossible", plan.refusal, 400)
        if services is not None and services != plan.services:
            raise PortalError("plan_changed", "What a rollback would do has changed since. Look at it again.", 409)
        request = asked | {
            "service": plan.services[0] if len(plan.services) == 1 else ALL_SERVICES,
            "version": plan.version,
            "force_new_deployment": False,
        }
        wanted = {
            line.service: {"wanted_task_definition": line.rollout.previous_task_definition} for line in plan.going
        }
        checked = preflight_to_start(organization, plan.services, session_ends_at=session_ends_at)
        refuse_failed(checked, override_reason)
        return record_upgrade(
            organization, actor, plan.services, request, key, checked, wanted=wanted, rolls_back=upgrade
        )

    return make_once(organization, touched, key, make)


def make_once(organization: Organization, services: list[str], key: KeyUse, make: Callable[[], Upgrade]) -> Upgrade:
    """Make an upgrade of these services, if none of them is rolled and the same request has not made it already.

    Two requests may race; the database lets one in. The other gets what it would have got a moment later: where the two
    are the same request, sent again, the same upgrade.
    """
    try:
        refuse_running(organization, services)
        return make()
    except (PortalError, IntegrityError) as error:
        earlier = earlier_upgrade(organization, key)
        if earlier:
            return earlier
        if not isinstance(error, IntegrityError) or not is_unique_violation(error, OPEN_ROLLOUT_CONSTRAINT):
            raise
        refuse_running(organization, services)
        # What blocked has ended in between: the slot is free.
        return make()


def earlier_upgrade(organization: Organization, key: KeyUse) -> Upgrade | None:
    """What the same request made when it was sent before. Raises PortalError 422 `idempotency_mismatch`."""
    subject = key.find_earlier()
    return Upgrade.objects.get(upgrade_id=subject, organization=organization) if subject else None


def refuse_unplaced(organization: Organization) -> None:
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


def refuse_open(upgrade: Upgrade) -> None:
    if upgrade.is_open:
        raise PortalError(
            "upgrade_in_progress",
            f"{upgrade.upgrade_id} has not ended, so it cannot be rolled back yet. Stop it, and ECS rolls back what runs.",
            409,
            upgrade_id=upgrade.upgrade_id,
        )


def refuse_running(organization: Organization, services: list[str]) -> None:
    """409 naming the upgrade that blocks, when any of the services has an open rollout."""
    blocker = Rollout.objects.in_use(organization, services).first()
    if blocker:
        label = PlatformService(blocker.service).label
        raise PortalError(
            "upgrade_in_progress",
            f"{label} is part of {blocker.upgrade.upgrade_id}, which has not ended. Wait for it or stop it.",
            409,
            upgrade_id=blocker.upgrade.upgrade_id,
        )


def refuse_alone(organization: Organization, service: str) -> None:
    """400 for a service that cannot be upgraded. ECS not answering is no reason to refuse: the engine looks again."""
    refusal = None
    for fresh_seconds in (FRESH_SECONDS, BLOCKING_SECONDS):
        reading = read_platform(organization, fresh_seconds=fresh_seconds)
        rows = reading.services if reading and not reading.error else []
        refusal = next((refusal_alone(row) for row in rows if row.service == service), None)
        if refusal is None:
            return
    if refusal:
        raise refusal


def refusal_alone(row: ServiceNow) -> PortalError | None:
    """Return why the service is refused where it is named alone: another controller deploys it, or it is disabled."""
    if row.not_supported:
        return PortalError("not_supported", f"{row.service_name} is {row.not_supported}.", 400)
    if row.state != "disabled":
        return None
    return PortalError(
        "service_disabled",
        f"{row.service_name} has a desired count of 0: it is disabled, so there is nothing to roll. "
        "Scale it up in ECS first.",
        400,
    )


def refuse_moved(shown: dict[str, str], found: dict[str, Wanted]) -> None:
    """409 where a version stands for another image than the one that was shown."""
    moved = [
        service for service, what in found.items() if what.digest and shown.get(service, what.digest) != what.digest
    ]
    if moved:
        said = "; ".join(f"{in_a_sentence(service)}: {short(str(found[service].digest))}" for service in moved)
        raise PortalError(
            "plan_changed",
            f"The version stands for another image than was shown ({said}). Look at the plan again.",
            409,
        )


def override_of(reason: str) -> dict[str, str]:
    """An override as part of a request; none adds nothing, so that keys of requests without one stay what they were."""
    return {"override_reason": reason} if reason else {}


def refuse_empty_words(override_reason: str) -> None:
    """400 for a reason that says nothing: an override is read by those who look for what went wrong."""
    if override_reason and sum(character.isalnum() for character in override_reason) < SHORTEST_OVERRIDE:
        raise PortalError(
            "override_reason_too_short",
            f"The reason to start in spite of failed checks needs at least {SHORTEST_OVERRIDE} letters or digits.",
            400,
        )


def refuse_failed(checked: Preflight, override_reason: str) -> None:
    """409 with the names of the checks that failed, unless a reason overrides them."""
    if checked.may_start or override_reason:
        return
    said = " ".join(f"{check.label}: {check.detail}" for check in checked.failed)
    raise PortalError(
        "preflight_failed",
        f"Pre-flight failed. {said} Mend that and try again, or start all the same and say why (override_reason); it is "
        "recorded and shown.",
        409,
        checks=[check.name for check in checked.failed],
    )


def record_upgrade(
    organization: Organization,
    actor: User,
    services: list[str],
    request: dict[str, Any],
    key: KeyUse,
    checked: Preflight,
    *,
    wanted: dict[str, dict[str, Any]],
    rolls_back: Upgrade | None = None,
) -> Upgrade:
    """The one transaction: all rows or none. `wanted`: by service, the rollout's fields that say what is to run.

    Raises IntegrityError when another request was faster.
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
        record_rollouts(upgrade, services, wanted)
        record_checks(upgrade, checked)
        if rolls_back:
            tell(rolls_back, EventKind.ROLLED_BACK, f"{upgrade.upgrade_id} rolls it back.", actor=actor)
        key.keep(upgrade.upgrade_id)
        record(
            AuditKind.UPGRADE_ROLLBACK_TRIGGERED if rolls_back else AuditKind.UPGRADE_TRIGGERED,
            organization=organization,
            actor=actor,
            subject=upgrade.upgrade_id,
            data=request | ({"failed_checks": overridden} if overridden else {}),
        )
        tell(upgrade, EventKind.TRIGGERED, describe_request(request, services, overridden), actor=actor)
        announce_started(upgrade)
        transaction.on_commit(lambda: ring_for(upgrade), robust=True)
    return upgrade


def record_rollouts(upgrade: Upgrade, services: list[str], wanted: dict[str, dict[str, Any]]) -> None:
    """Always in the same order, so that two requests that overlap cannot deadlock on the open-rollout index."""
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
            **wanted[service],
        )


def record_checks(upgrade: Upgrade, checked: Preflight) -> None:
    """Pre-flight as it was at the trigger; never changed afterwards."""
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
    names = ", then ".join(in_a_sentence(service) for service in services)
    goal = f"back to {request['version']}" if "rolls_back" in request else f"to {request['version']}"
    forced = ", forced" if request["force_new_deployment"] else ""
    said = f"{names.capitalize()} {goal}{forced}. {request['reason']}".strip()
    if overridden:
        said += f" Although pre-flight failed ({', '.join(overridden)}): {request['override_reason']}"
    return said


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
    """`upgrade-YYYY-MMDD-HHMMSS-<6 hex>`, UTC."""
    return f"upgrade-{timezone.now():%Y-%m%d-%H%M%S}-{secrets.token_hex(3)}"


def ring_for(upgrade: Upgrade) -> None:
    """Tell a worker now; the sweep would find the rollout within a second or two anyway."""
    for pk in upgrade.rollouts.exclude(phase__in=[Phase.WAITING, Phase.DONE]).values_list("pk", flat=True):
        ring("upgrades.tasks.advance_rollout", pk)
