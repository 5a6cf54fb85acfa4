"""Trigger an upgrade."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from portal.access import require
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import Organization, Role, User
from upgrades.checks.preflight import preflight_to_start
from upgrades.commands.record import earlier_upgrade, make_once, record_upgrade
from upgrades.commands.refusals import override_of, refuse_alone, refuse_empty_words, refuse_failed, refuse_unplaced
from upgrades.inventory.catalogue import resolve
from upgrades.inventory.images import LATEST, Wanted, short
from upgrades.models import Upgrade
from upgrades.states import in_a_sentence, services_of


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
