"""What an organization's platform runs now, read from ECS for pages and versions; kept a few seconds for all viewers.

When ECS does not answer, the last reading is shown with its age and the reason; a page never hangs and never lies.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from django.core.cache import cache
from django.utils import timezone

from portal.aws import ecs
from portal.aws.errors import AwsError
from portal.models import Organization
from upgrades.looks import version_of
from upgrades.models import Rollout, Upgrade
from upgrades.states import OPEN, PlatformService

FRESH_SECONDS = 5
KEPT_SECONDS = 24 * 60 * 60


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
    """`error` is set when the newest attempt failed: then `services` are as of `read_at`, or unknown if that is None."""

    services: list[ServiceNow]
    read_at: datetime | None
    error: str | None = None

    def of(self, service: str) -> ServiceNow:
        return next(row for row in self.services if row.service == service)


def service_name(organization: Organization, service: str) -> str:
    return f"{organization.deployment_stack}-{service}-service"


def read_platform(organization: Organization) -> Reading | None:
    """The three services as they are now; None for an organization that names neither cluster nor stack.

    At most one DescribeServices call in FRESH_SECONDS, and one DescribeTaskDefinition for each that was never seen.
    """
    if organization.cluster is None:
        return None
    kept = recall(organization)
    if kept and kept.read_at and (timezone.now() - kept.read_at).total_seconds() < FRESH_SECONDS:
        return with_last_rollouts(organization, kept)
    try:
        reading = ask_ecs(organization, organization.cluster)
    except AwsError as error:
        old = kept or Reading([unknown(organization, service) for service in PlatformService], read_at=None)
        return with_last_rollouts(organization, replace(old, error=f"{error.action}: {error.message}"))
    keep(organization, reading)
    return with_last_rollouts(organization, reading)


def now_context(organization: Organization) -> dict[str, Any]:
    """What the live block of the overview shows: every open upgrade (services may roll side by side), and what runs."""
    open_upgrades = Upgrade.objects.filter(organization=organization, status__in=OPEN).for_record().newest_first()
    return {
        "organization": organization,
        "reading": read_platform(organization),
        "open_upgrades": list(open_upgrades),
    }


def recall(organization: Organization) -> Reading | None:
    """The last good reading. What another release of the portal kept in another shape counts as none."""
    kept = cache.get(cache_key(organization))
    try:
        return Reading([ServiceNow(**row) for row in kept["services"]], read_at=kept["read_at"]) if kept else None
    except (TypeError, KeyError):
        return None


def keep(organization: Organization, reading: Reading) -> None:
    rows = [asdict(row) for row in reading.services]
    cache.set(cache_key(organization), {"services": rows, "read_at": reading.read_at}, KEPT_SECONDS)


def cache_key(organization: Organization) -> str:
    return f"platform:{organization.pk}:{organization.deployment_region}:{organization.cluster}"


def ask_ecs(organization: Organization, cluster: str) -> Reading:
    """Raises AwsError."""
    names = {service: service_name(organization, service) for service in PlatformService}
    found = ecs.describe_services(organization.aws_target, cluster, list(names.values())).services
    rows = []
    for service, name in names.items():
        live = found.get(name)
        row = unknown(organization, service)
        rows.append(as_row(organization, row, live) if live else replace(row, state="missing"))
    return Reading(rows, read_at=timezone.now())


def as_row(organization: Organization, row: ServiceNow, live: ecs.Service) -> ServiceNow:
    definition = task_definition(organization, live.task_definition)
    return replace(
        row,
        state=state_of(live),
        version=version_of(definition, row.service),
        image=definition.images.get(row.service) or next(iter(definition.images.values()), None),
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
    kept = cache.get(f"task-definition:{arn}")
    if kept is None:
        kept = asdict(ecs.describe_task_definition(organization.aws_target, arn))
        cache.set(f"task-definition:{arn}", kept, KEPT_SECONDS)
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
