"""What an organization's platform runs now, read from ECS for pages and versions; kept a few seconds for all viewers.

When ECS does not answer, the last reading is shown with its age and the reason; a page never hangs and never lies.
"""

import logging
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from django.utils import timezone

from portal import memory
from portal.aws import ecs
from portal.aws.errors import AwsError
from portal.connection import within_time
from portal.models import Organization
from upgrades.images import Names, own_image, recorded_names, version_of
from upgrades.models import Rollout, Upgrade
from upgrades.states import OPEN, PlatformService

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5
# After a failure: a page that waits for an ECS that hangs holds one of the web's few threads.
FAILED_SECONDS = 15
# For all calls of one reading together, the role's assumption and the repetitions below included.
LONGEST_WAIT_SECONDS = 3
KEPT_SECONDS = 24 * 60 * 60
ASKED_BY_ANOTHER = "another request is asking ECS just now; look again in a few seconds"


@dataclass(frozen=True)
class ServiceNow:
    """`state`: steady, rolling, degraded (fewer run than should), disabled (desired 0), missing, unknown."""

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
    last_rollout: Rollout | None = None


@dataclass(frozen=True)
class Reading:
    """`error` is set when the newest attempt failed: then `services` are as of `read_at`, or unknown if that is None.

    It names the call and AWS's code; AWS's own text tells principals and accounts, and stands in the log alone.
    """

    services: list[ServiceNow]
    read_at: datetime | None
    tried_at: datetime | None = None
    error: str | None = None

    @property
    def is_recent(self) -> bool:
        """Nobody needs to ask again yet."""
        seconds = FAILED_SECONDS if self.error else FRESH_SECONDS
        return self.tried_at is not None and (timezone.now() - self.tried_at).total_seconds() < seconds


def service_name(organization: Organization, service: str) -> str:
    return f"{organization.deployment_stack}-{service}-service"


def read_platform(organization: Organization) -> Reading | None:
    """The three services as they are now; None for an organization that names neither cluster nor stack.

    At most one DescribeServices call in FRESH_SECONDS (after a failure FAILED_SECONDS), and one DescribeTaskDefinition
    for each that was never seen; waits LONGEST_WAIT_SECONDS at most. Two queries.
    """
    if organization.cluster is None:
        return None
    reading = recall(organization)
    if reading is None or not reading.is_recent:
        old = reading or Reading([unknown(organization, service) for service in PlatformService], read_at=None)
        reading = read_anew(organization, organization.cluster, old, recorded_names(organization))
    return with_last_rollouts(organization, reading)


def read_anew(organization: Organization, cluster: str, old: Reading, recorded: Names) -> Reading:
    """Ask ECS, one request at a time: the others get the old reading meanwhile. A failure is remembered too.

    Without the database, as the question is asked in a thread of its own. `recorded`: names of digests.
    """
    asking = f"asking:{cache_key(organization)}"
    if not memory.is_first(asking, seconds=2 * LONGEST_WAIT_SECONDS):
        return old if old.read_at or old.error else replace(old, error=ASKED_BY_ANOTHER)
    try:
        question = partial(ask_ecs, organization, cluster, recorded)
        reading = within_time(question, "ecs:DescribeServices", seconds=LONGEST_WAIT_SECONDS)
    except AwsError as error:
        logger.warning("platform of %s not read: %s", organization.slug, error)
        reading = replace(old, tried_at=timezone.now(), error=f"{error.action}: {error.code}")
    keep(organization, reading)
    memory.forget(asking)
    return reading


def now_context(organization: Organization) -> dict[str, Any]:
    """What the live block of the overview shows: every open upgrade (services may roll side by side), and what runs."""
    open_upgrades = Upgrade.objects.filter(organization=organization, status__in=OPEN).for_record().newest_first()
    return {
        "organization": organization,
        "reading": read_platform(organization),
        "open_upgrades": list(open_upgrades),
    }


def recall(organization: Organization) -> Reading | None:
    """The last reading. What another release of the portal kept in another shape counts as none."""
    kept = memory.recall(cache_key(organization))
    try:
        return Reading(**{**kept, "services": [ServiceNow(**row) for row in kept["services"]]}) if kept else None
    except (TypeError, KeyError):
        return None


def keep(organization: Organization, reading: Reading) -> None:
    memory.remember(cache_key(organization), asdict(reading), seconds=KEPT_SECONDS)


def cache_key(organization: Organization) -> str:
    return f"platform:{organization.pk}:{organization.deployment_region}:{organization.cluster}"


def ask_ecs(organization: Organization, cluster: str, recorded: Names) -> Reading:
    """`recorded`: the versions of digests that past rollouts recorded. Raises AwsError."""
    names = {service: service_name(organization, service) for service in PlatformService}
    found = ecs.describe_services(organization.aws_target, cluster, list(names.values())).services
    rows = []
    for service, name in names.items():
        live = found.get(name)
        row = unknown(organization, service)
        rows.append(as_row(organization, row, live, recorded) if live else replace(row, state="missing"))
    return Reading(rows, read_at=timezone.now(), tried_at=timezone.now())


def as_row(organization: Organization, row: ServiceNow, live: ecs.Service, recorded: Names) -> ServiceNow:
    definition = task_definition(organization, live.task_definition)
    image = own_image(definition.images, row.service)
    return replace(
        row,
        state=state_of(live),
        version=version_of(organization.aws_target, image, row.service, names=recorded),
        image=image,
        task_definition=live.task_definition,
        desired_count=live.desired_count,
        running_count=live.running_count,
        pending_count=live.pending_count,
    )


def state_of(live: ecs.Service) -> str:
    if live.desired_count == 0:
        return "disabled"
    if len(live.deployments) > 1 or any(entry.rollout_state == "IN_PROGRESS" for entry in live.deployments):
        return "rolling"
    return "steady" if live.running_count >= live.desired_count else "degraded"


def task_definition(organization: Organization, arn: str) -> ecs.TaskDefinition:
    """A revision never changes, so it is asked for once. The ARN names its account, so no tenant meets another's."""
    kept = memory.recall(f"task-definition:{arn}")
    if kept is None:
        kept = asdict(ecs.describe_task_definition(organization.aws_target, arn))
        memory.remember(f"task-definition:{arn}", kept, seconds=KEPT_SECONDS)
    return ecs.TaskDefinition(**kept)


def unknown(organization: Organization, service: PlatformService) -> ServiceNow:
    return ServiceNow(service.value, service.label, service_name(organization, service))


def with_last_rollouts(organization: Organization, reading: Reading) -> Reading:
    """One query: the newest ended rollout of each service."""
    newest = {
        rollout.service: rollout
        for rollout in Rollout.objects.filter(organization=organization, completed_at__isnull=False)
        .exclude(outcome="not_attempted")
        .order_by("service", "-completed_at", "-id")
        .distinct("service")
        .select_related("upgrade")
    }
    return replace(reading, services=[replace(row, last_rollout=newest.get(row.service)) for row in reading.services])
