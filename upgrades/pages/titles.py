"""The titles of upgrades for rows of the audit trail, which name them by id."""

from collections.abc import Iterable

from portal.database.together import attach
from portal.models import Organization
from portal.web.overview_rows import Rows
from upgrades.models import Rollout, Upgrade
from upgrades.pages.overview import take_recent
from upgrades.pages.results import upgrade_title


def find_titles(organization: Organization, subjects: Iterable[str], rows: Rows | None) -> dict[str, str]:
    """Return the titles of those subjects that are upgrades of the organization, by id.

    *Costs* one query; none with the `rows` of the overview, which has only the newest upgrades.
    """
    upgrades = read_upgrades(organization, subjects) if rows is None else take_recent(rows)
    return {upgrade.upgrade_id: upgrade_title(upgrade) for upgrade in upgrades}


def read_upgrades(organization: Organization, upgrade_ids: Iterable[str]) -> list[Upgrade]:
    """Return these upgrades with what a title needs."""
    named = Rollout.objects.filter(organization=organization, upgrade__upgrade_id__in=set(upgrade_ids))
    of_upgrade = (f"upgrade__{name}" for name in ("upgrade_id", "kind", "target", "version"))
    rollouts = list(named.select_related("upgrade").only("service", "to_version", *of_upgrade).order_by("position"))
    upgrades = list({rollout.upgrade_id: rollout.upgrade for rollout in rollouts}.values())
    attach(upgrades, "rollouts", rollouts)
    return upgrades
