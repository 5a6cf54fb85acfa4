"""Previews of what an upgrade or rollback would change in one service."""

from typing import Any

import pytest

from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.versions import REGISTRY, deploy, plain_definition, service_now, trigger
from upgrades.inventory.catalogue import resolve
from upgrades.inventory.diffs import Diff, read_diff
from upgrades.inventory.images import RequestedImage
from upgrades.inventory.running import read_running_services

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


def diff_to(cast: Cast, version: str, service: str = "agent") -> Diff:
    return read_diff(cast.acme, service, resolve(cast.acme, [service], version)[service])


def with_environment(cast: Cast, *containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a task definition of the agent service. The first container is its own."""
    definition = plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.9.0", **fields)
    own, *others = containers
    definition["containerDefinitions"][0] |= own
    definition["containerDefinitions"] += others
    return definition


def test_a_version_changes_only_the_image(cast: Cast, platform: LocalAws, registry: dict[str, str]) -> None:
    diff = diff_to(cast, "v9.9.1")

    assert diff.before is not None
    assert diff.after is not None
    assert (diff.before.version, diff.after.version) == ("v9.9.0", "v9.9.1")
    assert (diff.before.digest, diff.after.digest) == (registry["agent:v9.9.0"], registry["agent:v9.9.1"])
    assert diff.before.image == f"{REGISTRY}/axonflow-agent:v9.9.0"
    assert diff.after.image == f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"
    assert (diff.before.cpu, diff.before.memory) == (diff.after.cpu, diff.after.memory) == ("1024", "2048")
    assert diff.before.task_definition == service_now(platform, cast)["taskDefinition"]
    assert diff.after.task_definition is None
    assert diff.before.size_bytes
    assert diff.after.size_bytes
    assert diff.is_image_alone
    assert (diff.added, diff.removed, diff.changed, diff.error) == ((), (), (), None)


def test_a_limited_registry_changes_nothing(cast: Cast, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-agent", force=True)

    diff = diff_to(cast, "latest")

    assert diff.before == diff.after
    assert diff.before is not None
    assert (diff.before.version, diff.before.size_bytes) == ("v9.9.0", None)


def test_a_rollback_shows_sizes_and_names_but_no_values(cast: Cast, platform: LocalAws) -> None:
    secret = "arn:aws:ssm:eu-central-1:111111111111:parameter/"
    sidecar = {"name": "router", "image": f"{REGISTRY}/fluent-bit:2", "memory": 64}
    earlier = deploy(
        platform,
        cast,
        with_environment(
            cast,
            {
                "environment": [{"name": "GONE", "value": "hidden-1"}, {"name": "LEVEL", "value": "hidden-2"}],
                "secrets": [{"name": "TOKEN", "valueFrom": f"{secret}old"}],
            },
            sidecar | {"environment": [{"name": "SAME", "value": "hidden-3"}]},
            cpu="256",
            memory="1024",
        ),
    )
    deploy(
        platform,
        cast,
        with_environment(
            cast,
            {
                "environment": [{"name": "LEVEL", "value": "hidden-4"}, {"name": "NEW", "value": ""}],
                "secrets": [{"name": "TOKEN", "valueFrom": f"{secret}new"}],
            },
            sidecar | {"environment": [{"name": "SAME", "value": "hidden-3"}]},
            cpu="512",
            memory="2048",
        ),
    )

    diff = read_diff(cast.acme, "agent", earlier)

    assert diff.before is not None
    assert diff.after is not None
    assert (diff.added, diff.removed, diff.changed) == (("GONE",), ("NEW",), ("LEVEL", "TOKEN"))
    assert (diff.before.cpu, diff.before.memory) == ("512", "2048")
    assert (diff.after.cpu, diff.after.memory, diff.after.task_definition) == ("256", "1024", earlier)
    assert not diff.is_image_alone
    assert "hidden" not in repr(diff)
    assert secret not in repr(diff)


def test_a_pinned_image_is_shown_by_its_version(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    before = service_now(platform, cast)["taskDefinition"]
    engine.run(trigger(cast))

    diff = read_diff(cast.acme, "agent", before)

    assert diff.before is not None
    assert diff.after is not None
    assert (diff.before.version, diff.after.version) == ("v9.9.1", "v9.9.0")
    assert (diff.before.digest, diff.after.digest) == (registry["agent:v9.9.1"], registry["agent:v9.9.0"])


@pytest.mark.parametrize("fault", ["throttle", "access_denied", "server_error"])
def test_an_aws_failure_is_reported(cast: Cast, platform: LocalAws, fault: str) -> None:
    wanted = resolve(cast.acme, ["agent"], "v9.9.1")["agent"]
    reading = read_running_services(cast.acme)
    platform.fault(fault, action="DescribeTaskDefinition")

    diff = read_diff(cast.acme, "agent", wanted, reading=reading)

    assert (diff.before, diff.after, diff.is_image_alone) == (None, None, False)
    assert (diff.error or "").startswith("ecs:DescribeTaskDefinition: ")


def test_a_size_that_cannot_be_read_is_left_out(cast: Cast, platform: LocalAws) -> None:
    wanted = resolve(cast.acme, ["agent"], "v9.9.1")["agent"]
    platform.fault("throttle", action="DescribeImages")

    diff = read_diff(cast.acme, "agent", wanted)

    assert diff.after is not None
    assert (diff.after.digest, diff.after.size_bytes) == (wanted.digest, None)


def test_a_deleted_task_definition_is_reported(cast: Cast, platform: LocalAws) -> None:
    arn = service_now(platform, cast)["taskDefinition"].rpartition(":")[0] + ":99"

    missing = f"there is no {cast.acme.deployment_stack}-agent:99"
    assert read_diff(cast.acme, "agent", arn).error == f"ecs:DescribeTaskDefinition: ClientException ({missing})."


def test_a_service_that_does_not_run_has_no_diff(cast: Cast, platform: LocalAws) -> None:
    platform.client().delete_service(
        cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-agent-service", force=True
    )
    platform.advance(600)

    assert read_diff(cast.acme, "agent", RequestedImage("v9.9.1")).error == "the running version is not known"
    assert read_diff(cast.initech, "agent", RequestedImage("v9.9.1")).error == "the running version is not known"
