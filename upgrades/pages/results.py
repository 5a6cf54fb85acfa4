"""The chips that show the result of an upgrade, and its row in a table of upgrades."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.text import capfirst

from upgrades.checks.matrix import NOT_YET
from upgrades.inventory.images import shorten_digest
from upgrades.models import Rollout, Upgrade
from upgrades.rollback_plan import PREVIOUS
from upgrades.states import (
    AUTOMATIC,
    CheckStatus,
    MatrixRow,
    Outcome,
    PlatformService,
    Status,
    Validation,
    get_services,
    inline_label,
)

WAITS = {
    Outcome.WAITING_FOR_DECISION: "Waiting for a decision",
    Outcome.BAKING: "Serving and baking",
    Outcome.ROLLING_BACK: "Rolling back",
    Outcome.HOOK_RUNNING: "Lifecycle hook running",
}
OUTLINE = "unvalidated"
PLAIN_VALUES = {True: "yes", False: "no", None: "not known"}


@dataclass(frozen=True)
class Chip:
    """A status chip. `status` sets class and shape, `extra` is another class."""

    status: str
    label: str
    extra: str = ""


@dataclass(frozen=True)
class Step:
    """From which version to which. `services`: which ones took it, empty if all that the title names did."""

    services: str
    before: str
    after: str | None


@dataclass(frozen=True)
class UpgradeRow:
    """An upgrade as a row of a table. `steps` are empty before ECS was first read.

    `is_same`: new tasks of the same version were forced. `email`: the person's address at that time; `who`: the name, or
    the address if there is none.
    """

    upgrade_id: str
    title: str
    is_rollback: bool
    is_same: bool
    reason: str
    created_at: datetime
    completed_at: datetime | None
    version: str
    steps: list[Step]
    who: str
    email: str
    chips: list[Chip]
    succeeded: int
    failed: int


def build_rows(upgrades: Iterable[Upgrade]) -> list[UpgradeRow]:
    """Return the rows. Uses the prefetched rollouts."""
    return [build_row(upgrade) for upgrade in upgrades]


def build_row(upgrade: Upgrade) -> UpgradeRow:
    steps = upgrade.version_steps
    return UpgradeRow(
        upgrade_id=upgrade.upgrade_id,
        title=upgrade_title(upgrade),
        is_rollback=upgrade.is_rollback,
        is_same=upgrade.force_new_deployment and all(old == new for old, new in steps),
        reason=upgrade.reason,
        created_at=upgrade.created_at,
        completed_at=upgrade.completed_at,
        version=name_version(upgrade.version),
        steps=build_steps(steps, len(upgrade.rollouts.all())),
        who=upgrade.initiated_by.name or upgrade.initiated_by_email,
        email=upgrade.initiated_by_email,
        chips=build_result_chips(upgrade),
        succeeded=upgrade.success_count,
        failed=upgrade.failed_count,
    )


def build_steps(steps: dict[tuple[str, str | None], list[str]], every: int) -> list[Step]:
    """Return what changed from which version to which. `steps`: of Upgrade.version_steps; `every`: services of all."""
    return [
        Step("" if len(services) == every else list_services(services), name_version(old), new and name_version(new))
        for (old, new), services in steps.items()
    ]


def upgrade_title(upgrade: Upgrade) -> str:
    """Return the title, such as `All three to v9.9.1` or `Rollback of agent service to v9.9.0`.

    Without rollouts it names the target and the requested version. Uses the prefetched rollouts.
    """
    rollouts = upgrade.rollouts.all()
    version = choose_version(upgrade.version, (rollout.to_version for rollout in rollouts))
    services = [rollout.service for rollout in rollouts] or get_services(upgrade.target)
    return title_of(services, version, is_rollback=upgrade.is_rollback)


def choose_version(requested: str, rolled_to: Iterable[str | None]) -> str:
    """Return the version that a title names: the one that all services rolled to, else the requested one."""
    known = {version for version in rolled_to if version}
    return known.pop() if len(known) == 1 else requested


def title_of(services: Iterable[str], version: str, *, is_rollback: bool = False) -> str:
    """Return the title of an upgrade of these services.

    >>> title_of(["agent", "orchestrator"], "v9.9.1")
    'Agent service and orchestrator to v9.9.1'
    >>> title_of(["agent", "orchestrator", "customer-portal"], "previous", is_rollback=True)
    'Rollback of all three to the previous version'
    """
    names = list_services(services)
    subject = f"Rollback of {names}" if is_rollback else capfirst(names)
    return f"{subject} to {name_version(version)}"


def name_version(version: str) -> str:
    """Return the version as a title names it: digests shortened, and `previous` in words."""
    if version == PREVIOUS:
        return "the previous version"
    return shorten_digest(version) if version.startswith("sha256:") else version


def list_services(services: Iterable[str]) -> str:
    """Return the services by name, such as `agent service and orchestrator`, or `all three`."""
    names = [SERVICES[service] for service in services]
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


@dataclass(frozen=True)
class CheckLine:
    """One check of a list, pre-flight or validation. `facts`: its evidence."""

    check: Any
    chip: Chip
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class SortedChecks:
    """Checks for a list: `open` need attention, in order of urgency; `waiting` were not run yet; `passed` are folded."""

    open: list[CheckLine]
    waiting: list[CheckLine]
    passed: list[CheckLine]


def sort_checks(checks: Iterable[Any]) -> SortedChecks:
    """Return the checks, pre-flight or validation: failed, then those that need a person, then those not known."""
    lines = [CheckLine(check, build_check_chip(check), list_facts(check.evidence)) for check in checks]
    unsettled = [each for each in lines if each.chip.status not in ("pending", "success")]
    return SortedChecks(
        open=sorted(unsettled, key=lambda each: (each.chip.status != "failed", not needs_person(each.check))),
        waiting=[each for each in lines if each.chip.status == "pending"],
        passed=[each for each in lines if each.chip.status == "success"],
    )


def list_facts(evidence: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return a check's evidence as pairs of name and text.

    >>> list_facts({"http_status": 200, "components": {"router": True, "cache": None}, "missing": ["a", "b"]})
    [('http status', '200'), ('components', 'router yes, cache not known'), ('missing', 'a, b')]
    """
    return [(name.replace("_", " "), format_fact(value)) for name, value in (evidence or {}).items()]


def format_fact(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return PLAIN_VALUES[value]
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_fact(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(format_fact(part) for part in value) or "none"
    return str(value)


def needs_person(check: Any) -> bool:
    """Return whether only a person can settle the row of the validation matrix."""
    return check.status == CheckStatus.UNKNOWN and check.name in MatrixRow.values and check.name not in AUTOMATIC


def build_check_chip(check: Any) -> Chip:
    """Return the result of a check. A row that nobody has looked at says so, and not that its result is not known."""
    if check.status == CheckStatus.PASS:
        return Chip("success", "Pass")
    if check.status == CheckStatus.FAIL:
        return Chip("failed", "Fail")
    if needs_person(check):
        return Chip("waiting_for_decision", "To sign")
    is_checked = check.checked_at is not None and check.detail != NOT_YET
    return Chip("unknown", "Not known") if is_checked else Chip("pending", "Open")


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
SERVICES = {service.value: inline_label(service) for service in PlatformService}
