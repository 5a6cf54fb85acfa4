"""The versions in the Amazon ECR repository of an agent's image, cached for a minute. All viewers share one read."""

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.utils import timezone

from portal import soft_cache
from portal.aws import ecr
from portal.aws.bulkhead import call_shared
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsError, summarize_error
from portal.models import Organization

CACHE_SECONDS = 60
# Images kept of a repository, the newest ones.
IMAGES_KEPT = 200


@dataclass(frozen=True)
class Version:
    """A tag of the repository, the image that it names now, and that image's other tags."""

    name: str
    image: str
    digest: str
    pushed_at: datetime | None
    size_bytes: int | None
    other_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """The versions of one repository, newest first. `error` says why there are none, or not all."""

    repository: str
    versions: list[Version]
    read_at: datetime | None = None
    error: str | None = None


def read_versions(organization: Organization, image: str) -> Registry:
    """Return the tagged images of the image's repository. An AWS error is not raised but returned as `error`.

    *Costs* one read of ECR; none while the cached one is fresh.
    """
    reference = ecr.parse_image(image)
    repository = ecr.ecr_repository(reference)
    if repository is None:
        return Registry(reference.repository, [], error="Only the versions in Amazon ECR can be listed.")
    target = organization.aws_target
    key = soft_cache.build_key("agent-versions", organization.pk, reference.repository)
    kept = soft_cache.read_as(key, build_registry)
    if kept is not None:
        return kept
    try:
        read = partial(read_and_cache, key, target, repository, reference.repository)
        return call_shared(target, "ecr:DescribeImages", key, read)
    except AwsError as error:
        return Registry(reference.repository, [], error=f"Amazon ECR could not be read: {summarize_error(error)}")


def read_and_cache(key: str, target: AwsTarget, repository: ecr.Repository, name: str) -> Registry:
    """Read the repository and cache it, even if the caller no longer waits. *Raises* AwsError."""
    reading = ecr.list_images(target, repository)
    tagged = [image for image in reading.images if image.tags]
    is_whole = reading.is_complete and len(tagged) <= IMAGES_KEPT
    error = None if is_whole else f"The repository has more images. Here are the newest {IMAGES_KEPT}."
    versions = [build_version(name, image) for image in tagged[:IMAGES_KEPT]]
    registry = Registry(name, versions, read_at=timezone.now(), error=error)
    soft_cache.write(key, asdict(registry), seconds=CACHE_SECONDS)
    return registry


def build_version(repository: str, image: ecr.Image) -> Version:
    """Return the version by the image's best tag: the longest one, because `v1.4.0` says more than `latest` or `v1`.

    A tag that moves, such as `latest`, is the name only of an image without another one.
    """
    name, *others = sorted(image.tags, key=lambda tag: (tag == "latest", -len(tag), tag))
    address = f"{repository}:{name}"
    return Version(name, address, image.digest, image.pushed_at, image.size_bytes, tuple(others))


def build_registry(kept: dict[str, Any]) -> Registry:
    """Build the reading from its cached fields."""
    return Registry(**kept | {"versions": [Version(**each) for each in kept["versions"]]})
