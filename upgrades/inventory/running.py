"""Reads from ECS what an organization's platform runs now. The reading is cached for a few seconds for all viewers.

If ECS does not answer, the last reading is shown with its age and the reason, so a page neither hangs nor shows old data as
current.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from django.utils import timezone

from portal import soft_cache
from portal.aws import ecs
from portal.aws.deadline import call_with_deadline
from portal.aws.ecr import parse_image
from portal.aws.errors import AwsError, AwsUnavailable
from portal.models import Organization
from upgrades.inventory.drift import Drift, Recorded, find_drift, find_recorded
from upgrades.inventory.images import (
    Names,
    RequestedImage,
    find_version,
    own_image,
    read_recorded_names,
    running_digests,
)
from upgrades.models import Rollout, Upgrade
from upgrades.states import OPEN, PlatformService, not_supported

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5
# After a failure, the next read waits longer: a page that waits for a hanging ECS holds one of the few web threads.
FAILED_SECONDS = 15
# For all calls of one reading together, including AssumeRole and retries.
LONGEST_WAIT_SECONDS = 3
LEAST_WAIT_SECONDS = 0.5
CACHE_SECONDS = 24 * 60 * 60
TASKS_SECONDS = 60
ASKED_BY_ANOTHER = "another request is reading ECS now. Try again in a few seconds"


@dataclass(frozen=True)
class RunningService:
    """`state`: steady, rolling, failed (its deployment, and ECS left it so), degraded (fewer run than should), disabled
    (desired 0), missing, not_supported (another `controller` than ECS deploys it), unknown
    (`left_out`: the member without which ECS's reply says too little of it).

    `state`: steady, rolling, failed (its deployment failed and ECS left it so), degraded (fewer tasks than desired),
    disabled (desired count 0), missing, not_supported (deployed by a `controller` other than ECS), unknown.

    `digests`: the number of running tasks by digest, empty if not known. `pinned`: the digest in the task definition, if it
    has one. `names`: the versions of these digests. `is_settled`: no deployment is in progress.
    """

    service: str
    label: str
    service_name: str
    state: str = "unknown"
    version: str | None = None
    image: str | None = None
    task_definition: str | None = None
    desired_count: int | None = None
    running_count: int | None = None
    pending_count: int | None = None
    breaker_enabled: bool | None = None
    breaker_rolls_back: bool | None = None
    controller: str | None = None
    left_out: str | None = None
    is_settled: bool = False
    pinned: str | None = None
    digests: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    last_rollout: Rollout | None = None
    drift: Drift | None = None

    @property
    def not_supported(self) -> str | None:
        """Return why the portal cannot upgrade this service at all, None if it can."""
        return not_supported(str(self.controller)) if self.state == "not_supported" else None

    @property
    def digest(self) -> str | None:
        """Return the digest that all its tasks run. If tasks report none, return the one in the task definition."""
        if self.digests:
            return next(iter(self.digests)) if len(self.digests) == 1 else None
        return self.pinned

    def runs_already(self, requested: RequestedImage) -> bool:
        """Return whether an upgrade without force would change nothing. The engine checks again (engine/desired.py)."""
        if requested.image is None:
            return True
        if self.digests:
            return set(self.digests) == {requested.digest}
        return self.pinned == requested.digest if self.pinned else self.version == requested.version


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


def service_name(organization: Organization, service: str) -> str:
    return f"{organization.deployment_stack}-{service}-service"


def read_running_services(organization: Organization, *, fresh_seconds: float = FRESH_SECONDS) -> Reading | None:
    """Return the three services as they are now; None if the organization has neither cluster nor stack.

    *Costs* three queries. At most one DescribeServices call in `fresh_seconds` (FAILED_SECONDS after a failure), unless a
    rollout has ended since. One DescribeTaskDefinition call for each new revision. Waits at most LONGEST_WAIT_SECONDS.
    """
    if organization.cluster is None:
        return None
    newest = last_rollouts(organization)
    reading = read_cached(organization)
    if reading is None or not reading.is_recent(fresh_seconds) or ended_since(reading.tried_at, newest.values()):
        old = reading or Reading([unknown(organization, service) for service in PlatformService], read_at=None)
        reading = refresh_reading(organization, organization.cluster, old, read_recorded_names(organization))
    return with_last_rollouts(organization, reading, newest)


def refresh_reading(organization: Organization, cluster: str, old: Reading, recorded: Names) -> Reading:
    """Read ECS and cache the result. Only one request at a time does so; the others get the old reading.

    A failure is cached too. Makes no query, because the AWS calls run on their own thread. `recorded`: versions by digest.
    """
    asking = f"asking:{cache_key(organization)}"
    if not soft_cache.add(asking, seconds=2 * LONGEST_WAIT_SECONDS):
        return old if old.read_at or old.error else replace(old, error=ASKED_BY_ANOTHER)
    began = time.monotonic()
    try:
        question = partial(ask_ecs, organization, cluster, recorded)
        reading = call_with_deadline(question, "ecs:DescribeServices", seconds=LONGEST_WAIT_SECONDS)
        left = max(LEAST_WAIT_SECONDS, LONGEST_WAIT_SECONDS - (time.monotonic() - began))
        reading = with_digests(organization, cluster, reading, recorded, seconds=left)
    except AwsError as error:
        logger.warning("platform of %s not read: %s", organization.slug, error)
        said, is_refused = str(error), not isinstance(error, AwsUnavailable)
        reading = replace(old, tried_at=timezone.now(), error=said, is_refused=is_refused)
    write_cached(organization, reading)
    soft_cache.delete(asking)
    return reading


def with_digests(
    organization: Organization, cluster: str, reading: Reading, recorded: Names, *, seconds: float
) -> Reading:
    """Add what the running tasks run, if AWS answers within `seconds`. Otherwise keep the reading without it."""
    try:
        question = partial(ask_tasks, organization, cluster, reading.services, recorded)
        found = call_with_deadline(question, "ecs:DescribeTasks", seconds=seconds)
    except AwsError as error:
        logger.info("tasks of %s not read: %s", organization.slug, error)
        found = {}
    rows = [replace(row, **found.get(row.service, {})) for row in reading.services]
    return replace(reading, services=rows)


def ask_tasks(
    organization: Organization, cluster: str, rows: list[RunningService], recorded: Names
) -> dict[str, dict[str, Any]]:
    """Return `digests` and `names` of each service.

    *Raises* AwsError.
    *Costs* two AWS calls for each service, cached for TASKS_SECONDS while it does not change. One more for each digest
    without a known version.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not row.running_count or row.task_definition is None:
            continue
        seen = (row.service, row.task_definition, row.running_count, row.is_settled)
        key = soft_cache.build_key("running", cache_key(organization), *seen)
        digests: dict[str, int] | None = soft_cache.read(key)
        if digests is None:
            definition = task_definition(organization, row.task_definition)
            tasks = ecs.running_tasks(organization.aws_target, cluster, row.service_name)
            digests = running_digests(definition, tasks, row.service)
            soft_cache.write(key, digests, seconds=TASKS_SECONDS if row.is_settled else FRESH_SECONDS)
        names = {digest: find_version_name(organization, row, digest, digests, recorded) for digest in digests}
        if row.pinned and row.version:
            names[row.pinned] = row.version
        found[row.service] = {"digests": digests, "names": {digest: name for digest, name in names.items() if name}}
    return found


def find_version_name(
    organization: Organization, row: RunningService, digest: str, digests: dict[str, int], recorded: Names
) -> str | None:
    """Return the version of a running digest, None if not known.

    A tag may have moved since the tasks started. If all tasks run one image, the tag is taken as that image's version.
    """
    if row.image is None:
        return None
    if row.pinned is None and len(digests) == 1:
        return row.version
    exact = parse_image(row.image).pinned_to(digest)
    return find_version(organization.aws_target, exact, row.service, names=recorded)


def build_overview_context(organization: Organization) -> dict[str, Any]:
    """Return the context of the overview's live block: all open upgrades, which may run in parallel, and what runs."""
    open_upgrades = Upgrade.objects.filter(organization=organization, status__in=OPEN).for_record().newest_first()
    return {
        "organization": organization,
        "reading": read_running_services(organization),
        "open_upgrades": list(open_upgrades),
    }


def read_cached(organization: Organization) -> Reading | None:
    """Return the last reading, None if none is cached."""
    return soft_cache.read_as(
        cache_key(organization),
        lambda kept: Reading(**{**kept, "services": [RunningService(**row) for row in kept["services"]]}),
    )


def is_cached(organization: Organization) -> bool:
    """Return whether a reading is cached, however old."""
    return read_cached(organization) is not None


def write_cached(organization: Organization, reading: Reading) -> None:
    soft_cache.write(cache_key(organization), asdict(reading), seconds=CACHE_SECONDS)


def cache_key(organization: Organization) -> str:
    """Return the cache key. It contains cluster and stack, so a changed organization does not get the old reading."""
    place = (organization.deployment_region, organization.cluster, organization.deployment_stack)
    return soft_cache.build_key("platform", organization.pk, *place)


def ask_ecs(organization: Organization, cluster: str, recorded: Names) -> Reading:
    """Read the services from ECS. `recorded`: the versions by digest that past rollouts recorded. *Raises* AwsError."""
    names = {service: service_name(organization, service) for service in PlatformService}
    found = ecs.describe_services(organization.aws_target, cluster, list(names.values()))
    rows = []
    for service, name in names.items():
        live = found.services.get(name)
        row = unknown(organization, service)
        if name in found.left_out:
            rows.append(replace(row, left_out=found.left_out[name]))
            continue
        rows.append(as_row(organization, row, live, recorded) if live else replace(row, state="missing"))
    return Reading(rows, read_at=timezone.now(), tried_at=timezone.now())


def as_row(organization: Organization, row: RunningService, live: ecs.Service, recorded: Names) -> RunningService:
    image = None
    if live.task_definition is not None:
        image = own_image(task_definition(organization, live.task_definition).images, row.service)
    return replace(
        row,
        state=get_state(live),
        version=find_version(organization.aws_target, image, row.service, names=recorded),
        image=image,
        pinned=parse_image(image).digest if image else None,
        is_settled=is_settled(live),
        task_definition=live.task_definition,
        desired_count=live.desired_count,
        running_count=live.running_count,
        pending_count=live.pending_count,
        breaker_enabled=None if live.is_foreign else live.breaker_enabled,
        breaker_rolls_back=None if live.is_foreign else live.breaker_rolls_back,
        controller=live.controller,
    )


def get_state(live: ecs.Service) -> str:
    if live.is_foreign:
        return "not_supported"
    if live.desired_count == 0:
        return "disabled"
    if not is_settled(live):
        return "rolling"
    if live.primary is not None and live.primary.rollout_state == "FAILED":
        return "failed"
    return "steady" if live.running_count >= live.desired_count else "degraded"


def is_settled(live: ecs.Service) -> bool:
    """Return whether no deployment is in progress: one that completed, or a failed one that ECS leaves as it is."""
    states = {entry.rollout_state for entry in live.deployments}
    failed = live.primary is not None and live.primary.rollout_state == "FAILED"
    return not live.is_foreign and "IN_PROGRESS" not in states and (failed or len(live.deployments) == 1)


def task_definition(organization: Organization, arn: str) -> ecs.TaskDefinition:
    """Return a task definition, cached because a revision never changes.

    The ARN contains the account, so tenants never share an entry. `is_active` is not cached, because it changes and the
    previous release does not know the field.
    """
    key = f"task-definition:{arn}"
    kept = soft_cache.read_as(key, lambda kept: ecs.TaskDefinition(**kept))
    if kept is not None:
        return kept
    definition = ecs.describe_task_definition(organization.aws_target, arn)
    lasting = {name: value for name, value in asdict(definition).items() if name != "is_active"}
    soft_cache.write(key, lasting, seconds=CACHE_SECONDS)
    return definition


def unknown(organization: Organization, service: PlatformService) -> RunningService:
    return RunningService(service.value, service.label, service_name(organization, service))


def last_rollouts(organization: Organization) -> dict[str, Rollout]:
    """Return the newest ended rollout of each service that has one. *Costs* one query."""
    ended = (
        Rollout.objects.filter(organization=organization, completed_at__isnull=False)
        .exclude(outcome="not_attempted")
        .order_by("service", "-completed_at", "-id")
        .distinct("service")
        .select_related("upgrade")
    )
    return {rollout.service: rollout for rollout in ended}


def ended_since(moment: datetime | None, rollouts: Iterable[Rollout]) -> bool:
    """Return whether a rollout ended after `moment`, so that an ECS reading of that time does not show its result."""
    return moment is not None and any(each.completed_at is not None and each.completed_at > moment for each in rollouts)


def with_last_rollouts(organization: Organization, reading: Reading, newest: dict[str, Rollout]) -> Reading:
    """Add the newest ended rollout of each service, and its drift since then. *Costs* one query."""
    recorded = find_recorded(organization)
    rows = []
    for row in reading.services:
        last = newest.get(row.service)
        drift = None if last and ended_since(reading.read_at, [last]) else find_service_drift(row, recorded)
        rows.append(replace(row, last_rollout=last, drift=drift))
    return replace(reading, services=rows)


def find_service_drift(row: RunningService, recorded: dict[str, Recorded | None]) -> Drift | None:
    """Return the drift of a service, None while a deployment is in progress, by the portal or from outside."""
    under_way = row.service in recorded and recorded[row.service] is None
    if under_way or not row.is_settled:
        return None
    return find_drift(row.digests, pinned=row.pinned, recorded=recorded.get(row.service), names=row.names)
