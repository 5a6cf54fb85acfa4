"""Rolls an upgrade back by recording a new upgrade of kind `rollback`."""

from datetime import datetime

from portal.access import require
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import Role, User
from upgrades.checks.preflight import preflight_to_start
from upgrades.commands.record import PreparedUpgrade, UpgradeRequest, create_once, find_earlier_upgrade
from upgrades.commands.refusals import (
    build_override,
    find_obstacles,
    refuse_empty_override,
    refuse_failed,
    refuse_running,
    refuse_unplaced,
)
from upgrades.models import Upgrade
from upgrades.rollback_plan import plan_rollback, services_that_advanced
from upgrades.states import ALL_SERVICES


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
    """Record a rollback of an ended upgrade: a new upgrade to the previous task definitions that it recorded.

    A service that cannot be rolled back stays unchanged (rollback_plan.py explains why). If ECS does not answer, the
    rollback is recorded, and the engine reads ECS before it changes anything.
    `services`: the services that the person agreed to. If the plan differs now, the rollback is refused.

    Raises PortalError: 403, 404, 400 `rollback_impossible`, `no_cluster`, `no_stack`,
    `override_reason_too_short`, 409 `upgrade_in_progress` (with `upgrade_id`), `plan_changed`, `preflight_failed` (with
    `checks`), 422 `idempotency_mismatch`.
    Costs the AWS calls of plan_rollback, and waits for pre-flight for up to 4 s.
    """
    organization = upgrade.organization
    require(actor, organization, Role.OPERATOR)
    asked = {"rolls_back": upgrade.upgrade_id, "reason": reason} | build_override(override_reason)
    key = KeyUse.for_request("rollback_upgrade", asked, organization=organization, user=actor, key=idempotency_key)
    affected = services_that_advanced(upgrade)
    obstacles = find_obstacles(organization, affected, key)
    earlier = find_earlier_upgrade(organization, key) if obstacles.earlier else None
    if earlier:
        return earlier
    refuse_unplaced(organization)
    refuse_open(upgrade)
    refuse_empty_override(override_reason)
    return create_once(
        organization,
        affected,
        key,
        lambda: prepare_rollback(
            upgrade,
            actor=actor,
            reason=reason,
            override_reason=override_reason,
            shown=services,
            session_ends_at=session_ends_at,
        ),
        blocker=obstacles.blocker,
    )


def prepare_rollback(
    upgrade: Upgrade,
    *,
    actor: User,
    reason: str,
    override_reason: str,
    shown: list[str] | None,
    session_ends_at: datetime | None,
) -> PreparedUpgrade:
    """Plan the rollback and run pre-flight. Refuse a plan that differs from the services `shown`."""
    plan = plan_rollback(upgrade)
    if plan.blocker:
        refuse_running(upgrade.organization, services_that_advanced(upgrade))
    if plan.refusal:
        raise PortalError("rollback_impossible", plan.refusal, 400)
    if shown is not None and shown != plan.services:
        raise PortalError("plan_changed", "The rollback plan has changed since it was shown. Review it again.", 409)
    checked = preflight_to_start(upgrade.organization, plan.services, session_ends_at=session_ends_at)
    refuse_failed(checked, override_reason)
    request = UpgradeRequest(
        upgrade.organization,
        actor,
        service=plan.services[0] if len(plan.services) == 1 else ALL_SERVICES,
        version=plan.version,
        reason=reason,
        override_reason=override_reason,
        rolls_back=upgrade,
    )
    requested = {line.service: {"wanted_task_definition": line.rollout.previous_task_definition} for line in plan.going}
    return PreparedUpgrade(request, checked, requested)


def refuse_open(upgrade: Upgrade) -> None:
    if upgrade.is_open:
        raise PortalError(
            "upgrade_in_progress",
            f"{upgrade.upgrade_id} has not ended, so it cannot be rolled back yet. Stop it to let ECS roll it back.",
            409,
            upgrade_id=upgrade.upgrade_id,
        )
