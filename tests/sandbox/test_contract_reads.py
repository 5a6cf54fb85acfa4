"""ECS reads: paged lists, missing objects, events, tasks, revisions, and refused calls."""

from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def test_missing_service_is_a_failure_not_an_error(ecs: Ecs) -> None:
    service = ecs.service()

    reply = ecs.client.describe_services(cluster=ecs.cluster, services=[service, "nobody"])

    assert [each["serviceName"] for each in reply["services"]] == [service]
    assert [each["reason"] for each in reply["failures"]] == ["MISSING"]
    assert reply["failures"][0]["arn"].endswith("/nobody")


def test_eleven_services_at_once_are_refused(ecs: Ecs) -> None:
    with pytest.raises(ClientError) as refused:
        ecs.client.describe_services(cluster=ecs.cluster, services=[f"s{number}" for number in range(11)])

    assert refusal(refused) == ("InvalidParameterException", "service names can have at most 10 items")


def test_twenty_one_service_deployments_at_once_are_refused(ecs: Ecs) -> None:
    arn = ecs.describe(ecs.service())["currentServiceDeployment"]

    with pytest.raises(ClientError) as refused:
        ecs.client.describe_service_deployments(serviceDeploymentArns=[arn] * 21)

    assert refusal(refused)[0] == "InvalidParameterException"


def test_unknown_cluster_is_refused(ecs: Ecs) -> None:
    with pytest.raises(ClientError) as refused:
        ecs.client.describe_services(cluster="no-such-cluster", services=["web"])

    assert refusal(refused)[0] == "ClusterNotFoundException"


def test_unknown_service_is_refused(ecs: Ecs) -> None:
    with pytest.raises(ClientError) as refused:
        ecs.update("no-such-service", forceNewDeployment=True)

    assert refusal(refused)[0] == "ServiceNotFoundException"


def test_unknown_task_definition_is_refused(ecs: Ecs) -> None:
    service = ecs.service()
    before = ecs.describe(service)["currentServiceDeployment"]

    with pytest.raises(ClientError) as refused:
        ecs.update(service, taskDefinition="no-such-family:9")

    assert refusal(refused)[0] == "ClientException"
    assert ecs.describe(service)["currentServiceDeployment"] == before


def test_services_and_clusters_are_found_by_name_and_arn(ecs: Ecs) -> None:
    found = ecs.describe(ecs.service())

    by_arn = ecs.client.describe_services(cluster=found["clusterArn"], services=[found["serviceArn"]])["services"][0]

    assert by_arn["serviceArn"] == found["serviceArn"]


def test_inactive_task_definition_is_refused(ecs: Ecs) -> None:
    service = ecs.service(family="retired")
    revision = ecs.register("retired")
    ecs.client.deregister_task_definition(taskDefinition=revision)

    with pytest.raises(ClientError) as refused:
        ecs.update(service, taskDefinition=revision)

    assert refusal(refused) == ("ClientException", "TaskDefinition is inactive")


def test_service_cannot_be_created_twice(ecs: Ecs) -> None:
    service = ecs.service(family="twice")

    with pytest.raises(ClientError) as refused:
        ecs.client.create_service(cluster=ecs.cluster, serviceName=service, taskDefinition="twice", desiredCount=1)

    assert refusal(refused) == ("InvalidParameterException", "Creation of service was not idempotent.")


def test_services_are_listed_in_pages(ecs: Ecs) -> None:
    names = {ecs.service(desired=0, breaker=True) for _ in range(12)}

    first = ecs.client.list_services(cluster=ecs.cluster)
    second = ecs.client.list_services(cluster=ecs.cluster, nextToken=first["nextToken"])
    at_once = ecs.client.list_services(cluster=ecs.cluster, maxResults=100)["serviceArns"]

    assert (len(first["serviceArns"]), len(second["serviceArns"])) == (10, 2)
    assert first["serviceArns"] + second["serviceArns"] == at_once
    assert "nextToken" not in second
    assert {arn.rsplit("/", 1)[-1] for arn in at_once} == names


def test_unknown_page_token_is_refused(ecs: Ecs) -> None:
    with pytest.raises(ClientError) as refused:
        ecs.client.list_services(cluster=ecs.cluster, nextToken="made-up")

    assert refusal(refused)[0] == "InvalidParameterException"


def test_service_deployments_are_filtered_and_newest_first(ecs: Ecs) -> None:
    service = ecs.service(breaker=True)
    first = ecs.describe(service)["currentServiceDeployment"]
    ecs.pass_time(100)
    second = ecs.roll(service)
    ecs.wait_for(second, "SUCCESSFUL")
    third = ecs.roll(service)
    started = ecs.deployment(second)["createdAt"]

    def listed(**filters: object) -> list[str]:
        reply = ecs.client.list_service_deployments(cluster=ecs.cluster, service=service, **filters)
        return [each["serviceDeploymentArn"] for each in reply["serviceDeployments"]]

    assert listed() == [third, second, first]
    assert listed(status=["SUCCESSFUL"]) == [second, first]
    assert listed(status=["PENDING", "IN_PROGRESS"]) == [third]
    assert listed(createdAt={"after": started}) == [third, second]
    assert listed(createdAt={"before": started - timedelta(seconds=1)}) == [first]
    page = ecs.client.list_service_deployments(cluster=ecs.cluster, service=service, maxResults=2)
    assert listed(nextToken=page["nextToken"], maxResults=2) == [first]


def test_unknown_service_deployments_are_failures(ecs: Ecs) -> None:
    known = ecs.describe(ecs.service(breaker=True))["currentServiceDeployment"]
    unknown = f"{known[:-3]}xyz"

    reply = ecs.client.describe_service_deployments(serviceDeploymentArns=[unknown, known])

    assert [each["serviceDeploymentArn"] for each in reply["serviceDeployments"]] == [known]
    assert reply["failures"] == [{"arn": unknown, "reason": "MISSING"}]


def test_service_deployments_of_several_clusters_in_one_call(ecs: Ecs) -> None:
    local = ecs.faults()
    other = local.seed(cluster=f"{ecs.cluster}-b", services=[{"name": "web"}])["services"][0]["service_deployment_arn"]
    mine = ecs.describe(ecs.service())["currentServiceDeployment"]

    reply = ecs.client.describe_service_deployments(serviceDeploymentArns=[mine, other])

    assert [each["serviceDeploymentArn"] for each in reply["serviceDeployments"]] == [mine, other]


def test_events_describe_the_rollout_newest_first(ecs: Ecs) -> None:
    service = ecs.service(breaker=True)

    reply = ecs.update(service, forceNewDeployment=True)
    ecs.wait_for(reply["currentServiceDeployment"], "SUCCESSFUL")

    events = ecs.describe(service)["events"]
    messages = [event["message"] for event in events]
    assert messages[0] == f"(service {service}) has reached a steady state."
    assert messages[1] == f"(service {service}) (deployment {reply['deployments'][0]['id']}) deployment completed."
    assert any(message.startswith(f"(service {service}) has started 1 tasks: (task ") for message in messages)
    assert any(message.startswith(f"(service {service}) has stopped 1 running tasks: (task ") for message in messages)
    assert len({event["id"] for event in events}) == len(events)
    times = [event["createdAt"] for event in events]
    assert times == sorted(times, reverse=True)


def test_only_the_newest_hundred_events_are_kept(ecs: Ecs) -> None:
    service = ecs.service(breaker=False)
    ecs.fault("crash", service=service)

    ecs.roll(service)
    ecs.pass_time(12 * 3600)

    assert len(ecs.describe(service)["events"]) == 100


def test_tasks_are_listed_by_service_deployment_and_status(ecs: Ecs) -> None:
    service = ecs.service(desired=3, breaker=True)
    old = ecs.describe(service)["deployments"][0]["id"]

    ecs.wait_for(ecs.roll(service), "SUCCESSFUL")
    new = ecs.describe(service)["deployments"][0]["id"]

    def listed(**filters: str) -> int:
        return len(ecs.client.list_tasks(cluster=ecs.cluster, **filters)["taskArns"])

    assert listed() == listed(serviceName=service) == listed(startedBy=new) == 3
    assert listed(startedBy=old) == 0
    assert listed(serviceName=service, desiredStatus="STOPPED") == listed(startedBy=old, desiredStatus="STOPPED") == 3
    assert len(ecs.client.list_tasks(cluster=ecs.cluster, maxResults=2)["taskArns"]) == 2
    ecs.pass_time(3700)
    assert listed(serviceName=service, desiredStatus="STOPPED") == 0


def test_running_task_shows_its_deployment_image_and_times(ecs: Ecs) -> None:
    service = ecs.service()
    deployment = ecs.describe(service)["deployments"][0]
    arns = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"]

    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=arns[:1])["tasks"][0]

    assert task["startedBy"] == deployment["id"]
    assert task["group"] == f"service:{service}"
    assert task["lastStatus"] == task["desiredStatus"] == "RUNNING"
    assert task["createdAt"] <= task["startedAt"]
    assert task["containers"][0]["imageDigest"].startswith("sha256:")
    assert "stopCode" not in task


def test_crashed_task_shows_the_reason(ecs: Ecs) -> None:
    service = ecs.service(desired=1, breaker=True)
    ecs.fault("crash", service=service, exit_code=137)

    ecs.wait_for(ecs.roll(service), "ROLLBACK_IN_PROGRESS")

    arns = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service, desiredStatus="STOPPED")["taskArns"]
    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=arns[:1])["tasks"][0]
    assert task["lastStatus"] == "STOPPED"
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == "Essential container in task exited"
    assert task["containers"][0]["exitCode"] == 137
    assert task["stoppedAt"] >= task["startedAt"]


def test_each_container_has_its_own_exit_code(ecs: Ecs) -> None:
    service = ecs.service(desired=1, containers=[{"name": "proxy"}, {"name": "migrate", "essential": False}])
    ecs.fault("crash", service=service, container="proxy", exit_code=3)

    ecs.wait_for(ecs.roll(service), "ROLLBACK_IN_PROGRESS")

    arns = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service, desiredStatus="STOPPED")["taskArns"]
    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=arns[:1])["tasks"][0]
    assert task["stopCode"] == "EssentialContainerExited"
    assert {each["name"]: each["exitCode"] for each in task["containers"]} == {"app": 143, "proxy": 3, "migrate": 143}


def test_container_that_is_not_essential_may_exit(ecs: Ecs) -> None:
    service = ecs.service(desired=1, containers=[{"name": "migrate", "essential": False}])
    ecs.fault("crash", service=service, container="migrate", exit_code=0)

    ecs.wait_for(ecs.roll(service), "SUCCESSFUL")

    arns = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"]
    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=arns)["tasks"][0]
    app, migrate = task["containers"]
    assert (task["lastStatus"], app["lastStatus"], app["healthStatus"]) == ("RUNNING", "RUNNING", "HEALTHY")
    assert (migrate["lastStatus"], migrate["exitCode"]) == ("STOPPED", 0)
    assert "exitCode" not in app


def test_task_whose_image_cannot_be_pulled_shows_the_reason(ecs: Ecs) -> None:
    service = ecs.service(desired=1, breaker=True)
    ecs.fault("image_pull", service=service)

    ecs.wait_for(ecs.roll(service), "ROLLBACK_IN_PROGRESS")

    arns = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service, desiredStatus="STOPPED")["taskArns"]
    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=arns[:1])["tasks"][0]
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert task["containers"][0]["reason"].startswith("CannotPullContainerError: ")
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]


def test_stopped_task_is_replaced(ecs: Ecs) -> None:
    service = ecs.service(desired=2, breaker=True)
    victim = ecs.client.list_tasks(cluster=ecs.cluster, serviceName=service)["taskArns"][0]
    before = ecs.describe(service)["currentServiceDeployment"]

    ecs.client.stop_task(cluster=ecs.cluster, task=victim, reason="by hand")
    ecs.wait(lambda: ecs.describe(service)["runningCount"] == 1, seconds=5)
    ecs.wait(lambda: ecs.describe(service)["runningCount"] == 2)

    task = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=[victim])["tasks"][0]
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "by hand")
    assert ecs.describe(service)["currentServiceDeployment"] == before


def test_unknown_task_is_a_failure(ecs: Ecs) -> None:
    reply = ecs.client.describe_tasks(cluster=ecs.cluster, tasks=["0" * 32])

    assert reply["tasks"] == []
    assert reply["failures"][0]["reason"] == "MISSING"


def test_service_revision_shows_what_was_deployed(ecs: Ecs) -> None:
    service = ecs.service(family="revised", breaker=True)
    revision = ecs.register("revised", image="example.org/app:v7")

    deployment = ecs.deployment(ecs.roll(service, taskDefinition=revision))
    target, source = deployment["targetServiceRevision"]["arn"], deployment["sourceServiceRevisions"][0]["arn"]
    reply = ecs.client.describe_service_revisions(serviceRevisionArns=[target, source, f"{target}0"])

    new, old = reply["serviceRevisions"]
    assert new["taskDefinition"] == revision
    assert new["containerImages"][0]["image"] == "example.org/app:v7"
    assert new["containerImages"][0]["imageDigest"] != old["containerImages"][0]["imageDigest"]
    assert old["taskDefinition"] != revision
    assert reply["failures"] == [{"arn": f"{target}0", "reason": "MISSING"}]


def test_cluster_counts_follow_its_services(ecs: Ecs) -> None:
    ecs.service(desired=2, breaker=True)
    ecs.roll(ecs.service(desired=1, breaker=True))
    ecs.pass_time(3)

    cluster = ecs.client.describe_clusters(clusters=[ecs.cluster])["clusters"][0]

    assert (cluster["activeServicesCount"], cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (2, 3, 1)
    with pytest.raises(ClientError, match="ClusterContainsServicesException"):
        ecs.client.delete_cluster(cluster=ecs.cluster)


def test_date_header_matches_the_times_of_the_reply(ecs: Ecs) -> None:
    service = ecs.service(breaker=True)
    ecs.pass_time(86400)

    reply = ecs.client.update_service(cluster=ecs.cluster, service=service, forceNewDeployment=True)

    headers = reply["ResponseMetadata"]["HTTPHeaders"]
    created = reply["service"]["deployments"][0]["createdAt"]
    assert abs((parsedate_to_datetime(headers["date"]) - created).total_seconds()) <= 1
    assert reply["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize("controller", ["EXTERNAL", "CODE_DEPLOY"])
def test_service_of_another_controller_has_only_a_task_set(ecs: Ecs, controller: str) -> None:
    service = ecs.describe(ecs.service(2, controller=controller))

    assert service["deploymentController"] == {"type": controller}
    assert service["deployments"] == []
    assert ("taskDefinition" in service) == (controller == "CODE_DEPLOY")
    (task_set,) = service["taskSets"]
    assert (task_set["status"], task_set["runningCount"], task_set["startedBy"]) == ("PRIMARY", 2, controller)
    name = service["serviceName"]
    assert ecs.client.list_service_deployments(cluster=ecs.cluster, service=name)["serviceDeployments"] == []
    assert len(ecs.client.list_tasks(cluster=ecs.cluster, serviceName=name)["taskArns"]) == 2


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        ("EXTERNAL", "on services with a EXTERNAL deployment controller."),
        (
            "CODE_DEPLOY",
            "on services with a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.",
        ),
    ],
)
def test_service_of_another_controller_is_not_deployed(ecs: Ecs, controller: str, said: str) -> None:
    service = ecs.service(2, controller=controller)

    with pytest.raises(ClientError) as unable:
        ecs.update(service, taskDefinition=ecs.register(service))
    with pytest.raises(ClientError) as forced:
        ecs.update(service, forceNewDeployment=True)

    assert refusal(unable) == ("InvalidParameterException", f"Unable to update task definition {said}")
    assert refusal(forced) == ("InvalidParameterException", f"Cannot force a new deployment {said}")
    assert ecs.update(service, desiredCount=1)["desiredCount"] == 1


def test_network_of_a_codedeploy_service_is_not_updated(ecs: Ecs) -> None:
    service = ecs.service(controller="CODE_DEPLOY")
    network = ecs.describe(service)["networkConfiguration"]

    with pytest.raises(ClientError, match="Unable to update network parameters"):
        ecs.update(service, networkConfiguration=network)


def test_external_service_is_created_without_task_definition(ecs: Ecs) -> None:
    create = {"cluster": ecs.cluster, "desiredCount": 1, "deploymentController": {"type": "EXTERNAL"}}

    with pytest.raises(ClientError) as refused:
        ecs.client.create_service(serviceName="given", taskDefinition=ecs.register("given"), **create)
    created = ecs.client.create_service(serviceName="blank", **create)["service"]
    ecs.client.update_service(cluster=ecs.cluster, service="blank", desiredCount=2)
    ecs.pass_time(60)
    service = ecs.describe("blank")
    ecs.client.delete_service(cluster=ecs.cluster, service="blank", force=True)

    assert refusal(refused) == ("InvalidParameterException", "TaskDefinition must be blank.")
    assert (created["deployments"], created["taskSets"], created["runningCount"]) == ([], [], 0)
    assert (service["status"], service["desiredCount"], "taskDefinition" in service) == ("ACTIVE", 2, False)
    assert ecs.describe("blank")["status"] == "INACTIVE"
