"""Upgrades to a version while a deployment from outside the portal is in progress or has failed."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades import plan
from tests.upgrades.preflight_checks import ask
from tests.upgrades.versions import REGISTRY, deploy, get_place, plain_definition, running_digests, service_now, trigger
from upgrades.states import Outcome, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


def start_outside(local_aws: LocalAws, cast: Cast, image: str, service: str = "agent") -> str:
    """Start a deployment of the image outside the portal and return its task definition. No time passes."""
    definition = plain_definition(cast, image, service)
    arn = local_aws.client().register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    local_aws.client().update_service(**get_place(cast, service), taskDefinition=arn)
    return str(arn)


def fail_outside(local_aws: LocalAws, cast: Cast, image: str, service: str = "agent") -> str:
    """Deploy the image outside the portal. Its tasks crash, and the circuit breaker stops it without a rollback."""
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    local_aws.client().update_service(**get_place(cast, service), deploymentConfiguration=breaker)
    local_aws.fault("crash", **get_place(cast, service), times=1)
    arn = start_outside(local_aws, cast, image, service)
    local_aws.advance(300)
    return arn


@pytest.mark.parametrize("interfere", [start_outside, fail_outside], ids=["under_way", "failed"])
@pytest.mark.parametrize("image", ["v9.9.0", "v9.9.1"])
def test_an_outside_deployment_that_has_not_ended_is_replaced(
    cast: Cast,
    engine: Engine,
    platform: LocalAws,
    registry: dict[str, str],
    interfere: Callable[[LocalAws, Cast, str], str],
    image: str,
) -> None:
    """The tasks run v9.9.0, but ECS still rolls to the other task definition, or would start the next task from it."""
    theirs = interfere(platform, cast, f"{REGISTRY}/axonflow-agent:{image}")
    assert running_digests(platform, cast) == {registry["agent:v9.9.0"]}

    upgrade = engine.run(trigger(cast, version="v9.9.0", override_reason="it replaces the outside deployment"))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome, rollout.attempts) == (Status.SUCCESS, Outcome.COMPLETED, 1)
    assert rollout.previous_task_definition == theirs
    assert running_digests(platform, cast) == {registry["agent:v9.9.0"]}
    assert service_now(platform, cast)["deployments"][0]["id"] == rollout.deployment_id


def test_an_outside_deployment_before_its_turn_is_replaced(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, "all", version="v9.9.0")
    start_outside(platform, cast, f"{REGISTRY}/axonflow-customer-portal:v9.9.1", "customer-portal")
    for _ in range(3):
        engine.step()  # each service has had its turn, and no time has passed in ECS

    engine.run(upgrade)

    assert list(upgrade.rollouts.order_by("position").values_list("outcome", flat=True)) == [
        Outcome.NO_CHANGE,
        Outcome.NO_CHANGE,
        Outcome.COMPLETED,
    ]


def test_a_foreign_image_that_has_not_ended_well_is_rolled(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    theirs = start_outside(platform, cast, "ghcr.io/getaxonflow/axonflow-agent:v9.9.0")

    upgrade = engine.run(trigger(cast, version="latest", override_reason="it is rolling"))

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.task_definition) == (Outcome.COMPLETED, theirs)


def test_a_completed_outside_deployment_is_no_change(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.9.1"))
    before = len(platform.ledger(action="UpdateService"))

    upgrade = engine.run(trigger(cast, version="v9.9.1"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE
    assert len(platform.ledger(action="UpdateService")) == before


def test_a_version_that_ecs_rolled_back_to_is_no_change(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", **get_place(cast), times=1)
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.9.1"))

    upgrade = engine.run(trigger(cast, version="v9.9.0"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


def deploy_blue_green(local_aws: LocalAws, cast: Cast, until: str) -> None:
    """Deploy v9.9.1 BLUE_GREEN outside the portal, until this status or stage. All its tasks run then."""
    alarms = {"alarmNames": ["errors-5xx"], "enable": True, "rollback": False}
    off = {"enable": False, "rollback": False}
    configuration = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1, "deploymentCircuitBreaker": off}
    client, place = local_aws.client(), get_place(cast)
    client.update_service(**place, deploymentConfiguration=configuration | {"alarms": alarms})
    if until == "STOPPED":
        local_aws.fault("alarm", **place, times=1, stage="BAKE_TIME")
    start_outside(local_aws, cast, f"{REGISTRY}/axonflow-agent:v9.9.1")
    for _ in range(300):
        own = local_aws.deployments(place["cluster"])[place["service"]]["deployments"][0]
        if until == own["status"] or (until == own["stage"] and own["finished_at"] is None):
            return
        local_aws.advance(1)
    raise AssertionError(own)


@pytest.mark.parametrize(
    ("until", "denied", "state", "is_no_change"),
    [
        ("SUCCESSFUL", False, "steady", True),
        ("SUCCESSFUL", True, "steady", False),
        ("CLEAN_UP", False, "rolling", False),
        ("STOPPED", False, "failed", False),
    ],
)
def test_only_its_own_record_ends_a_blue_green_deployment(
    cast: Cast,
    engine: Engine,
    platform: LocalAws,
    client_for: Callable[[User], Client],
    until: str,
    denied: bool,
    state: str,
    is_no_change: bool,
) -> None:
    """All desired tasks run v9.9.1 in each case. Page, pre-flight and engine agree."""
    deploy_blue_green(platform, cast, until)
    if denied:
        platform.fault("access_denied", action="DescribeServiceDeployments", account="111111111111")
    client = client_for(cast.operator)

    page = plan.ask(client, "service=agent&version=v9.9.1")
    steady = ask(client, service="agent")["steady"]
    upgrade = engine.run(trigger(cast, override_reason="it is deployed again"))

    assert steady["evidence"]["agent"]["state"] == state
    assert ("No task would be replaced" in page) == is_no_change
    rollout: Any = upgrade.rollouts.get()
    assert (rollout.outcome == Outcome.NO_CHANGE) == is_no_change
    assert rollout.attempts == (0 if is_no_change else 1)
