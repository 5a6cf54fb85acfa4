"""Previews what an upgrade or rollback would change in one service: image, size, environment, CPU and memory.

Only names of environment variables are shown, never values: people who may see an upgrade need not know its secrets.
"""

import logging
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

logger = logging.getLogger(__name__)

CACHE_SECONDS = 60


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

    `wanted`: the result of resolve(), or for a rollback the ARN of the task definition. `reading`: what runs now, if the
    caller has it.
    *Costs* one query and four AWS calls; the result is cached for KEPT_SECONDS. Waits at most LONGEST_WAIT_SECONDS.
    """
    reading = reading or read_running_services(organization)
    now = next((row for row in reading.services if row.service == service), None) if reading else None
    if now is None or now.task_definition is None:
        return Diff(service, error=(reading.error if reading else None) or "the running version is not known")
    requested_image = requested if isinstance(requested, str) else requested.image or now.task_definition
    key = soft_cache.build_key("diff", organization.pk, now.task_definition, now.digest, requested_image)
    kept = soft_cache.read_as(key, build_from_cache)
    if kept is not None:
        return kept
    target = organization.aws_target
    question = partial(ask, target, now, requested, read_recorded_names(organization))
    try:
        diff = call_shared(target, "ecs:DescribeTaskDefinition", key, question, seconds=LONGEST_WAIT_SECONDS)
    except AwsError as error:
        logger.info("diff of %s of %s not read: %s", service, organization.slug, error)
        return Diff(service, error=summarize_error(error))
    soft_cache.write(key, asdict(diff), seconds=CACHE_SECONDS)
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
    old, new = get_environment(before.content), get_environment(after.content)
    return Diff(
        now.service,
        build_side(target, now, before, get_own_image(before, now.service), names, digest=now.digest, arn=before.arn),
        build_side(target, now, after, image, names, digest=now.digest if image == now.image else None, arn=arn),
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
