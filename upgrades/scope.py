"""The smallest safe scope: finds the target for a set of changes. Pure: no database, no AWS, no clock.

The rule is the table "Choosing the Right Upgrade Scope" in the platform's guide,
https://docs.getaxonflow.com/docs/deployment/deployment-operations/:

    agent            request-path or connector-execution changes
    orchestrator     workflow, provider, or orchestration-path changes
    customer-portal  control-plane or portal-experience changes
    all              coordinated platform rollout where services need to move together
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import models

from upgrades.states import ALL_SERVICES, PlatformService, get_services


class Change(models.TextChoices):
    """A kind of change, in the guide's words."""

    REQUEST_PATH = "request-path", "Request path"
    CONNECTORS = "connectors", "Connector execution"
    WORKFLOWS = "workflows", "Workflows"
    PROVIDERS = "providers", "LLM providers"
    ORCHESTRATION = "orchestration", "Orchestration path"
    CONTROL_PLANE = "control-plane", "Control plane"
    PORTAL = "portal", "Portal experience"
    TOGETHER = "together", "Services must move together"


# `TOGETHER` has no service of its own, because it needs all of them.
SERVICE_OF = {
    Change.REQUEST_PATH: PlatformService.AGENT,
    Change.CONNECTORS: PlatformService.AGENT,
    Change.WORKFLOWS: PlatformService.ORCHESTRATOR,
    Change.PROVIDERS: PlatformService.ORCHESTRATOR,
    Change.ORCHESTRATION: PlatformService.ORCHESTRATOR,
    Change.CONTROL_PLANE: PlatformService.CUSTOMER_PORTAL,
    Change.PORTAL: PlatformService.CUSTOMER_PORTAL,
}


@dataclass(frozen=True)
class Scope:
    """The scope that a set of changes needs.

    `needed`: the services that the changes affect, in rolling order.
    `target`: the smallest target that rolls all of them in one upgrade.
    """

    target: str
    needed: tuple[PlatformService, ...]


def smallest_scope(changes: Iterable[Change]) -> Scope | None:
    """Return the smallest scope for the changes; None if there are no changes."""
    changed = set(changes)
    if not changed:
        return None
    if Change.TOGETHER in changed:
        return Scope(ALL_SERVICES, tuple(PlatformService))
    touched = {SERVICE_OF[change] for change in changed}
    needed = tuple(service for service in PlatformService if service in touched)
    return Scope(needed[0].value if len(needed) == 1 else ALL_SERVICES, needed)


def left_out(scope: Scope, target: str) -> tuple[PlatformService, ...]:
    """Return the services that the changes need but the target does not roll."""
    rolled = get_services(target)
    return tuple(service for service in scope.needed if service not in rolled)


def not_needed(scope: Scope, target: str) -> tuple[PlatformService, ...]:
    """Return the services that the target rolls but the changes do not need."""
    return tuple(PlatformService(service) for service in get_services(target) if service not in scope.needed)
