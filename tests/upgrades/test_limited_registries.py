"""Upgrades to a version from registries that cannot be read or lack it."""

import pytest

from portal.errors import PortalError
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.versions import (
    REGISTRY,
    deploy,
    get_place,
    plain_definition,
    registrations,
    running_digests,
    trigger,
)
from upgrades.models import Upgrade
from upgrades.states import Outcome, Phase, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


def test_a_foreign_registry_rolls_the_same_task_definition(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    image = "ghcr.io/getaxonflow/axonflow-agent:v9.9.0"
    arn = deploy(platform, cast, plain_definition(cast, image))

    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.task_definition, rollout.wanted_version) == (Outcome.COMPLETED, arn, None)
    assert (rollout.from_version, rollout.to_version) == ("v9.9.0", "v9.9.0")
    assert {rollout.to_digest} == running_digests(platform, cast)


def test_a_foreign_registry_has_no_versions_to_choose(cast: Cast, platform: LocalAws) -> None:
    deploy(platform, cast, plain_definition(cast, "ghcr.io/getaxonflow/axonflow-agent:v9.9.0"))

    refused = refusal(cast)

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert "agent service: ghcr.io/getaxonflow/axonflow-agent is not in Amazon ECR" in refused.message


def refusal(cast: Cast, service: str = "agent", version: str = "v9.9.1") -> PortalError:
    """Return the error that refuses the trigger. Check that nothing is written."""
    before = Upgrade.objects.count()
    with pytest.raises(PortalError) as refused:
        trigger(cast, service, version)
    assert Upgrade.objects.count() == before
    return refused.value


def test_a_registry_that_denies_access_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="DescribeImages")

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert "ecr:DescribeImages" in refused.message
    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert registrations(platform) == []


def test_a_missing_repository_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-agent", force=True)

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest"))

    assert "Amazon ECR has no repository axonflow-agent in eu-central-1" in refused.message
    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


def test_a_repository_without_a_tagged_image_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    ecr = platform.client("ecr")
    ecr.delete_repository(repositoryName="axonflow-agent", force=True)
    ecr.create_repository(repositoryName="axonflow-agent")

    upgrade = engine.run(trigger(cast, version="latest"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


def test_an_ambiguous_container_is_left_unchanged(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    image = f"{REGISTRY}/axonflow-agent:v9.9.0"
    containers = [{"name": name, "image": image, "essential": True, "memory": 64} for name in ("one", "two")]
    deploy(platform, cast, {"family": f"{cast.acme.deployment_stack}-agent", "containerDefinitions": containers})

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    assert "cannot identify the container" in refused.message
    assert (upgrade.status, registrations(platform)[1:]) == (Status.SUCCESS, [])


@pytest.mark.parametrize("fault", ["throttle", "server_error", "timeout_before"])
@pytest.mark.parametrize("action", ["DescribeImages", "DescribeServices"])
def test_an_explicit_version_needs_aws_to_answer(cast: Cast, platform: LocalAws, fault: str, action: str) -> None:
    platform.fault(fault, action=action, account="111111111111")

    refused = refusal(cast)

    assert (refused.code, refused.status) == ("registry_unavailable", 502)


def test_a_resolved_version_needs_no_registry(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    platform.fault("throttle", action="DescribeImages")

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert upgrade.rollouts.get().to_version == "v9.9.1"


def test_latest_is_resolved_later_if_the_registry_is_down(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    platform.fault("throttle", action="DescribeImages")
    upgrade = trigger(cast, version="latest")
    engine.step()
    waiting = upgrade.rollouts.get()
    assert (waiting.phase, waiting.wanted_version, waiting.wanted_image) == (Phase.DUE, "latest", None)
    assert (waiting.check_error or "").startswith("ecr:DescribeImages: ThrottlingException (AWS request ")
    platform.clear_faults()

    engine.run(upgrade)

    assert upgrade.rollouts.get().to_version == "v9.9.1"
    assert running_digests(platform, cast) == {registry["agent:v9.9.1"]}


@pytest.mark.parametrize("version", ["v1.0.0", "not a tag", "-x", "sha256:abc", "sha256:" + 64 * "0"])
def test_an_unknown_version_is_refused(cast: Cast, platform: LocalAws, version: str) -> None:
    refused = refusal(cast, version=version)

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert f"agent service: the repository axonflow-agent has no image {version}" in refused.message


def test_a_version_that_one_service_lacks_names_the_service(cast: Cast, platform: LocalAws) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-orchestrator", imageIds=[{"imageTag": "v9.8.0"}])

    refused = refusal(cast, "all", "v9.8.0")

    assert "(orchestrator: the repository axonflow-orchestrator has no image v9.8.0)" in refused.message
    assert trigger(cast, "agent", "v9.8.0").version == "v9.8.0"


def test_a_disabled_service_may_lack_the_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-customer-portal", force=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=0)

    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.SUCCESS
    assert upgrade.rollouts.get(service="customer-portal").outcome == Outcome.DISABLED


def test_a_service_scaled_up_meanwhile_keeps_its_image(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-customer-portal", force=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=0)
    upgrade = trigger(cast, "all", force_new_deployment=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=2)

    engine.run(upgrade)

    last = upgrade.rollouts.get(service="customer-portal")
    assert (upgrade.status, last.outcome) == (Status.PARTIAL, Outcome.NOT_ATTEMPTED)
    assert "v9.9.1 is not available: Amazon ECR has no repository axonflow-customer-portal" in (
        last.error_message or ""
    )


def test_a_missing_cluster_needs_no_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    cast.acme.deployment_cluster = "gone"
    cast.acme.save()

    upgrade = engine.run(trigger(cast, override_reason="to see the error of ECS"))

    assert upgrade.rollouts.get().outcome == Outcome.SERVICE_MISSING


def test_a_missing_service_needs_no_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().delete_service(**get_place(cast, "orchestrator"), force=True)
    platform.advance(600)

    upgrade = engine.run(trigger(cast, "all", override_reason="it is created again later"))

    outcomes = list(upgrade.rollouts.values_list("outcome", flat=True))
    assert outcomes == [Outcome.COMPLETED, Outcome.SERVICE_MISSING, Outcome.COMPLETED]
