"""Drift: a service runs another image than was recorded, than its task definition names, or several at once. Pure, but for
one query. Told only when no rollout is under way, and only from digests: where one is not known, nothing is said.
"""

from dataclasses import dataclass

from django.db.models import F, Q

from portal.models import Organization
from upgrades.inventory.images import exact, short
from upgrades.models import Rollout
from upgrades.states import Outcome, Phase

# What a service runs after a rollout that ended so: what was wanted, or what ran before.
ADVANCED = {Outcome.COMPLETED, Outcome.NO_CHANGE}
RESTORED = {Outcome.ROLLED_BACK}
# After these it may run either, and the record does not say which.
UNSETTLED = {
    Outcome.SUPERSEDED,
    Outcome.ROLLBACK_FAILED,
    Outcome.CIRCUIT_BREAKER,
    Outcome.ALARM,
    Outcome.STOPPED,
    Outcome.STOPPED_BY_USER,
    Outcome.TIMED_OUT,
}


@dataclass(frozen=True)
class Drift:
    """`what` is so, what it `means`, and what `to_do`. `version`: of what the record or the definition names, as a trigger
    takes it."""

    what: str
    means: str
    to_do: str
    version: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What the newest rollout left a service with; `digest` None: not known."""

    digest: str | None
    version: str | None
    upgrade_id: str


def recorded_of(organization: Organization) -> dict[str, Recorded | None]:
    """By service what the newest rollout that touched it left there; None while one is under way. One query.

    What was done in another cluster or stack, before staff changed the organization's record, says nothing about this one.
    """
    here = {
        "upgrade__cluster": organization.cluster or "",
        "upgrade__region": organization.deployment_region,
        "service_name__startswith": f"{organization.deployment_stack}-",
    }
    newest = (
        Rollout.objects.filter(organization=organization, **here)
        .filter(~Q(phase=Phase.DONE) | Q(outcome__in=ADVANCED | RESTORED | UNSETTLED))
        .order_by("service", F("completed_at").desc(nulls_first=True), "-id")
        .distinct("service")
        .select_related("upgrade")
    )
    return {rollout.service: left_by(rollout) for rollout in newest}


def left_by(rollout: Rollout) -> Recorded | None:
    if rollout.phase != Phase.DONE:
        return None
    digest, version = None, None
    if rollout.outcome in ADVANCED:
        digest, version = rollout.to_digest, rollout.to_version
    elif rollout.outcome in RESTORED:
        digest, version = rollout.from_digest, rollout.from_version
    return Recorded(digest, version, rollout.upgrade.upgrade_id)


def find_drift(
    digests: dict[str, int], *, pinned: str | None, recorded: Recorded | None, names: dict[str, str]
) -> Drift | None:
    """`digests`: how many running tasks run which. `pinned`: the digest that the task definition names, if it does.

    `names`: the versions that digests of this service are known by.
    """
    if len(digests) > 1:
        counted = sorted(digests.items(), key=lambda each: (-each[1], each[0]))
        runs = ", ".join(f"{count} of {in_full(digest, names)}" for digest, count in counted)
        return Drift(
            f"Its tasks run {len(digests)} different images: {runs}.",
            "Requests meet one or the other: a tag moved while tasks were replaced, or a deployment was left half done.",
            "Upgrade it to the version that you want, so that all its tasks run one image.",
        )
    running = next(iter(digests), None)
    if running is None:
        return None
    if pinned and running != pinned:
        return Drift(
            f"Its tasks run {in_full(running, names)}, its task definition names {in_full(pinned, names)}.",
            "A deployment of that task definition did not finish and was not rolled back: the next task that ECS starts "
            "runs the other image.",
            "Look at the service in ECS, then upgrade it to the version that you want.",
            exact(names.get(pinned), pinned),
        )
    if recorded and recorded.digest and running != recorded.digest:
        left = in_full(recorded.digest, {recorded.digest: recorded.version} if recorded.version else {})
        return Drift(
            f"It runs {in_full(running, names)}; {recorded.upgrade_id} left it on {left}.",
            "Somebody deployed it outside the portal, or a tag moved and tasks were replaced since.",
            "If that was meant, upgrade it to what it runs, so that the record says so; if not, upgrade it to "
            f"{recorded.version or 'the version that you want'}.",
            exact(recorded.version, recorded.digest),
        )
    return None


def in_full(digest: str, names: dict[str, str]) -> str:
    """The version with its digest, short."""
    known = names.get(digest)
    return f"{known} ({short(digest)})" if known and known != short(digest) else short(digest)
