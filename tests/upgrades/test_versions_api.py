"""GET /api/v1/deployments/versions."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import SERVICES, Cast, seed_images, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import VERSIONS, assert_refused, make_upgrade, push_untagged
from upgrades.inventory.catalogue import FRESH_SECONDS, TAGGED_KEPT
from upgrades.inventory.running import LONGEST_WAIT_SECONDS

SignIn = Callable[[User], Client]


def test_running_and_past_versions_are_listed(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    upgrade.rollouts.update(to_version="v9.8.0")

    response = client_for(cast.viewer).get(VERSIONS)

    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["organization", "versions", "current", "selection", "message"]
    assert body["organization"] == "acme"
    nothing = {"tags": [], "digests": dict.fromkeys(SERVICES), "pushed_at": None, "services": []}
    assert body["versions"] == [
        {"version": "v9.9.0", **nothing, "running": list(SERVICES)},
        {"version": "v9.8.0", **nothing, "running": []},
    ]
    assert body["current"] == {"agent": "v9.9.0", "orchestrator": "v9.9.0", "customer-portal": "v9.9.0"}
    assert body["selection"] == "limited"
    assert body["message"].startswith("Version selection is limited")
    assert "For the orchestrator only `latest` can be chosen: Amazon ECR has no repository" in body["message"]


def test_a_service_that_is_missing_has_null(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_platform(local_aws, cast.acme)
    local_aws.client().delete_service(
        cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-agent-service", force=True
    )
    local_aws.advance(600)

    assert client_for(cast.viewer).get(VERSIONS).json()["current"]["agent"] is None


def test_an_aws_failure_is_reported_and_history_shown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    make_upgrade(cast.acme, by=cast.operator).rollouts.update(to_version="v9.8.0")
    platform.fault("access_denied", action="*", account="111111111111")

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert names(body) == ["v9.8.0"]
    assert body["current"] == {"agent": None, "orchestrator": None, "customer-portal": None}
    assert "could not be read" in body["message"]


def names(body: Any) -> list[str]:
    return [version["version"] for version in body["versions"]]


def test_registry_versions_are_listed_newest_first(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    body = client_for(cast.viewer).get(VERSIONS).json()

    assert names(body) == ["v9.9.1", "v9.9.0", "v9.8.0"]
    assert body["selection"] == "available"
    assert body["message"] == "Versions of the platform's services in Amazon ECR, newest first."
    newest, running, _ = body["versions"]
    assert newest == {
        "version": "v9.9.1",
        "tags": ["latest"],
        "digests": {service: registry[f"{service}:v9.9.1"] for service in SERVICES},
        "pushed_at": newest["pushed_at"],
        "services": list(SERVICES),
        "running": [],
    }
    assert newest["pushed_at"].endswith("Z")
    assert (running["running"], running["digests"]["agent"]) == (list(SERVICES), registry["agent:v9.9.0"])
    assert body["current"] == dict.fromkeys(SERVICES, "v9.9.0")


def test_a_version_that_a_service_lacks(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_images(local_aws, cast.acme, lacking={"orchestrator": "v9.8.0"})
    seed_platform(local_aws, cast.acme)

    oldest = client_for(cast.viewer).get(VERSIONS).json()["versions"][-1]

    assert (oldest["version"], oldest["services"]) == ("v9.8.0", ["agent", "customer-portal"])
    assert oldest["digests"]["orchestrator"] is None


def test_images_pushed_together_are_sorted_by_digest(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    images = [{"repository": "axonflow-agent", "tags": [f"v1.{n}.0"], "pushed_at": local_aws.now()} for n in range(8)]
    local_aws.seed(images=images)
    seed_platform(local_aws, cast.acme)

    body = client_for(cast.viewer).get(VERSIONS).json()

    digests = [version["digests"]["agent"] for version in body["versions"]]
    assert (len(digests), digests) == (8, sorted(digests))


def test_an_image_without_a_tag_is_a_version_by_its_digest(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    digest = push_untagged(platform)

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert {"version": digest, "tags": [], "services": ["agent"]}.items() <= next(
        version for version in body["versions"] if version["version"] == digest
    ).items()


def test_all_pages_of_a_repository_are_read(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    now = local_aws.now()
    images = [{"repository": "axonflow-agent", "tags": [f"v1.{n}.0"], "pushed_at": now - n} for n in range(1500)]
    local_aws.seed(images=list(reversed(images)))
    seed_platform(local_aws, cast.acme)

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert names(body) == [f"v1.{n}.0" for n in range(TAGGED_KEPT)]
    assert "Only the newest images of the agent service are listed. At least 1200 more can be named" in body["message"]


def test_one_missing_repository_limits_only_its_service(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-orchestrator", force=True)

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert body["selection"] == "available"
    assert "For the orchestrator only `latest` can be chosen: Amazon ECR has no repository" in body["message"]
    assert body["versions"][0]["services"] == ["agent", "customer-portal"]
    assert body["versions"][1]["running"] == list(SERVICES)


def test_a_registry_outside_ecr_is_named(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    image = "ghcr.io/getaxonflow/axonflow-agent:v9.9.0"
    container = {"name": "agent", "image": image, "essential": True, "memory": 512}
    family = f"{cast.acme.deployment_stack}-agent"
    ecs = platform.client()
    arn = ecs.register_task_definition(family=family, containerDefinitions=[container])["taskDefinition"]
    ecs.update_service(cluster=cast.acme.cluster, service=f"{family}-service", taskDefinition=arn["taskDefinitionArn"])
    platform.advance(300)

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert body["selection"] == "limited"
    assert "ghcr.io/getaxonflow/axonflow-agent is not in Amazon ECR" in body["message"]


def test_a_denied_registry_is_limited_by_the_permission(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.fault("access_denied", action="DescribeImages")

    response = client_for(cast.viewer).get(VERSIONS)

    assert response.json()["selection"] == "limited"
    assert "the portal's role ecr:DescribeImages" in response.json()["message"]
    assert "arn:aws" not in response.content.decode()


@pytest.mark.parametrize("fault", ["throttle", "server_error", "timeout_before"])
def test_a_failing_registry_keeps_the_last_reading_and_age(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, time_machine: Any, fault: str
) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client.get(VERSIONS)
    platform.fault(fault, action="DescribeImages")
    time_machine.shift(FRESH_SECONDS)

    body = client.get(VERSIONS).json()

    assert names(body) == ["v9.9.1", "v9.9.0", "v9.8.0"]
    assert body["selection"] == "available"
    assert "Amazon ECR could not be read: ecr:DescribeImages: " in body["message"]
    assert "The list is as of 2026-05-01 12:00:00 UTC." in body["message"]


def test_a_registry_that_never_answered_is_limited(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.fault("throttle", action="DescribeImages")

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert (body["selection"], names(body)) == ("limited", ["v9.9.0"])
    assert "Amazon ECR could not be read: ecr:DescribeImages: ThrottlingException (AWS request " in body["message"]


def test_a_hanging_registry_is_waited_for_only_once(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.viewer)
    platform.fault("delay", action="DescribeImages", seconds=6)

    seconds = []
    for _ in range(2):
        began = time.monotonic()
        assert "AWS did not answer; trying again" in client.get(VERSIONS).json()["message"]
        seconds.append(time.monotonic() - began)

    assert seconds[0] < LONGEST_WAIT_SECONDS + 2.5
    assert seconds[1] < 2


def test_a_late_answer_is_cached_for_the_next_request(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.viewer)
    platform.fault("delay", action="DescribeImages", seconds=1.5)  # once for each of three services
    assert client.get(VERSIONS).json()["selection"] == "limited"

    for _ in range(40):
        time.sleep(0.1)
        body = client.get(VERSIONS).json()
        if body["selection"] == "available":
            break

    assert names(body) == ["v9.9.1", "v9.9.0", "v9.8.0"]


def test_viewers_share_one_reading_of_the_registry(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    client_for(cast.viewer).get(VERSIONS)
    platform.fault("throttle", action="DescribeImages")

    assert client_for(cast.operator).get(VERSIONS).json()["selection"] == "available"


def test_another_organizations_registry_is_not_listed(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    seeded = platform.seed(
        account="222222222222", region="us-east-1", images=[{"repository": "axonflow-agent", "tags": ["v-of-globex"]}]
    )
    client = client_for(cast.consultant)

    acme = client.get(VERSIONS, headers={"X-Organization": "acme"}).content.decode()
    globex = client.get(VERSIONS, headers={"X-Organization": "globex"}).content.decode()

    assert "v-of-globex" not in acme
    assert seeded["images"]["axonflow-agent:v-of-globex"] in globex


def test_an_organization_without_cluster_has_no_versions(cast: Cast, client_for: SignIn, local_aws: LocalAws) -> None:
    body = client_for(cast.newcomer).get(VERSIONS).json()

    assert (body["organization"], body["versions"]) == ("initech", [])
    assert "neither cluster nor stack" in body["message"]


def test_another_organizations_past_is_not_listed(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    make_upgrade(cast.globex, by=cast.outsider).rollouts.update(to_version="v-of-globex")

    assert "v-of-globex" not in client_for(cast.viewer).get(VERSIONS).content.decode()


def test_a_consultant_names_the_organization(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.consultant)

    assert_refused(client.get(VERSIONS), 400, "organization_required")
    assert client.get(VERSIONS, headers={"X-Organization": "globex"}).json()["organization"] == "globex"


@pytest.mark.parametrize("person", ["outsider", "stranger", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str) -> None:
    client = client_for(getattr(cast, person))

    assert_refused(client.get(VERSIONS, headers={"X-Organization": "acme"}), 404, "not_found")


def test_anonymous_gets_401(cast: Cast) -> None:
    assert_refused(Client().get(VERSIONS), 401, "not_authenticated")


@pytest.mark.parametrize("query", ["service=agent", "x="])
def test_an_unknown_query_key_is_400(cast: Cast, client_for: SignIn, query: str) -> None:
    assert_refused(client_for(cast.viewer).get(f"{VERSIONS}?{query}"), 400, "invalid")


def test_another_method_is_405_and_a_trailing_slash_404(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.admin)

    assert_refused(client.post(VERSIONS), 405, "method_not_allowed")
    assert_refused(client.get(f"{VERSIONS}/"), 404, "not_found")


@pytest.mark.parametrize("region", ["eusc-de-east-1", "cn-north-1", "us-gov-west-1"])
def test_a_platform_in_another_partition_has_versions(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, region: str
) -> None:
    cast.acme.deployment_region = region
    cast.acme.full_clean()
    cast.acme.save()
    image = {"repository": f"{cast.acme.deployment_stack}-agent", "tags": ["v1"]}
    service = {
        "name": f"{cast.acme.deployment_stack}-agent-service",
        "family": image["repository"],
        "container": "agent",
    }
    seeded = local_aws.seed(region=region, cluster=cast.acme.cluster, images=[image], services=[service])

    body = client_for(cast.viewer).get(VERSIONS).json()

    (version,) = body["versions"]
    assert (version["version"], version["digests"]["agent"]) == ("v1", next(iter(seeded["images"].values())))
    assert version["running"] == ["agent"]
