"""What a person may safely do after an upgrade that did not succeed as a whole: at most one way on and one way back.

Words and prefilled links for the page. Nothing is done here, and no rule about what may be done lives here: the pages that
the links lead to ask ECS and the commands again. While something is unclear there is only where to look.
"""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.urls import reverse

from upgrades.inventory.images import exact
from upgrades.models import Rollout, Upgrade
from upgrades.outcome_hints import LOOK, UNCLEAR
from upgrades.pages.plan import Choices
from upgrades.rollback_plan import services_that_advanced
from upgrades.states import ALL_SERVICES, Outcome, PlatformService, Status, in_a_sentence

# ECS gave up and left the service on what failed: the way on is what ran before.
LEFT_BROKEN = frozenset({Outcome.CIRCUIT_BREAKER, Outcome.ALARM})


@dataclass(frozen=True)
class Look:
    rollout: Rollout
    sentence: str


@dataclass(frozen=True)
class Action:
    """A link that leads to a page with everything filled in; that page asks before it starts anything."""

    label: str
    url: str


@dataclass(frozen=True)
class Since:
    """A later upgrade that rolled some of the services again."""

    upgrade: Upgrade
    services: list[str]


@dataclass(frozen=True)
class NextSteps:
    """First `looks`; then `forward` or `undo`. `then`: services that come after the way on.

    `since`: what became of services that were rolled again. `is_unclear`: no action is offered before somebody has looked.
    """

    looks: list[Look] = field(default_factory=list)
    forward: Action | None = None
    then: list[str] = field(default_factory=list)
    undo: Action | None = None
    since: list[Since] = field(default_factory=list)
    is_unclear: bool = False


def next_steps(upgrade: Upgrade) -> NextSteps | None:
    """None for what is open or has succeeded. The upgrade comes from `for_record`; one query."""
    if upgrade.status not in (Status.PARTIAL, Status.FAILED):
        return None
    later = later_rollouts(upgrade)
    rollouts = list(upgrade.rollouts.all())
    failed = [rollout for rollout in rollouts if rollout.status == Status.FAILED and rollout.service not in later]
    causes = [rollout for rollout in failed if rollout.outcome != Outcome.NOT_ATTEMPTED] or failed[:1]
    since = grouped(later)
    looks = [Look(rollout, LOOK[Outcome(str(rollout.outcome))]) for rollout in causes]
    if any(rollout.outcome in UNCLEAR for rollout in causes):
        return NextSteps(looks, since=since, is_unclear=True)
    if any(rollout.status != Status.SUCCESS for rollout in later.values()):
        # Its own page says what is next, or it still rolls.
        return NextSteps(looks, since=since)
    undo = undo_of(upgrade, [service for service in services_that_advanced(upgrade) if service not in later])
    if not causes:
        return NextSteps(undo=undo, since=since) if undo or since else None
    if upgrade.target == ALL_SERVICES and len(failed) == len(rollouts):
        return NextSteps(looks, forward=again(upgrade, rollouts), since=since)
    then = [in_a_sentence(rollout.service) for rollout in failed if rollout != causes[0]]
    return NextSteps(looks, forward=again(upgrade, causes[:1]), then=then, undo=undo, since=since)


def later_rollouts(upgrade: Upgrade) -> dict[str, Rollout]:
    """The newest rollout of each of its services that a later upgrade has begun, or is about to."""
    found = (
        Rollout.objects.filter(
            organization=upgrade.organization_id,
            service__in=[rollout.service for rollout in upgrade.rollouts.all()],
            upgrade__created_at__gt=upgrade.created_at,
        )
        .exclude(outcome=Outcome.NOT_ATTEMPTED)
        .order_by("service", "-upgrade__created_at", "-id")
        .distinct("service")
        .select_related("upgrade")
    )
    return {rollout.service: rollout for rollout in found}


def grouped(later: dict[str, Rollout]) -> list[Since]:
    """By upgrade, newest first."""
    found: dict[str, Since] = {}
    for rollout in sorted(later.values(), key=lambda each: each.position):
        since = found.setdefault(rollout.upgrade.upgrade_id, Since(rollout.upgrade, []))
        since.services.append(in_a_sentence(rollout.service))
    return sorted(found.values(), key=lambda since: since.upgrade.created_at, reverse=True)


def again(upgrade: Upgrade, rollouts: list[Rollout]) -> Action:
    """The same request for these services alone; where ECS left a broken one, what it ran before."""
    first = rollouts[0]
    target = first.service if len(rollouts) == 1 else ALL_SERVICES
    name = the_services([rollout.service for rollout in rollouts])
    if upgrade.rolls_back:
        return Action(f"Try to roll back {name} again", rollback_url(upgrade.rolls_back))
    ran = exact(first.from_version, first.from_digest)
    if first.outcome in LEFT_BROKEN and ran and first.from_version != first.to_version:
        choices = Choices(service=target, version=ran, force=True)
        return Action(f"Return {name} to {first.from_version}", new_url(upgrade, choices))
    versions = {rollout.wanted_version or upgrade.version for rollout in rollouts}
    version = versions.pop() if len(versions) == 1 else upgrade.version
    choices = Choices(service=target, version=version, force=upgrade.force_new_deployment)
    verb = "Upgrade" if first.outcome == Outcome.NOT_ATTEMPTED else "Retry"
    return Action(f"{verb} {name}", new_url(upgrade, choices))


def undo_of(upgrade: Upgrade, services: list[str]) -> Action | None:
    if not services:
        return None
    names = the_services(services)
    label = f"Take {names} forward again" if upgrade.is_rollback else f"Roll back {names}"
    return Action(label, rollback_url(upgrade))


def the_services(services: list[str]) -> str:
    """`the agent service and orchestrator`; a rollback may be of two."""
    if len(services) == len(PlatformService):
        return "all three services"
    return f"the {' and '.join(in_a_sentence(service) for service in services)}"


def new_url(upgrade: Upgrade, choices: Choices) -> str:
    reason = f"&{urlencode({'reason': upgrade.reason})}" if upgrade.reason else ""
    return f"{reverse('upgrades:new', args=[upgrade.organization.slug])}?{choices.query()}{reason}"


def rollback_url(upgrade: Upgrade) -> str:
    return reverse("upgrades:rollback", args=[upgrade.organization.slug, upgrade.upgrade_id])
