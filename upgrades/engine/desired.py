"""A rollout's current and desired task definition, for the engine's first step (start.py).

Every step here may be repeated. The only write is RegisterTaskDefinition. If its reply was lost, the revision is found
by its content.
"""

import logging
from dataclasses import dataclass

from portal.aws import ecs
from portal.aws.ecr import parse_image
from portal.aws.errors import AwsRefused
from portal.aws.revisions import is_same, read_revision, register_revision
from upgrades.engine.lease import RolloutLease
from upgrades.engine.observe import read_current_deployment, read_digests
from upgrades.inventory.images import (
    RegistryLimited,
    RequestedImage,
    VersionMissing,
    find_version,
    find_version_image,
    own_containers,
    own_image,
    read_recorded_names,
)
from upgrades.inventory.tags import LATEST

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningVersion:
    """What the service runs.

    `digests`: the digests of its running tasks, empty if not known. `digest`: the one that all of them run.
    `has_ended_well`: ECS has finished deploying the service's task definition. Until then ECS may be about to replace
    the running tasks, so they prove nothing. False if the upgrade is forced, because then it does not matter.
    """

    version: str | None
    digests: set[str]
    has_ended_well: bool

    @property
    def digest(self) -> str | None:
        return next(iter(self.digests)) if len(self.digests) == 1 else None


@dataclass(frozen=True)
class Desired:
    """What the service should run: an existing task definition, or the current one with `image` in it.

    `is_no_change`: the newest deployment rolled exactly that and ended well.
    """

    version: str | None
    digest: str | None
    is_no_change: bool
    task_definition: str | None = None
    image: str | None = None


def read_version(lease: RolloutLease, definition: ecs.TaskDefinition) -> str | None:
    """Return the version name of a task definition's image, if it has one."""
    rollout = lease.rollout
    image = own_image(definition.images, rollout.service)
    lease.renew()
    names = read_recorded_names(rollout.organization)
    return find_version(rollout.upgrade.aws_target, image, rollout.service, names=names)


def read_running_version(lease: RolloutLease, service: ecs.Service, definition: ecs.TaskDefinition) -> RunningVersion:
    """Return what the service runs, from its running tasks.

    If the tasks cannot be read, use the digest in the task definition, if it has one. A forced upgrade rolls in any case.
    """
    digests = read_digests(lease, definition) or get_pinned_digests(lease, definition)
    is_forced = lease.rollout.upgrade.force_new_deployment
    has_ended_well = not is_forced and service.has_ended_well(read_current_deployment(lease, service))
    return RunningVersion(read_version(lease, definition), digests, has_ended_well)


def get_pinned_digests(lease: RolloutLease, definition: ecs.TaskDefinition) -> set[str]:
    image = own_image(definition.images, lease.rollout.service)
    digest = parse_image(image).digest if image else None
    return {digest} if digest else set()


def find_desired(lease: RolloutLease, definition: ecs.TaskDefinition, running: RunningVersion) -> Desired:
    """Return what the service should run: decided at the trigger, or now (see images.Wanted).

    Raises VersionMissing, and AwsUnavailable if the registry does not answer now.
    """
    rollout = lease.rollout
    target = rollout.upgrade.aws_target
    if rollout.wanted_task_definition:
        lease.renew()
        earlier = ecs.describe_task_definition(target, rollout.wanted_task_definition)
        version = rollout.wanted_version or read_version(lease, earlier)
        digest = next(iter(get_pinned_digests(lease, earlier)), None)
        is_there = running.has_ended_well and earlier.arn == definition.arn
        return Desired(version, digest, is_there, task_definition=earlier.arn)
    image = own_image(definition.images, rollout.service)
    requested = RequestedImage(rollout.wanted_version, rollout.wanted_image)
    if requested.image is None and requested.version is not None:
        try:
            requested = find_version_image(target, image, rollout.service, requested.version, before_call=lease.renew)
        except RegistryLimited as error:
            if requested.version != LATEST:
                raise VersionMissing(str(error)) from error
            requested = RequestedImage(None)
    if requested.image is None:
        digest = running.digest if get_pinned_digests(lease, definition) else None
        return Desired(running.version, digest, is_no_change=running.has_ended_well)
    digest = parse_image(requested.image).digest
    # If the digests of the tasks are not known, compare the version names.
    is_there = running.digests == {digest} if running.digests else running.version == requested.version
    has_one_image = len(set(own_containers(definition.images, rollout.service).values())) == 1
    is_there = is_there and has_one_image and get_pinned_digests(lease, definition) <= {digest}
    return Desired(requested.version, digest, running.has_ended_well and is_there, image=requested.image)


def ensure_revision(lease: RolloutLease, definition: ecs.TaskDefinition, desired: Desired) -> str:
    """Return the ARN to roll to: an existing revision, or a new one that differs only in the service's image.

    A revision left by a killed worker or a lost reply is the family's newest one and is used again.

    Costs at most three AWS calls.
    """
    rollout = lease.rollout
    target = rollout.upgrade.aws_target
    if desired.image is None:
        return desired.task_definition or definition.arn
    lease.renew()
    present = read_revision(target, definition.arn)
    containers = own_containers(definition.images, rollout.service)
    if present is None or not containers:
        why = f"{definition.arn} cannot be read as a whole"
        raise AwsRefused("ClientException", action="ecs:DescribeTaskDefinition", why=why)
    content = present.with_image(containers, desired.image)
    if is_same(content, present.content):
        return present.arn
    lease.renew()
    newest = read_revision(target, present.family)
    if newest is not None and is_same(content, newest.content):
        return newest.arn
    lease.renew()
    arn = register_revision(target, content, before_call=lease.renew)
    logger.info("rollout %s registered %s", rollout.pk, arn)
    return arn
