"""Refusals of an upgrade or a rollback. Each function raises PortalError."""

import math
from datetime import timedelta

from django.db.models.functions import Now
from django.utils import timezone

from portal.errors import PortalError
from portal.models import Organization
from upgrades.checks.preflight import BLOCKING_SECONDS, Preflight
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.running import Reading, read_cached, read_running_services
from upgrades.models import Kind, Rollout, Upgrade
from upgrades.states import PlatformService

MAX_REASON_LENGTH = 2000


SHORTEST_OVERRIDE = 5
TRIGGER_WINDOW = timedelta(hours=1)


OVERRIDE_RULE = f"At least {SHORTEST_OVERRIDE} letters or digits. It is recorded and shown with the failed checks."


def refuse_unplaced(organization: Organization) -> None:
    if organization.cluster is None:
        raise PortalError(
            "no_cluster",
            f"{organization.name} has neither an ECS cluster nor a stack. Ask staff to set them in the admin.",
            400,
        )
    if not organization.deployment_stack:
        raise PortalError(
            "no_stack",
            f"{organization.name} has no stack, so its services cannot be named. Ask staff to set it in the admin.",
            400,
        )


def refuse_too_many(organization: Organization) -> None:
    """Raise a 429 if the organization has triggered its most upgrades within the last hour. Rollbacks do not count.

    *Costs* one query, which reads at most that many entries of an index.
    """
    most = organization.upgrade_trigger_limit
    triggered = Upgrade.objects.filter(organization=organization, created_at__gt=Now() - TRIGGER_WINDOW)
    newest = triggered.filter(kind=Kind.UPGRADE).order_by("-created_at", "-id").values_list("created_at", flat=True)
    oldest_counted = newest[most - 1 : most].first() if most else None
    if oldest_counted:
        seconds = math.ceil((oldest_counted + TRIGGER_WINDOW - timezone.now()).total_seconds())
        message = f"{organization.name} has triggered {most} upgrades within an hour, its limit. Try again later."
        raise PortalError("too_many_upgrades", message, 429, retry_after=max(seconds, 1))


def refuse_running(organization: Organization, services: list[str]) -> None:
    """Raise a 409 with the id of the blocking upgrade if any of the services has an open rollout."""
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
    """Raise a 400 if the only requested service cannot be upgraded.

    Pre-flight has just read ECS. If ECS does not answer, the service is not refused: the engine reads ECS again.
    """
    kept = read_cached(organization) or read_running_services(organization, with_record=False)
    refusal = find_refusal_alone(service, kept)
    if refusal:
        refusal = find_refusal_alone(
            service, read_running_services(organization, fresh_seconds=BLOCKING_SECONDS, with_record=False)
        )
    if refusal:
        raise refusal


def find_refusal_alone(service: str, reading: Reading | None) -> PortalError | None:
    rows = reading.services if reading and not reading.error else []
    return next((refusal_alone(row) for row in rows if row.service == service), None)


def refusal_alone(row: RunningService) -> PortalError | None:
    """Return the refusal of a service that is requested on its own: another controller deploys it, or it is disabled."""
    if row.not_supported:
        return PortalError("not_supported", f"{row.service_name} is {row.not_supported}.", 400)
    if row.state != "disabled":
        return None
    return PortalError(
        "service_disabled",
        f"{row.service_name} is disabled (desired count is 0), so there is nothing to roll. Scale it up in ECS first.",
        400,
    )


def build_override(reason: str) -> dict[str, str]:
    """Return the override as part of a request.

    Without a reason it adds no key, so that the idempotency hash of such a request does not change.
    """
    return {"override_reason": reason} if reason else {}


def refuse_empty_override(override_reason: str) -> None:
    """Raise a 400 for an override reason that is too short. It is read later, by people who search for the cause."""
    if override_reason and sum(character.isalnum() for character in override_reason) < SHORTEST_OVERRIDE:
        raise PortalError(
            "override_reason_too_short",
            f"The reason to start despite failed checks needs at least {SHORTEST_OVERRIDE} letters or digits.",
            400,
        )


def refuse_failed(checked: Preflight, override_reason: str) -> None:
    """Raise a 409 with the names of the failed checks unless a reason overrides them."""
    if checked.may_start or override_reason:
        return
    said = " ".join(f"{check.label}: {check.detail}" for check in checked.failed)
    raise PortalError(
        "preflight_failed",
        f"Pre-flight failed. {said} Fix the cause and try again, or give a reason to start anyway (override_reason). The "
        "reason is recorded and shown.",
        409,
        checks=[check.name for check in checked.failed],
    )
