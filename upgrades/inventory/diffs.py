"""What an upgrade or rollback would change in one service, or has changed: image, size, environment, CPU and memory.

Only names of environment variables are shown, never values: people who may see an upgrade need not know its secrets.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from portal import soft_cache
from portal.aws import ecr
from portal.aws.bulkhead import call_shared
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsError, AwsRefused, summarize_error
from portal.aws.revisions import Revision, read_revision
from portal.models import Organization
from portal.templatetags.formatting import last_part
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.images import (
    Names,
    RegistryLimited,
    RequestedImage,
    find_version,
    locate,
    own_image,
    read_recorded_names,
)
from upgrades.inventory.running import LONGEST_WAIT_SECONDS, Reading, read_running_services
from upgrades.models import Rollout

logger = logging.getLogger(__name__)

CACHE_SECONDS, PAST_CACHE_SECONDS = 60, 24 * 60 * 60


@dataclass(frozen=True)
class Side:
    """A service as it is or as it would be. `size_bytes`: the compressed size that a task pulls, None if not known."""

    version: str | None
    image: str | None
    digest: str | None
    size_bytes: int | None
    cpu: str | None
    memory: str | None
    task_definition: str | None


@dataclass(frozen=True)
class Diff:
    """The differences of one service before and after a change.

    `added`, `removed`, `changed`: names of environment variables and secrets, over all containers.
    `after.task_definition`: None if a revision will be registered. `error`: why AWS could not be read; the other fields are
    then empty.
    """

    service: str
    before: Side | None = None
    after: Side | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    error: str | None = None

    @property
    def is_image_alone(self) -> bool:
        """Return whether only the service's image would differ."""
        if self.before is None or self.after is None:
            return False
        sizes = (self.before.cpu, self.before.memory) == (self.after.cpu, self.after.memory)
        return sizes and not (self.added or self.removed or self.changed)


def read_diff(
    organization: Organization,
    service: str,
    requested: RequestedImage | str,
    *,
    reading: Reading | None = None,
) -> Diff:
    """Return what would change in the service. AWS errors are returned in `error`, never raised.

    `requested`: the result of resolve(), or for a rollback the ARN of the task definition. `reading`: what runs now, if the
    caller has it.
    *Costs* one query and four AWS calls; the result is cached for CACHE_SECONDS. Waits at most LONGEST_WAIT_SECONDS.
    """
    reading = reading or read_running_services(organization)
    now = next((row for row in reading.services if row.service == service), None) if reading else None
    if now is None or now.task_definition is None:
        return Diff(service, error=(reading.error if reading else None) or "the running version is not known")
    requested_image = requested if isinstance(requested, str) else requested.image or now.task_definition
    key = soft_cache.build_key("diff", organization.pk, now.task_definition, now.digest, requested_image)
    question = partial(ask, organization.aws_target, now, requested, read_recorded_names(organization))
    return read_kept(organization, service, key, question, seconds=CACHE_SECONDS)


def read_past_diff(rollout: Rollout) -> Diff | None:
    """Return what the rollout has changed in its service, without sizes of images. None if both revisions are the same.

    *Costs* two AWS calls; the result is cached for a day, because a revision never changes. AWS errors as in read_diff.
    """
    revisions = rollout.previous_task_definition, rollout.task_definition
    if None in revisions or revisions[0] == revisions[1]:
        return None
    key = soft_cache.build_key("past-diff", rollout.organization_id, rollout.pk, *revisions)
    question = partial(ask_past, rollout.upgrade.aws_target, rollout)
    return read_kept(rollout.organization, rollout.service, key, question, seconds=PAST_CACHE_SECONDS)


def read_kept(
    organization: Organization, service: str, key: str, question: Callable[[], Diff], *, seconds: int
) -> Diff:
    """Return the answer to the question, from the cache if it has one, else cached for so many seconds."""
    kept = soft_cache.read_as(key, build_from_cache)
    if kept is not None:
        return kept
    try:
        diff = call_shared(
            organization.aws_target, "ecs:DescribeTaskDefinition", key, question, seconds=LONGEST_WAIT_SECONDS
        )
    except AwsError as error:
        logger.info("diff of %s of %s not read: %s", service, organization.slug, error)
        return Diff(service, error=summarize_error(error))
    soft_cache.write(key, asdict(diff), seconds=seconds)
    return diff


def read_diffs(
    organization: Organization, requested: dict[str, RequestedImage | str], *, reading: Reading | None = None
) -> dict[str, Diff]:
    """Return the diffs by service, up to the first that cannot be read, so that a page waits for one failure only."""
    diffs: dict[str, Diff] = {}
    for service, requested_image in requested.items():
        diffs[service] = read_diff(organization, service, requested_image, reading=reading)
        if diffs[service].error:
            break
    return diffs


def build_from_cache(kept: dict[str, Any]) -> Diff:
    """Rebuild a Diff from the result of asdict()."""
    return Diff(**{**kept, "before": Side(**kept["before"]), "after": Side(**kept["after"])})


def ask(target: AwsTarget, now: RunningService, requested: RequestedImage | str, names: Names) -> Diff:
    """Read both task definitions and compare them. Makes no query. *Raises* AwsError."""
    before = read(target, str(now.task_definition))
    arn: str | None
    if isinstance(requested, str):
        after, arn = read(target, requested), requested
        image = get_own_image(after, now.service)
    else:
        after, arn = before, now.task_definition if requested.image is None else None
        image = requested.image or get_own_image(before, now.service)
    return compare(
        now.service,
        build_side(target, now, before, get_own_image(before, now.service), names, digest=now.digest, arn=before.arn),
        build_side(target, now, after, image, names, digest=now.digest if image == now.image else None, arn=arn),
        before,
        after,
    )


def ask_past(target: AwsTarget, rollout: Rollout) -> Diff:
    """Read the revisions that the rollout left and that it rolled out. Makes no query. *Raises* AwsError."""
    before = read(target, str(rollout.previous_task_definition))
    after = read(target, str(rollout.task_definition))
    return compare(
        rollout.service,
        build_past_side(before, rollout.service, rollout.from_version, rollout.from_digest),
        build_past_side(after, rollout.service, rollout.to_version, rollout.to_digest),
        before,
        after,
    )


def build_past_side(revision: Revision, service: str, version: str | None, digest: str | None) -> Side:
    image = get_own_image(revision, service)
    reference = ecr.parse_image(image) if image else None
    return Side(
        version=version,
        image=image,
        digest=digest or (reference.digest if reference else None),
        size_bytes=None,
        cpu=revision.content.get("cpu"),
        memory=revision.content.get("memory"),
        task_definition=revision.arn,
    )


def compare(service: str, before: Side, after: Side, old_revision: Revision, new_revision: Revision) -> Diff:
    old, new = get_environment(old_revision.content), get_environment(new_revision.content)
    return Diff(
        service,
        before,
        after,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
    )


def read(target: AwsTarget, arn: str) -> Revision:
    revision = read_revision(target, arn)
    if revision is None:
        raise AwsRefused("ClientException", action="ecs:DescribeTaskDefinition", why=f"there is no {last_part(arn)}")
    return revision


def get_own_image(revision: Revision, service: str) -> str | None:
    return own_image({each["name"]: each["image"] for each in revision.content["containerDefinitions"]}, service)


def get_environment(content: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    """Return, by variable name, each container that sets it and the value there."""
    found: dict[str, set[tuple[str, str]]] = {}
    for container in content["containerDefinitions"]:
        pairs = [(each.get("name", ""), each.get("value", "")) for each in container.get("environment", [])]
        pairs += [(each["name"], each["valueFrom"]) for each in container.get("secrets", [])]
        for name, value in pairs:
            found.setdefault(name, set()).add((container["name"], value))
    return found


def build_side(
    target: AwsTarget,
    now: RunningService,
    revision: Revision,
    image: str | None,
    names: Names,
    *,
    digest: str | None,
    arn: str | None,
) -> Side:
    """Return one side of the diff. The digest is that of `image`, else `digest`, else the one its tag points to now."""
    reference = ecr.parse_image(image) if image else None
    known = (reference.digest if reference else None) or digest
    found = read_size(target, image, now.service, known or (reference.tag if reference else None))
    return Side(
        version=find_version(target, image, now.service, names=names),
        image=image,
        digest=known or (found.digest if found else None),
        size_bytes=found.size_bytes if found else None,
        cpu=revision.content.get("cpu"),
        memory=revision.content.get("memory"),
        task_definition=arn,
    )


def read_size(target: AwsTarget, image: str | None, service: str, name: str | None) -> ecr.Image | None:
    """Return the image in ECR, or None if it cannot be read: a missing size must not fail the diff."""
    try:
        _, repository = locate(image, service)
        return ecr.find_image(target, repository, name) if name else None
    except (RegistryLimited, AwsError) as error:
        logger.info("image of %s not read: %s", service, error)
        return None
