"""Drift: a service runs an image other than the recorded one or the one in its task definition, or runs several images.

Pure. Drift is reported only if no rollout is in progress, and only from digests. If a digest is not
known, no drift is reported.
"""

from dataclasses import dataclass

from django.db.models import Q, QuerySet

from portal.models import Organization
from upgrades.inventory.images import choose_exact_version, shorten_digest
from upgrades.models import Rollout
from upgrades.states import ROLLED_OUT, Outcome, Phase

# After a rollout with one of these outcomes, the service runs the desired image, or the previous one.
ADVANCED = ROLLED_OUT | {Outcome.NO_CHANGE}
RESTORED = {Outcome.ROLLED_BACK}
# After these it may run either one, and the record does not say which.
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
    """One service's drift: `what` differs, what it `means`, and what `to_do`.

    `version`: the version that was recorded or is in the task definition, in the form that a trigger accepts.
    """

    what: str
    means: str
    to_do: str
    version: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What the newest rollout left running. `digest`: None if not known.

    `is_draining`: it ended by early success, so old tasks may run beside the new ones.
    """

    digest: str | None
    version: str | None
    upgrade_id: str
    is_draining: bool = False


def select_recorded() -> QuerySet[Rollout]:
    """Return the rollouts among which the newest one of a service says what should run: open ones, and settled ones."""
    settled = Q(outcome__in=ADVANCED | RESTORED | UNSETTLED)
    return Rollout.objects.attempted().filter(~Q(phase=Phase.DONE) | settled).select_related("upgrade")


def get_recorded(organization: Organization, newest: list[Rollout]) -> dict[str, Recorded | None]:
    """Return, by service, what its newest rollout left running; None while a rollout is in progress.

    `newest`: the newest of select_recorded. A service whose newest rollout was in another cluster or stack, from before
    staff changed the organization, is left out.
    """
    return {rollout.service: get_final_version(rollout) for rollout in newest if is_here(organization, rollout)}


def is_here(organization: Organization, rollout: Rollout) -> bool:
    place = (organization.cluster, organization.deployment_region)
    is_same_place = (rollout.upgrade.cluster, rollout.upgrade.region) == place
    return is_same_place and rollout.service_name.startswith(f"{organization.deployment_stack}-")


def get_final_version(rollout: Rollout) -> Recorded | None:
    if rollout.phase != Phase.DONE:
        return None
    digest, version = None, None
    if rollout.outcome in ADVANCED:
        digest, version = rollout.to_digest, rollout.to_version
    elif rollout.outcome in RESTORED:
        digest, version = rollout.from_digest, rollout.from_version
    is_draining = rollout.outcome == Outcome.COMPLETED_EARLY
    return Recorded(digest, version, rollout.upgrade.upgrade_id, is_draining)


def find_drift(
    digests: dict[str, int], *, pinned: str | None, recorded: Recorded | None, names: dict[str, str]
) -> Drift | None:
    """Return how the service has drifted, or None.

    `digests`: the number of running tasks by digest. `pinned`: the digest in the task definition, if it has one. `names`:
    the service's versions by digest.
    """
    if len(digests) > 1 and recorded and recorded.is_draining:
        return None
    if len(digests) > 1:
        counted = sorted(digests.items(), key=lambda each: (-each[1], each[0]))
        runs = ", ".join(f"{count} of {format_digest(digest, names)}" for digest, count in counted)
        return Drift(
            f"Its tasks run {len(digests)} different images: {runs}.",
            "Requests reach different versions. A tag moved while tasks were replaced, or a deployment stopped halfway.",
            "Upgrade it to the version you want so that all tasks run the same image.",
        )
    running = next(iter(digests), None)
    if running is None:
        return None
    if pinned and running != pinned:
        return Drift(
            f"Its tasks run {format_digest(running, names)}, but its task definition names {format_digest(pinned, names)}.",
            "A deployment of that task definition did not finish and was not rolled back. The next task that ECS starts "
            "will run the other image.",
            "Check the service in ECS, then upgrade it to the version you want.",
            choose_exact_version(names.get(pinned), pinned),
        )
    if recorded and recorded.digest and running != recorded.digest:
        left = format_digest(recorded.digest, {recorded.digest: recorded.version} if recorded.version else {})
        return Drift(
            f"It runs {format_digest(running, names)}, but {recorded.upgrade_id} left it on {left}.",
            "It was deployed outside the portal, or a tag was moved and tasks were replaced since then.",
            "If this was intended, upgrade it to the version it runs so that the record matches. If not, upgrade it to "
            f"{recorded.version or 'the version you want'}.",
            choose_exact_version(recorded.version, recorded.digest),
        )
    return None


def format_digest(digest: str, names: dict[str, str]) -> str:
    """Return the version followed by its short digest."""
    known = names.get(digest)
    return (
        f"{known} ({shorten_digest(digest)})" if known and known != shorten_digest(digest) else shorten_digest(digest)
    )
