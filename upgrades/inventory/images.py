"""Images of one platform service: which container is its own, which version it runs, which image a version means.

catalogue.py lists all versions and resolves a version for several services.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.db.models import Q

from portal import soft_cache
from portal.aws import ecr, ecs
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsError, AwsRefused
from portal.models import Organization
from upgrades.models import Rollout
from upgrades.states import PlatformService

logger = logging.getLogger(__name__)

LATEST = "latest"
# A version-like tag: v9.9.1, 9.9, 9.9.1-rc.2.
VERSION_LIKE = re.compile(r"(?P<numbers>v[0-9]+(\.[0-9]+)*|[0-9]+(\.[0-9]+)+)(?P<rest>[._+-].*)?")
NAMES_KEPT = 200
# A tag may move to another image, so the name of a digest is cached for a limited time.
NAME_SECONDS, NAME_FAILED_SECONDS = 600, 60

# Versions by service and digest.
Names = dict[tuple[str, str], str]


@dataclass(frozen=True)
class RequestedImage:
    """The image that a rollout should run. `image` has the form `<repository>@sha256:..`.

    Without an image, `version` is resolved in the registry when the rollout starts. Without a version too, the rollout uses
    the image in the service's task definition, because the registry cannot be read.
    """

    version: str | None
    image: str | None = None
    digest: str | None = None


class RegistryLimited(Exception):
    """The registry of this image cannot list versions, and a retry would not help. The message says why."""


class VersionMissing(Exception):
    """The registry was read, but has no such version for the service. The message says so."""


def own_container(images: dict[str, str], service: str) -> str | None:
    """Return the name of the service's own container, as the platform's stacks name it; None if it is not certain.

    All other containers are sidecars, whose images do not matter here.
    """
    names = [service, f"axonflow-{service}"]
    if service == PlatformService.CUSTOMER_PORTAL:
        names.append("portal")
    found = next((name for name in names if name in images), None)
    return found or (next(iter(images)) if len(images) == 1 else None)


def own_image(images: dict[str, str], service: str) -> str | None:
    """Return the image of the service's own container, None if that container is not certain."""
    container = own_container(images, service)
    return images[container] if container else None


def choose_best_tag(tags: Iterable[str]) -> str | None:
    """Return the most specific tag: the most exact version, else any name, with `latest` last.

    >>> choose_best_tag(["latest", "v9", "v9.9.1", "v9.9.1-rc.2"])
    'v9.9.1'
    >>> choose_best_tag(["a1b2c3d", "latest"]), choose_best_tag([])
    ('a1b2c3d', None)
    """
    return max(tags, key=rank_tag, default=None)


def rank_tag(tag: str) -> tuple[int, bool, str]:
    """Return a sort key by how specific a tag is: more version numbers rank higher, then tags without a suffix."""
    version = VERSION_LIKE.fullmatch(tag)
    if version is None:
        return (-1 if tag == LATEST else 0), False, tag
    return 1 + version["numbers"].count("."), not version["rest"], tag


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
    rows = (
        Rollout.objects.filter(organization=organization)
        .filter(Q(to_digest__isnull=False) | Q(from_digest__isnull=False))
        .order_by("-id")
        .values_list("service", "to_digest", "to_version", "from_digest", "from_version")[:NAMES_KEPT]
    )
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
    before_call: Callable[[], None] = ecs.do_nothing,
) -> RequestedImage:
    """Return the image of this version in the service's own repository, pinned by digest.

    `latest` is the image with that tag, else the newest tagged image.
    *Raises* RegistryLimited, VersionMissing, and AwsUnavailable if ECR does not answer.
    *Costs* one call. For `latest` in a repository without that tag, one more per thousand images.
    """
    reference, repository = locate(image, service)
    try:
        found = ecr.find_image(target, repository, version, before_call=before_call)
        if found is None and version == LATEST:
            reading = ecr.list_images(target, repository, before_call=before_call)
            found = next((each for each in reading.images if each.tags), None)
    except (AwsDenied, AwsRefused) as error:
        raise RegistryLimited(describe_limit(error, repository)) from error
    if found is None and version == LATEST:
        raise RegistryLimited(f"the repository {repository.name} has no tagged image")
    if found is None:
        raise VersionMissing(f"the repository {repository.name} has no image {version}")
    name = version if version != LATEST else choose_best_tag(found.tags)
    return RequestedImage(name, reference.pinned_to(found.digest), found.digest)


def describe_limit(error: AwsError, repository: ecr.Repository) -> str:
    """Return why versions cannot be listed, without account numbers or ARNs."""
    if isinstance(error, AwsDenied):
        return f"AWS denies the portal's role {error.permission} on the repository {repository.name}"
    if error.code == "RepositoryNotFoundException":
        return f"Amazon ECR has no repository {repository.name} in {repository.region}"
    return f"Amazon ECR refused to list the repository {repository.name} ({error.code})"
