"""The upgrades of the platform services as bands on charts (portal/web/observe/changes.py)."""

from datetime import datetime, timedelta

from django.db.models import Q
from django.urls import reverse

from portal.models import Organization
from portal.web.observe.changes import MOST, Change, Result
from upgrades.models import Upgrade, attach_rollouts
from upgrades.pages.results import upgrade_title
from upgrades.states import Outcome, Status

# An upgrade that began longer before the window is not looked for: so the search reads a bounded part of an index.
LONGEST = timedelta(days=1)
OUTCOMES = {Outcome.ROLLED_BACK: Result.ROLLED_BACK, Outcome.STOPPED_BY_USER: Result.STOPPED}
RESULTS = {Status.SUCCESS: Result.SUCCESS, Status.PARTIAL: Result.PARTIAL, Status.FAILED: Result.FAILED}


def list_changes(organization: Organization, since: datetime, until: datetime) -> list[Change]:
    """Return the newest upgrades that overlap the window. *Costs* two queries."""
    found = Upgrade.objects.filter(organization=organization, created_at__gte=since - LONGEST, created_at__lt=until)
    inside = found.filter(Q(completed_at__isnull=True) | Q(completed_at__gte=since))
    return [
        Change(
            judge_result(upgrade),
            upgrade_title(upgrade),
            reverse("upgrades:detail", args=[organization.slug, upgrade.upgrade_id]),
            upgrade.created_at,
            upgrade.completed_at,
        )
        for upgrade in attach_rollouts(inside.for_rows().newest_first()[:MOST])
    ]


def judge_result(upgrade: Upgrade) -> Result:
    """Return how it ended. An upgrade is rolled back if ECS restored each service that it began to roll."""
    if upgrade.status == Status.FAILED:
        ends = {each.outcome for each in upgrade.rollouts.all()} - {Outcome.NOT_ATTEMPTED}
        return next((result for outcome, result in OUTCOMES.items() if ends == {outcome}), Result.FAILED)
    return RESULTS.get(Status(upgrade.status), Result.RUNNING)
