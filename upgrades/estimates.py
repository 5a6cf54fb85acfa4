"""How long an upgrade will take, from this organization's own past rollouts and nothing else."""

from statistics import median

from portal.models import Organization
from upgrades.models import Rollout
from upgrades.states import Outcome

PAST_ROLLOUTS = 20
BEFORE_ANY = "2-5 minutes"


def estimate_seconds(organization: Organization, services: list[str]) -> int | None:
    """The sum over the services of their median past duration; None when one of them has no past. One query a service."""
    total = 0.0
    for service in services:
        past = Rollout.objects.filter(
            organization=organization, service=service, outcome=Outcome.COMPLETED, started_at__isnull=False
        ).order_by("-completed_at", "-id")[:PAST_ROLLOUTS]
        durations = [
            (rollout.completed_at - rollout.started_at).total_seconds()
            for rollout in past
            if rollout.completed_at and rollout.started_at
        ]
        if not durations:
            return None
        total += median(durations)
    return round(total)


def in_words(seconds: int | None) -> str:
    """
    >>> in_words(None), in_words(41), in_words(250)
    ('2-5 minutes', 'about 1 minute', 'about 4 minutes')
    """
    if seconds is None:
        return BEFORE_ANY
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} minute{'s' if minutes > 1 else ''}"
