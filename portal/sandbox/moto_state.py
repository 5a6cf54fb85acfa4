"""The only module that accesses moto's internals: reads, seeds and saves clusters, task definitions and ECR images.

moto is pinned to an exact version. tests/sandbox/test_moto.py fails if something used here disappears.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import moto

# moto's ECS imports all of its EC2 for tasks and container instances, of which the engine has its own. That takes longer
# than all else in a start. Calls to EC2, which the portal does not make, therefore fail.
ec2 = ModuleType("moto.ec2")
ec2.__path__ = [f"{path}/ec2" for path in moto.__path__]
ec2.__dict__["ec2_backends"] = {}
sys.modules.setdefault("moto.ec2", ec2)

# ruff: noqa: E402 - what follows comes after moto's ECS has been given that
from moto.cloudwatch.models import cloudwatch_backends
from moto.ecr.models import Image, Repository, ecr_backends
from moto.ecs.models import Cluster, TaskDefinition, ecs_backends
from moto.logs.models import logs_backends

from portal.sandbox.engine import RevisionPlan
from portal.sandbox.errors import AwsError
from portal.sandbox.log_lines import Line
from portal.sandbox.partitions import registry_host

Place = tuple[str, str]  # account and region

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
INDEXES = ("application/vnd.docker.distribution.manifest.list.v2+json", OCI_INDEX)
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"
RUNNABLE_CONFIGS = ("application/vnd.docker.container.image.v1+json", OCI_CONFIG)
CRASHING_TAG = "crash"  # an image with this tag can be pulled and starts, but exits after two seconds


# The members of a task definition, by the attributes of moto's record.
TASK_DEFINITION_MEMBERS = {
    "arn": "taskDefinitionArn",
    "compatibilities": "compatibilities",
    "container_definitions": "containerDefinitions",
    "cpu": "cpu",
    "ephemeral_storage": "ephemeralStorage",
    "execution_role_arn": "executionRoleArn",
    "family": "family",
    "inference_accelerators": "inferenceAccelerators",
    "ipc_mode": "ipcMode",
    "memory": "memory",
    "network_mode": "networkMode",
    "pid_mode": "pidMode",
    "placement_constraints": "placementConstraints",
    "proxy_configuration": "proxyConfiguration",
    "requires_compatibilities": "requiresCompatibilities",
    "revision": "revision",
    "runtime_platform": "runtimePlatform",
    "status": "status",
    "task_role_arn": "taskRoleArn",
    "volumes": "volumes",
}


def find_cluster(account: str, region: str, name: str) -> Cluster | None:
    return ecs_backends[account][region].clusters.get(name)


def create_cluster(account: str, region: str, name: str) -> None:
    if find_cluster(account, region, name) is None:
        ecs_backends[account][region].create_cluster(name)


def set_cluster_counts(cluster: Cluster, *, services: int, running: int, pending: int) -> None:
    cluster.active_services_count = services
    cluster.running_tasks_count = running
    cluster.pending_tasks_count = pending


def register_task_definition(account: str, region: str, family: str, **parameters: Any) -> str:
    """Register a revision with moto's own parameters and return its full ARN."""
    return str(ecs_backends[account][region].register_task_definition(family, **parameters).arn)


def store_extra_fields(definition: TaskDefinition, fields: dict[str, Any]) -> None:
    """Store fields of a task definition that moto does not keep. They are saved in the snapshot with the record."""
    vars(definition).setdefault("beside", {}).update(fields)


def get_extra_fields(definition: TaskDefinition) -> dict[str, Any]:
    return dict(vars(definition).get("beside", {}))


def describe_task_definition(definition: TaskDefinition) -> dict[str, Any]:
    """Return a task definition as ECS describes it, with the fields that moto does not keep.

    Here instead of by moto, whose serializer takes several times as long as all else in a call.
    """
    record = vars(definition)
    described = {
        member: record[attribute]
        for attribute, member in TASK_DEFINITION_MEMBERS.items()
        if record.get(attribute) is not None
    }
    return described | get_extra_fields(definition)


def task_definition_arns(account: str, region: str, *, family: str | None, status: str) -> list[str]:
    """List ARNs by family name, then by revision, oldest first."""
    families = ecs_backends[account][region].task_definitions
    return [
        str(revisions[number].arn)
        for name, revisions in sorted(families.items())
        for number in sorted(revisions)
        if family in (None, name) and revisions[number].status == status
    ]


def find_task_definition(account: str, region: str, name: str) -> TaskDefinition:
    """Return a task definition by ARN, `family:revision`, or `family` for its newest ACTIVE revision.

    Raises ClientException, as ECS does, when it does not exist or is INACTIVE.
    """
    found = known_task_definition(account, region, name)
    if found is None:
        raise AwsError("ClientException", "Unable to describe task definition.")
    if found.status != "ACTIVE":
        raise AwsError("ClientException", "TaskDefinition is inactive")
    return found


def known_task_definition(account: str, region: str, name: str) -> TaskDefinition | None:
    """Return a task definition like find_task_definition, including INACTIVE revisions by number; None if there is none."""
    short = name.rsplit("/", 1)[-1]
    revisions = ecs_backends[account][region].task_definitions
    family, _, number = short.partition(":")
    if number:
        return revisions.get(family, {}).get(int(number)) if number.isdigit() else None
    active = [each for each in revisions.get(family, {}).values() if each.status == "ACTIVE"]
    return max(active, key=lambda each: each.revision, default=None)


def plan_revision(account: str, region: str, name: str) -> RevisionPlan:
    """Return the plan of a service revision with this task definition, with each image resolved to its digest."""
    definition = find_task_definition(account, region, name)
    containers = []
    errors = []
    for container in definition.container_definitions:
        image = str(container["image"])
        digest, error = resolve_image(account, region, image)
        if error:
            errors.append(error)
        containers.append(
            {
                "name": container["name"],
                "image": image,
                "imageDigest": digest,
                "essential": bool(container.get("essential", True)),
                "crashes": CRASHING_TAG in (image_tag(image), *tags_of_digest(account, region, image, digest)),
                "cpu": str(container.get("cpu") or 0),
                "memory": str(container["memory"]) if container.get("memory") else "",
                "logConfiguration": container.get("logConfiguration"),
            }
        )
    return RevisionPlan(
        task_definition=definition.arn,
        containers=containers,
        cpu=str(definition.cpu or "256"),
        memory=str(definition.memory or "512"),
        pull_error=errors[0] if errors else "",
        crashes=any(each["crashes"] and each["essential"] for each in containers),
    )


def image_tag(image: str) -> str:
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[2]


def tags_of_digest(account: str, region: str, image: str, digest: str) -> list[str]:
    """Return ECR's tags for the digest of an image in this account and region; none for other registries."""
    registry, _, path = image.partition("@")[0].partition("/")
    repository = ecr_backends[account][region].repositories.get(path.partition(":")[0])
    if registry != registry_host(account, region) or repository is None:
        return []
    return [tag for each in repository.images if each.get_image_digest() == digest for tag in each.image_tags]


def resolve_image(account: str, region: str, image: str) -> tuple[str, str]:
    """Return the image's digest and the error that pulling it would cause, or an empty string.

    Only an image in an existing repository of this account and region can be missing.
    """
    location, _, digest = image.partition("@")
    registry, _, path = location.partition("/")
    repository_name, _, tag = path.partition(":")
    invented = digest or "sha256:" + hashlib.sha256(image.encode()).hexdigest()
    if registry != registry_host(account, region):
        return invented, ""
    repository = ecr_backends[account][region].repositories.get(repository_name)
    if repository is None:
        return invented, ""
    for each in repository.images:
        if each.get_image_digest() == digest or (not digest and (tag or "latest") in each.image_tags):
            return str(each.get_image_digest()), unrunnable_reason(image, parsed_manifest(each))
    return invented, (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref "
        f"{image}: {image}: not found"
    )


def unrunnable_reason(image: str, manifest: dict[str, Any]) -> str:
    """Return the error of pulling what is no image: a signature, an attestation, an SBOM, a chart. Else an empty string.

    Such artifacts have a config or layers that are not an image's, or name an `artifactType`
    (https://github.com/opencontainers/image-spec/blob/main/manifest.md). The text is assumed.
    """
    types = [str(each.get("mediaType")) for each in manifest.get("layers", [])]
    foreign = [each for each in types if "image.rootfs" not in each and "image.layer" not in each]
    config = str(manifest.get("config", {}).get("mediaType", RUNNABLE_CONFIGS[0]))
    if config not in RUNNABLE_CONFIGS:
        foreign.append(config)
    if manifest.get("artifactType"):
        foreign.append(str(manifest["artifactType"]))
    if not foreign:
        return ""
    return f"CannotPullContainerError: failed to unpack image {image}: unsupported media type {foreign[0]}"


@dataclass(frozen=True)
class ImageSeed:
    """An image to put into ECR. Its digest is derived from the repository, the first tag and `build`.

    Another build of the same tag is another image. The other fields describe artifacts that cannot run: `manifest` is the
    media type of the manifest, `artifact` that of its config, `artifact_type` the manifest's field of that name, and
    `subject` the digest it refers to.

    `platforms` (`linux/amd64` and so on) makes it an index, as `docker buildx` pushes it: with one untagged manifest for
    each platform and, if `attested`, one untagged in-toto attestation for each of these.
    """

    repository: str
    tags: tuple[str, ...]
    pushed_at: float
    build: str = ""
    artifact: str = "application/vnd.docker.container.image.v1+json"
    manifest: str = "application/vnd.docker.distribution.manifest.v2+json"
    artifact_type: str = ""
    subject: str = ""
    layer: str = LAYER
    platforms: tuple[str, ...] = ()
    attested: bool = False

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tags[0]}" + (f" {self.build}" if self.build else "")


def put_image(account: str, region: str, seed: ImageSeed) -> str:
    """Put an image with its push time, create the repository if needed, and return the digest.

    A tag held by another image moves, as in a mutable repository, and may leave that image untagged. An existing image
    keeps its digest. The manifests that an index names are put too, untagged.
    """
    backend = ecr_backends[account][region]
    repository = backend.repositories.get(seed.repository)
    if repository is None:
        # ECR's defaults: mutable tags, no scan on push.
        repository = backend.create_repository(seed.repository, None, None, None, "MUTABLE", [])
    for child in children(seed):
        find_or_add_image(repository, child, None)
    image = find_or_add_image(repository, seed, seed.tags[0])
    for tag in seed.tags:
        for other in repository.images:
            if other is not image and tag in other.image_tags:
                other.remove_tag(tag)
        if tag not in image.image_tags:
            image.update_tag(tag)
    return manifest_digest(seed)


def find_or_add_image(repository: Repository, seed: ImageSeed, tag: str | None) -> Image:
    digest = manifest_digest(seed)
    image = next((each for each in repository.images if each.get_image_digest() == digest), None)
    if image is None:
        manifest = image_manifest(seed)
        image = Image(repository.registry_id, tag, manifest, seed.repository, json.loads(manifest)["mediaType"], digest)
        image.image_pushed_at = int(seed.pushed_at)
        repository.images.append(image)
    return image


def children(seed: ImageSeed) -> list[ImageSeed]:
    """Return the manifests that an index names: those of its platforms, then their attestations."""
    plain = replace(seed, manifest=OCI_MANIFEST, artifact=OCI_CONFIG, platforms=(), attested=False)
    attested = seed.platforms if seed.attested else ()
    return [replace(plain, build=f"{seed.build} {platform}".strip()) for platform in seed.platforms] + [
        replace(plain, build=f"{seed.build} attestation {platform}".strip(), layer=IN_TOTO) for platform in attested
    ]


def describe_child(child: ImageSeed, index: ImageSeed) -> dict[str, Any]:
    """Return an index's descriptor of a manifest, as BuildKit writes it.

    https://docs.docker.com/build/metadata/attestations/attestation-storage/
    """
    manifest = image_manifest(child)
    descriptor = {"mediaType": child.manifest, "digest": manifest_digest(child), "size": len(manifest)}
    platform = child.build.split()[-1]
    if child.layer != IN_TOTO:
        system, _, architecture = platform.partition("/")
        return descriptor | {"platform": {"os": system, "architecture": architecture}}
    described = next(each for each in children(index) if each.build.split()[-1] == platform)
    annotations = {
        "vnd.docker.reference.digest": manifest_digest(described),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return descriptor | {"annotations": annotations, "platform": {"os": "unknown", "architecture": "unknown"}}


def repositories(account: str, region: str) -> list[Repository]:
    known = ecr_backends[account][region].repositories
    return [known[name] for name in sorted(known)]


def parsed_manifest(image: Image) -> dict[str, Any]:
    return dict(json.loads(image.get_image_manifest()))


def image_size(repository: Repository, image: Image) -> int:
    """Return the compressed size; for an index, that of its largest manifest."""
    manifest = parsed_manifest(image)
    named = {each["digest"] for each in manifest.get("manifests", [])}
    if not named:
        return sum(layer["size"] for layer in manifest.get("layers", []))
    sizes = [image_size(repository, each) for each in repository.images if each.get_image_digest() in named]
    return max(sizes, default=0)


def image_manifest(seed: ImageSeed) -> str:
    """Return a manifest whose config, layers and compressed size are unique to the image. An index has none of them."""
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": seed.manifest}
    if seed.artifact_type:
        manifest["artifactType"] = seed.artifact_type
    if seed.subject:
        manifest["subject"] = {"digest": seed.subject}
    if seed.manifest in INDEXES:
        return json.dumps(manifest | {"manifests": [describe_child(child, seed) for child in children(seed)]})
    own_size = 40_000_000 + int(part_digest(seed, "size")[-6:], 16)
    manifest["config"] = {"mediaType": seed.artifact, "size": 7023, "digest": part_digest(seed, "config")}
    manifest["layers"] = [
        {"mediaType": seed.layer, "size": size, "digest": digest}
        for size, digest in zip((31_357_624, 12_652_108, own_size), layer_digests(seed), strict=True)
    ]
    return json.dumps(manifest)


def manifest_digest(seed: ImageSeed) -> str:
    return "sha256:" + hashlib.sha256("".join(layer_digests(seed)).encode()).hexdigest()


def layer_digests(seed: ImageSeed) -> list[str]:
    return [part_digest(seed, f"layer {number}") for number in range(3)]


def part_digest(seed: ImageSeed, part: str) -> str:
    return "sha256:" + hashlib.sha256(f"{seed.name} {part}".encode()).hexdigest()


def has_log_group(account: str, region: str, group: str) -> bool:
    return group in logs_backends[account][region].groups


def log_streams(account: str, region: str, group: str) -> list[str]:
    return sorted(logs_backends[account][region].groups[group].streams)


def ensure_log_stream(account: str, region: str, group: str, name: str, created_ms: int) -> None:
    """Create a log stream and its group if they do not exist."""
    backend = logs_backends[account][region]
    created = datetime.fromtimestamp(created_ms / 1000, UTC).replace(tzinfo=None)
    if group not in backend.groups:
        backend.create_log_group(group, {}).creation_time = created
    streams = backend.groups[group].streams
    if name not in streams:
        backend.create_log_stream(group, name)
        streams[name].creation_time = created


def put_log_events(account: str, region: str, group: str, name: str, events: list[dict[str, Any]], now_ms: int) -> None:
    stream = logs_backends[account][region].groups[group].streams[name]
    stream.put_log_events(events)
    for event in stream.events[-len(events) :]:
        event.ingestion_time = now_ms  # moto takes the machine's clock


def put_log_lines(account: str, region: str, group: str, name: str) -> list[Line]:
    """Return the lines from PutLogEvents in a stream. They sort after the task's lines of the same millisecond."""
    events = logs_backends[account][region].groups[group].streams[name].events
    return [
        Line(int(event.timestamp), name, 1_000_000 + number, event.message, int(event.ingestion_time))
        for number, event in enumerate(events)
    ]


def places() -> list[Place]:
    """List every account and region with data to save."""
    found = {
        (account, region)
        for backends in (ecs_backends, ecr_backends)
        for account, regions in list(backends.items())
        for region in list(regions)
    }
    return sorted(place for place in found if dump_place(place))


def dump_place(place: Place) -> dict[str, Any]:
    """Return clusters, task definitions and ECR repositories of one account and region as JSON, or an empty dictionary."""
    account, region = place
    ecs, ecr = ecs_backends[account][region], ecr_backends[account][region]
    state = {
        "clusters": [vars(each) for each in ecs.clusters.values()],
        "task_definitions": [vars(each) for family in ecs.task_definitions.values() for each in family.values()],
        "repositories": [dump_repository(each) for each in ecr.repositories.values()],
    }
    return state if any(state.values()) else {}


def dump_repository(repository: Repository) -> dict[str, Any]:
    state = dict(vars(repository))
    state["created_at"] = repository.created_at.isoformat()
    state["images"] = [{**vars(image), "last_scan": None} for image in repository.images]
    state["uploads"] = {}
    return state


def load_place(place: Place, state: dict[str, Any]) -> None:
    """Restore the state returned by `dump_place`."""
    account, region = place
    ecs, ecr = ecs_backends[account][region], ecr_backends[account][region]
    for each in state["clusters"]:
        cluster = revived(Cluster, each)
        ecs.clusters[cluster.name] = cluster
    for each in state["task_definitions"]:
        definition = revived(TaskDefinition, each)
        ecs.task_definitions.setdefault(definition.family, {})[definition.revision] = definition
    for each in state["repositories"]:
        repository = revived(Repository, each)
        repository.created_at = datetime.fromisoformat(each["created_at"])
        repository.images = [revived(Image, image) for image in each["images"]]
        ecr.repositories[repository.name] = repository


def revived(model: type[Any], state: dict[str, Any]) -> Any:
    """Create a moto record from its attributes, without running its constructor."""
    record = object.__new__(model)
    record.__dict__.update(state)
    return record


def reset() -> None:
    """Delete moto's data of the services that the portal uses, in every account and region."""
    for backends in (ecs_backends, ecr_backends, logs_backends, cloudwatch_backends):
        for account in list(backends.values()):
            account.reset()
