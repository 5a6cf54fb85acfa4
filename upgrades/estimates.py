"""Estimates how long an upgrade takes and when a rollout has stalled, from only this organization's past rollouts."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from statistics import median

from django.conf import settings
from django.db.models import DurationField, ExpressionWrapper, F

from portal.database.statements import Given, Statement
from portal.models import Organization
from portal.templatetags.formatting import MINUTE, duration
from upgrades.models import Rollout, Upgrade, newest_of_each
from upgrades.states import Outcome, Phase, inline_label

PAST_ROLLOUTS = 20
# Statements kept in each process, by the services that they name.
SERVICES_KEPT = 20
# While one of these lasts, past rollouts say nothing about the time left.
UNPREDICTABLE = (Outcome.ROLLING_BACK, Outcome.WAITING_FOR_DECISION)
BEFORE_ANY = "2-5 minutes"
# The shortest stall limit, even for services that roll faster: starting one task can take this long.
SHORTEST_STALL_SECONDS = 60


def find_usual_seconds(organization: Organization, services: Iterable[str]) -> dict[str, float]:
    """Return the median duration in seconds of each service's newest completed rollouts.

    Services without a completed rollout are left out. Costs one query.
    """
    named = tuple(services)
    durations: dict[str, list[float]] = defaultdict(list)
    for service, seconds in make_durations(named).read(organization=organization.pk) if named else []:
        durations[service].append(seconds.total_seconds())
    return {service: median(seconds) for service, seconds in durations.items()}


@lru_cache(maxsize=SERVICES_KEPT)
def make_durations(services: tuple[str, ...]) -> Statement:
    took = ExpressionWrapper(F("completed_at") - F("started_at"), output_field=DurationField())
    past = Rollout.objects.rolled_out().annotate(took=took).values_list("service", "took")
    return Statement(newest_of_each(past, Given("organization"), services, PAST_ROLLOUTS))


def estimate_seconds(organization: Organization, services: list[str]) -> int | None:
    """Return the sum of the services' usual durations; None if one of them has no past rollout. Costs one query."""
    usual = find_usual_seconds(organization, services)
    return round(sum(usual.values())) if set(usual) == set(services) else None


def stall_seconds(organization: Organization, service: str) -> int | None:
    """Return after how many seconds without progress a rollout of the service counts as stalled.

    That is as long as a whole rollout usually takes; None if there is no past rollout. Costs one query.
    """
    usual = find_usual_seconds(organization, [service]).get(service)
    if usual is None:
        return None
    return min(max(round(usual), SHORTEST_STALL_SECONDS), settings.UPGRADE_STALL_SECONDS)


@dataclass(frozen=True)
class TimeLeft:
    """The estimated time left for an open upgrade.

    `longer_than`: the usual seconds of the current service, set if it has already taken longer. `seconds` is then the
    time left for the services after it. `unknown`: services without a past rollout; then there is no estimate. `basis`:
    where the estimate comes from.
    """

    seconds: int = 0
    longer_than: int | None = None
    service: str = ""
    unknown: tuple[str, ...] = ()
    basis: str = "past rollouts"

    def __str__(self) -> str:
        """Return the estimate as a sentence.

        >>> str(TimeLeft(125))
        'About 2 minutes left, based on past rollouts.'
        >>> str(TimeLeft(250, basis="the bake time"))
        'About 4 minutes left, based on the bake time.'
        >>> str(TimeLeft(20))
        'Less than a minute left, based on past rollouts.'
        >>> str(TimeLeft(longer_than=70, service="orchestrator"))
        'The orchestrator is taking longer than its usual 1 min 10 s.'
        >>> str(TimeLeft(250, longer_than=70, service="orchestrator"))
        'The orchestrator is taking longer than its usual 1 min 10 s. The rest takes about 4 minutes.'
        >>> str(TimeLeft(unknown=("agent service",)))
        'No estimate yet: no past rollout of agent service.'
        """
        if self.unknown:
            return f"No estimate yet: no past rollout of {' and '.join(self.unknown)}."
        if self.longer_than is not None:
            then = f" The rest takes {format_seconds(self.seconds)}." if self.seconds else ""
            return f"The {self.service} is taking longer than its usual {duration(self.longer_than)}.{then}"
        left = format_seconds(self.seconds) if self.seconds >= MINUTE else "less than a minute"
        return f"{left.capitalize()} left, based on {self.basis}."


def time_left(upgrade: Upgrade, *, now: datetime, usual: dict[str, float] | None = None) -> TimeLeft | None:
    """Return the estimated time left for an upgrade.

    `usual`: the result of find_usual_seconds for all services, if the caller has it.

    None if the upgrade has ended or a stop was requested, and while it stalls, waits for a decision, is overdue or rolls
    back. Costs at most one query.
    """
    if not upgrade.is_open or upgrade.stop_requested_at:
        return None
    left = [rollout for rollout in upgrade.rollouts.all() if not rollout.is_terminal]
    if any(rollout.is_stalled or rollout.is_overdue or rollout.outcome in UNPREDICTABLE for rollout in left):
        return None
    # A bake is as long as the deployment's own configuration says, whatever past rollouts took.
    bakes = {rollout.service: rollout.bake_ends_at for rollout in left if rollout.bake_ends_at}
    left = [rollout for rollout in left if rollout.service not in bakes]
    if usual is None:
        usual = find_usual_seconds(upgrade.organization, [rollout.service for rollout in left]) if left else {}
    unknown = tuple(inline_label(rollout.service) for rollout in left if rollout.service not in usual)
    if unknown:
        return TimeLeft(unknown=unknown)
    seconds, current = sum(max(0.0, (ends_at - now).total_seconds()) for ends_at in bakes.values()), None
    for rollout in left:
        expected = usual[rollout.service]
        passed = (now - rollout.started_at).total_seconds() if rollout.started_at else 0.0
        if rollout.phase != Phase.WAITING and passed > expected:
            current = rollout
        seconds += max(0.0, expected - passed)
    if current:
        return TimeLeft(round(seconds), round(usual[current.service]), inline_label(current.service))
    sources = ["the bake time"] * bool(bakes) + ["past rollouts"] * bool(left)
    return TimeLeft(round(seconds), basis=" and ".join(sources))


def format_seconds(seconds: int | None) -> str:
    """Return a duration in minutes as a phrase.

    >>> format_seconds(None), format_seconds(41), format_seconds(250)
    ('2-5 minutes', 'about 1 minute', 'about 4 minutes')
    """
    if seconds is None:
        return BEFORE_ANY
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} minute{'s' if minutes > 1 else ''}"
