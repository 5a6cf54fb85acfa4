"""The version catalogue: which versions the registries hold, what runs where, and which images a trigger rolls out.

Pages and API share the registry readings, which are cached for one minute. If no registry can be read, the list falls back
to the running versions and those of past rollouts, and its message says that it is limited.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from django.utils import timezone

from portal import soft_cache
from portal.aws import ecr, ecs
from portal.aws.bulkhead import REFUSED, call_shared
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsError, AwsMissing, AwsRefused, AwsUnavailable, summarize_error
from portal.errors import PortalError
from portal.models import Organization
from portal.times import to_utc
from upgrades.inventory.ecs_services import CACHE_SECONDS, RunningService, read_task_definition, service_name
from upgrades.inventory.images import (
    RegistryLimited,
    RequestedImage,
    VersionMissing,
    describe_limit,
    find_version_image,
    locate,
    own_image,
)
from upgrades.inventory.parts import read_parts
from upgrades.inventory.running import FAILED_SECONDS, LONGEST_WAIT_SECONDS, Reading, read_running_services
from upgrades.inventory.tags import LATEST, choose_best_tag, rank_release
from upgrades.models import Rollout, newest_of_each
from upgrades.states import ALL_SERVICES, PlatformService, inline_label

logger = logging.getLogger(__name__)

FRESH_SECONDS = 60
# A page that only says whether there is a newer version waits briefly, and reads the registry less often.
NEWER_FRESH_SECONDS, NEWER_WAIT_SECONDS = 600, 0.5
NEWER_KEPT_SECONDS = 30
# A repository with thousands of images takes longer to read than a page waits. The read continues in the background.
ASKING_SECONDS = 30
# Kept for each service: the newest tagged images, and a few untagged ones.
TAGGED_KEPT, UNTAGGED_KEPT = 300, 20
KNOWN_VERSIONS = 50
# A trigger waits for these ECS and ECR reads in parallel with pre-flight, at most 4 seconds in total.
RESOLVE_SECONDS = 3.5

AVAILABLE = "Versions of the platform's services in Amazon ECR, newest first."
LIMITED = (
    "Version selection is limited: only running versions and those of past upgrades are listed. "
    "An upgrade rolls out `latest`, the image that the service's task definition names."
)
ASKED_BY_ANOTHER = "another request is reading Amazon ECR now. Try again in a few seconds"


@dataclass(frozen=True)
class Registry:
    """The images in the repositories, by service.

    `left_out`: how many more images a service has. `unread`: why it is not known, by service, which untagged images are
    parts of another image. `error`: set when the newest attempt failed. The images are then as of
    `read_at`, or unknown if that is None. `error` holds only the call and the AWS error code.
    """

    images: dict[str, list[ecr.Image]] = field(default_factory=dict)
    limited: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    read_at: datetime | None = None
    tried_at: datetime | None = None
    error: str | None = None

    @property
    def is_recent(self) -> bool:
        """Return whether the reading is recent enough to be reused."""
        seconds = FAILED_SECONDS if self.error else FRESH_SECONDS
        return self.tried_at is not None and (timezone.now() - self.tried_at).total_seconds() < seconds


@dataclass(frozen=True)
class Version:
    """One version: the images of all services that share a name. The name of an untagged image is its digest.

    `images`: by service; empty if the registries cannot be read. `running`: the services that run it now.
    """

    name: str
    tags: tuple[str, ...] = ()
    images: dict[str, ecr.Image] = field(default_factory=dict)
    running: tuple[str, ...] = ()

    @property
    def digests(self) -> dict[str, str | None]:
        return {service: getattr(self.images.get(service), "digest", None) for service in PlatformService.values}

    @property
    def pushed_at(self) -> datetime | None:
        """Return when the last of its images was pushed."""
        return max((image.pushed_at for image in self.images.values() if image.pushed_at), default=None)

    @property
    def services(self) -> list[str]:
        """Return the services that have this version, in rollout order."""
        return [service for service in PlatformService.values if service in self.images]

    @property
    def has_tag(self) -> bool:
        return not ecr.DIGEST.fullmatch(self.name)

    @property
    def not_running(self) -> list[str]:
        """Return the services that have this version but run another one."""
        return [service for service in self.services if service not in self.running]

    @property
    def target(self) -> str | None:
        """Return the target of an upgrade to this version: `all`, or the only service that would change; else None."""
        if len(self.not_running) == len(PlatformService.values):
            return ALL_SERVICES
        return self.not_running[0] if len(self.not_running) == 1 else None


@dataclass(frozen=True)
class Catalogue:
    """The versions, what runs, and whether a version can be selected.

    `selection`: `available` if the registry of at least one service can be read, else `limited`. `limited`: the reason, by
    service. `platform`: None if the organization has neither cluster nor stack.
    """

    versions: list[Version]
    selection: str
    limited: dict[str, str]
    platform: Reading | None
    registry: Registry

    def describe(self, in_zone: Callable[[datetime], datetime] = to_utc) -> str:
        """Return sentences on what the list contains, what it lacks and why."""
        return build_message(self.platform, self.registry, self.limited, in_zone)

    @property
    def is_available(self) -> bool:
        return self.selection == "available"

    @property
    def running(self) -> dict[str, str | None]:
        """Return the running version of each service, None if it is not known."""
        rows = self.platform.services if self.platform else []
        return dict.fromkeys(PlatformService.values) | {row.service: row.version for row in rows}

    def is_gone(self, row: RunningService) -> bool:
        """Return whether the running image was deleted from its repository. ECS cannot start new tasks from it."""
        images = self.registry.images.get(row.service)
        if images is None or row.digest is None or self.registry.left_out.get(row.service):
            return False
        return all(row.digest not in (image.digest, *image.children) for image in images)


def read_catalogue(organization: Organization, platform: Reading | None = None) -> Catalogue:
    """Return the versions that exist, newest first, and what runs where. `platform`: if the caller has read it.

    *Costs* three queries, the ECS reads of read_running_services, and at most one ECR reading every FRESH_SECONDS.
    Waits at most twice LONGEST_WAIT_SECONDS.
    """
    platform = platform or read_running_services(organization)
    rows = platform.services if platform else []
    repositories, limited = find_repositories(rows)
    registry = read_registry(organization, repositories) if repositories else Registry()
    limited |= registry.limited
    versions = build_versions(registry, rows)
    selection = "available" if registry.images else "limited"
    if not registry.images:
        versions = find_known_versions(organization, rows)
    return Catalogue(versions, selection, limited, platform, registry)


def find_repositories(rows: list[RunningService]) -> tuple[dict[str, ecr.Repository], dict[str, str]]:
    """Return the ECR repository of each service, and the reason for each service that has none.

    Services without a known task definition are in neither.
    """
    repositories: dict[str, ecr.Repository] = {}
    limited: dict[str, str] = {}
    for row in rows:
        if row.task_definition is None:
            continue
        try:
            _, repositories[row.service] = locate(row.image, row.service)
        except RegistryLimited as error:
            limited[row.service] = str(error)
    return repositories, limited


@dataclass(frozen=True)
class NewerVersion:
    """A release that is newer than what these services run, in rolling order."""

    name: str
    services: tuple[str, ...]
    pushed_at: datetime | None


def find_newer_version(organization: Organization, rows: list[RunningService]) -> NewerVersion | None:
    """Return the newest release, if a service has it and runs an older image. None if that is not known.

    *Costs* no query, and at most one ECR reading every NEWER_FRESH_SECONDS. Waits at most NEWER_WAIT_SECONDS for it; the
    next caller then finds it in the cache. The answer is kept for NEWER_KEPT_SECONDS.
    """
    repositories, _ = find_repositories(rows)
    if not repositories:
        return None
    run = [(row.service, row.image, row.digest, sorted(row.digests)) for row in rows]
    key = soft_cache.build_key("newer", organization.pk, run)
    kept = soft_cache.read_as(key, lambda found: [NewerVersion(*each) for each in found])
    if kept is not None:
        return next(iter(kept), None)
    registry = read_registry_soon(organization, repositories)
    if registry is None:
        return None
    newer = choose_newer_version(registry, rows)
    soft_cache.write(key, [astuple(newer)] if newer else [], seconds=NEWER_KEPT_SECONDS)
    return newer


def choose_newer_version(registry: Registry, rows: list[RunningService]) -> NewerVersion | None:
    """Return the newest release in the registry, if a service has it and runs an older image."""
    newer: dict[str, list[str]] = {}
    pushed: dict[str, datetime | None] = {}
    for row in rows:
        image = find_newer_image(row, registry.images.get(row.service, []))
        name = choose_best_tag(image.tags) if image else None
        if image and name:
            newer.setdefault(name, []).append(row.service)
            pushed[name] = image.pushed_at
    name = max(newer, key=lambda each: rank_release(each) or (0, []), default=None)
    return NewerVersion(name, tuple(newer[name]), pushed[name]) if name else None


def find_newer_image(row: RunningService, images: list[ecr.Image]) -> ecr.Image | None:
    """Return the newest release among the images that are newer than the running one. `images`: newest first."""
    running = {*row.digests, row.digest}
    for image in images:
        if running & {image.digest, *image.children}:
            return None
        rank = rank_release(choose_best_tag(image.tags) or "")
        if rank and rank[0] > 0:
            return image if any(running & {each.digest, *each.children} for each in images) else None
    return None


def read_registry_soon(organization: Organization, repositories: dict[str, ecr.Repository]) -> Registry | None:
    """Return the cached images if they are of the last NEWER_FRESH_SECONDS, or what a short read finds; else None."""
    key = build_registry_key(organization, repositories)
    kept = soft_cache.read_as(key, build_from_cache)
    if kept and kept.tried_at and (timezone.now() - kept.tried_at).total_seconds() < NEWER_FRESH_SECONDS:
        return kept
    if not soft_cache.add(f"asking:{key}", seconds=ASKING_SECONDS):
        return kept
    try:
        target = organization.aws_target
        question = partial(read_and_cache, key, target, repositories)
        return call_shared(target, "ecr:DescribeImages", key, question, seconds=NEWER_WAIT_SECONDS)
    except AwsError as error:
        logger.info("registry of %s not read: %s", organization.slug, error)
        if error.code in REFUSED:
            soft_cache.delete(f"asking:{key}")
        return kept


def build_registry_key(organization: Organization, repositories: dict[str, ecr.Repository]) -> str:
    return soft_cache.build_key("registry", organization.pk, sorted(repositories.items()))


def read_registry(organization: Organization, repositories: dict[str, ecr.Repository]) -> Registry:
    """Return the images in the repositories, cached if recent.

    Only one request at a time calls ECR. The others get the previous reading. A failure is cached too.
    """
    key = build_registry_key(organization, repositories)
    kept = soft_cache.read_as(key, build_from_cache)
    if kept and kept.is_recent:
        return kept
    old = kept or Registry()
    if not soft_cache.add(f"asking:{key}", seconds=ASKING_SECONDS):
        return old if old.read_at or old.error else replace(old, error=ASKED_BY_ANOTHER)
    try:
        target = organization.aws_target
        question = partial(read_and_cache, key, target, repositories)
        return call_shared(target, "ecr:DescribeImages", key, question, seconds=LONGEST_WAIT_SECONDS)
    except AwsError as error:
        logger.warning("registry of %s not read: %s", organization.slug, error)
        if error.code in REFUSED:
            soft_cache.delete(f"asking:{key}")
        failed = replace(old, tried_at=timezone.now(), error=str(error))
        soft_cache.write(key, asdict(failed), seconds=CACHE_SECONDS)
        return failed


def read_and_cache(key: str, target: AwsTarget, repositories: dict[str, ecr.Repository]) -> Registry:
    """Read the repositories and cache the result, even if the caller no longer waits. *Raises* AwsUnavailable."""
    try:
        registry = read_registry_images(target, repositories)
        soft_cache.write(key, asdict(registry), seconds=CACHE_SECONDS)
        return registry
    finally:
        soft_cache.delete(f"asking:{key}")


def read_registry_images(target: AwsTarget, repositories: dict[str, ecr.Repository]) -> Registry:
    """Read the images of all repositories. *Raises* AwsUnavailable. *Costs* one call per thousand images, and one
    per hundred image indexes that are not cached.
    """
    images: dict[str, list[ecr.Image]] = {}
    limited: dict[str, str] = {}
    left_out: dict[str, int] = {}
    unread: dict[str, str] = {}
    for service, repository in repositories.items():
        try:
            reading = ecr.list_images(target, repository)
        except (AwsDenied, AwsRefused) as error:
            limited[service] = describe_limit(error, repository)
            continue
        parts = read_parts(target, repository, reading.images)
        found = parts.select_versions(reading.images)
        tagged = [image for image in found if image.tags][:TAGGED_KEPT]
        untagged = [image for image in found if not image.tags][:UNTAGGED_KEPT]
        images[service] = sorted([*tagged, *untagged], key=ecr.newest_first)
        left_out[service] = len(found) - len(images[service]) + (not reading.is_complete)
        if parts.unread and untagged:
            unread[service] = parts.unread
    return Registry(images, limited, unread, left_out, read_at=timezone.now(), tried_at=timezone.now())


def build_from_cache(kept: dict[str, Any]) -> Registry:
    """Rebuild a Registry from the result of asdict()."""
    images = {
        service: [
            ecr.Image(**{**image, "tags": tuple(image["tags"]), "children": tuple(image["children"])})
            for image in found
        ]
        for service, found in kept["images"].items()
    }
    return Registry(**{**kept, "images": images})


def build_versions(registry: Registry, rows: list[RunningService]) -> list[Version]:
    """Return the versions in the registry, newest first, ties by digest. Images with the same name are one version."""
    images: dict[str, dict[str, ecr.Image]] = {}
    for service, found in registry.images.items():
        for image in found:
            images.setdefault(choose_best_tag(image.tags) or image.digest, {})[service] = image
    versions = [
        Version(
            name,
            tuple(sorted({tag for image in by_service.values() for tag in image.tags} - {name})),
            by_service,
            tuple(row.service for row in rows if is_running_version(row, name, by_service.get(row.service), registry)),
        )
        for name, by_service in images.items()
    ]
    versions.sort(key=lambda version: min(image.digest for image in version.images.values()))
    versions.sort(key=lambda version: min(ecr.newest_first(image)[0] for image in version.images.values()))
    return versions


def is_running_version(row: RunningService, name: str, image: ecr.Image | None, registry: Registry) -> bool:
    """Return whether the service runs this version: by digest, or by tag if its registry cannot be read."""
    if image is None:
        return row.service not in registry.images and row.version == name
    return any(digest in row.digests or digest == row.digest for digest in (image.digest, *image.children))


def find_known_versions(organization: Organization, rows: list[RunningService]) -> list[Version]:
    """Return the running versions, then those of past rollouts, newest first. Reads no registry. *Costs* one query."""
    named = Rollout.objects.attempted().filter(to_version__isnull=False, completed_at__isnull=False)
    columns = named.values_list("completed_at", "to_version")
    past = newest_of_each(columns, organization, PlatformService.values, 4 * KNOWN_VERSIONS)
    newest_first = [name for _, name in sorted(past, reverse=True)]
    names = dict.fromkeys(name for name in [*(row.version for row in rows), *newest_first] if name)
    return [
        Version(name, running=tuple(row.service for row in rows if row.version == name))
        for name in list(names)[:KNOWN_VERSIONS]
    ]


def build_message(
    platform: Reading | None, registry: Registry, limited: dict[str, str], in_zone: Callable[[datetime], datetime]
) -> str:
    sentences = [AVAILABLE if registry.images else LIMITED]
    if platform is None:
        sentences.append("The organization has neither cluster nor stack, so nothing runs.")
    elif platform.error:
        sentences.append(f"The running versions could not be read: {platform.error}.")
    rows = platform.services if platform else []
    sentences += [f"The {inline_label(row.service)} is {row.not_supported}." for row in rows if row.not_supported]
    for service, reason in limited.items():
        sentences.append(f"For the {inline_label(service)} only `latest` can be chosen: {reason}.")
    if registry.error:
        read_at = registry.read_at and in_zone(registry.read_at)
        when = f". The list is as of {read_at:%Y-%m-%d %H:%M:%S %Z}" if read_at else ""
        sentences.append(f"Amazon ECR could not be read: {registry.error}{when}.")
    for service, reason in registry.unread.items():
        sentences.append(f"Untagged images of the {inline_label(service)} may be parts of other images: {reason}.")
    for service, count in registry.left_out.items():
        if count:
            sentences.append(
                f"Only the newest images of the {inline_label(service)} are listed. "
                f"At least {count} more can be named by tag or digest."
            )
    return " ".join(sentences)


def resolve(organization: Organization, services: list[str], version: str) -> dict[str, RequestedImage]:
    """Resolve the version in each service's registry, to a version name, image and digest.

    A missing or disabled service keeps only the version name. It is not rolled out, or is resolved when its turn comes.
    `latest` is never refused. If the registry is limited, `latest` is the image that the task definition names. If AWS does
    not answer, it is resolved when the rollout starts.
    *Raises* PortalError 400 `version_unavailable`, naming the services that cannot run the version; 502
    `registry_unavailable`.
    *Costs* two or three AWS calls for each service. Waits at most RESOLVE_SECONDS.
    """
    try:
        question = partial(ask_registries, organization, services, version)
        key = soft_cache.build_key("resolve", organization.pk, services, version)
        answers = call_shared(organization.aws_target, "ecr:DescribeImages", key, question, seconds=RESOLVE_SECONDS)
    except AwsError as error:
        if version == LATEST:
            return {service: RequestedImage(LATEST) for service in services}
        raise registry_unavailable(version, error) from error
    refuse_unavailable(version, answers)
    return {service: answer for service, answer in answers.items() if isinstance(answer, RequestedImage)}


class VersionUnavailable(PortalError):
    """The refusal of a version. `lacking`: the services that cannot run it; `found`: what the others would run."""

    def __init__(self, message: str, *, lacking: frozenset[str], found: dict[str, RequestedImage]) -> None:
        super().__init__("version_unavailable", message, 400)
        self.lacking = lacking
        self.found = found


Answer = RequestedImage | RegistryLimited | VersionMissing | AwsUnavailable


def ask_registries(organization: Organization, services: list[str], version: str) -> dict[str, Answer]:
    """Look up the version in each service's registry. Makes no query.

    *Raises* AwsError if ECS cannot be read. *Costs* two or three AWS calls for each service.
    """
    names = {service: service_name(organization, service) for service in services}
    target, cluster = organization.aws_target, str(organization.cluster)
    try:
        found = ecs.describe_services(target, cluster, list(names.values())).services
    except AwsMissing:
        found = {}  # without a cluster, every service is missing
    answers: dict[str, Answer] = {}
    for service, name in names.items():
        live = found.get(name)
        answer: Answer = RequestedImage(version)
        # A service that another controller deploys is refused or fails later, whatever the version.
        if live is not None and live.task_definition is not None and not live.is_foreign:
            image = own_image(read_task_definition(organization, live.task_definition).images, service)
            try:
                answer = find_version_image(target, image, service, version)
            except (RegistryLimited, VersionMissing, AwsUnavailable) as error:
                answer = error
        if version == LATEST and isinstance(answer, RegistryLimited):
            answer = RequestedImage(None, note=f"The image that the task definition names: {answer}.")
        elif not isinstance(answer, RequestedImage) and (version == LATEST or (live and live.desired_count == 0)):
            answer = RequestedImage(version)
        answers[service] = answer
    return answers


def refuse_unavailable(version: str, answers: dict[str, Answer]) -> None:
    lacking = {
        service: answer for service, answer in answers.items() if isinstance(answer, RegistryLimited | VersionMissing)
    }
    if lacking:
        reasons = "; ".join(f"{inline_label(service)}: {reason}" for service, reason in lacking.items())
        raise VersionUnavailable(
            f"Version {version} cannot be rolled out ({reasons}). See the versions page or "
            "GET /api/v1/deployments/versions for the versions of each service.",
            lacking=frozenset(lacking),
            found={service: answer for service, answer in answers.items() if isinstance(answer, RequestedImage)},
        )
    for answer in answers.values():
        if isinstance(answer, AwsUnavailable):
            raise registry_unavailable(version, answer) from answer


def registry_unavailable(version: str, error: AwsError) -> PortalError:
    return PortalError(
        "registry_unavailable",
        f"The portal could not check whether version {version} exists. {summarize_error(error)} Try again in a minute.",
        502,
    )
