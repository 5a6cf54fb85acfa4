"""The rows of the history's CSV file (portal/web/csv.py), one for each upgrade. Contains no rules and no filters."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Prefetch, QuerySet

from portal.web.csv import MAX_ROWS
from upgrades.models import Rollout, Upgrade
from upgrades.states import PlatformService

VERSIONS = ("from_version", "to_version")
HEADER = [
    "upgrade_id",
    "kind",
    "target",
    "services",
    "version",
    *(f"{service}_{name}".replace("-", "_") for service in PlatformService.values for name in VERSIONS),
    "status",
    "validation",
    "success_count",
    "failed_count",
    "initiated_by",
    "reason",
    "started_at",
    "completed_at",
    "seconds",
]
# Rows read in one batch, so that a file of MAX_ROWS and its rollouts are never all in memory.
CHUNK = 500


def history_rows(upgrades: QuerySet[Upgrade]) -> Iterator[list[Any]]:
    """Return the rows under HEADER, MAX_ROWS at most.

    `seconds` is the time from start to end; None if the upgrade has not ended.
    """
    lean = Prefetch("rollouts", Rollout.objects.only("upgrade", "service", *VERSIONS).order_by("position"))
    found = upgrades.prefetch_related(None).prefetch_related(lean)[:MAX_ROWS]
    return (build_row(upgrade) for upgrade in found.iterator(chunk_size=CHUNK))


def build_row(upgrade: Upgrade) -> list[Any]:
    rollouts = {rollout.service: rollout for rollout in upgrade.rollouts.all()}
    versions = [getattr(rollouts.get(service), name, None) for service in PlatformService.values for name in VERSIONS]
    lasted = upgrade.completed_at - upgrade.started_at if upgrade.started_at and upgrade.completed_at else None
    return [
        upgrade.upgrade_id,
        upgrade.kind,
        upgrade.target,
        " ".join(rollouts),
        upgrade.version,
        *versions,
        upgrade.status,
        upgrade.validation,
        upgrade.success_count,
        upgrade.failed_count,
        upgrade.initiated_by_email,
        upgrade.reason,
        upgrade.started_at,
        upgrade.completed_at,
        round(lasted.total_seconds()) if lasted else None,
    ]
