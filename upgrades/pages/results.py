"""The chips that show the result of an upgrade, and its row in a table of upgrades."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, PlatformService, Status, Validation

WAITS = {
    Outcome.WAITING_FOR_DECISION: "Waiting for a decision",
    Outcome.BAKING: "Serving and baking",
    Outcome.ROLLING_BACK: "Rolling back",
    Outcome.HOOK_RUNNING: "Lifecycle hook running",
}
OUTLINE = "unvalidated"


@dataclass(frozen=True)
class Chip:
    """A status chip. `status` sets class and shape, `extra` is another class."""

    status: str
    label: str
    extra: str = ""


@dataclass(frozen=True)
class UpgradeRow:
    """An upgrade as a row of a table. `steps`: from which version to which; empty before ECS was first read."""

    upgrade_id: str
    created_at: datetime
    completed_at: datetime | None
    services: str
    version: str
    steps: list[tuple[str, str | None]]
    who: str
    chips: list[Chip]
    succeeded: int
    failed: int


def build_rows(upgrades: Iterable[Upgrade]) -> list[UpgradeRow]:
    """Return the rows. Uses the prefetched rollouts."""
    return [
        UpgradeRow(
            upgrade_id=upgrade.upgrade_id,
            created_at=upgrade.created_at,
            completed_at=upgrade.completed_at,
            services=describe_services(upgrade),
            version=upgrade.version,
            steps=upgrade.version_steps,
            who=upgrade.initiated_by_email,
            chips=build_result_chips(upgrade),
            succeeded=upgrade.success_count,
            failed=upgrade.failed_count,
        )
        for upgrade in upgrades
    ]


def describe_services(upgrade: Upgrade) -> str:
    """Return the services in rolling order, such as `agent service and orchestrator`."""
    names = [SERVICES[rollout.service] for rollout in upgrade.rollouts.all()]
    if len(names) == len(SERVICES):
        return "all three"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def build_result_chips(upgrade: Upgrade) -> list[Chip]:
    """Return the result. A success is a filled green chip only after its validation passed; until then an outline."""
    validation = [build_validation_chip(upgrade)] if upgrade.validation != Validation.NONE else []
    if upgrade.status != Status.SUCCESS:
        rollouts = upgrade.rollouts.all() if upgrade.is_open else ()
        # Only the states that a person should know of in a list: others are "In progress".
        known = [each for each in rollouts if each.is_overdue or each.is_stalled or each.outcome]
        waits = [chip for rollout in known if not rollout.is_terminal for chip in build_state_chips(rollout)]
        return [Chip(upgrade.status, STATUSES[upgrade.status]), *waits, *validation]
    if validation:
        return validation
    label = "Success, not validated" if upgrade.has_advanced else "Success, no change"
    return [Chip("success", label, OUTLINE)]


def build_validation_chip(upgrade: Upgrade) -> Chip:
    label = VALIDATIONS[upgrade.validation]
    if upgrade.validation == Validation.PASSED:
        return Chip("success", label)
    if upgrade.validation == Validation.FAILED:
        return Chip("failed", label)
    return Chip("pending", "Not validated" if upgrade.validation == Validation.NONE else label, OUTLINE)


def build_state_chips(rollout: Rollout) -> list[Chip]:
    """Return what ECS waits for while the rollout is open, its result after the end. Overdue and stalled come on top."""
    if rollout.is_terminal or rollout.status != Status.IN_PROGRESS:
        chips = [Chip(rollout.status, STATUSES[rollout.status])]
    elif rollout.outcome in WAITS:
        chips = [Chip(rollout.outcome, WAITS[Outcome(rollout.outcome)])]
    else:
        chips = [Chip(rollout.status, "Rolling out")]
    if rollout.is_overdue and not rollout.is_terminal:
        chips.append(Chip("overdue", "Overdue"))
    if rollout.is_stalled and not rollout.is_terminal:
        chips.append(Chip("stalled", "Stalled"))
    return chips


STATUSES = {status.value: str(status.label) for status in Status}
VALIDATIONS = {validation.value: str(validation.label) for validation in Validation}
SERVICES = {service.value: str(service.label).lower() for service in PlatformService}
