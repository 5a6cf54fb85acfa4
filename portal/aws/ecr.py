"""Amazon ECR: lists and finds images, parses image references. All functions return frozen dataclasses."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from portal.aws.calls import do_nothing, read
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsRefused, complete
from portal.aws.partitions import find_partition
from portal.aws.permissions import Scope, Use

# https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html and .../ecr-requests.html (dual-stack)
REGISTRY = re.compile(r"(?P<account>[0-9]{12})\.dkr[.-]ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z0-9.-]+)")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# ECR's maximum page size. Twenty pages are as many images as a repository may hold:
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
IMAGES_PER_CALL = 1000
PAGES_PER_READ = 20
# Media types of runnable images. A repository may also hold signatures, charts and other artifacts.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-manifest-formats.html
INDEXES = {
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
}
IMAGE_MANIFESTS = {
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
} | INDEXES
IMAGE_CONFIGS = {
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.config.v1+json",
}
# The tag of an artifact attached to the image with this digest. Cosign adds .sig, .att or .sbom. It uses the media types of
# an image, so only the tag identifies it. https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
ARTIFACT_TAG = re.compile(r"sha256-[0-9a-f]{64}(\..+)?")
# BuildKit stores an attestation as a manifest with the config of an image. Its layers and its entry in the index differ.
# https://docs.docker.com/build/metadata/attestations/attestation-storage/
ATTESTATION_LAYER = "application/vnd.in-toto+json"
ATTESTATION_TYPE = ("vnd.docker.reference.type", "attestation-manifest")
ATTESTATION = "attestation"
# https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html
MANIFESTS_PER_CALL = 100


@dataclass(frozen=True)
class ImageReference:
    """An image as a task definition names it. `repository` is host and path, without tag and digest."""

    repository: str
    tag: str | None
    digest: str | None

    def pinned_to(self, digest: str) -> str:
        """Return `<repository>@<digest>` without a tag, the form that Amazon ECS documents for an exact image."""
        return f"{self.repository}@{digest}"


@dataclass(frozen=True)
class Repository:
    """An Amazon ECR repository. Account and region are those of the registry, which may differ from the service's."""

    registry_id: str
    region: str
    name: str


@dataclass(frozen=True)
class Image:
    """A runnable image. `digest` is `sha256:..`; `tags` excludes tags of attached artifacts.

    `size_bytes`: the compressed size of a pull; for a multi-platform image, the largest one. Both it and `pushed_at` are
    None if ECR does not return them. `is_index`: its manifest names one manifest for each platform.
    `children`: the digests of these, if they were read.
    """

    digest: str
    tags: tuple[str, ...]
    pushed_at: datetime | None
    size_bytes: int | None
    is_index: bool = False
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The manifest of an image. `children`: for an index, what it names by digest: `attestation`, or a platform."""

    is_runnable: bool
    children: dict[str, str]


@dataclass(frozen=True)
class ImageReading:
    """The images of a repository, newest first, ties by digest. Incomplete if there are too many to read."""

    images: list[Image]
    is_complete: bool


def parse_image(reference: str) -> ImageReference:
    """Split `[host[:port]/]path[:tag][@digest]`.

    >>> parse_image("localhost:5000/team/agent:v1@sha256:" + 64 * "0").repository
    'localhost:5000/team/agent'
    """
    located, _, digest = reference.partition("@")
    folder, slash, last = located.rpartition("/")
    name, _, tag = last.partition(":")
    return ImageReference(f"{folder}{slash}{name}", tag or None, digest or None)


def ecr_repository(reference: ImageReference) -> Repository | None:
    """Return the Amazon ECR repository of the image, or None if it is in another kind of registry."""
    host, _, name = reference.repository.partition("/")
    registry = REGISTRY.fullmatch(host)
    if registry is None or not name:
        return None
    partition = find_partition(registry["region"])
    is_ecr = partition is not None and registry["suffix"] in partition.suffixes
    return Repository(registry["account"], registry["region"], name) if is_ecr else None


def find_image(
    target: AwsTarget, repository: Repository, name: str, *, before_call: Callable[[], None] = do_nothing
) -> Image | None:
    """Return the image with this tag or digest (`sha256:..`), or None if the repository has no such runnable image.

    *Costs* one call, preceded by `before_call`, which may renew a lease.
    *Raises* AwsError; AwsRefused `RepositoryNotFoundException` if the registry has no such repository.
    """
    if DIGEST.fullmatch(name):
        image_id = {"imageDigest": name}
    elif TAG.fullmatch(name) and not ARTIFACT_TAG.fullmatch(name):
        image_id = {"imageTag": name}
    else:
        return None
    before_call()
    try:
        reply = _describe_images(target, repository, imageIds=[image_id])
    except AwsRefused as error:
        if error.code == "ImageNotFoundException":
            return None
        raise
    return next(_images(reply), None)


def list_images(
    target: AwsTarget,
    repository: Repository,
    *,
    pages: int = PAGES_PER_READ,
    before_call: Callable[[], None] = do_nothing,
) -> ImageReading:
    """List all images, tagged and untagged.

    *Costs* one call per 1000 images, at most `pages`; `before_call` runs before each.
    *Raises* AwsError, as find_image does.
    """
    images: list[Image] = []
    token: dict[str, str] = {}
    for _ in range(pages):
        before_call()
        reply = _describe_images(target, repository, maxResults=IMAGES_PER_CALL, **token)
        images += _images(reply)
        token = {"nextToken": reply["nextToken"]} if reply.get("nextToken") else {}
        if not token:
            break
    return ImageReading(sorted(images, key=newest_first), is_complete=not token)


def read_manifests(
    target: AwsTarget, repository: Repository, digests: list[str], *, before_call: Callable[[], None] = do_nothing
) -> dict[str, Manifest]:
    """Read the manifests with these digests. What ECR does not return, or not as JSON, is left out.

    *Costs* one call per hundred digests, each preceded by `before_call`. *Raises* AwsError.
    """
    found: dict[str, Manifest] = {}
    for first in range(0, len(digests), MANIFESTS_PER_CALL):
        before_call()
        reply = _call(
            target,
            repository,
            "ecr:BatchGetImage",
            "batch_get_image",
            imageIds=[{"imageDigest": digest} for digest in digests[first : first + MANIFESTS_PER_CALL]],
            acceptedMediaTypes=sorted(IMAGE_MANIFESTS),
        )
        for raw in reply.get("images") or []:
            manifest = _parse_manifest(raw.get("imageManifest"))
            digest = (raw.get("imageId") or {}).get("imageDigest")
            if manifest is not None and digest:
                found[digest] = manifest
    return found


def newest_first(image: Image) -> tuple[float, str]:
    """Return a sort key: by time of the push, then by digest. Images without a time come last."""
    return -image.pushed_at.timestamp() if image.pushed_at else 0.0, image.digest


def _parse_manifest(text: str | None) -> Manifest | None:
    """Return what a manifest says about itself and about the manifests that it names; None if it cannot be parsed.

    Everything in it was written by the person who pushed it, so any member may be missing or of another type.
    """
    try:
        raw = json.loads(text or "")
        children = {str(each["digest"]): _kind(each) for each in raw.get("manifests") or []}
        layers = [each.get("mediaType") for each in raw.get("layers") or []]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    is_attestation = bool(layers) and set(layers) == {ATTESTATION_LAYER}
    has_platform = not children or set(children.values()) != {ATTESTATION}
    is_artifact = bool(raw.get("subject") or raw.get("artifactType") or is_attestation)
    return Manifest(not is_artifact and has_platform, children)


def _kind(descriptor: dict[str, Any]) -> str:
    """Return what an index names here: `attestation`, or a platform such as `linux/arm64/v8`."""
    name, value = ATTESTATION_TYPE
    if (descriptor.get("annotations") or {}).get(name) == value or descriptor.get("artifactType"):
        return ATTESTATION
    platform = descriptor.get("platform") or {}
    parts = [platform.get(part) for part in ("os", "architecture", "variant")]
    return "/".join(str(part) for part in parts if part) or "unknown"


def _describe_images(target: AwsTarget, repository: Repository, **parameters: Any) -> dict[str, Any]:
    return _call(target, repository, "ecr:DescribeImages", "describe_images", **parameters)


def _call(target: AwsTarget, repository: Repository, action: str, method: str, **parameters: Any) -> dict[str, Any]:
    """Call ECR in the registry's region, in a session that reaches this repository only."""
    there = replace(target, region=repository.region)
    scope = Scope(Use.IMAGES, registry=repository.registry_id, repository=repository.name)
    of_repository = {"registryId": repository.registry_id, "repositoryName": repository.name, **parameters}
    return read(there, "ecr", action, method, scope=scope, parameters=of_repository)


def _images(reply: dict[str, Any]) -> Iterator[Image]:
    """Yield the runnable images: no signatures or other artifacts, and no archived images."""
    with complete("ecr:DescribeImages"):
        details = reply["imageDetails"]
    for raw in details:
        tags = [tag for tag in raw.get("imageTags", []) if not ARTIFACT_TAG.fullmatch(tag)]
        if not raw.get("imageDigest") or not _is_image(raw) or (raw.get("imageTags") and not tags):
            continue
        yield Image(
            digest=raw["imageDigest"],
            tags=tuple(sorted(tags)),
            pushed_at=raw["imagePushedAt"].astimezone(UTC) if raw.get("imagePushedAt") else None,
            size_bytes=raw.get("imageSizeInBytes"),
            is_index=raw.get("imageManifestMediaType") in INDEXES,
        )


def _is_image(raw: dict[str, Any]) -> bool:
    """Return whether the media types are those of an active image.

    ECR does not return every type: an index has no `artifactMediaType`.
    """
    manifest, config = raw.get("imageManifestMediaType"), raw.get("artifactMediaType")
    is_known = (not manifest or manifest in IMAGE_MANIFESTS) and (not config or config in IMAGE_CONFIGS)
    return is_known and not raw.get("subjectManifestDigest") and raw.get("imageStatus", "ACTIVE") == "ACTIVE"
