"""Rolling deployments that end before all tasks have been replaced, and the watch over alarms at their end."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs

Json = dict[str, Any]


def early(percent: int, cleanup: str) -> Json:
    criteria = {"enable": True, "healthyPercent": percent, "sourceServiceRevisionCleanup": cleanup}
    return {"minimumHealthyPercent": 50, "earlySuccessCriteria": criteria}


def counts(summary: Json) -> tuple[int, int, int]:
    return summary["requestedTaskCount"], summary["runningTaskCount"], summary["pendingTaskCount"]


def test_deferred_success_leaves_the_old_tasks_running(ecs: Ecs) -> None:
    service = ecs.service(desired=4, deployment_configuration=early(50, "DEFERRED"))

    arn = ecs.roll(service)
    done = ecs.wait_for(arn, "SUCCESSFUL", seconds=60)
    then = ecs.describe(service)
    ecs.wait(lambda: len(ecs.describe(service)["deployments"]) == 1)
    later = ecs.deployment(arn)

    assert done["targetServiceRevision"]["runningTaskCount"] >= 2
    assert done["sourceServiceRevisions"][0]["runningTaskCount"] >= 2
    assert [(each["status"], each["rolloutState"]) for each in then["deployments"]] == [
        ("PRIMARY", "COMPLETED"),
        ("ACTIVE", "COMPLETED"),
    ]
    assert later == done
    assert ecs.describe(service)["deployments"][0]["runningCount"] == 4


def test_deferred_success_is_followed_by_a_clean_up(ecs: Ecs) -> None:
    service = ecs.service(desired=2, deployment_configuration=early(100, "DEFERRED"))

    done = ecs.wait_for(ecs.roll(service), "SUCCESSFUL", seconds=60)
    both = ecs.describe(service)["runningCount"]
    ecs.pass_time(45)
    after = ecs.describe(service)

    assert counts(done["targetServiceRevision"]) == (2, 2, 0)
    assert both == 4
    assert (after["runningCount"], len(after["deployments"])) == (2, 1)


def test_blocking_success_comes_after_the_old_tasks(ecs: Ecs) -> None:
    service = ecs.service(desired=4, deployment_configuration=early(50, "BLOCKING"))

    arn = ecs.roll(service)
    done = ecs.wait_for(arn, "SUCCESSFUL", seconds=60)
    then = ecs.describe(service)
    ecs.wait(lambda: ecs.describe(service)["runningCount"] == 4)

    assert counts(done["sourceServiceRevisions"][0]) == (0, 0, 0)
    assert counts(done["targetServiceRevision"])[0] == 4
    assert counts(done["targetServiceRevision"])[1] < 4
    assert [each["status"] for each in then["deployments"]] == ["PRIMARY"]
    assert ecs.deployment(arn) == done


def test_nothing_rolls_back_after_an_early_success(ecs: Ecs) -> None:
    service = ecs.service(desired=4, deployment_configuration=early(50, "DEFERRED"))
    ecs.fault("alarm", service=service, stage="CLEAN_UP")

    arn = ecs.roll(service)
    ecs.wait_for(arn, "SUCCESSFUL", seconds=60)
    ecs.pass_time(300)

    assert ecs.deployment(arn)["status"] == "SUCCESSFUL"
    assert ecs.describe(service)["runningCount"] == 4


def test_a_deployment_may_follow_while_old_tasks_run(ecs: Ecs) -> None:
    service = ecs.service(desired=2, deployment_configuration=early(100, "DEFERRED"))
    ecs.wait_for(ecs.roll(service), "SUCCESSFUL", seconds=60)

    second = ecs.roll(service)
    sources = ecs.deployment(second)["sourceServiceRevisions"]
    ecs.wait_for(second, "SUCCESSFUL")
    ecs.wait(lambda: len(ecs.describe(service)["deployments"]) == 1)

    assert len(sources) == 2
    assert ecs.describe(service)["runningCount"] == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (early(40, "DEFERRED"), "minimumHealthyPercent"),
        ({"earlySuccessCriteria": {"enable": True, "healthyPercent": 100}}, "sourceServiceRevisionCleanup"),
        ({**early(100, "BLOCKING"), "strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1}, "ROLLING"),
    ],
)
def test_impossible_criteria_are_refused(ecs: Ecs, change: Json, text: str) -> None:
    service = ecs.service(breaker=True)

    with pytest.raises(ClientError, match=text):
        ecs.update(service, deploymentConfiguration=change)


def test_alarms_are_watched_after_the_last_old_task(ecs: Ecs) -> None:
    alarms = {"enable": True, "rollback": True, "alarmNames": ["error-rate"]}
    service = ecs.service(deployment_configuration={"alarms": alarms})
    plain = ecs.wait_for(ecs.roll(ecs.service()), "SUCCESSFUL")

    arn = ecs.roll(service)
    ecs.pass_time((plain["finishedAt"] - plain["createdAt"]).total_seconds())
    watched, tasks = ecs.deployment(arn), ecs.describe(service)
    ecs.wait_for(arn, "SUCCESSFUL", seconds=60)

    assert (watched["status"], watched["alarms"]["status"]) == ("IN_PROGRESS", "MONITORING")
    assert [each["runningCount"] for each in tasks["deployments"] if each["status"] != "INACTIVE"] == [2]
