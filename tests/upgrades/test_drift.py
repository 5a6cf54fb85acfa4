"""Drift: a service runs an image other than the recorded one or the named one, or several. Both pages show it."""

import html
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from portal.models import Organization, User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.versions import (
    REGISTRY,
    deploy,
    get_place,
    plain_definition,
    put_image,
    service_now,
    trigger,
)
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome

SignIn = Callable[[User], Client]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

HTMX = {"HX-Request": "true"}


@pytest.fixture(params=["/o/acme/services/", "/o/acme/versions/"])
def shown(request: pytest.FixtureRequest, cast: Cast, client_for: SignIn) -> Callable[[], str]:
    """Return a function that reads, as a viewer, the overview's live block or the versions page."""

    def read() -> str:
        cache.clear()  # a reading of ECS is cached for some seconds
        response = client_for(cast.viewer).get(request.param, headers=HTMX)
        return html.unescape(" ".join(response.content.decode().split()))

    return read


def test_running_what_was_rolled_out_is_no_drift(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))

    assert "v9.9.1" in shown()
    assert "Drift" not in shown()


def test_a_service_without_rollouts_has_not_drifted(platform: LocalAws, shown: Callable[[], str]) -> None:
    assert "Drift" not in shown()


def test_an_outside_deployment_is_shown_with_what_to_do(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], shown: Callable[[], str]
) -> None:
    upgrade = engine.run(trigger(cast))
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))

    text = shown()

    running, left = registry["agent:v9.8.0"][:19], registry["agent:v9.9.1"][:19]
    assert f"It runs v9.8.0 ({running}), but {upgrade.upgrade_id} left it on v9.9.1 ({left})." in text
    assert "It was deployed outside the portal" in text
    assert "If not, upgrade it to v9.9.1." in text
    assert 'href="/o/acme/upgrades/new?service=agent&version=v9.9.1"' in text
    assert text.count("Drift: ") == 1


def test_a_moved_tag_is_drift_despite_the_same_name(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast, version="v9.9.0"))  # no change: recorded with its digest
    put_image(platform, ["rebuilt", "v9.9.0"])
    platform.client().update_service(**get_place(cast), forceNewDeployment=True)
    platform.advance(300)

    assert "Drift: agent service." in shown()


def test_upgrading_to_what_runs_ends_the_drift(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))
    assert "Drift" in shown()

    engine.run(trigger(cast, version="v9.8.0"))

    assert "Drift" not in shown()


def test_a_rolled_back_service_runs_what_it_ran_before(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    platform.fault("crash", **get_place(cast))

    assert engine.run(trigger(cast)).rollouts.get().outcome == "rolled_back"

    assert "Drift" not in shown()


def test_no_drift_is_shown_during_a_rollout(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))
    upgrade = trigger(cast)

    assert "Drift" not in shown()
    engine.start(upgrade)
    platform.advance(8)
    assert "Drift" not in shown()


def test_no_drift_is_shown_during_an_outside_deployment(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))
    arn = platform.client().register_task_definition(**plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))[
        "taskDefinition"
    ]["taskDefinitionArn"]
    platform.client().update_service(**get_place(cast), taskDefinition=arn)
    platform.advance(8)

    assert "Drift" not in shown()


def test_a_half_done_deployment_runs_two_images(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], shown: Callable[[], str]
) -> None:
    leave_half_done(platform, cast, registry)

    text = shown()

    assert "Drift: agent service.</strong> Its tasks run 2 different images: " in text
    assert f"of v9.9.0 ({registry['agent:v9.9.0'][:19]})" in text
    assert "Upgrade it to the version you want" in text


def leave_half_done(local_aws: LocalAws, cast: Cast, registry: dict[str, str]) -> None:
    """Let an alarm stop an outside deployment without a rollback, so that old and new tasks run."""
    local_aws.client().update_service(
        **get_place(cast),
        deploymentConfiguration={
            "minimumHealthyPercent": 100,
            "maximumPercent": 125,
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "alarms": {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": False},
        },
    )
    local_aws.fault("alarm", **get_place(cast))
    image = f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"
    arn = local_aws.client().register_task_definition(**plain_definition(cast, image))["taskDefinition"]
    local_aws.client().update_service(**get_place(cast), taskDefinition=arn["taskDefinitionArn"])
    local_aws.advance(30)


def test_a_failed_deployment_without_rollback_is_drift(
    cast: Cast, platform: LocalAws, registry: dict[str, str], shown: Callable[[], str]
) -> None:
    platform.client().update_service(
        **get_place(cast), deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    )
    platform.fault("crash", **get_place(cast))
    image = f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"
    deploy(platform, cast, plain_definition(cast, image))
    wait_for_the_last_crash(platform, cast)

    text = shown()

    running, pinned = registry["agent:v9.9.0"][:19], registry["agent:v9.9.1"][:19]
    assert f"Its tasks run v9.9.0 ({running}), but its task definition names v9.9.1 ({pinned})." in text
    assert "Deployment failed" in text
    assert "did not finish and was not rolled back" in text


def test_upgrading_to_the_named_image_replaces_the_tasks(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    """ECS starts no deployment for the service's current task definition unless it is forced."""
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    platform.client().update_service(**get_place(cast), deploymentConfiguration=breaker)
    platform.fault("crash", **get_place(cast))
    failed = plain_definition(cast, f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}")
    deploy(platform, cast, failed)
    wait_for_the_last_crash(platform, cast)
    platform.clear_faults()
    before = service_now(platform, cast)["taskDefinition"]

    upgrade = engine.run(trigger(cast, version="v9.9.1", override_reason="this fixes it"))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome, rollout.attempts) == ("SUCCESS", Outcome.COMPLETED, 1)
    assert rollout.task_definition == before


def wait_for_the_last_crash(local_aws: LocalAws, cast: Cast) -> None:
    """Wait until no new task runs: ECS keeps starting tasks that crash."""
    local_aws.wait_until(lambda: service_now(local_aws, cast)["deployments"][0]["runningCount"] == 0)


def test_rollouts_without_digests_show_no_drift(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))
    Rollout.objects.update(from_digest=None, to_digest=None)
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))

    assert "Drift" not in shown()


@pytest.mark.parametrize("place", ["cluster", "stack"])
def test_rollouts_in_another_place_show_no_drift(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str], place: str
) -> None:
    engine.run(trigger(cast))
    if place == "cluster":
        Upgrade.objects.update(cluster="before")
    else:
        Rollout.objects.update(service_name="before-agent-service")
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))

    assert "Drift" not in shown()


@pytest.mark.parametrize("fault", ["access_denied", "throttle"])
def test_unreadable_tasks_hide_drift_but_not_the_rest(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str], fault: str
) -> None:
    engine.run(trigger(cast))
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))
    platform.fault(fault, action="DescribeTasks")

    text = shown()

    assert "Drift" not in text
    assert "Steady" in text


def test_tasks_are_read_once_a_minute_while_nothing_changes(
    cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any, registry: dict[str, str]
) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client.get("/o/acme/versions/", headers=HTMX)
    platform.fault("access_denied", action="DescribeTasks")
    time_machine.shift(10)

    text = client.get("/o/acme/versions/", headers=HTMX).content.decode()

    assert registry["agent:v9.9.0"][:19] in text


def test_another_organizations_rollouts_show_no_drift(
    cast: Cast, engine: Engine, platform: LocalAws, shown: Callable[[], str]
) -> None:
    engine.run(trigger(cast))
    Rollout.objects.update(organization=Organization.objects.get(slug="globex"))
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0"))

    assert "Drift" not in shown()
