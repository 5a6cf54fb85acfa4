"""Returns what an organization's platform runs now. The reading of ECS is cached for a few seconds for all viewers.

If ECS does not answer, the last reading is shown with its age and the reason, so a page neither hangs nor shows old data as
current.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from portal import soft_cache
from portal.aws.bulkhead import call_shared
from portal.aws.errors import AwsError, AwsUnavailable
from portal.database.statements import Given, Statement
from portal.database.together import Together
from portal.models import Organization
from upgrades.inventory.drift import Drift, Recorded, find_drift, get_recorded, select_recorded
from upgrades.inventory.ecs_services import (
    CACHE_SECONDS,
    RunningService,
    add_digests,
    build_cache_key,
    build_unknown_services,
    describe_running_services,
)
from upgrades.inventory.images import Names, read_recorded_names
from upgrades.models import Rollout, newest_of_each
from upgrades.states import PlatformService

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5
# After a failure, the next read waits longer: a page that waits for a hanging ECS holds one of the few web threads.
FAILED_SECONDS = 15
# For all calls of one reading together, including AssumeRole and retries.
LONGEST_WAIT_SECONDS = 3
LEAST_WAIT_SECONDS = 0.5
ASKED_BY_ANOTHER = "another request is reading ECS now. Try again in a few seconds"


@dataclass(frozen=True)
class Reading:
    """The services as last read.

    `error`: set when the newest attempt failed. `services` are then as of `read_at`, or unknown if that is None. `error`
    holds only the call and the AWS error code. AWS's own text names principals and accounts, so it is only logged.
    `is_refused`: AWS answered with a refusal (no such cluster, no permission). Otherwise AWS did not answer.
    """

    services: list[RunningService]
    read_at: datetime | None
    tried_at: datetime | None = None
    error: str | None = None
    is_refused: bool = False

    def is_recent(self, fresh_seconds: float) -> bool:
        """Return whether the reading is recent enough to be reused."""
        seconds = FAILED_SECONDS if self.error else fresh_seconds
        return self.tried_at is not None and (timezone.now() - self.tried_at).total_seconds() < seconds


def read_running_services(
    organization: Organization,
    *,
    fresh_seconds: float = FRESH_SECONDS,
    with_record: bool = True,
    record: Mapping[str, list[Any]] | None = None,
) -> Reading | None:
    """Return the three services as they are now; None if the organization has neither cluster nor stack.

    `with_record`: add what the portal recorded of each service: its last rollout and its drift. `record`: the rows of
    select_record, if the caller has them.

    *Costs* one query, and one more for a new reading. At most one DescribeServices call in
    `fresh_seconds` (FAILED_SECONDS after a failure), unless a rollout has ended since. One DescribeTaskDefinition call for
    each new revision. Waits at most LONGEST_WAIT_SECONDS.
    """
    if organization.cluster is None:
        return None
    if with_record:
        record = record or make_record().read(organization=organization.pk)
        ends = [rollout.completed_at for rollout in record["last_rollouts"]]
    else:
        ends = find_last_ends(organization)
    reading = read_services(organization, organization.cluster, ends, fresh_seconds=fresh_seconds)
    return add_record(organization, reading, record) if record else reading


def read_services(
    organization: Organization,
    cluster: str,
    ends: Iterable[datetime | None],
    *,
    fresh_seconds: float = FRESH_SECONDS,
) -> Reading:
    """Return what ECS runs, as `read_running_services` without the record. `ends`: when the newest rollouts ended.

    *Costs* one query for a new reading, and its AWS calls.
    """
    reading = read_cached(organization)
    if reading is not None and reading.is_recent(fresh_seconds) and not has_ended_since(reading.tried_at, ends):
        return reading
    old = reading or Reading(build_unknown_services(organization), read_at=None)
    return refresh_reading(organization, cluster, old, read_recorded_names(organization))


# The cached reading


def refresh_reading(organization: Organization, cluster: str, old: Reading, recorded: Names) -> Reading:
    """Read ECS and cache the result. Only one request at a time does so; the others get the old reading.

    A failure is cached too. Makes no query, because the AWS calls run on their own thread. `recorded`: versions by digest.
    """
    lock = f"asking:{build_cache_key(organization)}"
    if not soft_cache.add(lock, seconds=2 * LONGEST_WAIT_SECONDS):
        return old if old.read_at or old.error else replace(old, error=ASKED_BY_ANOTHER)
    reading = read_ecs(organization, cluster, old, recorded)
    soft_cache.write(build_cache_key(organization), asdict(reading), seconds=CACHE_SECONDS)
    soft_cache.delete(lock)
    return reading


def read_ecs(organization: Organization, cluster: str, old: Reading, recorded: Names) -> Reading:
    """Return a new reading, or the old one with the error of this attempt."""
    until = time.monotonic() + LONGEST_WAIT_SECONDS
    target, key = organization.aws_target, build_cache_key(organization)
    call = partial(describe_running_services, organization, cluster, recorded)
    try:
        rows = call_shared(target, "ecs:DescribeServices", key, call, seconds=LONGEST_WAIT_SECONDS)
    except AwsError as error:
        logger.warning("platform of %s not read: %s", organization.slug, error)
        is_refused = not isinstance(error, AwsUnavailable)
        return replace(old, tried_at=timezone.now(), error=str(error), is_refused=is_refused)
    now = timezone.now()
    # Without an answer about the tasks, the services are shown without their digests.
    call = partial(add_digests, organization, cluster, rows, recorded)
    try:
        left = max(LEAST_WAIT_SECONDS, until - time.monotonic())
        rows = call_shared(target, "ecs:DescribeTasks", key, call, seconds=left)
    except AwsError as error:
        logger.info("tasks of %s not read: %s", organization.slug, error)
    return Reading(rows, read_at=now, tried_at=now)


def read_cached(organization: Organization) -> Reading | None:
    """Return the last reading, None if none is cached."""
    return soft_cache.read_as(
        build_cache_key(organization),
        lambda kept: Reading(**{**kept, "services": [RunningService.from_data(row) for row in kept["services"]]}),
    )


def is_cached(organization: Organization) -> bool:
    """Return whether a reading is cached, however old."""
    return read_cached(organization) is not None


# What the portal recorded


def select_record() -> dict[str, QuerySet[Any]]:
    """Return the newest ended rollout of each service, and the newest that says what should run (drift.py)."""
    own, services = Given("organization"), PlatformService.values
    return {
        "last_rollouts": newest_of_each(select_ended().select_related("upgrade"), own, services),
        "recorded_rollouts": newest_of_each(select_recorded(), own, services),
    }


def select_ended() -> QuerySet[Rollout]:
    return Rollout.objects.attempted().filter(completed_at__isnull=False)


@cache
def make_record() -> Together:
    return Together(**select_record())


def find_last_ends(organization: Organization) -> list[datetime | None]:
    """Return when the newest rollouts of the services ended. *Costs* one query."""
    return [at for (at,) in make_last_ends().read(organization=organization.pk)]


@cache
def make_last_ends() -> Statement:
    ended = select_ended().values_list("completed_at")
    return Statement(newest_of_each(ended, Given("organization"), PlatformService.values))


def has_ended_since(moment: datetime | None, ends: Iterable[datetime | None]) -> bool:
    """Return whether a rollout ended after `moment`, so that an ECS reading of that time does not show its result."""
    return moment is not None and any(end is not None and end > moment for end in ends)


def add_record(organization: Organization, reading: Reading, record: Mapping[str, list[Any]]) -> Reading:
    """Add the newest ended rollout of each service, and its drift since then."""
    newest = {rollout.service: rollout for rollout in record["last_rollouts"]}
    recorded = get_recorded(organization, record["recorded_rollouts"])
    rows = []
    for row in reading.services:
        last = newest.get(row.service)
        drift = (
            None
            if last and has_ended_since(reading.read_at, [last.completed_at])
            else find_service_drift(row, recorded)
        )
        rows.append(replace(row, last_rollout=last, drift=drift))
    return replace(reading, services=rows)


def find_service_drift(row: RunningService, recorded: dict[str, Recorded | None]) -> Drift | None:
    """Return the drift of a service, None while a deployment is in progress, by the portal or from outside."""
    under_way = row.service in recorded and recorded[row.service] is None
    if under_way or not row.is_settled:
        return None
    return find_drift(row.digests, pinned=row.pinned, recorded=recorded.get(row.service), names=row.names)
