"""Previews an upgrade before it is triggered. Contains no rules: the commands enforce those."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from urllib.parse import urlencode

from portal.database.statements import Given
from portal.database.together import Together, attach
from portal.errors import PortalError
from portal.models import Organization
from upgrades.commands.refusals import refusal_alone, refuse_blocked, refuse_unplaced
from upgrades.estimates import estimate_seconds, format_seconds
from upgrades.inventory.catalogue import VersionUnavailable, resolve
from upgrades.inventory.diffs import Diff, read_diffs
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.images import RequestedImage
from upgrades.inventory.running import Reading, read_running_services
from upgrades.inventory.tags import LATEST, is_earlier
from upgrades.models import Rollout, Upgrade
from upgrades.pages.results import name_version, title_of
from upgrades.pages.rollout_stages import describe_planned_strategy, least_minutes
from upgrades.scope import Change, Scope, left_out, not_needed, smallest_scope
from upgrades.states import ALL_SERVICES, OPEN, PlatformService, get_services, inline_label


@dataclass(frozen=True)
class Choices:
    """A person's choices, held in the query string. `service` None: the smallest target for the changes."""

    changed: tuple[Change, ...] = ()
    service: str | None = None
    version: str = LATEST
    force: bool = False

    def query(self, service: str | None = None) -> str:
        """Return the query string for these choices, optionally with another target."""
        chosen = [("changed", change.value) for change in self.changed]
        target = service or self.service
        chosen += [("service", target)] if target else []
        chosen += [("version", self.version)] if self.version != LATEST else []
        chosen += [("force", "1")] if self.force else []
        return urlencode(chosen)


@dataclass(frozen=True)
class Alternative:
    """Another target for the same changes, and the query string that chooses it."""

    service: PlatformService
    query: str


@dataclass(frozen=True)
class PlannedRollout:
    """The effect of an upgrade on one service.

    `effect`: untouched (not a target), replace (its tasks are replaced), none (nothing differs), skip (disabled, with
    target `all`), refuse (disabled, as the only target), missing, not_supported (another controller deploys it),
    lacks (its registry does not have the version), unknown (AWS did not report what runs or what the version is).
    """

    now: RunningService
    effect: str
    in_use_by: Upgrade | None
    requested: RequestedImage | None = None
    diff: Diff | None = None

    @property
    def new_version(self) -> str | None:
        """Return the version that would replace the current one; None if the version stays."""
        version = self.requested.version if self.requested and self.requested.image else None
        return version if version != self.now.version else None

    @property
    def note(self) -> str | None:
        """Return why the requested version is this image, None if that goes without saying."""
        return self.requested.note if self.requested and self.is_targeted else None

    @property
    def moves_with(self) -> dict[str, str]:
        """Return the other containers of the task that get the new image, with what they run now."""
        if self.effect != "replace" or self.requested is None or self.requested.image is None:
            return {}
        own = self.now.image
        return {
            name: "the same image" if image == own else image.rpartition("/")[2]
            for name, image in self.now.containers.items()
            if name != self.now.container
        }

    @property
    def strategy(self) -> str | None:
        """Return how ECS would roll it out and where it would wait for a person; None for plain ROLLING."""
        configuration = self.now.configuration if self.effect == "replace" else None
        return describe_planned_strategy(configuration) if configuration else None

    @property
    def bake_minutes(self) -> int:
        """Return the minutes of bakes and traffic steps that no rollout takes less than."""
        configuration = self.now.configuration if self.effect == "replace" else None
        return least_minutes(configuration) if configuration else 0

    @property
    def goes_back(self) -> bool:
        """Return whether the new version is older than the current one, as far as their names show."""
        return bool(self.new_version and self.now.version) and is_earlier(str(self.new_version), str(self.now.version))

    @property
    def is_targeted(self) -> bool:
        return self.effect != "untouched"

    @property
    def tasks(self) -> int:
        """Return how many tasks would be replaced."""
        return (self.now.desired_count or 0) if self.effect == "replace" else 0


@dataclass(frozen=True)
class Plan:
    """The preview of an upgrade.

    `target` None: nothing is chosen yet. `reading` None: the organization has no cluster.
    """

    choices: Choices
    target: str | None
    scope: Scope | None
    reading: Reading | None
    rollouts: list[PlannedRollout]
    open_upgrades: list[Upgrade]
    refusals: list[PortalError]
    estimated_seconds: int | None
    last: Upgrade | None

    @property
    def is_wide(self) -> bool:
        """Return whether the organization's slug must be typed: for all services and for a forced deployment."""
        return needs_confirmation(self.target, force=self.choices.force)

    @property
    def target_label(self) -> str:
        return target_label(self.target) if self.target else ""

    @property
    def desired_version(self) -> str | None:
        """Return the version that all targeted services would run; None if it differs or is not known."""
        if self.choices.version != LATEST:
            return self.choices.version
        versions = {rollout.requested.version if rollout.requested else None for rollout in self.targeted}
        version = versions.pop() if len(versions) == 1 else None
        return version if version != LATEST else None

    @property
    def desired_name(self) -> str:
        return name_version(self.desired_version or self.choices.version)

    @property
    def title(self) -> str:
        return title_of(get_services(self.target), self.desired_version or self.choices.version) if self.target else ""

    @property
    def images(self) -> str:
        """Return the known images as `service=digest` pairs. The form sends them back so that exactly these are started."""
        known = [(each.now.service, each.requested.digest) for each in self.targeted if each.requested]
        return " ".join(f"{service}={digest}" for service, digest in known if digest)

    @property
    def going_back(self) -> list[PlannedRollout]:
        return [rollout for rollout in self.rollouts if rollout.goes_back]

    @property
    def targeted(self) -> list[PlannedRollout]:
        return [rollout for rollout in self.rollouts if rollout.is_targeted]

    @property
    def tasks(self) -> int:
        return sum(rollout.tasks for rollout in self.rollouts)

    @property
    def changes_nothing(self) -> bool:
        """Return whether no service would be touched, as far as is known."""
        return bool(self.targeted) and all(rollout.effect in ("none", "skip") for rollout in self.targeted)

    @property
    def expected(self) -> str:
        """Return the usual time. Without past rollouts: a guess for the tasks, plus the bakes that are configured."""
        minutes = sum(rollout.bake_minutes for rollout in self.rollouts)
        bake = f" and {minutes} min of bake" if minutes and self.estimated_seconds is None else ""
        return f"{format_seconds(self.estimated_seconds)}{bake}"

    @property
    def left_out(self) -> tuple[PlatformService, ...]:
        return left_out(self.scope, self.target) if self.scope and self.target else ()

    @property
    def not_needed(self) -> tuple[PlatformService, ...]:
        return not_needed(self.scope, self.target) if self.scope and self.target else ()

    @property
    def one_by_one(self) -> list[Alternative]:
        """Return the single upgrades that would avoid rolling a service unnecessarily."""
        if self.scope is None or not self.not_needed:
            return []
        return [Alternative(service, self.choices.query(service)) for service in self.scope.needed]

    @property
    def scope_query(self) -> str:
        """Return the query string that chooses the smallest safe target."""
        return self.choices.query(self.scope.target) if self.scope else ""

    @property
    def sentence(self) -> str:
        """Return what screen readers announce when the plan has changed."""
        if self.target is None:
            return "Nothing is selected yet."
        if self.refusals:
            return f"This upgrade cannot start. {self.refusals[0].message}"
        if self.changes_nothing:
            return f"Plan for {target_label(self.target)}: nothing would change."
        return f"Plan for {target_label(self.target)}: replaces {self.tasks} tasks, takes {self.expected}."


def build_plan(organization: Organization, choices: Choices) -> Plan:
    """Build the plan: what these choices would do now.

    It reads ECS through read_running_services, the registries through resolve() and the differences through read_diffs.
    If AWS hangs, it waits for only one of these. *Costs* eight queries, and one more for each service that would change.
    """
    scope = smallest_scope(choices.changed)
    target = choices.service or (scope.target if scope else None)
    services = get_services(target) if target else []
    reading = read_running_services(organization)
    in_use = open_rollouts(organization)
    rows = reading.services if reading else []
    requested, refused = resolve_requested(organization, services, choices.version, reading)
    planned = [
        PlannedRollout(
            row,
            find_effect(row, services, choices, requested.get(row.service), lacking=find_lacking(refused)),
            in_use.get(row.service),
            requested.get(row.service),
        )
        for row in rows
    ]
    return Plan(
        choices=choices,
        target=target,
        scope=scope,
        reading=reading,
        rollouts=with_diffs(organization, reading, planned),
        open_upgrades=list({upgrade.pk: upgrade for upgrade in in_use.values()}.values()),
        refusals=[*refused, *refusals(organization, services, rows, in_use)] if target else [],
        estimated_seconds=estimate_seconds(organization, services) if target else None,
        last=find_last_upgrade(organization, target) if target else None,
    )


def open_rollouts(organization: Organization) -> dict[str, Upgrade]:
    """Return the open upgrade of each service that has one, with its rollouts. *Costs* one query."""
    read = make_open().read(organization=organization.pk)
    upgrades = {upgrade.pk: upgrade for upgrade in read["upgrades"]}
    attach(list(upgrades.values()), "rollouts", read["rollouts"])
    unfinished = [rollout for rollout in read["rollouts"] if not rollout.is_terminal]
    return {rollout.service: upgrades[rollout.upgrade_id] for rollout in unfinished}


@cache
def make_open() -> Together:
    unfinished = Rollout.objects.unfinished().filter(organization=Given("organization"))
    owners = unfinished.order_by().values("upgrade")
    return Together(
        upgrades=Upgrade.objects.filter(pk__in=owners).order_by("pk"),
        rollouts=Rollout.objects.filter(upgrade__in=owners).order_by("position", "id"),
    )


def resolve_requested(
    organization: Organization, services: list[str], version: str, reading: Reading | None
) -> tuple[dict[str, RequestedImage], list[PortalError]]:
    """Return what each service would run, and why the version is not available. Services that lack it are left out.

    Both are empty while ECS does not report what runs.
    """
    if not services or reading is None or reading.error or not organization.deployment_stack:
        return {}, []
    try:
        return resolve(organization, services, version), []
    except VersionUnavailable as error:
        return error.found, [error]
    except PortalError as error:
        return {}, [error]


def find_lacking(refused: list[PortalError]) -> frozenset[str]:
    """Return the services that cannot run the version."""
    return frozenset(service for each in refused if isinstance(each, VersionUnavailable) for service in each.lacking)


def find_effect(
    now: RunningService,
    services: list[str],
    choices: Choices,
    requested: RequestedImage | None,
    *,
    lacking: frozenset[str] = frozenset(),
) -> str:
    if now.service not in services:
        return "untouched"
    if now.service in lacking:
        return "lacks"
    if now.state in ("missing", "not_supported", "unknown"):
        return now.state
    if now.state == "disabled":
        return "skip" if len(services) > 1 else "refuse"
    if choices.force:
        return "replace"
    if requested is None or (requested.image is None and requested.version is not None):
        return "unknown"
    # The same rule as in the engine (engine/desired.py): only a service whose deployment has ended well stays as it is.
    return "none" if now.runs_already(requested) and now.has_ended_well else "replace"


def with_diffs(
    organization: Organization, reading: Reading | None, planned: list[PlannedRollout]
) -> list[PlannedRollout]:
    """Return the rollouts, with the differences for each service that gets another image."""
    requested: dict[str, RequestedImage | str] = {
        each.now.service: each.requested
        for each in planned
        if each.effect == "replace"
        and each.requested
        and each.requested.image
        and not each.now.runs_already(each.requested)
    }
    diffs = read_diffs(organization, requested, reading=reading)
    return [replace(rollout, diff=diffs.get(rollout.now.service)) for rollout in planned]


def refusals(
    organization: Organization, services: list[str], rows: list[RunningService], in_use: dict[str, Upgrade]
) -> Iterator[PortalError]:
    """Yield the errors with which the trigger would refuse now, as far as they are known without asking AWS."""
    unplaced = catch_refusal(partial(refuse_unplaced, organization))
    if unplaced:
        yield unplaced
        return
    blocking = sorted((in_use[service].pk, at, service) for at, service in enumerate(services) if service in in_use)
    blocked = (blocking[0][2], in_use[blocking[0][2]].upgrade_id) if blocking else None
    running = catch_refusal(partial(refuse_blocked, blocked))
    if running:
        yield running
    if len(services) == 1:
        alone = (refusal_alone(row) for row in rows if row.service == services[0])
        yield from (refusal for refusal in alone if refusal)


def catch_refusal(rule: Callable[[], None]) -> PortalError | None:
    try:
        rule()
    except PortalError as error:
        return error
    return None


def find_last_upgrade(organization: Organization, target: str) -> Upgrade | None:
    """Return the newest ended upgrade of the same scope. Costs two queries."""
    ended = Upgrade.objects.filter(organization=organization, target=target).exclude(status__in=OPEN)
    return ended.for_record().newest_first().first()


def needs_confirmation(target: str | None, *, force: bool) -> bool:
    return target is not None and (target == ALL_SERVICES or force)


def target_label(target: str) -> str:
    """Return the target as a phrase.

    >>> target_label("agent"), target_label("all")
    ('agent service', 'all three services')
    """
    return "all three services" if target == ALL_SERVICES else inline_label(target)
