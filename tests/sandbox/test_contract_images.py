"""ECR repositories and images through boto3. Every reply is checked against botocore's model."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws import LocalAws
from tests.sandbox.conftest import check_shape

ACCOUNT = "111111111111"
NOTHING = f"sha256:{'0' * 64}"
Json = dict[str, Any]


class Registry:
    """The test's own ECR repository."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.client = aws.client("ecr")
        self.name = f"r-{uuid.uuid4().hex[:8]}"

    def push(self, *tags: str, pushed_at: float = 1_700_000_000, **fields: Any) -> str:
        """Push an image and return its digest."""
        image = {"repository": self.name, "tags": list(tags), "pushed_at": pushed_at, **fields}
        (digest,) = self.aws.seed(images=[image])["images"].values()
        return str(digest)

    def images(self, **parameters: Any) -> Json:
        return dict(self.client.describe_images(repositoryName=self.name, **parameters))

    def image(self, **image_id: str) -> Json:
        (found,) = self.images(imageIds=[image_id])["imageDetails"]
        return dict(found)


@pytest.fixture
def registry(aws: LocalAws) -> Iterator[Registry]:
    unknown: list[str] = []
    made = Registry(aws)
    check = check_shape(unknown)
    made.client.meta.events.register("after-call.ecr", check)
    yield made
    made.client.meta.events.unregister("after-call.ecr", check)
    assert unknown == []


def refusal(call: Any, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    return refused.value.response["Error"]["Code"], refused.value.response["Error"]["Message"]


def test_an_image_is_described_whole(registry: Registry) -> None:
    digest = registry.push("v1", "latest", pushed_at=1_700_000_000)

    (image,) = registry.images()["imageDetails"]

    assert image["imageDigest"] == digest
    assert digest.startswith("sha256:")
    assert len(digest) == len(NOTHING)
    assert image["imageTags"] == ["latest", "v1"]
    assert image["imagePushedAt"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (image["registryId"], image["repositoryName"]) == (ACCOUNT, registry.name)
    assert image["artifactMediaType"] == "application/vnd.docker.container.image.v1+json"
    assert image["imageStatus"] == "ACTIVE"


def test_sizes_are_of_compressed_layers_and_differ(registry: Registry) -> None:
    for number in range(3):
        registry.push(f"v{number}")

    sizes = {image["imageSizeInBytes"] for image in registry.images()["imageDetails"]}

    assert len(sizes) == 3
    assert all(50_000_000 < size < 200_000_000 for size in sizes)


def test_images_come_in_pages_and_in_no_useful_order(registry: Registry) -> None:
    digests = [registry.push(f"v{number:02}", pushed_at=1_700_000_000 + number) for number in range(25)]

    first = registry.images(maxResults=10)
    second = registry.images(maxResults=10, nextToken=first["nextToken"])
    third = registry.images(maxResults=10, nextToken=second["nextToken"])
    pages = [page["imageDetails"] for page in (first, second, third)]

    assert [len(page) for page in pages] == [10, 10, 5]
    assert "nextToken" not in third
    listed = [image["imageDigest"] for page in pages for image in page]
    assert sorted(listed) == sorted(digests)
    assert listed not in (digests, digests[::-1])
    paginator = registry.client.get_paginator("describe_images")
    found = [image for page in paginator.paginate(repositoryName=registry.name) for image in page["imageDetails"]]
    assert len(found) == 25


def test_a_page_has_a_hundred_images_unless_more_are_asked_for(registry: Registry) -> None:
    registry.aws.seed(images=[{"repository": registry.name, "tags": [f"v{number}"]} for number in range(101)])

    assert len(registry.images()["imageDetails"]) == 100
    assert len(registry.images(maxResults=1000)["imageDetails"]) == 101


def test_a_larger_page_is_refused(registry: Registry) -> None:
    registry.push("v1")

    code, message = refusal(registry.images, maxResults=1001)

    assert code == "InvalidParameterException"
    assert "'maxResults'" in message


def test_images_are_found_by_tag_and_by_digest(registry: Registry) -> None:
    digest = registry.push("v1", "stable")
    registry.push("v2")

    assert registry.image(imageTag="stable")["imageDigest"] == digest
    assert registry.image(imageDigest=digest)["imageTags"] == ["stable", "v1"]
    assert registry.image(imageTag="v1", imageDigest=digest)["imageDigest"] == digest


@pytest.mark.parametrize("image_id", [{"imageTag": "v9"}, {"imageDigest": NOTHING}])
def test_a_missing_image_fails_the_whole_call(registry: Registry, image_id: Json) -> None:
    registry.push("v1")

    code, message = refusal(registry.images, imageIds=[{"imageTag": "v1"}, image_id])

    assert code == "ImageNotFoundException"
    assert message == (
        f"The image with imageId {{imageDigest:'{image_id.get('imageDigest', 'null')}', "
        f"imageTag:'{image_id.get('imageTag', 'null')}'}} does not exist within the repository with name "
        f"'{registry.name}' in the registry with id '{ACCOUNT}'"
    )


def test_a_missing_repository_and_another_registry_are_refused(registry: Registry) -> None:
    registry.push("v1")

    missing = refusal(registry.client.describe_images, repositoryName="nobody")
    elsewhere = refusal(registry.client.list_images, repositoryName=registry.name, registryId="999999999999")

    assert missing == (
        "RepositoryNotFoundException",
        f"The repository with name 'nobody' does not exist in the registry with id '{ACCOUNT}'",
    )
    assert elsewhere[0] == "RepositoryNotFoundException"
    assert refusal(registry.client.describe_repositories, repositoryNames=["nobody"]) == missing


def test_paging_is_refused_with_named_images(registry: Registry) -> None:
    registry.push("v1")

    assert refusal(registry.images, imageIds=[{"imageTag": "v1"}], maxResults=5)[0] == "InvalidParameterException"
    assert refusal(registry.images, imageIds=[{}])[0] == "InvalidParameterException"
    assert refusal(registry.images, nextToken="nonsense")[0] == "InvalidParameterException"


def test_moved_tag_leaves_the_old_image_untagged(registry: Registry) -> None:
    old = registry.push("v1", pushed_at=1_700_000_000)
    new = registry.push("v1", pushed_at=1_700_000_100, build="again")

    tagged = registry.images(filter={"tagStatus": "TAGGED"})["imageDetails"]
    untagged = registry.images(filter={"tagStatus": "UNTAGGED"})["imageDetails"]

    assert old != new
    assert [image["imageDigest"] for image in tagged] == [new]
    assert [image["imageDigest"] for image in untagged] == [old]
    assert "imageTags" not in untagged[0]
    assert registry.image(imageTag="v1")["imageDigest"] == new
    listed = registry.client.list_images(repositoryName=registry.name)["imageIds"]
    assert sorted(listed, key=str) == sorted([{"imageDigest": new, "imageTag": "v1"}, {"imageDigest": old}], key=str)
    only = registry.client.list_images(repositoryName=registry.name, filter={"tagStatus": "UNTAGGED"})["imageIds"]
    assert only == [{"imageDigest": old}]


def test_artifact_shows_its_media_type(registry: Registry) -> None:
    registry.push("sig", artifact="application/vnd.dev.cosign.artifact.sig.v1+json")

    assert registry.image(imageTag="sig")["artifactMediaType"] == "application/vnd.dev.cosign.artifact.sig.v1+json"


def test_an_attached_artifact_names_its_type_and_its_subject(registry: Registry) -> None:
    media = "application/vnd.oci"
    subject = registry.push("v1")
    registry.push(
        "bundle",
        manifest=f"{media}.image.manifest.v1+json",
        artifact=f"{media}.empty.v1+json",
        artifact_type="application/vnd.dev.sigstore.bundle.v0.3+json",
        subject=subject,
    )

    bundle = registry.image(imageTag="bundle")

    assert bundle["imageManifestMediaType"] == f"{media}.image.manifest.v1+json"
    assert bundle["artifactMediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["subjectManifestDigest"] == subject
    assert "subjectManifestDigest" not in registry.image(imageTag="v1")


def test_index_has_only_a_manifest_type(registry: Registry) -> None:
    registry.push("v1", manifest="application/vnd.oci.image.index.v1+json")

    image = registry.image(imageTag="v1")

    assert image["imageManifestMediaType"] == "application/vnd.oci.image.index.v1+json"
    assert "artifactMediaType" not in image


def test_repositories_are_described_and_paged(registry: Registry) -> None:
    registry.push("v1")
    other = Registry(registry.aws)
    other.push("v1")

    (repository,) = registry.client.describe_repositories(repositoryNames=[registry.name])["repositories"]
    page = registry.client.describe_repositories(maxResults=1)

    assert repository["repositoryUri"] == f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/{registry.name}"
    assert repository["imageTagMutability"] == "MUTABLE"
    assert len(page["repositories"]) == 1
    assert page["nextToken"]


def test_faults_reach_ecr(registry: Registry) -> None:
    registry.push("v1")
    registry.aws.fault("access_denied", action="DescribeImages", times=1)
    registry.aws.fault("throttle", action="DescribeImages", times=1)

    denied, throttled = refusal(registry.images), refusal(registry.images)

    assert denied[0] == "AccessDeniedException"
    assert f"repository/{registry.name}" in denied[1]
    assert throttled[0] == "ThrottlingException"
    assert len(registry.images()["imageDetails"]) == 1


def test_seeding_the_same_image_again_changes_nothing(registry: Registry) -> None:
    first = registry.push("v1", "latest")

    again = registry.push("v1", "latest")

    assert first == again
    assert len(registry.images()["imageDetails"]) == 1


def test_a_task_runs_the_digest_that_its_image_is_pinned_to(registry: Registry) -> None:
    digest = registry.push("v1")
    registry.push("v2")
    uri = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/{registry.name}"
    cluster, client = f"c-{registry.name}", registry.aws.client()
    registry.aws.seed(
        cluster=cluster,
        services=[
            {"name": "pinned", "image": f"{uri}@{digest}", "desired_count": 1},
            {"name": "tagged", "image": f"{uri}:v1", "desired_count": 1},
        ],
    )

    tasks = client.list_tasks(cluster=cluster)["taskArns"]
    containers = [task["containers"][0] for task in client.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]]

    assert {container["imageDigest"] for container in containers} == {digest}
    assert {container["image"] for container in containers} == {f"{uri}@{digest}", f"{uri}:v1"}


@pytest.mark.parametrize(
    "kind",
    [
        {"artifact": "application/vnd.cncf.helm.config.v1+json"},
        {"artifact_type": "application/vnd.dev.cosign.artifact.sig.v1+json"},
        {"artifact_type": "application/vnd.in-toto+json", "subject": NOTHING},
    ],
)
def test_what_is_no_image_cannot_be_run(registry: Registry, kind: Json) -> None:
    registry.push("v1")
    registry.push("v2", **kind)
    uri = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/{registry.name}"
    cluster, client = f"c-{registry.name}", registry.aws.client()
    registry.aws.seed(cluster=cluster, services=[{"name": "web", "image": f"{uri}:v1", "desired_count": 1}])
    definition = client.register_task_definition(
        family=registry.name, containerDefinitions=[{"name": "app", "image": f"{uri}:v2", "memory": 64}]
    )["taskDefinition"]["taskDefinitionArn"]

    client.update_service(cluster=cluster, service="web", taskDefinition=definition)
    registry.aws.advance(20)

    (arn, *_) = client.list_tasks(cluster=cluster, desiredStatus="STOPPED")["taskArns"]
    (task,) = client.describe_tasks(cluster=cluster, tasks=[arn])["tasks"]
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: failed to unpack image")


def test_an_index_names_its_untagged_manifests(registry: Registry) -> None:
    image = {"repository": registry.name, "tags": ["v1"], "platforms": ["linux/amd64", "linux/arm64"], "attested": True}
    seeded = registry.aws.seed(images=[image])["images"]
    name = f"{registry.name}:v1"

    found = {each["imageDigest"]: each for each in registry.images()["imageDetails"]}
    asked = [{"imageTag": "v1"}, {"imageDigest": NOTHING}]
    reply = registry.client.batch_get_image(repositoryName=registry.name, imageIds=asked)

    assert set(found) == set(seeded.values())
    assert [digest for digest, each in found.items() if each.get("imageTags")] == [seeded[name]]
    assert "artifactMediaType" not in found[seeded[name]]
    assert (
        found[seeded[f"{name} attestation linux/amd64"]]["artifactMediaType"]
        == "application/vnd.oci.image.config.v1+json"
    )
    sizes = [each["imageSizeInBytes"] for digest, each in found.items() if digest != seeded[name]]
    assert found[seeded[name]]["imageSizeInBytes"] == max(sizes)
    (index,) = reply["images"]
    assert index["imageId"] == {"imageDigest": seeded[name], "imageTag": "v1"}
    named = [each["digest"] for each in json.loads(index["imageManifest"])["manifests"]]
    assert named == list(seeded.values())[1:]
    assert reply["failures"] == [
        {
            "imageId": {"imageDigest": NOTHING},
            "failureCode": "ImageNotFound",
            "failureReason": "Requested image not found",
        }
    ]


def test_batch_get_image_takes_a_hundred_ids(registry: Registry) -> None:
    registry.push("v1")

    code, _ = refusal(
        registry.client.batch_get_image, repositoryName=registry.name, imageIds=[{"imageTag": "v1"}] * 101
    )

    assert code == "InvalidParameterException"
