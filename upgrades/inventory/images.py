"""Images of one platform service: which container is its own, which version it runs, which image a version means.

catalogue.py lists all versions and resolves a version for several services.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.db.models import Q

from portal import soft_cache
from portal.aws import ecr, ecs
from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsError, AwsRefused
from portal.models import Organization
from upgrades.inventory.parts import Parts, read_own_manifest, read_parts
from upgrades.inventory.tags import LATEST, choose_best_tag, choose_release, find_near, is_pre_release
from upgrades.models import Rollout, newest_of_each
from upgrades.states import PlatformService

logger = logging.getLogger(__name__)

NAMES_KEPT = 70  # of the newest rollouts of each service
# A tag may move to another image, so the name of a digest is cached for a limited time.
NAME_SECONDS, NAME_FAILED_SECONDS = 600, 60

# A hint must not cost the answer: a trigger waits only some seconds for three repositories.
PAGES_FOR_NEAR = 2

# Versions by service and digest.
Names = dict[tuple[str, str], str]
# An image, the name that people know it by, and why it is this one.
Found = tuple[ecr.Image, str | None, str | None]


@dataclass(frozen=True)
class RequestedImage:
    """The image that a rollout should run. `image` has the form `<repository>@sha256:..`.

    Without an image, `version` is resolved in the registry when the rollout starts. Without a version too, the rollout uses
    the image in the service's task definition, because the registry cannot be read. `note`: why it is this image, a
    sentence for the plan.
    """

    version: str | None
    image: str | None = None
    digest: str | None = None
    note: str | None = None


class RegistryLimited(Exception):
    """The registry of this image cannot list versions, and a retry would not help. The message says why."""


class VersionMissing(Exception):
    """The registry was read, but has no such version for the service. The message says so."""


def own_container(images: dict[str, str], service: str) -> str | None:
    """Return the name of the service's own container, as the platform's stacks name it; None if it is not certain.

    Other containers with the same image move with it (own_containers). The rest are sidecars, whose images do not matter.
    """
    names = [service, f"axonflow-{service}"]
    if service == PlatformService.CUSTOMER_PORTAL:
        names.append("portal")
    found = next((name for name in names if name in images), None)
    return found or (next(iter(images)) if len(images) == 1 else None)


def own_containers(images: dict[str, str], service: str) -> dict[str, str]:
    """Return the images, by container, of all containers that an upgrade moves; empty if the own one is not certain.

    These are the service's own container and all others with an image of the same repository, in whatever version: a task
    whose containers run two versions of one image was never tested.

    >>> own_containers({"agent": "r/agent:v2", "migrate": "r/agent:v1", "proxy": "r/proxy:v1"}, "agent")
    {'agent': 'r/agent:v2', 'migrate': 'r/agent:v1'}
    """
    own = own_image(images, service)
    if own is None:
        return {}
    repository = ecr.parse_image(own).repository
    return {name: image for name, image in images.items() if ecr.parse_image(image).repository == repository}


def own_image(images: dict[str, str], service: str) -> str | None:
    """Return the image of the service's own container, None if that container is not certain."""
    container = own_container(images, service)
    return images[container] if container else None


def shorten_digest(digest: str) -> str:
    """Return a digest shortened to 12 hex digits, with its prefix.

    >>> shorten_digest("sha256:0123456789abcdef")
    'sha256:0123456789ab'
    """
    return digest[:19]


def choose_exact_version(version: str | None, digest: str | None) -> str | None:
    """Return how a trigger can request exactly this image: by its version if that is a fixed tag, else by its digest.

    >>> choose_exact_version("v9.9.0", None), choose_exact_version("latest", "sha256:0123")
    ('v9.9.0', 'sha256:0123')
    """
    has_tag = version and version != LATEST and not version.startswith("sha256:")
    return version if has_tag else digest


def read_recorded_names(organization: Organization) -> Names:
    """Return the versions that past rollouts recorded, by service and digest. *Costs* one query."""
    known = Q(to_digest__isnull=False) | Q(from_digest__isnull=False)
    columns = (
        Rollout.objects.attempted()
        .filter(known)
        .values_list("service", "to_digest", "to_version", "from_digest", "from_version")
    )
    rows = newest_of_each(columns, organization, PlatformService.values, NAMES_KEPT)
    names: Names = {}
    for service, to_digest, to_version, from_digest, from_version in rows:
        for digest, version in ((to_digest, to_version), (from_digest, from_version)):
            if digest and version and not ecr.DIGEST.match(version):
                names.setdefault((service, digest), version)
    return names


def find_version(target: AwsTarget, image: str | None, service: str, *, names: Names) -> str | None:
    """Return the version that people know an image by: its tag.

    For an image pinned by digest, it is the recorded version (`names`), else the best tag in ECR, else the short digest.
    *Costs* at most one AWS call, which may fail.
    """
    if image is None:
        return None
    reference = ecr.parse_image(image)
    if reference.tag or reference.digest is None:
        return reference.tag
    known = names.get((service, reference.digest))
    return known or tag_in_registry(target, reference) or shorten_digest(reference.digest)


def tag_in_registry(target: AwsTarget, reference: ecr.ImageReference) -> str | None:
    """Return the best tag in ECR of an image pinned by digest, cached for some minutes; None if it is not known."""
    repository = ecr.ecr_repository(reference)
    if repository is None or reference.digest is None:
        return None
    key = soft_cache.build_key("image-name", reference.pinned_to(reference.digest))
    kept: str | None = soft_cache.read(key)
    if kept is None:
        kept, seconds = "", NAME_FAILED_SECONDS
        try:
            found = ecr.find_image(target, repository, reference.digest)
            kept, seconds = (choose_best_tag(found.tags) or "" if found else ""), NAME_SECONDS
        except AwsError as error:
            logger.info("name of %s not read: %s", shorten_digest(reference.digest), error)
        soft_cache.write(key, kept, seconds=seconds)
    return kept or None


def running_digests(definition: ecs.TaskDefinition, tasks: Iterable[ecs.RunningTask], service: str) -> dict[str, int]:
    """Return how many tasks run each digest in the service's own container. Tasks without a digest are left out.

    A task of a revision that pins its image runs exactly that image, in whatever form ECS reports the digest.
    """
    container = own_container(definition.images, service)
    if container is None:
        return {}
    pinned = ecr.parse_image(definition.images[container]).digest
    digests = (
        pinned if pinned and task.task_definition == definition.arn else task.digests.get(container) for task in tasks
    )
    return dict(Counter(digest for digest in digests if digest))


def locate(image: str | None, service: str) -> tuple[ecr.ImageReference, ecr.Repository]:
    """Return the reference and the ECR repository of the service's own image. *Raises* RegistryLimited."""
    if image is None:
        label = PlatformService(service).label.lower()
        raise RegistryLimited(f"the portal cannot identify the container of the {label} in the task definition")
    reference = ecr.parse_image(image)
    repository = ecr.ecr_repository(reference)
    if repository is None:
        raise RegistryLimited(f"{reference.repository} is not in Amazon ECR")
    return reference, repository


def find_version_image(
    target: AwsTarget,
    image: str | None,
    service: str,
    version: str,
    *,
    before_call: Callable[[], None] = do_nothing,
) -> RequestedImage:
    """Return the image of this version in the service's own repository, pinned by digest.

    `latest` is the image with that tag, else the highest release (tags.choose_release). A part of an image index is no
    version: the index is.
    *Raises* RegistryLimited, VersionMissing, and AwsUnavailable if ECR does not answer.
    *Costs* one call, and one more for an image index. For `latest` in a repository without that tag, for an untagged image
    and for a version that is missing, one more per thousand images and one per hundred indexes that are not cached.
    """
    reference, repository = locate(image, service)
    search = VersionSearch(target, repository, before_call)
    try:
        found, name, note = search.find_latest() if version == LATEST else search.find(version)
    except (AwsDenied, AwsRefused) as error:
        raise RegistryLimited(describe_limit(error, repository)) from error
    return RequestedImage(name, reference.pinned_to(found.digest), found.digest, note)


@dataclass(frozen=True)
class VersionSearch:
    """The repository in which a version is looked up. `before_call` runs before each AWS call."""

    target: AwsTarget
    repository: ecr.Repository
    before_call: Callable[[], None]

    def find_latest(self) -> Found:
        """Return the image with the tag `latest`, else the highest release, else the highest pre-release."""
        image = self.find_image(LATEST)
        if image is not None:
            return image, choose_best_tag(image.tags), "The image with the tag latest."
        images = self.list_images()
        chosen = choose_release(each for each in images if each.tags)
        while chosen and chosen[0].is_index and not self.read_manifest(chosen[0]).is_runnable(chosen[0].digest):
            images.remove(chosen[0])
            chosen = choose_release(each for each in images if each.tags)
        if chosen is None:
            raise RegistryLimited(
                f"the repository {self.repository.name} has neither the tag latest nor a tag that looks like a release"
            )
        image, tag = chosen
        kind = "pre-release, and it has no release" if is_pre_release(tag) else "release"
        return image, tag, f"{self.repository.name} has no tag latest. {tag} is its highest {kind}."

    def find(self, version: str) -> Found:
        """Return the image with this tag or digest."""
        image = self.find_image(version)
        if image is None:
            near = self.find_near(version)
            hint = f", did you mean {near}?" if near else ""
            raise VersionMissing(f"the repository {self.repository.name} has no image {version}{hint}")
        note = None if image.tags or image.is_index else self.refuse_part(image)
        return image, version, note

    def find_image(self, name: str) -> ecr.Image | None:
        image = ecr.find_image(self.target, self.repository, name, before_call=self.before_call)
        if image is not None and image.is_index and not self.read_manifest(image).is_runnable(image.digest):
            return None
        return image

    def refuse_part(self, image: ecr.Image) -> str | None:
        """Raise VersionMissing if this untagged image is no version. Return what is not known about it, else None."""
        short = shorten_digest(image.digest)
        own = self.read_manifest(image)
        if not own.is_runnable(image.digest):
            raise VersionMissing(f"{short} in the repository {self.repository.name} is an attestation, not an image")
        images = self.list_images()
        parts = read_parts(self.target, self.repository, images, before_call=self.before_call)
        parent = parts.find_parent(image.digest)
        if parent is None:
            unread = own.unread or parts.unread
            return f"It is not known whether {short} is a part of another image: {unread}." if unread else None
        digest, kind = parent
        names = {each.digest: choose_best_tag(each.tags) for each in images}
        index = names.get(digest) or digest
        what = "an attestation" if kind == ecr.ATTESTATION else f"the {kind} part"
        raise VersionMissing(
            f"{short} in the repository {self.repository.name} is {what} of {index}, no version of its own; "
            f"use {index} instead"
        )

    def find_near(self, version: str) -> str | None:
        """Return a tag that was probably meant; None if there is none among those read, or if ECR does not list them."""
        try:
            reading = ecr.list_images(self.target, self.repository, pages=PAGES_FOR_NEAR, before_call=self.before_call)
            return find_near(version, [tag for image in reading.images for tag in image.tags])
        except AwsError as error:
            logger.info("no near version of %s: %s", version, error)
            return None

    def list_images(self) -> list[ecr.Image]:
        return ecr.list_images(self.target, self.repository, before_call=self.before_call).images

    def read_manifest(self, image: ecr.Image) -> Parts:
        return read_own_manifest(self.target, self.repository, image, before_call=self.before_call)


def describe_limit(error: AwsError, repository: ecr.Repository) -> str:
    """Return why versions cannot be listed, without account numbers or ARNs."""
    if isinstance(error, AwsDenied):
        return f"AWS denies the portal's role {error.permission} on the repository {repository.name}"
    if error.code == "RepositoryNotFoundException":
        return f"Amazon ECR has no repository {repository.name} in {repository.region}"
    return f"Amazon ECR refused to list the repository {repository.name} ({error.code})"
