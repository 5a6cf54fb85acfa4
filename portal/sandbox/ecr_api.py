"""The ECR reads in which moto is too lenient: paging, limits, filters, missing images. Writes are left to moto.

Images come sorted by digest because ECR promises no order. Clients that want the newest first must sort.
https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html and related pages.
"""

from collections.abc import Callable
from typing import Any

from moto.ecr.models import Image, Repository

from portal.sandbox import moto_state
from portal.sandbox.ecs_api import paged
from portal.sandbox.errors import AwsError, invalid_parameter
from portal.sandbox.protocol import ApiRequest

Json = dict[str, Any]

DEFAULT_PAGE, LARGEST_PAGE, MAX_IMAGE_IDS = 100, 1000, 100


class EcrApi:
    """ECR's reads by action name, on top of moto's data."""

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[ApiRequest], Json]] = {
            "BatchGetImage": self.batch_get_image,
            "DescribeImages": self.describe_images,
            "DescribeRepositories": self.describe_repositories,
            "ListImages": self.list_images,
        }

    def describe_repositories(self, request: ApiRequest) -> Json:
        names = request.params.get("repositoryNames")
        refuse_paging_with(request, names, "repositoryNames")
        if names:
            found = [find_repository(request, name) for name in dict.fromkeys(names)]
            return {"repositories": [repository_reply(each) for each in found]}
        check_registry(request, "")
        known = moto_state.repositories(request.account, request.region)
        page, token = get_page([repository_reply(each) for each in known], request)
        return with_token("repositories", page, token)

    def describe_images(self, request: ApiRequest) -> Json:
        repository = find_repository(request, str(request.params.get("repositoryName", "")))
        image_ids = request.params.get("imageIds")
        refuse_paging_with(request, image_ids, "imageIds")
        if image_ids:
            check_image_ids(image_ids)
            images = {each.image_digest: each for each in (find_image(repository, image_id) for image_id in image_ids)}
            return {"imageDetails": [image_reply(repository, each) for each in images.values()]}
        page, token = get_page([image_reply(repository, each) for each in filtered(repository, request)], request)
        return with_token("imageDetails", page, token)

    def batch_get_image(self, request: ApiRequest) -> Json:
        """Return the manifests as they were pushed. A missing image is a failure among the others, not an error."""
        repository = find_repository(request, str(request.params.get("repositoryName", "")))
        image_ids = request.params.get("imageIds") or []
        check_image_ids(image_ids)
        images, failures = [], []
        for image_id in image_ids:
            try:
                images.append(manifest_reply(find_image(repository, image_id), image_id))
            except AwsError as error:
                if error.code != "ImageNotFoundException":
                    raise
                reason = "Requested image not found"
                failures.append({"imageId": image_id, "failureCode": "ImageNotFound", "failureReason": reason})
        return {"images": images, "failures": failures}

    def list_images(self, request: ApiRequest) -> Json:
        repository = find_repository(request, str(request.params.get("repositoryName", "")))
        ids: list[Json] = []
        for image in filtered(repository, request):
            ids += [{"imageDigest": image.image_digest, "imageTag": tag} for tag in sorted(image.image_tags)]
            if not image.image_tags:
                ids.append({"imageDigest": image.image_digest})
        page, token = get_page(ids, request)
        return with_token("imageIds", page, token)


def find_repository(request: ApiRequest, name: str) -> Repository:
    check_registry(request, name)
    for each in moto_state.repositories(request.account, request.region):
        if each.name == name:
            return each
    raise repository_not_found(name, request.account)


def check_registry(request: ApiRequest, name: str) -> None:
    """Raise RepositoryNotFoundException for a registry of another account, as AWS does when nothing is shared."""
    registry = request.params.get("registryId")
    if registry and registry != request.account:
        raise repository_not_found(name, registry)


def repository_not_found(name: str, registry: str) -> AwsError:
    return AwsError(
        "RepositoryNotFoundException",
        f"The repository with name '{name}' does not exist in the registry with id '{registry}'",
    )


def find_image(repository: Repository, image_id: Json) -> Image:
    tag, digest = image_id.get("imageTag"), image_id.get("imageDigest")
    if not tag and not digest:
        raise unsatisfied("imageIds", "ImageId must have an imageDigest or an imageTag")
    for image in repository.images:
        if (not tag or tag in image.image_tags) and (not digest or digest == image.image_digest):
            return image
    wanted = f"{{imageDigest:'{digest or 'null'}', imageTag:'{tag or 'null'}'}}"
    raise AwsError(
        "ImageNotFoundException",
        f"The image with imageId {wanted} does not exist within the repository with name '{repository.name}' "
        f"in the registry with id '{repository.registry_id}'",
    )


def check_image_ids(image_ids: list[Json]) -> None:
    if not 1 <= len(image_ids) <= MAX_IMAGE_IDS:
        bound = f"less than or equal to {MAX_IMAGE_IDS}" if image_ids else "greater than or equal to 1"
        raise unsatisfied("imageIds", f"Member must have length {bound}")


def filtered(repository: Repository, request: ApiRequest) -> list[Image]:
    wanted = request.params.get("filter") or {}
    tag_status, image_status = wanted.get("tagStatus", "ANY"), wanted.get("imageStatus", "ACTIVE")
    return [
        image
        for image in sorted(repository.images, key=lambda each: str(each.image_digest))
        if tag_status in ("ANY", "TAGGED" if image.image_tags else "UNTAGGED") and image_status in ("ANY", "ACTIVE")
    ]


def refuse_paging_with(request: ApiRequest, names: Any, field: str) -> None:
    paging = [name for name in ("maxResults", "nextToken") if request.params.get(name) is not None]
    if names and paging:
        raise invalid_parameter(f"{paging[0]} cannot be used together with {field}.")


def get_page(items: list[Any], request: ApiRequest) -> tuple[list[Any], str | None]:
    size = request.params.get("maxResults")
    if size is not None and not 1 <= int(size) <= LARGEST_PAGE:
        bound = "greater than or equal to 1" if int(size) < 1 else f"less than or equal to {LARGEST_PAGE}"
        raise unsatisfied("maxResults", f"Member must have value {bound}")
    return paged(items, request.params, default=DEFAULT_PAGE, most=LARGEST_PAGE)


def unsatisfied(field: str, constraint: str) -> AwsError:
    return invalid_parameter(f"Invalid parameter at '{field}' failed to satisfy constraint: '{constraint}'")


def with_token(name: str, page: list[Any], token: str | None) -> Json:
    return {name: page, "nextToken": token} if token else {name: page}


def repository_reply(repository: Repository) -> Json:
    return {
        "repositoryArn": repository.arn,
        "registryId": repository.registry_id,
        "repositoryName": repository.name,
        "repositoryUri": repository.uri,
        "createdAt": repository.created_at.timestamp(),
        "imageTagMutability": str(getattr(repository.image_tag_mutability, "value", repository.image_tag_mutability)),
        "imageScanningConfiguration": repository.image_scanning_configuration,
        "encryptionConfiguration": repository.encryption_configuration,
    }


def image_reply(repository: Repository, image: Image) -> Json:
    """Return an image as ECR does: without `imageTags` if it has no tags, without `artifactMediaType` for an index."""
    manifest = moto_state.parsed_manifest(image)
    reply = {
        "registryId": image.registry_id,
        "repositoryName": image.repository_name,
        "imageDigest": image.image_digest,
        "imageTags": sorted(image.image_tags),
        "imageSizeInBytes": moto_state.image_size(repository, image),
        "imagePushedAt": image.image_pushed_at,
        "imageManifestMediaType": manifest.get("mediaType"),
        "artifactMediaType": manifest.get("artifactType") or manifest.get("config", {}).get("mediaType"),
        "subjectManifestDigest": manifest.get("subject", {}).get("digest"),
        "imageStatus": "ACTIVE",
    }
    return {name: value for name, value in reply.items() if value not in (None, [])}


def manifest_reply(image: Image, image_id: Json) -> Json:
    tag = {"imageTag": image_id["imageTag"]} if image_id.get("imageTag") else {}
    return {
        "registryId": image.registry_id,
        "repositoryName": image.repository_name,
        "imageId": {"imageDigest": image.get_image_digest(), **tag},
        "imageManifest": image.get_image_manifest(),
        "imageManifestMediaType": moto_state.parsed_manifest(image).get("mediaType"),
    }
