"""What the live block of the overview shows now, as a statement that `get_page_organization` runs with its own."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from portal.cloudwatch.last_error import read_known_errors
from portal.database.statements import Given
from portal.database.together import write_constants
from portal.models import Organization
from portal.web.attention import list_sources
from upgrades.inventory.catalogue import find_newer_version
from upgrades.inventory.drift import select_recorded
from upgrades.inventory.logs import name_source
from upgrades.inventory.running import Reading, has_ended_since, select_ended
from upgrades.models import Rollout, newest_of_each
from upgrades.pages.attention import NO_FAILURE
from upgrades.pages.live_tag import TIME_LEFT_STEP
from upgrades.states import OPEN, EventKind, Phase, PlatformService, Status, Validation

# `last` and `recorded`: as the overview's rows (inventory/running.py).
OVERVIEW = """
WITH last (id, revision, ended_at, upgrade_id, upgrade_revision, upgrade_ended_at, service, status, outcome)
        AS MATERIALIZED ({last}),
    recorded (id, revision, upgrade_revision) AS ({recorded}),
    open_now (id, revision, created_at) AS MATERIALIZED (
        SELECT id, revision, created_at FROM deployment_upgrades
        WHERE organization_id = %(organization)s AND status IN ({open})
    )
SELECT concat_ws(' ',
    (SELECT string_agg(concat_ws(':', id, revision, upgrade_revision), ',' ORDER BY id) FROM last), '/',
    (SELECT string_agg(concat_ws(':', id, revision, upgrade_revision), ',' ORDER BY id) FROM recorded), '/',
    (SELECT string_agg(concat_ws(':', id, revision), ',' ORDER BY id) FROM open_now), '/',
    (
        SELECT string_agg(concat_ws(':', part.id, part.revision, (
            SELECT concat_ws(':', count(*), max(event.id)) FROM deployment_upgrade_events AS event
            WHERE event.rollout_id = part.id AND event.kind = '{ecs}'
        )), ',' ORDER BY part.id)
        FROM open_now JOIN deployment_upgrade_services AS part ON part.upgrade_id = open_now.id
    ), '/',
    (
        SELECT string_agg(concat_ws(':', part.id, part.revision), ',' ORDER BY part.id)
        FROM deployment_upgrade_checks AS part WHERE part.upgrade_id IN (
            SELECT upgrade.id FROM last JOIN deployment_upgrades AS upgrade ON upgrade.id = last.upgrade_id
            WHERE upgrade.validation IN ({unvalidated})
        )
    )
),
    ARRAY(SELECT ended_at FROM last ORDER BY id),
    ARRAY(SELECT upgrade_ended_at FROM last ORDER BY id),
    ARRAY(SELECT created_at FROM open_now ORDER BY id),
    EXISTS (
        SELECT FROM open_now JOIN deployment_upgrade_services AS part ON part.upgrade_id = open_now.id
        WHERE part.phase <> '{done}'
    ),
    ARRAY(
        SELECT json_build_array(id, ended_at)::text FROM last
        WHERE status = '{failed}' AND coalesce(outcome, '') NOT IN ({no_failure}) AND service NOT IN (
            SELECT part.service FROM open_now JOIN deployment_upgrade_services AS part ON part.upgrade_id = open_now.id
            WHERE part.phase <> '{done}'
        ) ORDER BY id
    ),
    ARRAY[{of_apps}]::text[]
"""
LAST = (
    *("pk", "revision", "completed_at", "upgrade__pk", "upgrade__revision", "upgrade__completed_at"),
    *("service", "status", "outcome"),
)
RECORDED = ("pk", "revision", "upgrade__revision")


class LiveOverview(NamedTuple):
    """The columns of OVERVIEW.

    `ends`: when the newest rollout of each service ended; `upgrade_ends`: when its upgrade did. `opened`: when the open
    upgrades began. `failed`: id and end of the newest rollouts that failed, if their services roll no more. `of_apps`: the
    column of each source of attention.
    """

    revisions: str
    ends: list[datetime]
    upgrade_ends: list[datetime | None]
    opened: list[datetime]
    is_rolling: bool
    failed: list[str]
    of_apps: list[str | None]

    def find_shown(self, organization: Organization, reading: Reading | None) -> tuple[object, ...] | None:
        """Return what decides the block, beside the person and the silent processes; None if it must be rendered.

        *Costs* up to three commands of Redis, and find_newer_version.
        """
        of_apps = [source.find_shown(value) for source, value in zip(list_sources(), self.of_apps, strict=True)]
        failed = [(name_source(key), datetime.fromisoformat(at)) for key, at in map(json.loads, self.failed)]
        lines = read_known_errors(failed) if reading else []
        if lines is None or any(each is None for each in of_apps):
            return None
        place = (organization.cluster, organization.deployment_region, organization.deployment_stack)
        return (place, self.revisions, *self.list_steps(), *lines, *of_apps, *self.find_reading(organization, reading))

    def find_reading(self, organization: Organization, reading: Reading | None) -> Iterator[object]:
        """Yield what the block shows of ECS and of the registry. The time of a reading without an error is a clock."""
        if reading is None:
            return
        yield reading.services
        yield reading.error and (reading.error, reading.read_at)
        yield reading.read_at is None
        yield [has_ended_since(reading.read_at, [at]) for at in self.ends]
        yield None if self.is_rolling else find_newer_version(organization, reading.services)

    def list_steps(self) -> Iterator[object]:
        """Yield what only changes with the time: the time left of open upgrades, and whether a validation is missing."""
        now, longest = timezone.now(), timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)
        yield [int((now - at).total_seconds() // TIME_LEFT_STEP) for at in self.opened]
        yield [at is not None and at + longest < now for at in self.upgrade_ends]


@cache
def live_overview() -> str:
    """Return the statement OVERVIEW."""
    own, services = Given("organization"), PlatformService.values
    return OVERVIEW.format(
        last=write_rows(newest_of_each(select_ended().values_list(*LAST), own, services)),
        recorded=write_rows(newest_of_each(select_recorded().values_list(*RECORDED), own, services)),
        open=write_words(OPEN),
        ecs=EventKind.ECS.value,
        unvalidated=write_words({Validation.NEEDED, Validation.FAILED}),
        done=Phase.DONE.value,
        failed=Status.FAILED.value,
        no_failure=write_words(NO_FAILURE),
        of_apps=", ".join(source.column for source in list_sources()),
    )


def write_rows(rows: QuerySet[Rollout, Any]) -> str:
    return write_constants(*rows.query.get_compiler(connection=connection).as_sql())


def write_words(words: set[str] | frozenset[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))
