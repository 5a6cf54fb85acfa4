"""Rolling deployments without disturbances, and the changes that start one."""

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs


def test_forced_deployment_runs_from_pending_to_successful(ecs: Ecs) -> None:
    service = ecs.service()

    arn = ecs.roll(service)
    seen = [ecs.deployment(arn)["status"]]
    done = ecs.wait_for(arn, "SUCCESSFUL", seconds=900)

    assert seen[0] in ("PENDING", "IN_PROGRESS")
    assert done["createdAt"] <= done["startedAt"] <= done["finishedAt"]
    target = done["targetServiceRevision"]
    assert target["runningTaskCount"] == target["requestedTaskCount"]
    after = ecs.describe(service)
    assert [each["rolloutState"] for each in after["deployments"]] == ["COMPLETED"]
    assert after["runningCount"] == after["desiredCount"]


def test_update_reply_names_the_deployment_that_runs(ecs: Ecs) -> None:
    service = ecs.service()
    before = ecs.describe(service)

    reply = ecs.update(service, forceNewDeployment=True)

    assert reply["currentServiceDeployment"] != before.get("currentServiceDeployment")
    assert reply["deployments"][0]["status"] == "PRIMARY"
    assert reply["deployments"][0]["id"] != before["deployments"][0]["id"]
    assert reply["deployments"][0]["id"].startswith("ecs-svc/")
    ecs.wait_for(reply["currentServiceDeployment"], "SUCCESSFUL", seconds=900)
    assert ecs.describe(service)["deployments"][0]["id"] == reply["deployments"][0]["id"]


def test_new_desired_count_starts_no_deployment(ecs: Ecs) -> None:
    service = ecs.service()
    before = ecs.describe(service)

    reply = ecs.update(service, desiredCount=before["desiredCount"] + 1)

    assert reply["currentServiceDeployment"] == before["currentServiceDeployment"]
    assert reply["deployments"][0]["id"] == before["deployments"][0]["id"]
    ecs.wait(lambda: ecs.describe(service)["runningCount"] == before["desiredCount"] + 1)
    ecs.update(service, desiredCount=before["desiredCount"])
    ecs.wait(lambda: ecs.describe(service)["runningCount"] == before["desiredCount"])


def test_same_task_definition_again_starts_no_deployment(ecs: Ecs) -> None:
    service = ecs.service()
    before = ecs.describe(service)

    reply = ecs.update(service, taskDefinition=before["taskDefinition"])

    assert reply["currentServiceDeployment"] == before["currentServiceDeployment"]


def test_new_deployment_configuration_starts_no_deployment(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=False)
    before = ecs.describe(service)

    breaker = {"enable": True, "rollback": True}
    reply = ecs.update(service, deploymentConfiguration={"deploymentCircuitBreaker": breaker, "maximumPercent": 150})

    assert reply["currentServiceDeployment"] == before["currentServiceDeployment"]
    assert reply["deploymentConfiguration"]["deploymentCircuitBreaker"] == breaker
    assert reply["deploymentConfiguration"]["maximumPercent"] == 150
    assert reply["deploymentConfiguration"]["minimumHealthyPercent"] == 100


def test_only_a_changed_network_starts_a_deployment(ecs: Ecs) -> None:
    service = ecs.service(breaker=True)
    before = ecs.describe(service)
    network = before["networkConfiguration"]

    same = ecs.update(service, networkConfiguration=network)
    changed = ecs.update(
        service,
        networkConfiguration={
            "awsvpcConfiguration": {**network["awsvpcConfiguration"], "subnets": ["subnet-00000000000000009"]}
        },
    )

    assert same["currentServiceDeployment"] == before["currentServiceDeployment"]
    assert changed["currentServiceDeployment"] != before["currentServiceDeployment"]


def test_new_revision_is_rolled_out_and_replaces_all_tasks(ecs: Ecs) -> None:
    service = ecs.service(desired=3, family="replaced")
    before = ecs.describe(service)
    old_tasks = set(ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"])
    revision = ecs.register("replaced")

    arn = ecs.roll(service, taskDefinition=revision)
    running = ecs.update(service)
    ecs.wait_for(arn, "SUCCESSFUL")

    assert running["taskDefinition"] == revision
    assert [each["taskDefinition"] for each in running["deployments"]] == [revision, before["taskDefinition"]]
    new_tasks = set(ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"])
    assert len(new_tasks) == 3
    assert not new_tasks & old_tasks


def test_family_without_revision_means_its_newest_active_one(ecs: Ecs) -> None:
    service = ecs.service(family="newest")
    wanted = ecs.register("newest")
    inactive = ecs.register("newest")
    ecs.client.deregister_task_definition(taskDefinition=inactive)

    reply = ecs.update(service, taskDefinition="newest")

    assert reply["taskDefinition"] == wanted
    described = ecs.client.describe_task_definition(taskDefinition="newest")["taskDefinition"]
    assert described["taskDefinitionArn"] == wanted


@pytest.mark.parametrize(("minimum", "maximum", "desired"), [(100, 200, 4), (100, 150, 4), (50, 100, 4), (0, 100, 1)])
def test_minimum_and_maximum_percent_hold_at_every_moment(ecs: Ecs, minimum: int, maximum: int, desired: int) -> None:
    service = ecs.service(desired=desired, minimum_percent=minimum, maximum_percent=maximum)

    arn = ecs.roll(service)
    counts = []
    while ecs.deployment(arn)["status"] != "SUCCESSFUL":
        now = ecs.describe(service)
        counts.append((now["runningCount"], now["runningCount"] + now["pendingCount"]))
        assert len(counts) < 300
        ecs.pass_time(1)

    assert min(running for running, _ in counts) >= desired * minimum // 100
    assert max(total for _, total in counts) <= desired * maximum // 100


def test_percentages_that_leave_no_room_make_no_progress(ecs: Ecs) -> None:
    service = ecs.service(desired=2, minimum_percent=100, maximum_percent=100)

    arn = ecs.roll(service)
    ecs.pass_time(3600)

    assert ecs.deployment(arn)["status"] == "IN_PROGRESS"
    assert ecs.deployment(arn)["targetServiceRevision"]["runningTaskCount"] == 0
    assert ecs.describe(service)["runningCount"] == 2


def test_desired_count_zero_completes_without_a_task(ecs: Ecs) -> None:
    service = ecs.service(desired=0, breaker=True)

    arn = ecs.roll(service)
    done = ecs.wait_for(arn, "SUCCESSFUL", seconds=30)

    assert done["targetServiceRevision"]["requestedTaskCount"] == 0
    assert ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"] == []


def test_second_deployment_supersedes_the_first(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)

    first = ecs.roll(service)
    ecs.pass_time(10)
    second = ecs.roll(service)
    asked = ecs.deployment(first)["status"]
    stopped = ecs.wait_for(first, "STOPPED", seconds=10)
    done = ecs.wait_for(second, "SUCCESSFUL")

    assert asked == "STOP_REQUESTED"
    assert "new service deployment" in stopped["statusReason"]
    assert "rollback" not in stopped
    assert stopped["finishedAt"] <= done["finishedAt"]
    assert ecs.describe(service)["currentServiceDeployment"] == second


def test_progress_is_visible_between_start_and_end(ecs: Ecs) -> None:
    service = ecs.service(desired=4, breaker=True)

    arn = ecs.roll(service)
    seen = set()
    while (now := ecs.deployment(arn))["status"] != "SUCCESSFUL":
        target = now["targetServiceRevision"]
        seen.add((target["pendingTaskCount"], target["runningTaskCount"]))
        ecs.pass_time(1)

    assert {(2, 0), (0, 2), (2, 2), (0, 4)} <= seen


def test_demo_rollout_takes_about_forty_seconds(ecs: Ecs) -> None:
    for desired in (2, 3, 4):
        service = ecs.service(desired=desired, breaker=True)

        done = ecs.wait_for(ecs.roll(service), "SUCCESSFUL")

        assert 30 <= (done["finishedAt"] - done["createdAt"]).total_seconds() <= 50


def test_created_service_starts_a_deployment_without_a_source(ecs: Ecs) -> None:
    ecs.faults()
    definition = ecs.register("fresh")

    created = ecs.client.create_service(
        cluster=ecs.cluster,
        serviceName="fresh",
        taskDefinition=definition,
        desiredCount=2,
        launchType="FARGATE",
        tags=[{"key": "stack", "value": "acme"}],
    )["service"]
    done = ecs.wait_for(created["currentServiceDeployment"], "SUCCESSFUL")

    assert created["runningCount"] == 0
    assert done["sourceServiceRevisions"] == []
    tagged = ecs.client.describe_services(cluster=ecs.cluster, services=["fresh"], include=["TAGS"])["services"][0]
    assert tagged["tags"] == [{"key": "stack", "value": "acme"}]
    assert "tags" not in ecs.describe("fresh")
    assert tagged["serviceArn"].endswith(f":service/{ecs.cluster}/fresh")


def test_deleted_service_drains_and_becomes_inactive(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    arn = ecs.roll(service)

    with pytest.raises(ClientError, match="scaled above 0"):
        ecs.client.delete_service(cluster=ecs.cluster, service=service)
    draining = ecs.client.delete_service(cluster=ecs.cluster, service=service, force=True)["service"]
    with pytest.raises(ClientError, match="ServiceNotActiveException"):
        ecs.update(service, desiredCount=1)
    ecs.wait(lambda: ecs.describe(service)["status"] == "INACTIVE", seconds=30)

    assert draining["status"] == "DRAINING"
    assert draining["desiredCount"] == 0
    assert ecs.client.list_services(cluster=ecs.cluster)["serviceArns"] == []
    gone = ecs.client.describe_service_deployments(serviceDeploymentArns=[arn])
    assert gone["failures"] == [{"arn": arn, "reason": "MISSING"}]
    with pytest.raises(ClientError, match="ServiceNotFoundException"):
        ecs.client.list_service_deployments(cluster=ecs.cluster, service=service)
    with pytest.raises(ClientError, match="ServiceNotActiveException"):
        ecs.update(service, desiredCount=1)
    with pytest.raises(ClientError, match="ServiceNotFoundException"):
        ecs.client.delete_service(cluster=ecs.cluster, service=service)
