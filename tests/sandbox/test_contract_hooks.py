"""Lifecycle hooks: pauses that wait for ContinueServiceDeployment, and Lambda functions."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs

Json = dict[str, Any]

FUNCTION = "arn:aws:lambda:eu-central-1:111111111111:function:validate"


def pause(*stages: str, **timeout: Any) -> Json:
    return {
        "targetType": "PAUSE",
        "lifecycleStages": list(stages),
        **({"timeoutConfiguration": timeout} if timeout else {}),
    }


def function(*stages: str, **timeout: Any) -> Json:
    role = "arn:aws:iam::111111111111:role/hooks"
    return {**pause(*stages, **timeout), "targetType": "AWS_LAMBDA", "hookTargetArn": FUNCTION, "roleArn": role}


def blue_green(*hooks: Json) -> Json:
    return {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1, "lifecycleHooks": list(hooks)}


def wait_for_hook(ecs: Ecs, arn: str, status: str, *, but: str = "") -> Json:
    """Return the first hook with the status whose id is not `but`."""

    def found() -> Json | None:
        hooks = ecs.deployment(arn).get("lifecycleHookDetails") or []
        return next((each for each in hooks if each["status"] == status and each["hookId"] != but), None)

    return dict(ecs.wait(found, seconds=600, step=1 if status == "IN_PROGRESS" else 5))


def answer(ecs: Ecs, arn: str, hook: Json, action: str) -> Json:
    return dict(ecs.client.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action=action))


def test_a_pause_waits_until_it_is_continued(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(pause("POST_TEST_TRAFFIC_SHIFT")))
    arn = ecs.roll(service)

    hook = wait_for_hook(ecs, arn, "AWAITING_ACTION")
    ecs.pass_time(3600)
    paused = ecs.deployment(arn)
    reply = answer(ecs, arn, hook, "CONTINUE")
    ecs.wait_for(arn, "SUCCESSFUL")

    assert (paused["status"], paused["lifecycleStage"]) == ("IN_PROGRESS", "POST_TEST_TRAFFIC_SHIFT")
    assert paused["lifecycleHookDetails"] == [hook]
    assert (hook["targetType"], hook["timeoutAction"]) == ("PAUSE", "ROLLBACK")
    assert "targetArn" not in hook
    assert (hook["expiresAt"] - paused["startedAt"]).total_seconds() > 86400
    assert reply["serviceDeploymentArn"] == arn


def test_a_pause_can_be_rolled_back(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(pause("POST_PRODUCTION_TRAFFIC_SHIFT")))
    arn = ecs.roll(service)
    hook = wait_for_hook(ecs, arn, "AWAITING_ACTION")

    answer(ecs, arn, hook, "ROLLBACK")
    asked = ecs.deployment(arn)
    done = ecs.wait_for(arn, "ROLLBACK_SUCCESSFUL")

    assert asked["status"] == "ROLLBACK_REQUESTED"
    assert "user request" in done["rollback"]["reason"]
    assert done["targetServiceRevision"]["requestedProductionTrafficWeight"] == 0.0


@pytest.mark.parametrize(("action", "status"), [("CONTINUE", "SUCCESSFUL"), ("ROLLBACK", "ROLLBACK_SUCCESSFUL")])
def test_an_expired_pause_takes_its_timeout_action(ecs: Ecs, action: str, status: str) -> None:
    hook = pause("POST_SCALE_UP", timeoutInMinutes=10, action=action)
    service = ecs.service(deployment_configuration=blue_green(hook))
    arn = ecs.roll(service)

    waiting = wait_for_hook(ecs, arn, "AWAITING_ACTION")
    done = ecs.wait_for(arn, "SUCCESSFUL", "ROLLBACK_SUCCESSFUL", seconds=900)

    assert waiting["timeoutAction"] == action
    assert done["status"] == status
    assert (done["finishedAt"] - waiting["expiresAt"]).total_seconds() > 0
    with pytest.raises(ClientError, match="ClientException"):
        answer(ecs, arn, waiting, "CONTINUE")


def test_each_step_pauses_with_a_new_hook(ecs: Ecs) -> None:
    steps = {"stepPercent": 50.0, "stepBakeTimeInMinutes": 1}
    service = ecs.service(
        deployment_configuration={
            "strategy": "LINEAR",
            "linearConfiguration": steps,
            "lifecycleHooks": [pause("PRE_PRODUCTION_TRAFFIC_SHIFT")],
        }
    )
    arn = ecs.roll(service)

    first = wait_for_hook(ecs, arn, "AWAITING_ACTION")
    answer(ecs, arn, first, "CONTINUE")
    with pytest.raises(ClientError) as repeated:
        answer(ecs, arn, first, "CONTINUE")
    second = wait_for_hook(ecs, arn, "AWAITING_ACTION", but=first["hookId"])
    with pytest.raises(ClientError) as outdated:
        answer(ecs, arn, first, "ROLLBACK")
    still = ecs.deployment(arn)
    answer(ecs, arn, second, "CONTINUE")

    for refused in (repeated, outdated):
        assert refused.value.response["Error"]["Code"] == "InvalidParameterException"
        assert first["hookId"] in refused.value.response["Error"]["Message"]
    assert still["status"] == "IN_PROGRESS"
    assert still["targetServiceRevision"]["requestedProductionTrafficWeight"] == 50.0
    assert ecs.wait_for(arn, "SUCCESSFUL")["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100.0


def test_a_function_holds_the_stage_for_some_seconds(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(function("POST_SCALE_UP")))
    arn = ecs.roll(service)

    running = wait_for_hook(ecs, arn, "IN_PROGRESS")
    with pytest.raises(ClientError, match="not a pause hook"):
        answer(ecs, arn, running, "CONTINUE")
    done = ecs.wait_for(arn, "SUCCESSFUL")

    assert (running["targetType"], running["targetArn"]) == ("AWS_LAMBDA", FUNCTION)
    assert "lifecycleHookDetails" not in done


def test_a_failing_function_rolls_back(ecs: Ecs) -> None:
    hooks = blue_green(function("PRE_SCALE_UP", "POST_PRODUCTION_TRAFFIC_SHIFT"))
    service = ecs.service(deployment_configuration=hooks)
    ecs.fault("hook_fails", service=service, stage="POST_PRODUCTION_TRAFFIC_SHIFT")

    done = ecs.wait_for(ecs.roll(service), "SUCCESSFUL", "ROLLBACK_SUCCESSFUL")

    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert done["lifecycleHookDetails"][0]["status"] == "FAILED"
    assert "hook at POST_PRODUCTION_TRAFFIC_SHIFT failed" in done["rollback"]["reason"]


def test_a_hanging_function_times_out(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(function("TEST_TRAFFIC_SHIFT", timeoutInMinutes=30)))
    ecs.fault("hook_hangs", service=service)
    arn = ecs.roll(service)

    wait_for_hook(ecs, arn, "IN_PROGRESS")
    ecs.pass_time(1700)
    hanging = ecs.deployment(arn)
    done = ecs.wait_for(arn, "SUCCESSFUL", "ROLLBACK_SUCCESSFUL")

    assert hanging["lifecycleHookDetails"][0]["status"] == "IN_PROGRESS"
    assert done["status"] == "ROLLBACK_SUCCESSFUL"
    assert done["lifecycleHookDetails"][0]["status"] == "TIMED_OUT"


def test_a_rolling_deployment_pauses_too(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration={"lifecycleHooks": [pause("PRE_SCALE_UP", "POST_SCALE_UP")]})
    arn = ecs.roll(service)

    first = wait_for_hook(ecs, arn, "AWAITING_ACTION")
    ecs.pass_time(60)
    before = ecs.deployment(arn)
    answer(ecs, arn, first, "CONTINUE")
    second = wait_for_hook(ecs, arn, "AWAITING_ACTION", but=first["hookId"])
    ecs.pass_time(60)
    after = ecs.deployment(arn)
    answer(ecs, arn, second, "CONTINUE")

    assert before["targetServiceRevision"]["runningTaskCount"] == 0
    assert after["targetServiceRevision"]["runningTaskCount"] == 2
    assert after["status"] == "IN_PROGRESS"
    assert "lifecycleStage" not in before
    assert ecs.wait_for(arn, "SUCCESSFUL")


def test_the_ledger_has_each_answer_to_a_pause(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(pause("POST_SCALE_UP")))
    arn = ecs.roll(service)
    hook = wait_for_hook(ecs, arn, "AWAITING_ACTION")
    ecs.fault("access_denied", action="ContinueServiceDeployment", times=1)

    with pytest.raises(ClientError, match="ecs:ContinueServiceDeployment"):
        answer(ecs, arn, hook, "CONTINUE")
    answer(ecs, arn, hook, "CONTINUE")

    entries = ecs.faults().ledger(cluster=ecs.cluster, action="ContinueServiceDeployment")
    assert [(each["service"], each["effect"], each["error"]) for each in entries] == [
        (service, False, "AccessDeniedException"),
        (service, True, None),
    ]


def test_an_unknown_deployment_cannot_be_continued(ecs: Ecs) -> None:
    service = ecs.service(deployment_configuration=blue_green(pause("POST_SCALE_UP")))
    arn = ecs.roll(service)

    with pytest.raises(ClientError, match="ServiceDeploymentNotFoundException"):
        answer(ecs, f"{arn[:-4]}none", {"hookId": "ecs-pause-1"}, "CONTINUE")
