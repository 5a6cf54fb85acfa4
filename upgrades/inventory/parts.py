"""Which images of a repository are only parts of another one: the platform manifests and attestations of an image index.

`docker buildx` pushes one index with a tag and several manifests without one. Only the index is a version.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from portal import soft_cache
from portal.aws import ecr
from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsError

logger = logging.getLogger(__name__)

# A manifest never changes, because its digest is that of its content.
CACHE_SECONDS = 7 * 24 * 60 * 60
# The newest of these are read at one time. A repository with more is read a little further each time.
MANIFESTS_PER_READ = 500


@dataclass(frozen=True)
class Parts:
    """The manifests that were read, by digest. `unread`: why some were not read, in words that may follow `because`."""

    manifests: dict[str, ecr.Manifest] = field(default_factory=dict)
    unread: str | None = None

    def find_parent(self, digest: str) -> tuple[str, str] | None:
        """Return the digest of the index that names this manifest, and what it is there; None if no index names it."""
        found = (
            (index, manifest.children[digest])
            for index, manifest in self.manifests.items()
            if digest in manifest.children
        )
        return next(found, None)

    def is_runnable(self, digest: str) -> bool:
        """Return whether this is an image, as far as its manifest was read."""
        manifest = self.manifests.get(digest)
        return manifest is None or manifest.is_runnable

    def select_versions(self, images: Iterable[ecr.Image]) -> list[ecr.Image]:
        """Return the images that are versions: runnable, and with a tag or not named by an index."""
        children = {child for manifest in self.manifests.values() for child in manifest.children}
        return [
            replace(image, children=self.list_platforms(image.digest))
            for image in images
            if self.is_runnable(image.digest) and (image.tags or image.digest not in children)
        ]

    def list_platforms(self, digest: str) -> tuple[str, ...]:
        """Return the digests of the images for each platform that an index names; none for an image."""
        manifest = self.manifests.get(digest)
        return tuple(child for child, kind in manifest.children.items() if kind != ecr.ATTESTATION) if manifest else ()


def read_parts(
    target: AwsTarget,
    repository: ecr.Repository,
    images: Iterable[ecr.Image],
    *,
    only: str | None = None,
    before_call: Callable[[], None] = do_nothing,
) -> Parts:
    """Read the manifests of the indexes among the images, newest first, and keep them for later readings.

    `only`: the digest if the images are no whole repository, whose readings are kept apart.
    Failures are returned in `unread`, never raised. *Costs* one call per hundred indexes that are not cached.
    """
    digests = [image.digest for image in images if image.is_index]
    key = soft_cache.build_key("manifests", target.region, target.role_arn, repository, only)
    known = soft_cache.read_as(key, build_from_cache) or {}
    kept = {digest: known[digest] for digest in digests if digest in known}
    missing = list(islice((digest for digest in digests if digest not in known), MANIFESTS_PER_READ))
    if not missing:
        return Parts(kept)
    try:
        kept |= ecr.read_manifests(target, repository, missing, before_call=before_call)
    except AwsError as error:
        logger.info("manifests of %s not read: %s", repository.name, error)
        return Parts(kept, describe_failure(error))
    soft_cache.write(key, {digest: asdict(each) for digest, each in kept.items()}, seconds=CACHE_SECONDS)
    is_complete = all(digest in kept for digest in digests)
    return Parts(kept, None if is_complete else "not all image indexes have been read yet")


def read_own_manifest(
    target: AwsTarget,
    repository: ecr.Repository,
    image: ecr.Image,
    *,
    before_call: Callable[[], None] = do_nothing,
) -> Parts:
    """Read the manifest of one image, whether it is an index or not. As read_parts does otherwise."""
    return read_parts(target, repository, [replace(image, is_index=True)], only=image.digest, before_call=before_call)


def build_from_cache(kept: dict[str, dict[str, object]]) -> dict[str, ecr.Manifest]:
    return {digest: ecr.Manifest(**each) for digest, each in kept.items()}  # type: ignore[arg-type] # TypeError: a miss


def describe_failure(error: AwsError) -> str:
    if isinstance(error, AwsDenied):
        return f"AWS denies the portal's role {error.permission}"
    return f"Amazon ECR did not answer {error.action}"
