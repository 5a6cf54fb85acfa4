"""Services as the portal creates them for agents: good, crashing and missing images, scaling, stopping, deleting."""

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws import LocalAws
from tests.sandbox.conftest import Ecs

Json = dict[str, Any]

REGISTRY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED"}}


class Agent:
    """One agent's service, which is not created yet."""

    def __init__(self, ecs: Ecs) -> None:
        self.ecs, self.name = ecs, f"agent-{uuid.uuid4().hex[:6]}"
        self.group, self.token = f"/ecs/{self.name}", uuid.uuid4().hex
        images = [{"repository": self.name, "tags": [tag]} for tag in ("v1.0.0", "crash")]
        ecs.faults().seed(images=images)

    def define(self, tag: str = "v1.0.0") -> str:
        options = {"awslogs-group": self.group, "awslogs-region": "eu-central-1", "awslogs-stream-prefix": "ecs"}
        container = {
            "name": "agent",
            "image": f"{REGISTRY}/{self.name}:{tag}",
            "essential": True,
            "logConfiguration": {"logDriver": "awslogs", "options": options},
        }
        reply = self.ecs.client.register_task_definition(
            family=self.name,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[container],
        )
        return str(reply["taskDefinition"]["taskDefinitionArn"])

    def request(self, tag: str = "v1.0.0", *, desired: int = 2) -> Json:
        return {
            "cluster": self.ecs.cluster,
            "serviceName": self.name,
            "taskDefinition": self.define(tag),
            "desiredCount": desired,
            "launchType": "FARGATE",
            "networkConfiguration": NETWORK,
            "clientToken": self.token,
            "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True}},
        }

    def create(self, tag: str = "v1.0.0", *, desired: int = 2) -> Json:
        return dict(self.ecs.client.create_service(**self.request(tag, desired=desired))["service"])

    def ready(self, count: int) -> None:
        self.ecs.pass_time(60)
        service = self.described()
        assert (service["runningCount"], service["pendingCount"]) == (count, 0)
        assert "steady state" in service["events"][0]["message"]

    def ended(self, arn: str) -> Json:
        """Return the service deployment after its circuit breaker has stopped it."""
        self.ecs.pass_time(60)
        found = self.ecs.deployment(arn)
        assert found["status"] == "STOPPED"
        return found

    def described(self) -> Json:
        return self.ecs.describe(self.name)

    def messages(self) -> list[str]:
        logs = self.ecs.faults().client("logs")
        return [each["message"] for each in logs.filter_log_events(logGroupName=self.group)["events"]]


@pytest.fixture
def agent(ecs: Ecs) -> Agent:
    ecs.faults()
    return Agent(ecs)


def test_agent_starts_logs_and_has_its_network(agent: Agent) -> None:
    created = agent.create()
    agent.ready(2)

    assert created["deployments"][0]["networkConfiguration"] == NETWORK
    assert created["launchType"] == "FARGATE"
    assert sum("agent v1.0.0 starting" in message for message in agent.messages()) == 2


def test_scaling_adds_events_but_starts_no_deployment(agent: Agent) -> None:
    created = agent.create()
    agent.ready(2)

    for desired in (3, 1, 0, 2):
        agent.ecs.update(agent.name, desiredCount=desired)
        agent.ready(desired)

    messages = agent.ecs.messages(agent.name)
    assert agent.described()["currentServiceDeployment"] == created["currentServiceDeployment"]
    assert sum("has started 1 tasks" in message for message in messages) >= 1
    assert any("has stopped 2 running tasks" in message for message in messages)
    assert sum("has reached a steady state" in message for message in messages) == 5


def test_same_token_and_parameters_give_the_same_service(agent: Agent) -> None:
    request = agent.request()
    first = agent.ecs.client.create_service(**request)["service"]
    agent.ecs.update(agent.name, desiredCount=3)

    again = agent.ecs.client.create_service(**request)["service"]

    assert again["currentServiceDeployment"] == first["currentServiceDeployment"]
    assert again["desiredCount"] == 3


@pytest.mark.parametrize("change", [{"desiredCount": 5}, {"serviceName": "another"}, {"clientToken": "another"}])
def test_other_parameters_or_another_token_are_refused(agent: Agent, change: Json) -> None:
    request = agent.request()
    agent.ecs.client.create_service(**request)

    with pytest.raises(ClientError, match="Creation of service was not idempotent"):
        agent.ecs.client.create_service(**{**request, **change})

    assert agent.ecs.client.list_services(cluster=agent.ecs.cluster)["serviceArns"] == [agent.described()["serviceArn"]]


@pytest.mark.parametrize("token", ["x" * 37, "two words", "ü"])
def test_invalid_client_token_is_refused(agent: Agent, token: str) -> None:
    with pytest.raises(ClientError, match="InvalidParameterException"):
        agent.ecs.client.create_service(**{**agent.request(), "clientToken": token})


@pytest.mark.parametrize(
    ("tag", "code", "reason"),
    [
        ("crash", "EssentialContainerExited", "Essential container in task exited"),
        ("v9.9.9", "TaskFailedToStart", "CannotPullContainerError: "),
    ],
)
def test_first_deployment_that_never_worked_ends_failed(agent: Agent, tag: str, code: str, reason: str) -> None:
    arn = agent.create(tag)["currentServiceDeployment"]

    done = agent.ended(arn)

    (deployment,) = agent.described()["deployments"]
    assert (deployment["status"], deployment["rolloutState"]) == ("PRIMARY", "FAILED")
    assert deployment["rolloutStateReason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert "circuit breaker" in done["statusReason"]
    assert "rollback" not in done
    tasks = agent.ecs.client.list_tasks(cluster=agent.ecs.cluster, serviceName=agent.name, desiredStatus="STOPPED")
    stopped = agent.ecs.client.describe_tasks(cluster=agent.ecs.cluster, tasks=tasks["taskArns"])["tasks"]
    assert {each["stopCode"] for each in stopped} == {code}
    assert all(each["stoppedReason"].startswith(reason) for each in stopped)
    agent.ecs.pass_time(600)
    assert agent.described()["runningCount"] == agent.described()["pendingCount"] == 0


def test_crashing_agent_leaves_its_traceback(agent: Agent) -> None:
    agent.ended(agent.create("crash", desired=1)["currentServiceDeployment"])

    assert agent.messages().count("Traceback (most recent call last):") == 3


def test_failed_agent_works_again_with_a_good_image(agent: Agent) -> None:
    agent.ended(agent.create("crash")["currentServiceDeployment"])

    arn = agent.ecs.roll(agent.name, taskDefinition=agent.define())
    agent.ecs.pass_time(60)

    assert agent.ecs.deployment(arn)["status"] == "SUCCESSFUL"
    assert agent.described()["runningCount"] == 2


def test_failed_rollout_of_a_running_agent_can_be_stopped(agent: Agent) -> None:
    agent.create()
    agent.ready(2)
    agent.ecs.update(
        agent.name, deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    )
    agent.ended(agent.ecs.roll(agent.name, taskDefinition=agent.define("crash")))
    assert agent.described()["runningCount"] == 2

    agent.ecs.update(agent.name, desiredCount=0)
    agent.ecs.pass_time(30)

    assert agent.described()["runningCount"] == 0


def test_deleted_service_drains_and_leaves_its_log(agent: Agent) -> None:
    agent.create()
    agent.ready(2)

    gone = agent.ecs.client.delete_service(cluster=agent.ecs.cluster, service=agent.name, force=True)["service"]
    agent.ecs.pass_time(30)

    assert (gone["status"], gone["desiredCount"]) == ("DRAINING", 0)
    assert agent.described()["status"] == "INACTIVE"
    assert sum("stopped, exit code 0" in message for message in agent.messages()) == 2


def test_recreated_service_keeps_the_logs_of_the_old_one(agent: Agent) -> None:
    agent.create(desired=1)
    agent.ready(1)
    agent.ecs.client.delete_service(cluster=agent.ecs.cluster, service=agent.name, force=True)
    agent.ecs.pass_time(30)

    agent.create(desired=1)
    agent.ready(1)

    assert sum("agent v1.0.0 starting" in message for message in agent.messages()) == 2
    listed = agent.ecs.client.list_service_deployments(cluster=agent.ecs.cluster, service=agent.name)
    assert len(listed["serviceDeployments"]) == 1


def test_demo_has_an_agent_to_deploy_in_both_accounts(aws: LocalAws) -> None:
    aws.seed(demo=True)
    role: Json = {
        "role_arn": "arn:aws:iam::222222222222:role/portal-upgrades",
        "external_id": "globex-demo-external-id",
    }

    for client in (aws.client("ecr"), aws.client("ecr", region="us-east-1", **role)):
        images = client.describe_images(repositoryName="demo-agent")["imageDetails"]
        tags = [sorted(each["imageTags"]) for each in sorted(images, key=lambda each: each["imagePushedAt"])]
        assert tags == [["crash"], ["v1.0.0"], ["v1.1.0"], ["v1.2.0"], ["latest", "v1.3.0"]]
