"""A rollout's current and desired task definition, for the engine's first step (reconciler.start).

Every step here may be repeated. The only write is RegisterTaskDefinition. If its reply was lost, the revision is found
by its content.
"""

import logging
from dataclasses import dataclass

from portal.aws import ecs
from portal.aws.ecr import parse_image
from portal.aws.errors import AwsRefused
from portal.aws.revisions import is_same, read_revision, register_revision
from upgrades.engine.lease import Claim
from upgrades.engine.observe import read_digests
from upgrades.inventory.images import (
    LATEST,
    RegistryLimited,
    VersionMissing,
    Wanted,
    look_up,
    own_container,
    own_image,
    recorded_names,
    version_of,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Now:
    """What the service runs.

    `digests`: the digests of its running tasks, empty if not known. `digest`: the one that all of them run.
    `has_ended_well`: ECS has finished deploying the service's task definition. Until then ECS may be about to replace
    the running tasks, so they prove nothing.
    """

    version: str | None
    digests: set[str]
    has_ended_well: bool

    @property
    def digest(self) -> str | None:
        return next(iter(self.digests)) if len(self.digests) == 1 else None


@dataclass(frozen=True)
class Goal:
    """What the service should run: an existing task definition, or the current one with `image` in it.

    `is_no_change`: the newest deployment rolled exactly that and ended well.
    """

    version: str | None
    digest: str | None
    is_no_change: bool
    task_definition: str | None = None
    image: str | None = None


def named(claim: Claim, definition: ecs.TaskDefinition) -> str | None:
    """Return the version name of a task definition's image, if it has one."""
    rollout = claim.rollout
    image = own_image(definition.images, rollout.service)
    claim.renew()
    names = recorded_names(rollout.organization)
    return version_of(rollout.upgrade.aws_target, image, rollout.service, names=names)


def what_runs(claim: Claim, service: ecs.Service, definition: ecs.TaskDefinition) -> Now:
    """Return what the service runs, from its running tasks.

    If the tasks cannot be read, use the digest in the task definition, if it has one.
    """
    digests = read_digests(claim, definition) or pinned_by(claim, definition)
    return Now(named(claim, definition), digests, service.has_ended_well)


def pinned_by(claim: Claim, definition: ecs.TaskDefinition) -> set[str]:
    image = own_image(definition.images, claim.rollout.service)
    digest = parse_image(image).digest if image else None
    return {digest} if digest else set()


def what_is_wanted(claim: Claim, definition: ecs.TaskDefinition, now: Now) -> Goal:
    """Return what the service should run: decided at the trigger, or now (see images.Wanted).

    Raises VersionMissing, and AwsUnavailable if the registry does not answer now.
    """
    rollout = claim.rollout
    target = rollout.upgrade.aws_target
    if rollout.wanted_task_definition:
        claim.renew()
        earlier = ecs.describe_task_definition(target, rollout.wanted_task_definition)
        version = rollout.wanted_version or named(claim, earlier)
        digest = next(iter(pinned_by(claim, earlier)), None)
        is_there = now.has_ended_well and earlier.arn == definition.arn
        return Goal(version, digest, is_there, task_definition=earlier.arn)
    image = own_image(definition.images, rollout.service)
    wanted = Wanted(rollout.wanted_version, rollout.wanted_image)
    if wanted.image is None and wanted.version is not None:
        try:
            wanted = look_up(target, image, rollout.service, wanted.version, before_call=claim.renew)
        except RegistryLimited as error:
            if wanted.version != LATEST:
                raise VersionMissing(str(error)) from error
            wanted = Wanted(None)
    if wanted.image is None:
        digest = now.digest if pinned_by(claim, definition) else None
        return Goal(now.version, digest, is_no_change=now.has_ended_well)
    digest = parse_image(wanted.image).digest
    # If the digests of the tasks are not known, compare the version names.
    is_there = now.digests == {digest} if now.digests else now.version == wanted.version
    is_there = is_there and pinned_by(claim, definition) <= {digest}
    return Goal(wanted.version, digest, now.has_ended_well and is_there, image=wanted.image)


def revision_for(claim: Claim, definition: ecs.TaskDefinition, goal: Goal) -> str:
    """Return the ARN to roll to: an existing revision, or a new one that differs only in the service's image.

    A revision left by a killed worker or a lost reply is the family's newest one and is used again.

    Costs at most three AWS calls.
    """
    rollout = claim.rollout
    target = rollout.upgrade.aws_target
    if goal.image is None:
        return goal.task_definition or definition.arn
    claim.renew()
    present = read_revision(target, definition.arn)
    container = own_container(definition.images, rollout.service)
    if present is None or container is None:
        why = f"{definition.arn} cannot be read as a whole"
        raise AwsRefused("ClientException", action="ecs:DescribeTaskDefinition", why=why)
    content = present.with_image(container, goal.image)
    if is_same(content, present.content):
        return present.arn
    claim.renew()
    newest = read_revision(target, present.family)
    if newest is not None and is_same(content, newest.content):
        return newest.arn
    claim.renew()
    arn = register_revision(target, content, before_call=claim.renew)
    logger.info("rollout %s registered %s", rollout.pk, arn)
    return arn
