"""BLUE_GREEN, LINEAR and CANARY deployments: stages, traffic weights, bake time and rollback."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs

Json = dict[str, Any]

BLUE_GREEN = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5}
STAGES = (
    "PRE_SCALE_UP",
    "SCALE_UP",
    "POST_SCALE_UP",
    "TEST_TRAFFIC_SHIFT",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
    "BAKE_TIME",
    "CLEAN_UP",
)


def reach(ecs: Ecs, arn: str, stage: str, *, seconds: int = 600) -> Json:
    """Return the service deployment when it has reached the lifecycle stage."""

    def reached() -> Json | None:
        found = ecs.deployment(arn)
        return found if found.get("lifecycleStage") == stage else None

    return dict(ecs.wait(reached, seconds=seconds))


def weights(deployment: Json) -> tuple[float, float, float, float]:
    """Return the production weights of target and source, then their test weights."""
    target, source = deployment["targetServiceRevision"], deployment["sourceServiceRevisions"][0]
    production, test = "requestedProductionTrafficWeight", "requestedTestTrafficWeight"
    return target[production], source[production], target[test], source[test]


def follow(ecs: Ecs, arn: str) -> list[Json]:
    """Return the states of the service deployment, second by second, until it has ended."""
    seen = [ecs.deployment(arn)]
    while "finishedAt" not in seen[-1]:
        assert len(seen) < 3000
        ecs.pass_time(1)
        seen.append(ecs.deployment(arn))
    return seen


def runs_of(values: list[Any]) -> list[Any]:
    """Return the values without repetitions of the one before."""
    return [value for number, value in enumerate(values) if number == 0 or value != values[number - 1]]


def test_blue_green_goes_through_all_stages_in_order(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN)

    seen = follow(ecs, ecs.roll(service))

    going = [each for each in seen if each["status"] != "PENDING"]
    assert tuple(runs_of([each["lifecycleStage"] for each in going])) == STAGES
    assert runs_of([weights(each)[:2] for each in going]) == [(0.0, 100.0), (100.0, 0.0)]
    bake = [each for each in going if each["lifecycleStage"] == "BAKE_TIME"]
    assert len(bake) == 300
    assert (seen[-1]["status"], weights(seen[-1])) == ("SUCCESSFUL", (100.0, 0.0, 100.0, 0.0))
    assert seen[-1]["deploymentConfiguration"]["bakeTimeInMinutes"] == 5
    assert seen[-1]["deploymentCircuitBreaker"]["status"] == "DISABLED"


def test_test_traffic_moves_before_production(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN)
    arn = ecs.roll(service)

    before = reach(ecs, arn, "POST_SCALE_UP")
    after = reach(ecs, arn, "POST_TEST_TRAFFIC_SHIFT")

    assert weights(before) == (0.0, 100.0, 0.0, 100.0)
    assert weights(after) == (0.0, 100.0, 100.0, 0.0)


def test_old_tasks_run_until_the_clean_up(ecs: Ecs) -> None:
    service = ecs.service(desired=3, deployment_configuration=BLUE_GREEN)
    arn = ecs.roll(service)

    baking = reach(ecs, arn, "BAKE_TIME")
    ecs.pass_time(290)
    before = ecs.describe(service)
    reach(ecs, arn, "CLEAN_UP")
    after = ecs.wait(lambda: ecs.describe(service)["runningCount"] == 3)

    assert baking["sourceServiceRevisions"][0]["runningTaskCount"] == 3
    assert baking["sourceServiceRevisions"][0]["requestedTaskCount"] == 3
    assert [(each["status"], each["desiredCount"], each["runningCount"]) for each in before["deployments"]] == [
        ("PRIMARY", 3, 3),
        ("ACTIVE", 3, 3),
    ]
    assert after


def test_only_rolling_deployments_have_a_rollout_state(ecs: Ecs) -> None:
    blue_green = ecs.service(deployment_configuration=BLUE_GREEN)
    rolling = ecs.service()

    arn = ecs.roll(rolling)
    ecs.pass_time(10)

    assert "rolloutState" not in ecs.describe(blue_green)["deployments"][0]
    assert ecs.describe(rolling)["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    going = ecs.deployment(arn)
    assert "lifecycleStage" not in going
    assert "requestedProductionTrafficWeight" not in going["targetServiceRevision"]
    assert "requestedTestTrafficWeight" not in going["sourceServiceRevisions"][0]


def test_linear_shifts_equal_steps_with_a_bake_between(ecs: Ecs) -> None:
    linear = {"stepPercent": 40.0, "stepBakeTimeInMinutes": 1}
    service = ecs.service(deployment_configuration={"strategy": "LINEAR", "linearConfiguration": linear})

    seen = follow(ecs, ecs.roll(service))

    assert runs_of([weights(each)[0] for each in seen]) == [0.0, 40.0, 80.0, 100.0]
    assert 60 <= sum(weights(each)[0] == 80.0 for each in seen) <= 75
    stages = runs_of([each["lifecycleStage"] for each in seen if each["status"] != "PENDING"])
    assert stages.count("PRE_PRODUCTION_TRAFFIC_SHIFT") == stages.count("PRODUCTION_TRAFFIC_SHIFT") == 3
    assert stages[-1] == "CLEAN_UP"


def test_canary_shifts_a_part_then_the_rest(ecs: Ecs) -> None:
    canary = {"canaryPercent": 12.5, "canaryBakeTimeInMinutes": 2}
    service = ecs.service(
        deployment_configuration={"strategy": "CANARY", "canaryConfiguration": canary, "bakeTimeInMinutes": 1}
    )

    seen = follow(ecs, ecs.roll(service))

    assert runs_of([weights(each)[:2] for each in seen]) == [(0.0, 100.0), (12.5, 87.5), (100.0, 0.0)]
    assert 120 <= sum(weights(each)[0] == 12.5 for each in seen) <= 135
    assert seen[-1]["status"] == "SUCCESSFUL"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_rolls_back_from_every_stage(ecs: Ecs, stage: str) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN, family="stopped")
    before = ecs.describe(service)
    arn = ecs.roll(service, taskDefinition=ecs.register("stopped"))
    reach(ecs, arn, stage)

    ecs.client.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")
    rolling = ecs.wait_for(arn, "ROLLBACK_IN_PROGRESS", seconds=3)
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL", seconds=60)

    assert weights(rolling)[:2] == (0.0, 100.0)
    assert rolling["rollback"]["serviceRevisionArn"] == before["currentServiceRevisions"][0]["arn"]
    assert done["lifecycleStage"] == stage
    after = ecs.describe(service)
    assert [(each["id"], each["runningCount"]) for each in after["deployments"]] == [
        (before["deployments"][0]["id"], 2)
    ]


def test_an_alarm_in_the_bake_rolls_back(ecs: Ecs) -> None:
    alarms = {"enable": True, "rollback": True, "alarmNames": ["error-rate"]}
    service = ecs.service(deployment_configuration={**BLUE_GREEN, "alarms": alarms})
    ecs.fault("alarm", service=service, stage="BAKE_TIME", alarm_names=["error-rate"])

    arn = ecs.roll(service)
    reach(ecs, arn, "BAKE_TIME")
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL", "SUCCESSFUL", seconds=60)

    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert done["alarms"] == {
        "status": "TRIGGERED",
        "alarmNames": ["error-rate"],
        "triggeredAlarmNames": ["error-rate"],
    }
    assert "alarm" in done["rollback"]["reason"]
    assert done["lifecycleStage"] == "BAKE_TIME"


def test_a_stage_of_more_than_a_day_rolls_back(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN)
    ecs.fault("stuck", service=service)

    arn = ecs.roll(service)
    ecs.pass_time(86000)
    going = ecs.deployment(arn)
    ecs.pass_time(600)
    done = ecs.deployment(arn)

    assert (going["status"], going["lifecycleStage"]) == ("IN_PROGRESS", "SCALE_UP")
    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert "SCALE_UP timed out" in done["rollback"]["reason"]


def test_a_superseding_deployment_reconciles_first(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN)
    first = ecs.roll(service)
    baking = reach(ecs, first, "BAKE_TIME")

    second = ecs.roll(service)
    reconciling = reach(ecs, second, "RECONCILE_SERVICE", seconds=10)
    stopped = ecs.wait_for(first, "STOPPED", seconds=10)
    done = ecs.wait_for(second, "SUCCESSFUL", seconds=600)

    assert stopped["lifecycleStage"] == "BAKE_TIME"
    shares = {each["arn"]: each["requestedProductionTrafficWeight"] for each in reconciling["sourceServiceRevisions"]}
    assert shares == {
        baking["targetServiceRevision"]["arn"]: 100.0,
        baking["sourceServiceRevisions"][0]["arn"]: 0.0,
    }
    assert done["targetServiceRevision"]["runningTaskCount"] == 2
    assert ecs.describe(service)["runningCount"] == 2


def test_a_deployment_keeps_its_own_configuration(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=BLUE_GREEN)
    arn = ecs.roll(service)

    ecs.update(service, deploymentConfiguration={"bakeTimeInMinutes": 60})
    seen = follow(ecs, arn)

    assert seen[-1]["deploymentConfiguration"]["bakeTimeInMinutes"] == 5
    assert sum(each.get("lifecycleStage") == "BAKE_TIME" for each in seen) == 300
    assert ecs.describe(service)["deploymentConfiguration"]["bakeTimeInMinutes"] == 60


def test_a_new_desired_count_applies_to_both_revisions(ecs: Ecs) -> None:
    service = ecs.service(desired=2, deployment_configuration=BLUE_GREEN)
    arn = ecs.roll(service)
    reach(ecs, arn, "BAKE_TIME")

    ecs.update(service, desiredCount=3)
    ecs.pass_time(30)
    baking = ecs.deployment(arn)
    ecs.wait_for(arn, "SUCCESSFUL", seconds=400)

    target, source = baking["targetServiceRevision"], baking["sourceServiceRevisions"][0]
    assert (target["runningTaskCount"], source["runningTaskCount"]) == (3, 3)
    assert ecs.describe(service)["runningCount"] == 3


def test_a_stopped_old_task_is_replaced_by_its_own_kind(ecs: Ecs) -> None:
    service = ecs.service(desired=2, deployment_configuration=BLUE_GREEN)
    before = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"]
    arn = ecs.roll(service)
    reach(ecs, arn, "BAKE_TIME")

    ecs.client.stop_task(cluster=ecs.cluster, task=before[0])
    ecs.pass_time(30)

    assert ecs.deployment(arn)["sourceServiceRevisions"][0]["runningTaskCount"] == 2
    assert ecs.deployment(arn)["targetServiceRevision"]["runningTaskCount"] == 2


def test_a_first_deployment_has_nothing_to_return_to(ecs: Ecs) -> None:
    ecs.faults()
    created = ecs.client.create_service(
        cluster=ecs.cluster,
        serviceName="first",
        taskDefinition=ecs.register("first"),
        desiredCount=1,
        deploymentConfiguration=BLUE_GREEN,
    )["service"]
    arn = created["currentServiceDeployment"]
    baking = reach(ecs, arn, "BAKE_TIME")

    ecs.client.stop_service_deployment(serviceDeploymentArn=arn)
    done = ecs.wait_for(arn, "STOPPED", seconds=5)

    assert baking["sourceServiceRevisions"] == []
    assert "rollback" not in done


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"strategy": "BLUE_GREEN"}, "bakeTimeInMinutes"),
        ({"linearConfiguration": {"stepPercent": 20.0}}, "LINEAR"),
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.0}}, "between 3.0 and 100.0"),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryBakeTimeInMinutes": 1441}}, "1440 minutes"),
        (
            {
                "strategy": "BLUE_GREEN",
                "bakeTimeInMinutes": 5,
                "lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["PRODUCTION_TRAFFIC_SHIFT"]}],
            },
            "PAUSE hooks",
        ),
        ({"lifecycleHooks": [{"lifecycleStages": ["POST_SCALE_UP"]}]}, "hookTargetArn"),
    ],
)
def test_an_invalid_configuration_is_refused(ecs: Ecs, change: Json, text: str) -> None:
    service = ecs.service(breaker=True)
    before = ecs.describe(service)["deploymentConfiguration"]

    with pytest.raises(ClientError, match=text) as refused:
        ecs.update(service, deploymentConfiguration=change)

    assert refused.value.response["Error"]["Code"] == "InvalidParameterException"
    assert ecs.describe(service)["deploymentConfiguration"] == before
