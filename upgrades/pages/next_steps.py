"""Suggests what to do after an upgrade that failed or succeeded in part: at most one retry and one rollback.

It only builds texts and prefilled links, and contains no rules. The linked pages ask ECS and the commands again.
While the state of a service is unclear, it suggests only what to check.
"""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.urls import reverse

from upgrades.inventory.images import choose_exact_version
from upgrades.models import Rollout, Upgrade, newest_of_each
from upgrades.outcome_texts import OUTCOME_TEXTS, UNCLEAR
from upgrades.pages.plan import Choices
from upgrades.pages.results import name_version, title_of
from upgrades.rollback_plan import services_that_advanced
from upgrades.states import ALL_SERVICES, Outcome, PlatformService, Status, get_services, inline_label

# ECS gave up and left the service on the failed deployment: the next step is the version that ran before.
LEFT_BROKEN = frozenset({Outcome.CIRCUIT_BREAKER, Outcome.ALARM})


@dataclass(frozen=True)
class Hint:
    rollout: Rollout
    sentence: str


@dataclass(frozen=True)
class Action:
    """A link to a page with everything filled in. That page asks for confirmation before it starts anything."""

    label: str
    url: str


@dataclass(frozen=True)
class Since:
    """A later upgrade of some of the same services."""

    upgrade: Upgrade
    services: list[str]
    version: str

    @property
    def title(self) -> str:
        """Return the title without reading the upgrade's rollouts: a wide rollback may have gone over fewer services."""
        if self.upgrade.is_rollback and self.upgrade.target == ALL_SERVICES:
            return f"Rollback to {name_version(self.version)}"
        return title_of(get_services(self.upgrade.target), self.version, is_rollback=self.upgrade.is_rollback)


@dataclass(frozen=True)
class NextSteps:
    """The suggestions in order: first `hints`, then either `forward` or `undo`.

    `then`: services to upgrade after `forward`. `since`: later upgrades of the same services.
    `is_unclear`: no action is offered until someone has checked the state.
    """

    hints: list[Hint] = field(default_factory=list)
    forward: Action | None = None
    then: list[str] = field(default_factory=list)
    undo: Action | None = None
    since: list[Since] = field(default_factory=list)
    is_unclear: bool = False


def next_steps(upgrade: Upgrade) -> NextSteps | None:
    """Return the suggestions; None if the upgrade is open or has succeeded.

    The upgrade must come from `for_record`. Costs one query.
    """
    if upgrade.status not in (Status.PARTIAL, Status.FAILED):
        return None
    later = later_rollouts(upgrade)
    rollouts = list(upgrade.rollouts.all())
    failed = [rollout for rollout in rollouts if rollout.status == Status.FAILED and rollout.service not in later]
    causes = [rollout for rollout in failed if rollout.outcome != Outcome.NOT_ATTEMPTED] or failed[:1]
    since = group_by_upgrade(later)
    hints = [Hint(rollout, OUTCOME_TEXTS[Outcome(str(rollout.outcome))].hint) for rollout in causes]
    if any(rollout.outcome in UNCLEAR for rollout in causes):
        return NextSteps(hints, since=since, is_unclear=True)
    if any(rollout.status != Status.SUCCESS for rollout in later.values()):
        # The later upgrade is still open, or its own page says what comes next.
        return NextSteps(hints, since=since)
    undo = build_undo(upgrade, [service for service in services_that_advanced(upgrade) if service not in later])
    if not causes:
        return NextSteps(undo=undo, since=since) if undo or since else None
    if upgrade.target == ALL_SERVICES and len(failed) == len(rollouts):
        return NextSteps(hints, forward=build_retry(upgrade, rollouts), since=since)
    then = [inline_label(rollout.service) for rollout in failed if rollout != causes[0]]
    return NextSteps(hints, forward=build_retry(upgrade, causes[:1]), then=then, undo=undo, since=since)


def later_rollouts(upgrade: Upgrade) -> dict[str, Rollout]:
    """Return the newest later rollout of each of the upgrade's services that has started or is about to start."""
    services = [rollout.service for rollout in upgrade.rollouts.all()]
    attempted = Rollout.objects.attempted().select_related("upgrade")
    newest = newest_of_each(attempted, upgrade.organization, services)
    return {rollout.service: rollout for rollout in newest if rollout.upgrade.created_at > upgrade.created_at}


def group_by_upgrade(later: dict[str, Rollout]) -> list[Since]:
    """Group the rollouts by upgrade, newest upgrade first."""
    found: dict[str, Since] = {}
    for rollout in sorted(later.values(), key=lambda each: each.position):
        version = rollout.to_version or rollout.upgrade.version
        since = found.setdefault(rollout.upgrade.upgrade_id, Since(rollout.upgrade, [], version))
        since.services.append(inline_label(rollout.service))
    return sorted(found.values(), key=lambda since: since.upgrade.created_at, reverse=True)


def build_retry(upgrade: Upgrade, rollouts: list[Rollout]) -> Action:
    """Return the link that repeats the request for only these services.

    If ECS left the service on the failed deployment, the link requests the version that ran before.
    """
    first = rollouts[0]
    target = first.service if len(rollouts) == 1 else ALL_SERVICES
    name = describe_services([rollout.service for rollout in rollouts])
    if upgrade.rolls_back:
        return Action(f"Retry the rollback of {name}", rollback_url(upgrade.rolls_back))
    ran = choose_exact_version(first.from_version, first.from_digest)
    if first.outcome in LEFT_BROKEN and ran and first.from_version != first.to_version:
        choices = Choices(service=target, version=ran, force=True)
        return Action(f"Return {name} to {first.from_version}", new_url(upgrade, choices))
    versions = {rollout.wanted_version or upgrade.version for rollout in rollouts}
    version = versions.pop() if len(versions) == 1 else upgrade.version
    choices = Choices(service=target, version=version, force=upgrade.force_new_deployment)
    verb = "Upgrade" if first.outcome == Outcome.NOT_ATTEMPTED else "Retry"
    return Action(f"{verb} {name}", new_url(upgrade, choices))


def build_undo(upgrade: Upgrade, services: list[str]) -> Action | None:
    if not services:
        return None
    names = describe_services(services)
    label = f"Undo the rollback of {names}" if upgrade.is_rollback else f"Roll back {names}"
    return Action(label, rollback_url(upgrade))


def describe_services(services: list[str]) -> str:
    """Return the services as a phrase, for example `the agent service and orchestrator`."""
    if len(services) == len(PlatformService):
        return "all three services"
    return f"the {' and '.join(inline_label(service) for service in services)}"


def new_url(upgrade: Upgrade, choices: Choices) -> str:
    reason = f"&{urlencode({'reason': upgrade.reason})}" if upgrade.reason else ""
    return f"{reverse('upgrades:new', args=[upgrade.organization.slug])}?{choices.query()}{reason}"


def rollback_url(upgrade: Upgrade) -> str:
    return reverse("upgrades:rollback", args=[upgrade.organization.slug, upgrade.upgrade_id])
