"""Pre-flight: what ends a bad rollout, by the service's strategy, and deployments that are open or roll back."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.upgrades.conftest import Door
from tests.upgrades.preflight_checks import ask, get_agent, written

SignIn = Callable[[User], Client]
REASON = "the vendor asked for it"
ALARMS = {"alarmNames": ["errors-5xx"], "enable": True, "rollback": True}
PAUSE = {"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}
FUNCTION = {
    "hookTargetArn": "arn:aws:lambda:eu-central-1:111111111111:function:validate",
    "roleArn": "arn:aws:iam::111111111111:role/hooks",
    "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"],
}
STEPS = {"stepPercent": 50.0, "stepBakeTimeInMinutes": 6}
EARLY = {"enable": True, "healthyPercent": 100, "sourceServiceRevisionCleanup": "DEFERRED"}
BREAKER = {"enable": True, "rollback": True}
OFF = {"enable": False, "rollback": False}
# deploymentConfiguration, the check's status, and what it names as on or missing.
DETECTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "rolling with alarms": (
        {"deploymentCircuitBreaker": OFF, "alarms": ALARMS},
        "pass",
        "(ROLLING: alarms with rollback).",
    ),
    "rolling with nothing": ({"deploymentCircuitBreaker": OFF}, "fail", "(ROLLING: no circuit breaker, no alarms)."),
    "blue/green with alarms": (
        {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5, "alarms": ALARMS},
        "pass",
        "(BLUE_GREEN: alarms with rollback, bake of 5 min; no lifecycle hook).",
    ),
    "canary with a pause": (
        {"strategy": "CANARY", "bakeTimeInMinutes": 5, "lifecycleHooks": [PAUSE]},
        "pass",
        "(CANARY: 1 pause, bake of 5 min; no alarms with rollback).",
    ),
    "linear with alarms, a function and bakes of its steps": (
        {"strategy": "LINEAR", "linearConfiguration": STEPS, "alarms": ALARMS, "lifecycleHooks": [FUNCTION]},
        "pass",
        "On for Agent service (LINEAR: alarms with rollback, 1 lifecycle hook; no bake).",
    ),
    "linear without a bake": (
        {"strategy": "LINEAR", "bakeTimeInMinutes": 0, "alarms": ALARMS},
        "pass",
        "(LINEAR: alarms with rollback; no lifecycle hook, no bake).",
    ),
    "blue/green with a bake only": (
        {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5},
        "fail",
        "(BLUE_GREEN: bake of 5 min; no alarms with rollback, no lifecycle hook).",
    ),
    "early success": (
        {"deploymentCircuitBreaker": BREAKER, "earlySuccessCriteria": EARLY},
        "pass",
        "when 100 % of the new tasks are healthy. No circuit breaker, alarm or rollback protects the rest. Old tasks drain",
    ),
}


@pytest.mark.parametrize("kind", DETECTIONS)
def test_failure_detection_is_that_of_the_strategy(
    cast: Cast, healthy: LocalAws, client_for: SignIn, kind: str
) -> None:
    configuration, status, sentence = DETECTIONS[kind]
    if "strategy" in configuration:
        configuration = {"deploymentCircuitBreaker": OFF, **configuration}
    healthy.client().update_service(
        cluster=cast.acme.cluster, service=get_agent(cast), deploymentConfiguration=configuration
    )

    check = ask(client_for(cast.viewer), service="agent")["circuit_breaker"]

    assert check["status"] == status
    assert sentence in check["detail"]


TARGET_GROUP = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup/agent-{}/73e2d6bc24d8a067"
RULE = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:listener-rule/app/a/1/2/{}"
SHIFTED = {
    "alternateTargetGroupArn": TARGET_GROUP.format(2),
    "productionListenerRule": RULE.format("live"),
    "testListenerRule": RULE.format("test"),
    "roleArn": "arn:aws:iam::111111111111:role/load-balancing",
}


@pytest.mark.parametrize(
    ("strategy", "advanced", "said"),
    [
        ("BLUE_GREEN", SHIFTED, ""),
        ("BLUE_GREEN", {**SHIFTED, "testListenerRule": ""}, "its load balancer has no test listener rule."),
        (
            "CANARY",
            {},
            "has no alternate target group, no production listener rule, no test listener rule, no role.",
        ),
        ("ROLLING", {}, ""),
    ],
)
def test_what_a_load_balancer_lacks_is_named_but_fails_nothing(
    cast: Cast, healthy: LocalAws, client_for: SignIn, strategy: str, advanced: dict[str, str], said: str
) -> None:
    balancer = {"targetGroupArn": TARGET_GROUP.format(1), "containerName": "agent", "containerPort": 8080}
    configuration = {"strategy": strategy, "bakeTimeInMinutes": 5, "alarms": ALARMS, "deploymentCircuitBreaker": OFF}
    healthy.client().update_service(
        cluster=cast.acme.cluster,
        service=get_agent(cast),
        deploymentConfiguration=configuration,
        loadBalancers=[balancer | {"advancedConfiguration": advanced}],
    )

    check = ask(client_for(cast.viewer), service="agent")["circuit_breaker"]

    assert check["status"] == "pass"
    assert said in check["detail"]
    assert ("load balancer" in check["detail"]) == bool(said)
    evidence = check["evidence"]["agent"].get("load_balancers")
    assert (evidence is None) == (strategy == "ROLLING")
    assert evidence is None or evidence[0]["target_group"] == TARGET_GROUP.format(1)
    assert evidence is None or evidence[0]["role"] == advanced.get("roleArn")


def rolling_back(cast: Cast, platform: LocalAws, **configuration: Any) -> None:
    """Let ECS roll a deployment of the agent service back, as far as it starts the earlier tasks."""
    ecs, cluster = platform.client(), cast.acme.cluster
    configuration = {"deploymentCircuitBreaker": BREAKER, **configuration}
    ecs.update_service(cluster=cluster, service=get_agent(cast), deploymentConfiguration=configuration)
    ecs.update_service(cluster=cluster, service=get_agent(cast), forceNewDeployment=True)
    platform.advance(12)
    newest = ecs.list_service_deployments(cluster=cluster, service=get_agent(cast))["serviceDeployments"][0]
    ecs.stop_service_deployment(serviceDeploymentArn=newest["serviceDeploymentArn"], stopType="ROLLBACK")
    platform.advance(2)


@pytest.mark.parametrize("is_described", [True, False])
def test_a_rollback_by_ecs_blocks_page_and_api(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door, is_described: bool
) -> None:
    rolling_back(cast, healthy)
    if not is_described:
        healthy.fault("access_denied", action="DescribeServiceDeployments", account="111111111111")
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == 409
    text = door.get_text(response)
    assert "Agent service is rolling back" in text
    assert "could neither roll back nor start tasks" in text
    assert written() == before
    assert door.trigger(client_for(cast.operator), cast.acme, override_reason=REASON).status_code == door.accepted


@pytest.mark.parametrize("stage", ["BAKE_TIME", "POST_TEST_TRAFFIC_SHIFT"])
def test_an_open_deployment_is_named_with_its_stage(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door, stage: str
) -> None:
    """A bake looks like a completed deployment to DescribeServices: every new task runs."""
    name = begin_blue_green(cast, healthy, hooks=[] if stage == "BAKE_TIME" else [PAUSE])

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == 409
    does = "serves all traffic and bakes" if stage == "BAKE_TIME" else f"waits for a decision at {stage} until 20"
    assert f"the deployment {name} {does}" in door.get_text(response)


def test_a_page_says_in_the_persons_zone_until_when_ecs_waits(
    cast: Cast, healthy: LocalAws, client_for: SignIn
) -> None:
    begin_blue_green(cast, healthy, hooks=[PAUSE])
    client = client_for(cast.viewer)
    client.post("/account/times", {"zone": "Asia/Tokyo"})

    page = client.get("/o/acme/").content.decode()

    assert re.search(r"waits for a decision at POST_TEST_TRAFFIC_SHIFT until 20\d\d-\d\d-\d\d \d\d:\d\d JST\.", page)


def begin_blue_green(cast: Cast, healthy: LocalAws, *, hooks: list[dict[str, Any]]) -> str:
    """Let ECS deploy the agent service until it waits or bakes, and return the name of the deployment."""
    ecs, cluster = healthy.client(), cast.acme.cluster
    configuration = {
        "strategy": "BLUE_GREEN",
        "bakeTimeInMinutes": 60,
        "deploymentCircuitBreaker": OFF,
        "alarms": ALARMS,
        "lifecycleHooks": hooks,
    }
    ecs.update_service(cluster=cluster, service=get_agent(cast), deploymentConfiguration=configuration)
    ecs.update_service(cluster=cluster, service=get_agent(cast), forceNewDeployment=True)
    for _ in range(60):
        healthy.advance(10)
    found = ecs.list_service_deployments(cluster=cluster, service=get_agent(cast))["serviceDeployments"][0]
    return str(found["serviceDeploymentArn"]).rpartition("/")[2]
