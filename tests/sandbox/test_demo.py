"""The demo data in the local AWS, as described in docs/local-aws.md."""

from typing import Any

import pytest

from tests.local_aws import LocalAws

GLOBEX = {"role_arn": "arn:aws:iam::222222222222:role/portal-upgrades", "external_id": "globex-demo-external-id"}

STACKS: list[Any] = [
    pytest.param("acme-prod", "111111111111", "eu-central-1", {}, id="acme"),
    pytest.param("globex-prod", "222222222222", "us-east-1", GLOBEX, id="globex"),
]


@pytest.fixture
def demo(aws: LocalAws) -> LocalAws:
    aws.seed(demo=True)
    return aws


@pytest.mark.parametrize(("stack", "account", "region", "role"), STACKS)
def test_three_services_run_steady(demo: LocalAws, stack: str, account: str, region: str, role: Any) -> None:
    client = demo.client(region=region, **role)

    for part, desired, cpu in (("agent", 4, "1024"), ("orchestrator", 3, "1024"), ("customer-portal", 2, "512")):
        name = f"{stack}-{part}-service"
        service = client.describe_services(cluster=f"{stack}-cluster", services=[name])["services"][0]
        definition = client.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
        container = definition["containerDefinitions"][0]

        assert (service["status"], service["desiredCount"], service["runningCount"]) == ("ACTIVE", desired, desired)
        configuration = service["deploymentConfiguration"]
        is_rolling = configuration["strategy"] == "ROLLING"
        assert configuration["deploymentCircuitBreaker"] == {"enable": is_rolling, "rollback": is_rolling}
        assert (definition["family"], definition["cpu"]) == (f"{stack}-{part}", cpu)
        assert definition["executionRoleArn"].startswith(f"arn:aws:iam::{account}:role/")
        assert container["name"] == part
        assert container["image"].startswith(f"{account}.dkr.ecr.{region}.amazonaws.com/axonflow-{part}:v9.")
        assert container["logConfiguration"]["options"]["awslogs-group"] == f"/ecs/{stack}/{part}"
        assert container["secrets"][0]["valueFrom"].startswith("arn:aws:secretsmanager:")


def test_globex_has_a_blue_green_service_and_an_approval(demo: LocalAws) -> None:
    client = demo.client(region="us-east-1", **GLOBEX)
    names = [f"globex-prod-{part}-service" for part in ("agent", "orchestrator", "customer-portal")]

    services = client.describe_services(cluster="globex-prod-cluster", services=names)["services"]
    agent, orchestrator, portal = (each["deploymentConfiguration"] for each in services)

    assert [each["strategy"] for each in (agent, orchestrator, portal)] == ["ROLLING", "BLUE_GREEN", "BLUE_GREEN"]
    assert portal["bakeTimeInMinutes"] == 5
    assert "lifecycleHooks" not in portal
    (hook,) = orchestrator["lifecycleHooks"]
    assert (hook["targetType"], hook["lifecycleStages"]) == ("PAUSE", ["POST_TEST_TRAFFIC_SHIFT"])


@pytest.mark.parametrize(("stack", "account", "region", "role"), STACKS)
def test_versions_differ_by_service_and_have_own_digests(
    demo: LocalAws, stack: str, account: str, region: str, role: Any
) -> None:
    client = demo.client("ecr", region=region, **role)
    versions = {}
    digests: list[str] = []

    for part in ("agent", "orchestrator", "customer-portal"):
        images = client.describe_images(repositoryName=f"axonflow-{part}")["imageDetails"]
        versions[part] = {tag for image in images for tag in image["imageTags"]}
        digests += [image["imageDigest"] for image in images]
        newest = max(images, key=lambda image: image["imagePushedAt"])
        assert sorted(newest["imageTags"]) == ["latest", "v9.9.1"]

    assert len(set(digests)) == len(digests) > 45
    assert {"v9.4.0", "v9.9.0", "v9.9.1"} <= versions["agent"] & versions["orchestrator"] & versions["customer-portal"]
    assert versions["agent"] != versions["orchestrator"] != versions["customer-portal"]
