"""Triggers an upgrade."""

from datetime import datetime

from portal.access import require, require_fresh
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import Organization, Role, User
from portal.request_id import request_pool
from upgrades.checks.preflight import preflight_to_start
from upgrades.commands.record import PreparedUpgrade, UpgradeRequest, create_once, find_earlier_upgrade
from upgrades.commands.refusals import (
    find_obstacles,
    refuse_alone,
    refuse_empty_override,
    refuse_failed,
    refuse_too_many,
    refuse_unplaced,
)
from upgrades.inventory.catalogue import resolve
from upgrades.inventory.images import RequestedImage, shorten_digest
from upgrades.inventory.tags import LATEST
from upgrades.models import Upgrade
from upgrades.states import ALL_SERVICES, get_services, inline_label


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
    is_fresh: bool = False,
    idempotency_key: str | None = None,
) -> Upgrade:
    """Record an upgrade. Once committed it will be carried out, even without a broker.

    1. Check the role, the idempotency key and everything that needs no AWS call.
    2. Resolve the version to an image with its digest, for each service.
    3. Read ECS and the platform. A service requested on its own is refused if it is disabled or deployed by another
       controller. A failed pre-flight check refuses the upgrade unless `override_reason` is given.
    4. Write upgrade, rollouts, checks, key and audit event in one transaction.
    5. Dispatch the first rollout.

    `images`: the digests that the person agreed to, by service. If a tag points to another one now, the upgrade is refused.
    `session_ends_at`: the end of the person's session, None for a command without a session.
    `is_fresh`: whether the person re-authenticated in the last minutes; needed for `all` and forced upgrades where the
    organization requires it.

    Raises PortalError: 403 `forbidden`, `reauthentication_required`, 404, 400 `no_cluster`, `no_stack`,
    `version_unavailable`, `not_supported`, `service_disabled`, `override_reason_too_short`, 409 `upgrade_in_progress` (with
    `upgrade_id`), `plan_changed`, `preflight_failed` (with `checks`), 422 `idempotency_mismatch`, 429
    `too_many_upgrades`, 502 `registry_unavailable`.
    Costs about three AWS calls per service, and waits for pre-flight for up to 4 s.
    """
    require(actor, organization, Role.OPERATOR)
    request = UpgradeRequest(organization, actor, service, version, force_new_deployment, reason, override_reason)
    key = KeyUse.for_request(
        "trigger_upgrade", request.as_data(), organization=organization, user=actor, key=idempotency_key
    )
    obstacles = find_obstacles(organization, get_services(service), key)
    earlier = find_earlier_upgrade(organization, key) if obstacles.earlier else None
    if earlier:
        return earlier
    if organization.requires_reauthentication and (service == ALL_SERVICES or force_new_deployment):
        require_fresh(is_fresh)
    refuse_too_many(organization, obstacles.oldest_counted)
    refuse_unplaced(organization)
    refuse_empty_override(override_reason)
    upgrade = create_once(
        organization,
        get_services(service),
        key,
        lambda: prepare_upgrade(request, images=images or {}, session_ends_at=session_ends_at),
        blocker=obstacles.blocker,
    )
    upgrade.triggers_left = organization.upgrade_trigger_limit - obstacles.triggered - 1
    return upgrade


def prepare_upgrade(
    request: UpgradeRequest, *, images: dict[str, str], session_ends_at: datetime | None
) -> PreparedUpgrade:
    """Resolve the version and run pre-flight. Both wait for the network, so they run concurrently."""
    organization, services = request.organization, get_services(request.service)
    # Resolving a version does not use the database.
    with request_pool(1, "resolve") as pool:
        resolving = pool.submit(resolve, organization, services, request.version)
        checked = preflight_to_start(organization, services, session_ends_at=session_ends_at)
        if len(services) == 1:
            refuse_alone(organization, services[0])
        found = resolving.result()
    refuse_moved(images, found)
    refuse_failed(checked, request.override_reason)
    requested = {name: {"wanted_version": found[name].version, "wanted_image": found[name].image} for name in services}
    return PreparedUpgrade(request, checked, requested)


def refuse_moved(shown: dict[str, str], found: dict[str, RequestedImage]) -> None:
    """Raise a 409 if the version now points to another image than the one that was shown."""
    moved = [
        service for service, what in found.items() if what.digest and shown.get(service, what.digest) != what.digest
    ]
    if moved:
        said = "; ".join(f"{inline_label(service)}: {shorten_digest(str(found[service].digest))}" for service in moved)
        raise PortalError(
            "plan_changed",
            f"The version now points to another image than the plan showed ({said}). Review the plan again.",
            409,
        )
