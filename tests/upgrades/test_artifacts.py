"""Artifacts in a repository that are not images: signatures, attestations, charts. None of them is a version."""

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
