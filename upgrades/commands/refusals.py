"""Refusals of an upgrade or a rollback. Each function raises PortalError."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.db.models import DateTimeField, Exists, IntegerField, Subquery, Value
from django.db.models.functions import Now
from django.utils import timezone

from portal.api.json_rows import TextArray
from portal.database.statements import Given, Statement
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import IdempotencyKey, Organization
from portal.rate_limits import RateLimit
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


# A service with an open rollout, and the id of its upgrade.
Blocker = tuple[str, str]


@dataclass(frozen=True)
class Obstacles:
    """What may stand in the way of an upgrade of some services, as one statement has read it.

    `earlier`: whether the idempotency key was used before. `oldest_counted`: when the oldest upgrade was triggered that
    the limit of the last hour counts; None below the limit. `triggered`: how many it counts.
    """

    earlier: bool
    oldest_counted: datetime | None
    triggered: int
    blocker: Blocker | None


def find_obstacles(organization: Organization, services: list[str], key: KeyUse) -> Obstacles:
    """Return what stands in the way. *Costs* one query, which reads at most `upgrade_trigger_limit` entries of an index."""
    most = organization.upgrade_trigger_limit
    statement = make_obstacles(tuple(services), most)
    ((earlier, oldest, triggered, blocker),) = statement.read(
        organization=organization.pk, user=key.user.pk, key=key.key
    )
    return Obstacles(earlier, oldest, triggered, (blocker[0], blocker[1]) if blocker else None)


@lru_cache(maxsize=100)
def make_obstacles(services: tuple[str, ...], most: int) -> Statement:
    own = Given("organization")
    used = IdempotencyKey.objects.filter(organization=own, user=Given("user"), key=Given("key"))
    triggered = Upgrade.objects.filter(organization=own, created_at__gt=Now() - TRIGGER_WINDOW, kind=Kind.UPGRADE)
    newest = triggered.order_by("-created_at", "-id").values("created_at")
    oldest: Any = Subquery(newest[most - 1 : most]) if most else Value(None, output_field=DateTimeField())
    counted = RowCount(newest[:most])
    in_use = Rollout.objects.in_use(own, list(services)).annotate(found=TextArray("service", "upgrade__upgrade_id"))
    rows = Organization.objects.filter(pk=own).order_by()
    return Statement(rows.values_list(Exists(used), oldest, counted, Subquery(in_use.values("found")[:1])))


class RowCount(Subquery):
    """The number of rows of a query set."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS counted)"
    output_field = IntegerField()


def trigger_limit(organization: Organization) -> RateLimit:
    return RateLimit("upgrades", organization.upgrade_trigger_limit, int(TRIGGER_WINDOW.total_seconds()))


def refuse_too_many(organization: Organization, oldest_counted: datetime | None) -> None:
    """Raise a 429 if the organization has triggered its most upgrades within the last hour. Rollbacks do not count."""
    if oldest_counted:
        most = organization.upgrade_trigger_limit
        seconds = math.ceil((oldest_counted + TRIGGER_WINDOW - timezone.now()).total_seconds())
        message = f"{organization.name} has triggered {most} upgrades within an hour, its limit. Try again later."
        raise PortalError(
            "too_many_upgrades", message, 429, retry_after=max(seconds, 1), limit=trigger_limit(organization)
        )


def refuse_running(organization: Organization, services: list[str]) -> None:
    """Raise a 409 with the id of the blocking upgrade if any of the services has an open rollout. *Costs* one query."""
    refuse_blocked(Rollout.objects.in_use(organization, services).values_list("service", "upgrade__upgrade_id").first())


def refuse_blocked(blocker: Blocker | None) -> None:
    if blocker:
        service, upgrade_id = blocker
        raise PortalError(
            "upgrade_in_progress",
            f"{PlatformService(service).label} is part of {upgrade_id}, which has not ended. Wait for it or stop it.",
            409,
            upgrade_id=upgrade_id,
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
