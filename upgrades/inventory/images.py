"""Which image a platform service runs and which one is wanted: containers, versions, digests; one service at a time.

The whole catalogue, and what is wanted of several services, is in versions.py.
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
# A tag may move; the image that a digest names does not.
NAME_SECONDS, NAME_FAILED_SECONDS = 600, 60

# The version of a service's image, by service and digest.
Names = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Wanted:
    """What a rollout is to run. `image` is `<repository>@sha256:..`.

    Without an image: `version` is found in the registry when the rollout starts; without a version too, it is what the
    service's task definition names (the registry cannot be read).
    """

    version: str | None
    image: str | None = None
    digest: str | None = None


class RegistryLimited(Exception):
    """The registry of this image cannot be asked for versions, and asking again will not help; says why."""


class VersionMissing(Exception):
    """The registry was read, and the service has no such version; says so."""


def own_container(images: dict[str, str], service: str) -> str | None:
    """The container that is the service itself, by the names that the platform's stacks give it; None: not certain.

    Everything else in the task is a sidecar, whose image is nobody's business here.
    """
    names = [service, f"axonflow-{service}"]
    if service == PlatformService.CUSTOMER_PORTAL:
        names.append("portal")
    found = next((name for name in names if name in images), None)
    return found or (next(iter(images)) if len(images) == 1 else None)


def own_image(images: dict[str, str], service: str) -> str | None:
    """The image of the service's own container."""
    container = own_container(images, service)
    return images[container] if container else None


def best_tag(tags: Iterable[str]) -> str | None:
    """The tag that tells most: the most exact version, else any name, `latest` last of all.

    >>> best_tag(["latest", "v9", "v9.9.1", "v9.9.1-rc.2"]), best_tag(["a1b2c3d", "latest"]), best_tag([])
    ('v9.9.1', 'a1b2c3d', None)
    """
    return max(tags, key=tells, default=None)


def tells(tag: str) -> tuple[int, bool, str]:
    """How much a tag tells: of versions the one with more numbers tells more, then the one without more words."""
    version = VERSION_LIKE.fullmatch(tag)
    if version is None:
        return (-1 if tag == LATEST else 0), False, tag
    return 1 + version["numbers"].count("."), not version["rest"], tag


def short(digest: str) -> str:
    """
    >>> short("sha256:0123456789abcdef")
    'sha256:0123456789ab'
    """
    return digest[:19]


def exact(version: str | None, digest: str | None) -> str | None:
    """How a trigger asks for just this image again: by its version where that is a tag of its own, else by its digest.

    >>> exact("v9.9.0", None), exact("latest", "sha256:0123"), exact("sha256:0123", None)
    ('v9.9.0', 'sha256:0123', None)
    """
    has_tag = version and version != LATEST and not version.startswith("sha256:")
    return version if has_tag else digest


def recorded_names(organization: Organization) -> Names:
    """The version of each service and digest that past rollouts recorded. One query."""
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


def version_of(target: AwsTarget, image: str | None, service: str, *, names: Names) -> str | None:
    """The version that people know an image by: its tag; of an image that is pinned by digest what was recorded of the
    digest (`names`), else its best tag in ECR, else the digest itself, short. At most one call, which may fail.
    """
    if image is None:
        return None
    reference = ecr.parse_image(image)
    if reference.tag or reference.digest is None:
        return reference.tag
    known = names.get((service, reference.digest))
    return known or tag_in_registry(target, reference) or short(reference.digest)


def tag_in_registry(target: AwsTarget, reference: ecr.ImageReference) -> str | None:
    """The best tag of an image that is pinned by digest, as ECR knows it; kept for a while. None: it cannot be told."""
    repository = ecr.ecr_repository(reference)
    if repository is None or reference.digest is None:
        return None
    key = soft_cache.key_of("image-name", reference.pinned_to(reference.digest))
    kept: str | None = soft_cache.recall(key)
    if kept is None:
        kept, seconds = "", NAME_FAILED_SECONDS
        try:
            found = ecr.find_image(target, repository, reference.digest)
            kept, seconds = (best_tag(found.tags) or "" if found else ""), NAME_SECONDS
        except AwsError as error:
            logger.info("name of %s not read: %s", short(reference.digest), error)
        soft_cache.remember(key, kept, seconds=seconds)
    return kept or None


def running_digests(definition: ecs.TaskDefinition, tasks: Iterable[ecs.RunningTask], service: str) -> dict[str, int]:
    """How many of these tasks run which digest, in the service's own container; those that do not tell are left out.

    A task of a revision that pins its image runs exactly that one, in whatever form ECS reports its digest.
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
    """Where in Amazon ECR the service's own image comes from. Raises RegistryLimited."""
    if image is None:
        label = PlatformService(service).label.lower()
        raise RegistryLimited(f"it is not certain which container of the task definition is the {label}")
    reference = ecr.parse_image(image)
    repository = ecr.ecr_repository(reference)
    if repository is None:
        raise RegistryLimited(f"{reference.repository} is not in Amazon ECR")
    return reference, repository


def look_up(
    target: AwsTarget,
    image: str | None,
    service: str,
    version: str,
    *,
    before_call: Callable[[], None] = ecs.nothing_first,
) -> Wanted:
    """The image of this version, in the repository that the service's own image comes from, pinned by its digest.

    `latest`: the image with that tag, else the newest that has a tag. One call; for a repository without `latest` one more
    for each thousand images. Raises RegistryLimited, VersionMissing, and AwsUnavailable when ECR does not answer.
    """
    reference, repository = locate(image, service)
    try:
        found = ecr.find_image(target, repository, version, before_call=before_call)
        if found is None and version == LATEST:
            reading = ecr.list_images(target, repository, before_call=before_call)
            found = next((each for each in reading.images if each.tags), None)
    except (AwsDenied, AwsRefused) as error:
        raise RegistryLimited(why_limited(error, repository)) from error
    if found is None and version == LATEST:
        raise RegistryLimited(f"the repository {repository.name} has no image with a tag")
    if found is None:
        raise VersionMissing(f"the repository {repository.name} has no image {version}")
    name = version if version != LATEST else best_tag(found.tags)
    return Wanted(name, reference.pinned_to(found.digest), found.digest)


def why_limited(error: AwsError, repository: ecr.Repository) -> str:
    """Return why versions cannot be listed, in words for everybody."""
    if isinstance(error, AwsDenied):
        return f"AWS does not allow the portal's role {error.permission} on the repository {repository.name}"
    if error.code == "RepositoryNotFoundException":
        return f"Amazon ECR has no repository {repository.name} in {repository.region}"
    return f"Amazon ECR refused to list the repository {repository.name} ({error.code})"
