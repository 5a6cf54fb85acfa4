"""Reads the services of an organization's platform from ECS and translates them. Makes no query.

running.py caches the result for all viewers.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from portal import soft_cache
from portal.aws import ecs
from portal.aws.ecr import parse_image
from portal.aws.errors import AwsError
from portal.models import Organization
from portal.templatetags.formatting import last_part
from portal.times import to_utc, utc
from upgrades.inventory.drift import Drift
from upgrades.inventory.images import (
    Names,
    RequestedImage,
    find_version,
    own_container,
    own_containers,
    own_image,
    running_digests,
)
from upgrades.models import Rollout
from upgrades.states import PlatformService, not_supported
from upgrades.verdicts import ROLLBACK_STATUSES, find_open_hook

logger = logging.getLogger(__name__)

CACHE_SECONDS = 24 * 60 * 60
DIGESTS_SECONDS, UNSETTLED_DIGESTS_SECONDS = 60, 5
ENDED = frozenset({"SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"})


@dataclass(frozen=True)
class UnderWay:
    """The deployment that ECS carries out now.

    `deployment`: the last part of its ARN, or its `ecs-svc/..` id. `stage`: None for ROLLING, and while ECS rolls back.
    `hook` and `hook_expires_at`: the status of the hook that ECS waits for, and until when.
    """

    deployment: str
    status: str
    stage: str | None = None
    hook: str | None = None
    hook_expires_at: str | None = None

    @property
    def is_rolling_back(self) -> bool:
        return self.status in ROLLBACK_STATUSES

    def __str__(self) -> str:
        return self.describe()

    def describe(self, in_zone: Callable[[datetime], datetime] = to_utc) -> str:
        """Return what it does, as a clause."""
        at = f" at {self.stage}" if self.stage else ""
        expires_at = self.hook_expires_at and in_zone(datetime.fromisoformat(self.hook_expires_at))
        until = f" until {expires_at:%Y-%m-%d %H:%M %Z}" if expires_at else ""
        if self.is_rolling_back:
            return f"ECS rolls the deployment {self.deployment} back"
        if self.hook == "AWAITING_ACTION":
            return f"the deployment {self.deployment} waits for a decision{at}{until}"
        if self.hook:
            return f"the deployment {self.deployment} waits for a hook{at}{until}"
        if self.stage == "BAKE_TIME":
            return f"the deployment {self.deployment} serves all traffic and bakes"
        return f"the deployment {self.deployment} is in progress{at}"


@dataclass(frozen=True)
class RunningService:
    """One platform service as ECS reports it, with what the portal recorded of it.

    `state`: steady, rolling (see `under_way`), failed (its deployment failed and ECS left it so), draining (its deployment
    has completed, but `draining_count` earlier tasks still run), degraded (fewer tasks than desired), disabled (a person
    set the desired count to 0), missing, not_supported (deployed by a `controller` other than ECS), unknown (ECS's reply
    lacks the member `left_out`).

    `containers`: the images, by container, that an upgrade moves (images.own_containers), the own one among them.

    `digests`: the number of running tasks by digest, empty if not known. `pinned`: the digest in the task definition, if it
    has one. `names`: the versions of these digests. `is_settled`: no deployment is in progress. `has_ended_well`: as in
    ecs.Service.
    """

    service: str
    label: str
    service_name: str
    state: str = "unknown"
    version: str | None = None
    container: str | None = None
    image: str | None = None
    containers: dict[str, str] = field(default_factory=dict)
    task_definition: str | None = None
    desired_count: int | None = None
    running_count: int | None = None
    pending_count: int | None = None
    draining_count: int = 0
    configuration: ecs.DeploymentConfiguration | None = None
    load_balancers: tuple[ecs.LoadBalancer, ...] = ()
    under_way: UnderWay | None = None
    is_daemon: bool = False
    controller: str | None = None
    left_out: str | None = None
    is_settled: bool = False
    has_ended_well: bool = False
    pinned: str | None = None
    digests: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    last_rollout: Rollout | None = None
    drift: Drift | None = None

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "RunningService":
        """Return the service of a dictionary made by `asdict`."""
        configuration, under_way = data["configuration"], data["under_way"]
        nested = {
            "configuration": ecs.DeploymentConfiguration.from_data(configuration) if configuration else None,
            "under_way": UnderWay(**under_way) if under_way else None,
            "load_balancers": tuple(ecs.LoadBalancer(**each) for each in data["load_balancers"]),
        }
        return cls(**data | nested)

    @property
    def has_no_instance(self) -> bool:
        """Return whether no container instance matches, so that ECS runs no task of a DAEMON service."""
        return self.is_daemon and self.desired_count == 0

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
        if len(set(self.containers.values())) > 1:
            return False
        if self.digests:
            return set(self.digests) == {requested.digest}
        return self.pinned == requested.digest if self.pinned else self.version == requested.version


def service_name(organization: Organization, service: str) -> str:
    return f"{organization.deployment_stack}-{service}-service"


def build_cache_key(organization: Organization) -> str:
    """Return the cache key. It contains cluster and stack, so a changed organization does not get the old reading."""
    place = (organization.deployment_region, organization.cluster, organization.deployment_stack)
    return soft_cache.build_key("platform", organization.pk, *place)


def build_unknown_services(organization: Organization) -> list[RunningService]:
    """Return the three services before ECS was read."""
    return [
        RunningService(service.value, service.label, service_name(organization, service)) for service in PlatformService
    ]


def describe_running_services(organization: Organization, cluster: str, recorded: Names) -> list[RunningService]:
    """Read the services from ECS. `recorded`: the versions by digest that past rollouts recorded.

    *Raises* AwsError.
    *Costs* one DescribeServices call, one DescribeServiceDeployments call if a deployment may be in progress, one
    DescribeTaskDefinition call for each new revision, and one ECR call for each pinned digest without a known version.
    """
    rows = build_unknown_services(organization)
    found = ecs.describe_services(organization.aws_target, cluster, [row.service_name for row in rows])
    current = read_current_deployments(organization, list(found.services.values()))
    return [translate_service(organization, row, found, recorded, current) for row in rows]


def read_current_deployments(
    organization: Organization, services: list[ecs.Service]
) -> dict[str, ecs.ServiceDeployment]:
    """Return the current service deployments, by ARN, of the services whose entries do not say all about them.

    *Costs* one AWS call if there are any. If ECS does not describe them, the services' entries must do.
    """
    unsure = [service for service in services if may_be_under_way(service)]
    arns = [service.current_service_deployment for service in unsure if service.current_service_deployment]
    try:
        return ecs.describe_service_deployments(organization.aws_target, arns) if arns else {}
    except AwsError as error:
        logger.info("service deployments of %s not read: %s", organization.slug, error)
        return {}


def may_be_under_way(service: ecs.Service) -> bool:
    """Return whether only its service deployment can prove that nothing is in progress."""
    return not service.is_foreign and not (service.has_rollout_state and is_settled(service))


def judge_under_way(service: ecs.Service, own: ecs.ServiceDeployment | None) -> UnderWay | None:
    """Return the deployment that ECS carries out. `own`: the service's current service deployment, None if not read."""
    newest = service.primary
    if own is not None and own.status not in ENDED:
        hook = find_open_hook(own)
        under_way = UnderWay(last_part(own.arn), own.status)
        if under_way.is_rolling_back:
            return under_way
        expires_at = utc(hook.expires_at) if hook and hook.expires_at else None
        return replace(
            under_way, stage=own.lifecycle_stage, hook=hook.status if hook else None, hook_expires_at=expires_at
        )
    if newest is None or "IN_PROGRESS" not in {entry.rollout_state for entry in service.deployments}:
        return None
    return UnderWay(newest.id, "ROLLBACK_IN_PROGRESS" if newest.is_rollback else "IN_PROGRESS")


def translate_service(
    organization: Organization,
    row: RunningService,
    found: ecs.ServicesReading,
    recorded: Names,
    deployments: dict[str, ecs.ServiceDeployment],
) -> RunningService:
    if row.service_name in found.left_out:
        return replace(row, left_out=found.left_out[row.service_name])
    live = found.services.get(row.service_name)
    if live is None:
        return replace(row, state="missing")
    current = deployments.get(live.current_service_deployment or "")
    under_way = judge_under_way(live, current)
    images: dict[str, str] = {}
    if live.task_definition is not None:
        images = read_task_definition(organization, live.task_definition).images
    image = own_image(images, row.service)
    return replace(
        row,
        state=get_state(live, under_way, current),
        version=find_version(organization.aws_target, image, row.service, names=recorded),
        container=own_container(images, row.service),
        image=image,
        containers=own_containers(images, row.service),
        pinned=parse_image(image).digest if image else None,
        is_settled=under_way is None and is_settled(live, current),
        has_ended_well=live.has_ended_well(current),
        task_definition=live.task_definition,
        desired_count=live.desired_count,
        running_count=live.running_count,
        pending_count=live.pending_count,
        draining_count=live.draining_count,
        configuration=None if live.is_foreign else live.configuration,
        load_balancers=live.load_balancers,
        under_way=under_way,
        is_daemon=live.is_daemon,
        controller=live.controller,
    )


def get_state(live: ecs.Service, under_way: UnderWay | None, current: ecs.ServiceDeployment | None) -> str:
    if live.is_foreign:
        return "not_supported"
    if live.is_switched_off:
        return "disabled"
    if under_way is None and live.draining_count:
        return "draining"
    if under_way or not is_settled(live, current):
        return "rolling"
    if has_failed(live, current):
        return "failed"
    return "steady" if live.running_count >= live.desired_count else "degraded"


def is_settled(live: ecs.Service, current: ecs.ServiceDeployment | None = None) -> bool:
    """Return whether no deployment is in progress: one that completed, or a failed one that ECS leaves as it is."""
    states = {entry.rollout_state for entry in live.deployments}
    is_one = len(live.deployments) == 1
    return not live.is_foreign and "IN_PROGRESS" not in states and (is_one or has_failed(live, current))


def has_failed(live: ecs.Service, current: ecs.ServiceDeployment | None) -> bool:
    """Return whether the newest deployment failed and ECS left it so. Without a rolloutState, `current` says it."""
    if live.has_rollout_state or current is None:
        return live.primary is not None and live.primary.rollout_state == "FAILED"
    return current.has_failed


def read_task_definition(organization: Organization, arn: str) -> ecs.TaskDefinition:
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


def add_digests(
    organization: Organization, cluster: str, rows: list[RunningService], recorded: Names
) -> list[RunningService]:
    """Add the digests that the running tasks run, and the versions of these digests.

    *Raises* AwsError.
    *Costs* two AWS calls for each service, cached while it does not change. One more for each digest without a known
    version.
    """
    return [
        add_service_digests(organization, cluster, row, recorded) if row.running_count and row.task_definition else row
        for row in rows
    ]


def add_service_digests(
    organization: Organization, cluster: str, row: RunningService, recorded: Names
) -> RunningService:
    arn = str(row.task_definition)
    seen = (row.service, arn, row.running_count, row.is_settled)
    key = soft_cache.build_key("running", build_cache_key(organization), *seen)
    digests: dict[str, int] | None = soft_cache.read(key)
    if digests is None:
        definition = read_task_definition(organization, arn)
        tasks = ecs.running_tasks(organization.aws_target, cluster, row.service_name)
        digests = running_digests(definition, tasks, row.service)
        soft_cache.write(key, digests, seconds=DIGESTS_SECONDS if row.is_settled else UNSETTLED_DIGESTS_SECONDS)
    names = {digest: find_digest_version(organization, row, digest, digests, recorded) for digest in digests}
    if row.pinned and row.version:
        names[row.pinned] = row.version
    return replace(row, digests=digests, names={digest: name for digest, name in names.items() if name})


def find_digest_version(
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
