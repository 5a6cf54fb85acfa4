"""Artifacts in a repository that are not images: signatures, attestations, charts. None of them is a version."""

import html
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, VERSIONS, assert_refused, post_json
from upgrades.models import Rollout, Upgrade

SignIn = Callable[[User], Client]

SIGNED = "sha256-" + 64 * "a"
OCI = "application/vnd.oci"
# What cosign pushes has the config of an image, and only the tag shows what it is.
COSIGN = {"manifest": f"{OCI}.image.manifest.v1+json", "artifact": f"{OCI}.image.config.v1+json"}
INDEX = {"manifest": f"{OCI}.image.index.v1+json"}

ARTIFACTS: list[Any] = [
    pytest.param({"tags": [f"{SIGNED}.sig"], **COSIGN}, id="signature"),
    pytest.param({"tags": [f"{SIGNED}.att"], **COSIGN}, id="attestation"),
    pytest.param({"tags": [f"{SIGNED}.sbom"], **COSIGN}, id="bill of materials"),
    pytest.param({"tags": [SIGNED], **INDEX}, id="referrers"),
    pytest.param({"tags": ["v9.9.9", "latest"], "artifact": "application/vnd.cncf.helm.config.v1+json"}, id="chart"),
    pytest.param({"tags": ["v9.9.9"], "artifact": f"{OCI}.empty.v1+json"}, id="empty config"),
    pytest.param({"tags": ["v9.9.9"], **COSIGN, "artifact_type": "application/spdx+json"}, id="artifact type"),
    pytest.param({"tags": ["v9.9.9"], **COSIGN, "subject": "sha256:" + 64 * "a"}, id="subject"),
    pytest.param({"tags": ["v9.9.9"], "manifest": f"{OCI}.artifact.manifest.v1+json"}, id="artifact manifest"),
]


def seed_agent(local_aws: LocalAws, cast: Cast, *newer: dict[str, Any]) -> dict[str, str]:
    """Seed an agent service that runs v9.9.0, with v9.9.1 in its repository, then push each of `newer`.

    *Returns* the digests by tag.
    """
    now = local_aws.now()
    images = [
        {"repository": "axonflow-agent", "pushed_at": now - 86400 * (30 - number), **image}
        for number, image in enumerate([{"tags": ["v9.9.0"]}, {"tags": ["v9.9.1"]}, *newer])
    ]
    seeded = local_aws.seed(images=images)["images"]
    seed_platform(local_aws, cast.acme)
    return {name.partition(":")[2]: digest for name, digest in seeded.items()}


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_an_artifact_is_not_listed(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, artifact: dict[str, Any]
) -> None:
    digests = seed_agent(local_aws, cast, artifact)

    response = client_for(cast.viewer).get(VERSIONS)
    page = client_for(cast.viewer).get("/o/acme/versions/")

    assert [version["version"] for version in response.json()["versions"]] == ["v9.9.1", "v9.9.0"]
    assert page.status_code == 200
    for name in (*artifact["tags"], digests[artifact["tags"][0]]):
        assert name == "latest" or name not in page.content.decode() + response.content.decode()


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_latest_is_the_newest_image_not_an_artifact(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, artifact: dict[str, Any]
) -> None:
    digests = seed_agent(local_aws, cast, artifact)

    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent"})

    assert response.status_code == 202, response.content
    rollout = Rollout.objects.get()
    assert rollout.wanted_version == "v9.9.1"
    assert str(rollout.wanted_image).endswith(f"axonflow-agent@{digests['v9.9.1']}")


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_an_artifact_is_refused_by_tag_and_by_digest(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, artifact: dict[str, Any]
) -> None:
    tag = artifact["tags"][0]
    digests = seed_agent(local_aws, cast, artifact)

    for version in (tag, digests[tag]):
        response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": version})
        body = assert_refused(response, 400, "version_unavailable")
        assert f"axonflow-agent has no image {version}" in body["detail"]

    assert not Upgrade.objects.exists()


def test_a_multi_platform_image_is_a_version(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_agent(local_aws, cast, {"tags": ["v9.9.2"], **INDEX})

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert [version["version"] for version in body["versions"]] == ["v9.9.2", "v9.9.1", "v9.9.0"]


def test_an_artifacts_tag_never_names_an_image(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_agent(local_aws, cast, {"tags": [f"{SIGNED}.sig", "v9.9.2"]})

    client = client_for(cast.operator)
    newest = client.get(VERSIONS).json()["versions"][0]

    assert (newest["version"], newest["tags"]) == ("v9.9.2", [])
    refused = post_json(client, UPGRADE, {"service": "agent", "version": f"{SIGNED}.sig"})
    assert_refused(refused, 400, "version_unavailable")


# --- Image indexes, as docker buildx pushes them --------------------------------------------------------------------

PUSHED = {"tags": ["v9.9.3"], "platforms": ["linux/amd64", "linux/arm64"], "attested": True}
PLATFORM, STATEMENT = "v9.9.3 linux/amd64", "v9.9.3 attestation linux/arm64"


def test_one_push_of_an_index_is_one_version(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    digests = seed_agent(local_aws, cast, PUSHED)

    body = client_for(cast.viewer).get(VERSIONS).json()
    page = client_for(cast.viewer).get("/o/acme/versions/").content.decode()

    assert [version["version"] for version in body["versions"]] == ["v9.9.3", "v9.9.1", "v9.9.0"]
    assert body["versions"][0]["digests"]["agent"] == digests["v9.9.3"]
    assert "parts of other images" not in body["message"]
    for part in (PLATFORM, STATEMENT):
        assert digests[part][7:19] not in page


def test_an_index_is_rolled_by_its_own_digest(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    digests = seed_agent(local_aws, cast, PUSHED)

    for version in ("v9.9.3", digests["v9.9.3"], "latest"):
        response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": version})
        assert response.status_code == 202, response.content
        assert str(Rollout.objects.get().wanted_image).endswith(f"axonflow-agent@{digests['v9.9.3']}")
        Upgrade.objects.all().delete()


@pytest.mark.parametrize(
    ("part", "what"), [(PLATFORM, "the linux/amd64 part of v9.9.3"), (STATEMENT, "an attestation")]
)
def test_a_part_of_an_index_is_refused_with_the_reason(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, part: str, what: str
) -> None:
    digest = seed_agent(local_aws, cast, PUSHED)[part]

    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": digest})
    page = client_for(cast.operator).get("/o/acme/upgrades/new", {"service": "agent", "version": digest})

    detail = assert_refused(response, 400, "version_unavailable")["detail"]
    assert f"{digest[:19]} in the repository axonflow-agent is {what}" in detail
    assert detail in html.unescape(page.content.decode())
    assert not Upgrade.objects.exists()


def test_an_attestation_without_its_index_is_refused(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    digests = seed_agent(local_aws, cast, PUSHED)
    index = {"imageDigest": digests["v9.9.3"]}
    local_aws.client("ecr").batch_delete_image(repositoryName="axonflow-agent", imageIds=[index])

    asked = {"service": "agent", "version": digests[STATEMENT]}
    response = post_json(client_for(cast.operator), UPGRADE, asked)

    assert "is an attestation" in assert_refused(response, 400, "version_unavailable")["detail"]


def test_without_the_permission_untagged_images_are_listed(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    digests = seed_agent(local_aws, cast, PUSHED)
    local_aws.fault("access_denied", action="BatchGetImage")

    body = client_for(cast.viewer).get(VERSIONS).json()
    asked = {"service": "agent", "version": digests[PLATFORM]}
    page = client_for(cast.operator).get("/o/acme/upgrades/new", asked)
    response = post_json(client_for(cast.operator), UPGRADE, asked)

    assert digests[PLATFORM] in [version["version"] for version in body["versions"]]
    unknown = "AWS denies the portal's role ecr:BatchGetImage"
    assert f"Untagged images of the agent service may be parts of other images: {unknown}." in body["message"]
    assert f"It is not known whether {digests[PLATFORM][:19]} is a part" in html.unescape(page.content.decode())
    assert response.status_code == 202


def test_without_the_permission_tagged_images_are_complete(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_agent(local_aws, cast, {"tags": ["v9.9.2"], **INDEX})
    local_aws.fault("access_denied", action="BatchGetImage")

    body = client_for(cast.viewer).get(VERSIONS).json()
    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": "v9.9.2"})

    assert "BatchGetImage" not in body["message"]
    assert response.status_code == 202


def test_an_index_that_is_attached_to_an_image_is_no_version(
    cast: Cast, local_aws: LocalAws, client_for: SignIn
) -> None:
    attached = {"tags": ["v9.9.4"], **INDEX, "artifact_type": "application/spdx+json"}
    seed_agent(local_aws, cast, attached)

    body = client_for(cast.viewer).get(VERSIONS).json()
    refused = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": "v9.9.4"})
    latest = post_json(client_for(cast.operator), UPGRADE, {"service": "agent"})

    assert [version["version"] for version in body["versions"]] == ["v9.9.1", "v9.9.0"]
    assert_refused(refused, 400, "version_unavailable")
    assert latest.status_code == 202
    assert Rollout.objects.get().wanted_version == "v9.9.1"


# --- latest, without the tag ----------------------------------------------------------------------------------------

BUILDS = ["main", "pr-412", "a1b2c3d", "feature-x", "v9.9.9-pr.412", "v9.9.9-a1b2c3d", "2026.11.28.1432", "20261128.1"]


def test_latest_is_a_release_never_a_build(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    digests = seed_agent(
        local_aws, cast, {"tags": ["v9.10.0-rc.1"]}, {"tags": ["9.8.7"]}, *({"tags": [t]} for t in BUILDS)
    )

    client = client_for(cast.operator)
    page = html.unescape(client.get("/o/acme/upgrades/new", {"service": "agent"}).content.decode())
    response = post_json(client, UPGRADE, {"service": "agent"})

    assert response.status_code == 202, response.content
    assert Rollout.objects.get().wanted_version == "v9.9.1"
    assert str(Rollout.objects.get().wanted_image).endswith(digests["v9.9.1"])
    assert "axonflow-agent has no tag latest. v9.9.1 is its highest release." in page
    assert "latest (v9.9.1)" in page or "latest (agent service v9.9.1" in page


def test_latest_without_a_release_is_a_pre_release(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_only(local_aws, cast, ["main"], ["v9.10.0-rc.2"], ["v9.10.0-rc.1"])

    client = client_for(cast.operator)
    page = html.unescape(client.get("/o/acme/upgrades/new", {"service": "agent"}).content.decode())
    post_json(client, UPGRADE, {"service": "agent"})

    assert Rollout.objects.get().wanted_version == "v9.10.0-rc.2"
    assert "v9.10.0-rc.2 is its highest pre-release, and it has no release." in page


def seed_only(local_aws: LocalAws, cast: Cast, *images: list[str]) -> None:
    """Seed an agent service whose repository has only images with these tags, the last pushed first."""
    now = local_aws.now()
    pushed = [
        {"repository": "axonflow-agent", "tags": tags, "pushed_at": now - 60 * number}
        for number, tags in enumerate(images)
    ]
    local_aws.seed(images=pushed)
    seed_platform(local_aws, cast.acme)


def test_builds_alone_leave_the_task_definitions_image(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_only(local_aws, cast, *([tag] for tag in BUILDS))

    client = client_for(cast.operator)
    page = html.unescape(client.get("/o/acme/upgrades/new", {"service": "agent"}).content.decode())
    post_json(client, UPGRADE, {"service": "agent"})

    assert Rollout.objects.get().wanted_image is None
    assert "axonflow-agent has neither the tag latest nor a tag that looks like a release" in page


def test_the_tag_latest_wins_over_a_higher_release(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_only(local_aws, cast, ["v9.10.0"], ["v9.9.0", "latest", "2026.11.28.1432"])

    client = client_for(cast.operator)
    page = html.unescape(client.get("/o/acme/upgrades/new", {"service": "agent"}).content.decode())
    post_json(client, UPGRADE, {"service": "agent"})

    assert Rollout.objects.get().wanted_version == "v9.9.0"
    assert "The image with the tag latest." in page


# --- A near version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("9.9.1", "v9.9.1"),
        ("V9.9.1", "v9.9.1"),
        ("v1.2.3", "1.2.3"),
        ("v9.9", "v9.9.1"),
        ("9", "v9.9.1"),
        ("v9.9.1.0", "v9.9.1"),
        ("RELEASE-x", "release-x"),
    ],
)
def test_a_near_version_is_named(cast: Cast, local_aws: LocalAws, client_for: SignIn, typed: str, near: str) -> None:
    seed_agent(local_aws, cast, {"tags": ["1.2.3"]}, {"tags": ["release-x"]})

    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": typed})
    page = client_for(cast.operator).get("/o/acme/upgrades/new", {"service": "agent", "version": typed})

    detail = assert_refused(response, 400, "version_unavailable")["detail"]
    assert f"has no image {typed}, did you mean {near}?" in detail
    assert detail in html.unescape(page.content.decode())


def test_without_a_near_version_none_is_named(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_agent(local_aws, cast)

    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent", "version": "v7.0.0"})

    assert "did you mean" not in assert_refused(response, 400, "version_unavailable")["detail"]
