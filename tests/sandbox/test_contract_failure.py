"""Failing rollouts: circuit breaker, alarm and manual stop, with and without rollback."""

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs


def test_circuit_breaker_rolls_back_to_the_completed_revision(ecs: Ecs) -> None:
    service = ecs.service(desired=2, family="tripped", breaker=True, rollback=True)
    before = ecs.describe(service)
    ecs.fault("crash", service=service, times=1)

    reply = ecs.update(service, taskDefinition=ecs.register("tripped"))
    arn = reply["currentServiceDeployment"]
    rolling = ecs.wait_for(arn, "ROLLBACK_IN_PROGRESS")
    during = ecs.describe(service)
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL")

    assert rolling["deploymentCircuitBreaker"] == {"status": "TRIGGERED", "failureCount": 3, "threshold": 3}
    primary, failed = during["deployments"]
    assert primary["status"] == "PRIMARY"
    assert primary["taskDefinition"] == before["taskDefinition"]
    assert primary["id"] == before["deployments"][0]["id"]
    assert f"rolling back to deploymentId {primary['id']}" in primary["rolloutStateReason"]
    assert (primary["rolloutState"], primary["runningCount"]) == ("IN_PROGRESS", 2)
    assert primary["createdAt"] > failed["createdAt"]
    assert (failed["id"], failed["rolloutState"], failed["failedTasks"]) == (reply["deployments"][0]["id"], "FAILED", 3)
    assert failed["rolloutStateReason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert "circuit breaker" in done["rollback"]["reason"]
    assert done["rollback"]["serviceRevisionArn"] == before["currentServiceRevisions"][0]["arn"]
    assert done["finishedAt"] > done["rollback"]["startedAt"]
    after = ecs.describe(service)
    assert after["taskDefinition"] == before["taskDefinition"]
    assert after["currentServiceDeployment"] == arn
    assert [(each["id"], each["rolloutState"]) for each in after["deployments"]] == [(primary["id"], "COMPLETED")]
    assert f"(service {service}) (deployment {primary['id']}) deployment completed." in ecs.messages(service)


def test_services_stable_is_true_after_a_rollback(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("crash", service=service, times=1)

    ecs.wait_for(ecs.roll(service), "ROLLBACK_SUCCESSFUL")

    ecs.client.get_waiter("services_stable").wait(
        cluster=ecs.cluster, services=[service], WaiterConfig={"Delay": 0, "MaxAttempts": 1}
    )


def test_breaker_without_rollback_leaves_the_failed_revision(ecs: Ecs) -> None:
    service = ecs.service(desired=2, family="left", breaker=True, rollback=False)
    ecs.fault("image_pull", service=service)
    revision = ecs.register("left")

    arn = ecs.roll(service, taskDefinition=revision)
    asked = ecs.wait_for(arn, "STOP_REQUESTED")
    done = ecs.wait_for(arn, "STOPPED")
    ecs.pass_time(600)

    assert asked["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    assert done["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    assert "circuit breaker" in done["statusReason"]
    assert "rollback" not in done
    after = ecs.describe(service)
    assert after["taskDefinition"] == revision
    assert [(each["status"], each["rolloutState"], each["runningCount"]) for each in after["deployments"]] == [
        ("PRIMARY", "FAILED", 0),
        ("ACTIVE", "COMPLETED", 2),
    ]


def test_first_deployment_cannot_be_rolled_back(ecs: Ecs) -> None:
    ecs.fault("crash", service="first")
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}

    created = ecs.client.create_service(
        cluster=ecs.cluster,
        serviceName="first",
        taskDefinition=ecs.register("first"),
        desiredCount=1,
        deploymentConfiguration=breaker,
    )["service"]
    done = ecs.wait_for(created["currentServiceDeployment"], "STOPPED")

    assert done["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    assert ecs.describe("first")["deployments"][0]["rolloutState"] == "FAILED"


def test_without_circuit_breaker_a_crashing_rollout_never_ends(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=False)
    ecs.fault("crash", service=service)

    arn = ecs.roll(service)
    ecs.pass_time(3600)

    assert ecs.deployment(arn)["status"] == "IN_PROGRESS"
    assert ecs.deployment(arn)["deploymentCircuitBreaker"]["status"] == "DISABLED"
    assert ecs.describe(service)["deployments"][0]["failedTasks"] > 20
    assert ecs.describe(service)["runningCount"] >= 2
    assert any("unable to consistently start tasks" in message for message in ecs.messages(service))


@pytest.mark.parametrize(("desired", "threshold"), [(1, 3), (6, 3), (7, 4), (10, 5), (400, 200), (500, 200)])
def test_breaker_threshold_is_half_the_count_from_3_to_200(ecs: Ecs, desired: int, threshold: int) -> None:
    service = ecs.service(desired=desired, breaker=True)

    arn = ecs.roll(service)

    assert ecs.deployment(arn)["deploymentCircuitBreaker"]["threshold"] == threshold


@pytest.mark.parametrize(
    ("kind", "value", "desired", "threshold"),
    [
        ("COUNT", 1, 2, 1),
        ("COUNT", 500, 2, 500),
        ("BOUNDED_PERCENT", 100, 2, 3),
        ("BOUNDED_PERCENT", 25, 100, 25),
        ("BOUNDED_PERCENT", 100, 300, 200),
        ("UNBOUNDED_PERCENT", 50, 2, 1),
        ("UNBOUNDED_PERCENT", 100, 300, 300),
    ],
)
def test_breaker_threshold_is_as_configured(ecs: Ecs, kind: str, value: int, desired: int, threshold: int) -> None:
    breaker = {"enable": True, "rollback": True, "thresholdConfiguration": {"type": kind, "value": value}}
    service = ecs.service(desired=desired, deployment_configuration={"deploymentCircuitBreaker": breaker})

    arn = ecs.roll(service)

    assert ecs.deployment(arn)["deploymentCircuitBreaker"]["threshold"] == threshold


def test_count_of_one_rolls_back_at_the_first_failure(ecs: Ecs) -> None:
    breaker = {"enable": True, "rollback": True, "thresholdConfiguration": {"type": "COUNT", "value": 1}}
    service = ecs.service(desired=1, deployment_configuration={"deploymentCircuitBreaker": breaker})
    ecs.fault("crash", service=service)

    done = ecs.wait_for(ecs.roll(service), "ROLLBACK_SUCCESSFUL", "SUCCESSFUL")

    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert done["deploymentCircuitBreaker"] == {"status": "TRIGGERED", "failureCount": 1, "threshold": 1}


def test_failures_add_up_without_a_reset(ecs: Ecs) -> None:
    breaker = {"enable": True, "rollback": True, "resetOnHealthyTask": False}
    service = ecs.service(desired=2, deployment_configuration={"deploymentCircuitBreaker": breaker})
    ecs.fault("crash", service=service, task_count=2)

    done = ecs.wait_for(ecs.roll(service), "SUCCESSFUL")

    assert done["deploymentCircuitBreaker"]["failureCount"] == 2
    assert ecs.describe(service)["deployments"][0]["failedTasks"] == 0


def test_threshold_follows_the_desired_count(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("stuck", service=service)
    arn = ecs.roll(service)

    ecs.update(service, desiredCount=20)
    ecs.pass_time(2)

    assert ecs.deployment(arn)["deploymentCircuitBreaker"]["threshold"] == 10


def test_failure_count_starts_again_at_the_first_healthy_task(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("crash", service=service, task_count=2)

    arn = ecs.roll(service)
    ecs.wait(lambda: ecs.describe(service)["deployments"][0]["failedTasks"] == 2, seconds=60)
    failing = ecs.deployment(arn)["deploymentCircuitBreaker"]["failureCount"]
    done = ecs.wait_for(arn, "SUCCESSFUL")

    assert failing == 2
    assert done["deploymentCircuitBreaker"] == {"status": "MONITORING_COMPLETE", "failureCount": 0, "threshold": 3}
    assert ecs.describe(service)["deployments"][0]["failedTasks"] == 0


def test_alarm_rolls_back_and_is_named(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True, rollback=True)
    ecs.fault("alarm", service=service, alarm_names=["error-rate"])

    arn = ecs.roll(service)
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL", "STOPPED")

    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert done["alarms"]["status"] == "TRIGGERED"
    assert done["alarms"]["triggeredAlarmNames"] == ["error-rate"]
    assert "alarm" in done["rollback"]["reason"]
    assert any("deployment failed: alarm detected." in message for message in ecs.messages(service))


def test_alarm_without_rollback_stops(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True, rollback=True)
    alarms = {"enable": True, "rollback": False, "alarmNames": ["error-rate"]}
    ecs.update(service, deploymentConfiguration={"alarms": alarms})
    ecs.fault("alarm", service=service, alarm_names=["error-rate"])

    arn = ecs.roll(service)
    watched = ecs.deployment(arn)["alarms"]
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL", "STOPPED")

    assert watched["status"] == "MONITORING"
    assert watched["alarmNames"] == ["error-rate"]
    assert done["status"] == "STOPPED"
    assert done["alarms"]["status"] == "TRIGGERED"
    assert done["deploymentCircuitBreaker"]["status"] == "MONITORING_COMPLETE"


def test_rollback_itself_may_fail(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("crash", service=service, times=1)
    ecs.fault("rollback_fails", service=service, times=1)

    arn = ecs.roll(service)
    done = ecs.wait_for(arn, "ROLLBACK_FAILED")

    assert done["rollback"]["startedAt"] < done["finishedAt"]
    assert ecs.describe(service)["deployments"][0]["rolloutState"] == "FAILED"


def test_rollback_starts_the_tasks_that_are_gone(ecs: Ecs) -> None:
    service = ecs.service(desired=4, breaker=True)
    ecs.update(service, deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 100})
    before = ecs.describe(service)["deployments"][0]["id"]
    ecs.fault("crash", service=service, times=1)

    arn = ecs.roll(service)
    ecs.wait_for(arn, "ROLLBACK_IN_PROGRESS")
    during = ecs.describe(service)["deployments"][0]
    ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL")

    assert (during["id"], during["runningCount"]) == (before, 2)
    after = ecs.describe(service)
    assert [(each["id"], each["runningCount"]) for each in after["deployments"]] == [(before, 4)]


def test_stop_rolls_back_on_request(ecs: Ecs) -> None:
    service = ecs.service(desired=2, family="halted", breaker=False)
    before = ecs.describe(service)
    ecs.fault("no_capacity", service=service)

    arn = ecs.roll(service, taskDefinition=ecs.register("halted"))
    ecs.pass_time(60)
    reply = ecs.client.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")
    asked = ecs.deployment(arn)["status"]
    again = ecs.client.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")
    rolling = ecs.wait_for(arn, "ROLLBACK_IN_PROGRESS", seconds=5)
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL")

    assert reply["serviceDeploymentArn"] == again["serviceDeploymentArn"] == arn
    assert asked == "ROLLBACK_REQUESTED"
    assert "user" in rolling["rollback"]["reason"]
    assert done["deploymentCircuitBreaker"]["status"] == "DISABLED"
    assert ecs.describe(service)["taskDefinition"] == before["taskDefinition"]


def test_stop_of_a_first_deployment_ends_stopped(ecs: Ecs) -> None:
    ecs.faults()
    definition = ecs.register("fresh")
    created = ecs.client.create_service(
        cluster=ecs.cluster, serviceName="fresh", taskDefinition=definition, desiredCount=1
    )["service"]

    ecs.client.stop_service_deployment(serviceDeploymentArn=created["currentServiceDeployment"])
    done = ecs.wait_for(created["currentServiceDeployment"], "STOPPED", seconds=5)

    assert "rollback" not in done


def test_ended_deployment_cannot_be_stopped(ecs: Ecs) -> None:
    service = ecs.service(desired=1, breaker=True)
    arn = ecs.describe(service)["currentServiceDeployment"]

    with pytest.raises(ClientError) as refused:
        ecs.client.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")

    assert refused.value.response["Error"]["Code"] == "ConflictException"


def test_unknown_deployment_and_stop_type_are_refused(ecs: Ecs) -> None:
    service = ecs.service(breaker=True)
    arn = ecs.roll(service)

    with pytest.raises(ClientError, match="ServiceDeploymentNotFoundException"):
        ecs.client.stop_service_deployment(serviceDeploymentArn=f"{arn[:-4]}none", stopType="ROLLBACK")
    with pytest.raises(ClientError, match="InvalidParameterException"):
        ecs.client.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT")


def test_new_deployment_during_a_rollback_ends_it_as_failed(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("crash", service=service, times=1)

    arn = ecs.roll(service)
    ecs.wait_for(arn, "ROLLBACK_IN_PROGRESS")
    second = ecs.roll(service)

    assert ecs.deployment(arn)["status"] == "ROLLBACK_FAILED"
    assert ecs.wait_for(second, "SUCCESSFUL", "ROLLBACK_SUCCESSFUL")["status"] == "SUCCESSFUL"


def test_no_capacity_leaves_tasks_unplaced_and_says_so(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("no_capacity", service=service)

    arn = ecs.roll(service)
    ecs.pass_time(120)

    assert ecs.deployment(arn)["status"] == "IN_PROGRESS"
    assert ecs.deployment(arn)["targetServiceRevision"]["pendingTaskCount"] == 0
    assert any("was unable to place a task" in message for message in ecs.messages(service))
    assert ecs.describe(service)["runningCount"] == 2


def test_stuck_tasks_run_but_never_become_healthy(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("stuck", service=service)

    arn = ecs.roll(service)
    ecs.pass_time(3600)

    assert ecs.deployment(arn)["status"] == "IN_PROGRESS"
    assert ecs.deployment(arn)["targetServiceRevision"]["runningTaskCount"] == 1
    assert ecs.describe(service)["runningCount"] == 3


def test_slow_rollout_takes_longer(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    ecs.fault("slow", service=service, factor=5)

    done = ecs.wait_for(ecs.roll(service), "SUCCESSFUL")

    assert (done["finishedAt"] - done["createdAt"]).total_seconds() > 120


def test_fault_spares_rollbacks_by_default(ecs: Ecs) -> None:
    gentle, harsh = ecs.service(desired=1, breaker=True), ecs.service(desired=1, breaker=True)
    ecs.fault("crash", service=gentle)
    ecs.fault("crash", service=harsh, rollbacks=True)

    first, second = ecs.roll(gentle), ecs.roll(harsh)

    assert ecs.wait_for(first, "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")["status"] == "ROLLBACK_SUCCESSFUL"
    assert ecs.wait_for(second, "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")["status"] == "ROLLBACK_FAILED"
