"""Services that the portal cannot upgrade are refused and harmless to the others. DAEMON ones can be upgraded."""

import html
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import PREFLIGHT, VERSIONS, Door
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade
from upgrades.states import Outcome, Status

SignIn = Callable[[User], Client]

pytestmark = pytest.mark.django_db(transaction=True)

# What the local AWS calls each, and how the portal names it.
CONTROLLERS = {"EXTERNAL": "EXTERNAL", "CODE_DEPLOY": "CODE_DEPLOY", "EXPRESS": "Express Mode"}


def says(controller: str) -> str:
    return f"deployed by another controller ({controller}): the portal cannot upgrade it"


def hand_over(local_aws: LocalAws, cast: Cast, controller: str, *, service: str = "orchestrator") -> None:
    """Let another controller deploy a service of acme."""
    stack = cast.acme.deployment_stack
    place = {"name": f"{stack}-{service}-service", "family": f"{stack}-{service}", "container": service}
    image = f"111111111111.dkr.ecr.eu-central-1.amazonaws.com/axonflow-{service}:v9.9.0"
    seeded = {**place, "image": image, "desired_count": 3, "controller": controller}
    local_aws.seed(cluster=cast.acme.cluster, services=[seeded])


@pytest.fixture(params=CONTROLLERS)
def controller(request: pytest.FixtureRequest, registry: dict[str, str], platform: LocalAws, cast: Cast) -> str:
    """Let this controller deploy the orchestrator of acme."""
    hand_over(platform, cast, request.param)
    return CONTROLLERS[request.param]


def get_text(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


# --- it is shown, and the other two work ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/o/acme/", "/o/acme/versions/", "/o/acme/upgrades/new?service=all"])
def test_the_pages_name_the_controller(cast: Cast, controller: str, client_for: SignIn, path: str) -> None:
    text = get_text(client_for(cast.operator).get(path))

    assert says(controller) in text
    assert "Other controller" in text
    assert "Rolling" not in text
    assert text.count("Steady") == 2
    assert "v9.9.0" in text


def test_the_versions_name_the_controller(cast: Cast, controller: str, client_for: SignIn) -> None:
    body = client_for(cast.viewer).get(VERSIONS).json()

    assert f"The orchestrator is {says(controller)}." in body["message"]
    assert [version["version"] for version in body["versions"]] == ["v9.9.1", "v9.9.0", "v9.8.0"]
    assert body["current"]["agent"] == body["current"]["customer-portal"] == "v9.9.0"
    assert body["selection"] == "available"


@pytest.mark.parametrize("service", ["all", "orchestrator"])
def test_preflight_fails_on_it(cast: Cast, controller: str, client_for: SignIn, service: str) -> None:
    body = client_for(cast.viewer).get(PREFLIGHT, {"service": service}).json()

    checks = {check["check"]: check for check in body["checks"]}
    assert not body["may_start"]
    found = checks["cluster_and_services"]
    assert (found["status"], found["detail"]) == ("fail", f"Orchestrator: {says(controller)}.")
    assert found["evidence"]["controllers"] == {"orchestrator": controller}
    assert checks["steady"]["status"] == ("pass" if service == "all" else "unknown")
    assert checks["circuit_breaker"]["status"] == ("pass" if service == "all" else "unknown")
    assert "Off" not in checks["circuit_breaker"]["detail"]


@pytest.mark.parametrize("service", ["agent", "customer-portal"])
def test_preflight_of_another_service_passes(cast: Cast, controller: str, client_for: SignIn, service: str) -> None:
    body = client_for(cast.viewer).get(PREFLIGHT, {"service": service}).json()

    assert body["may_start"]
    assert {check["status"] for check in body["checks"]} == {"pass", "unknown"}


def test_another_service_is_upgraded(cast: Cast, engine: Engine, controller: str) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")

    assert engine.run(upgrade).status == Status.SUCCESS


# --- it is not upgraded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"version": "v0", "force_new_deployment": True}])
def test_upgrading_only_this_service_is_refused(
    cast: Cast, platform: LocalAws, controller: str, client_for: SignIn, door: Door, options: dict[str, Any]
) -> None:
    asked = {"service": "orchestrator", "override_reason": "start anyway", **options}

    response = door.trigger(client_for(cast.operator), cast.acme, **asked)

    assert response.status_code == 400
    assert f"{cast.acme.deployment_stack}-orchestrator-service is {says(controller)}." in door.get_text(response)
    assert not Upgrade.objects.exists()
    assert platform.ledger() == []


def test_its_plan_shows_the_refusal(cast: Cast, controller: str, client_for: SignIn) -> None:
    text = get_text(client_for(cast.operator).get("/o/acme/upgrades/new?service=orchestrator&checks=1"))

    assert "This upgrade cannot start." in text
    assert f"-orchestrator-service is {says(controller)}." in text


@pytest.mark.parametrize("options", [{}, {"version": "v9.9.1"}])
def test_in_all_it_fails_without_a_write_and_others_proceed(
    cast: Cast, engine: Engine, platform: LocalAws, controller: str, options: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"service": "all", "force_new_deployment": True, **options}
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, override_reason="for the other two", **asked)

    engine.run(upgrade)

    outcomes = list(upgrade.rollouts.values_list("outcome", flat=True))
    assert outcomes == [Outcome.COMPLETED, Outcome.NOT_SUPPORTED, Outcome.COMPLETED]
    assert upgrade.status == Status.PARTIAL
    failed = upgrade.rollouts.get(service="orchestrator")
    assert (failed.status, failed.attempts) == (Status.FAILED, 0)
    assert f"-orchestrator-service is {says(controller)}." in str(failed.error_message)
    stack = cast.acme.deployment_stack
    assert platform.ledger(service=f"{stack}-orchestrator-service") == []
    assert f"{stack}-orchestrator" not in str(platform.ledger(action="RegisterTaskDefinition"))


def test_a_service_handed_over_while_waiting_fails(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="orchestrator", version="v9.9.1")
    hand_over(platform, cast, "EXTERNAL")

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.NOT_SUPPORTED


def test_a_service_handed_over_since_is_not_rolled_back(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], client_for: SignIn
) -> None:
    upgrade = engine.run(
        trigger_upgrade(cast.acme, actor=cast.operator, service="orchestrator", version="v9.9.1"),
    )
    hand_over(platform, cast, "EXTERNAL")

    text = get_text(client_for(cast.operator).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/rollback"))

    assert f"-orchestrator-service is {says('EXTERNAL')}." in text


# --- DAEMON scheduling: nobody sets the desired count ---------------------------------------------------------------


def seed_daemon(local_aws: LocalAws, cast: Cast, *, tasks: int) -> None:
    stack = cast.acme.deployment_stack
    image = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/axonflow-agent:v9.9.0"
    place = {"name": f"{stack}-agent-service", "family": f"{stack}-agent", "container": "agent", "image": image}
    local_aws.seed(cluster=cast.acme.cluster, services=[{**place, "desired_count": tasks, "scheduling": "DAEMON"}])


def test_a_daemon_service_is_upgraded(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], client_for: SignIn, door: Door
) -> None:
    seed_daemon(platform, cast, tasks=3)

    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, service="agent", version="v9.9.1"))

    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_daemon_service_without_instances_is_not_disabled(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], client_for: SignIn, door: Door
) -> None:
    seed_daemon(platform, cast, tasks=0)
    client = client_for(cast.operator)

    plan = " ".join(get_text(client.get("/o/acme/upgrades/new?service=agent&version=v9.9.1")).split())
    upgrade = door.find_upgrade(door.trigger(client, cast.acme, service="agent", version="v9.9.1"))
    engine.run(upgrade)

    assert "no task runs: no container instance matches" in plan
    steady = upgrade.checks.get(name="steady")
    expected = "Nothing runs, for no container instance matches: Agent service."
    assert (steady.status, steady.detail) == ("unknown", expected)
    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert "No task of the new version has run" in str(rollout.rollout_reason)
