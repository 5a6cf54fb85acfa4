"""The reconciler against the local AWS: it applies changes to ECS, and the status follows ECS's report."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from deployments.commands import (
    create_deployment,
    kill_deployment,
    restart_deployment,
    scale_deployment,
    stop_deployment,
    update_agent,
)
from deployments.models import Agent, Deployment
from portal.models import AuditEvent, Membership, Organization, Role, User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, Runtime, history, make_agent, services_created
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db


def get_service(deployment: Deployment) -> dict[str, str]:
    return {"cluster": deployment.cluster, "service": deployment.service_name}


def live(local_aws: LocalAws, deployment: Deployment) -> dict[str, Any]:
    """Return the service as ECS reports it."""
    reply = local_aws.client().describe_services(cluster=deployment.cluster, services=[deployment.service_name])
    (service,) = reply["services"]
    return dict(service)


# --- it works -------------------------------------------------------------------------------------------------------


def test_a_deployment_becomes_a_service_and_is_ready(deployment: Deployment, runtime: Runtime) -> None:
    runtime.run(deployment, "ready")

    assert history(deployment) == [("create", "deploying"), ("deploy.running", "running"), ("deploy.ready", "ready")]
    assert (deployment.running_replicas, deployment.desired_count, deployment.pending_count) == (2, 2, 0)
    assert deployment.version == "v1.4.0"
    assert deployment.started_at
    assert deployment.ended_at is None
    ready = deployment.events.first()
    assert ready
    assert (ready.actor, ready.node_id) == ("system", deployment.node_id)
    assert deployment.node_id


def test_it_runs_with_the_settings_of_the_agent_service(cast: Cast, runtime: Runtime, platform: LocalAws) -> None:
    secret = "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/model-Ab12Cd"
    agent = make_agent(cast, cpu=512, memory=2048, environment={"LOG_LEVEL": "info", "MODEL_KEY": secret})
    deployment = runtime.run(create_deployment(agent, actor=cast.operator), "ready")
    client = platform.client()
    name = f"{cast.acme.deployment_stack}-agent-service"
    (template,) = client.describe_services(cluster=cast.acme.cluster, services=[name])["services"]
    platforms = client.describe_task_definition(taskDefinition=template["taskDefinition"])["taskDefinition"]

    service = live(platform, deployment)
    made = client.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]

    assert service["serviceName"].startswith(f"{cast.acme.deployment_stack}-agent-support-agent-")
    assert service["networkConfiguration"] == template["networkConfiguration"]
    assert (made["executionRoleArn"], made["taskRoleArn"]) == (platforms["executionRoleArn"], platforms["taskRoleArn"])
    assert (made["cpu"], made["memory"], made["family"]) == ("512", "2048", deployment.service_name)
    (container,) = made["containerDefinitions"]
    assert container["environment"] == [{"name": "LOG_LEVEL", "value": "info"}]
    assert container["secrets"] == [{"name": "MODEL_KEY", "valueFrom": secret}]
    assert deployment.log_group == container["logConfiguration"]["options"]["awslogs-group"]
    assert container["logConfiguration"]["options"]["awslogs-stream-prefix"] == deployment.service_name


@pytest.mark.parametrize(
    ("router", "own", "group"),
    [
        pytest.param("awslogs", "awslogs", "/platform/agent", id="a log router as first container"),
        pytest.param("awslogs", "awsfirelens", None, id="lines that go to the router"),
        pytest.param("awslogs", None, None, id="no log configuration"),
    ],
)
def test_an_agent_logs_where_the_platform_agent_does(
    cast: Cast,
    client_for: Callable[[User], Client],
    deployment: Deployment,
    platform: LocalAws,
    runtime: Runtime,
    router: str,
    own: str | None,
    group: str | None,
) -> None:
    def configure(driver: str | None, group: str) -> dict[str, Any]:
        options = {"awslogs-group": group, "awslogs-region": "eu-central-1"} if driver == "awslogs" else {}
        return {"logConfiguration": {"logDriver": driver, "options": options}} if driver else {}

    image, client = {"image": "agent:v1", "memory": 512}, platform.client()
    containers = [
        {**image, "name": "log_router", "firelensConfiguration": {"type": "fluentbit"}, **configure(router, "/router")},
        {**image, "name": "agent", **configure(own, "/platform/agent")},
    ]
    definition = client.register_task_definition(family="routed", containerDefinitions=containers)["taskDefinition"]
    client.update_service(
        cluster=cast.acme.cluster,
        service=f"{cast.acme.deployment_stack}-agent-service",
        taskDefinition=definition["taskDefinitionArn"],
    )
    runtime.turn()

    deployment.refresh_from_db()
    answer = client_for(cast.viewer).get(f"{DEPLOYMENTS}/{deployment.pk}/logs").json()

    assert deployment.create_called_at
    assert deployment.log_group == group
    assert (answer["items"], bool(answer["error"])) == ([], group is None)


def test_settings_of_the_organization_override_them(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    role = "arn:aws:iam::111111111111:role/agents"
    Organization.objects.filter(pk=cast.acme.pk).update(
        deployment_subnets="subnet-0aaaaaaa, subnet-0bbbbbbb",
        deployment_security_groups="sg-0ccccccc",
        deployment_task_role_arn=role,
    )

    runtime.run(deployment, "ready")

    service = live(platform, deployment)
    vpc = service["networkConfiguration"]["awsvpcConfiguration"]
    assert (vpc["subnets"], vpc["securityGroups"]) == (["subnet-0aaaaaaa", "subnet-0bbbbbbb"], ["sg-0ccccccc"])
    made = platform.client().describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert made["taskRoleArn"] == role


def test_scale_changes_the_status_as_ecs_reports_it(cast: Cast, deployment: Deployment, runtime: Runtime) -> None:
    runtime.run(deployment, "ready")
    scale_deployment(deployment, actor=cast.operator, replicas=3)
    assert deployment.status == "ready"

    runtime.run(deployment, "running")
    runtime.run(deployment, "ready")

    assert deployment.running_replicas == 3
    assert history(deployment)[3:] == [("scale", "ready"), ("deploy.running", "running"), ("deploy.ready", "ready")]


def test_stop_and_restart_use_the_same_service(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")
    definition = deployment.task_definition

    stop_deployment(deployment, actor=cast.operator)
    assert (deployment.status, deployment.is_stopping) == ("ready", True)
    runtime.run(deployment, "stopped")
    assert (deployment.running_replicas, deployment.node_id, live(platform, deployment)["desiredCount"]) == (0, None, 0)
    assert deployment.ended_at
    restart_deployment(deployment, actor=cast.operator)
    assert (deployment.status, deployment.ended_at) == ("deploying", None)
    runtime.run(deployment, "ready")

    assert (deployment.running_replicas, deployment.task_definition) == (2, definition)
    assert services_created(platform, deployment) == 1
    kinds = [event for event, _ in history(deployment)[3:]]
    assert kinds == ["stop", "deploy.stopped", "restart", "deploy.running", "deploy.ready"]


def test_kill_deletes_the_service_and_keeps_the_record(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")

    kill_deployment(deployment, actor=cast.operator)
    assert (deployment.status, bool(deployment.ended_at)) == ("killed", True)
    runtime.settle(deployment)

    assert live(platform, deployment)["status"] == "INACTIVE"
    assert history(deployment)[-1] == ("kill", "killed")
    assert (deployment.running_replicas, deployment.next_check_at) == (0, None)


def test_a_deployment_stopped_early_never_starts_a_task(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    stop_deployment(deployment, actor=cast.operator)

    runtime.run(deployment, "stopped")

    assert live(platform, deployment)["desiredCount"] == 0
    restart_deployment(deployment, actor=cast.operator)
    assert runtime.run(deployment, "ready").running_replicas == 2


def test_another_account_is_reached_by_its_role(cast: Cast, runtime: Runtime, platform: LocalAws) -> None:
    deployment = create_deployment(make_agent(cast, organization=cast.globex), actor=cast.outsider)

    runtime.run(deployment, "ready")

    (call,) = platform.ledger(action="CreateService", account="222222222222")
    assert call["region"] == "us-east-1"


# --- it fails -------------------------------------------------------------------------------------------------------


def test_a_failed_image_pull_ends_with_the_reason_of_ecs(
    cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws
) -> None:
    platform.fault("image_pull", cluster=cast.acme.cluster)
    deployment = create_deployment(agent, actor=cast.operator)

    runtime.run(deployment, "failed")

    assert deployment.error_message
    assert deployment.error_message.startswith("image pull failed: CannotPullContainerError")
    assert "circuit breaker" in deployment.error_message
    event = deployment.events.first()
    assert event
    assert (event.event_type, event.error_message) == ("deploy.failed", deployment.error_message)
    assert event.node_id
    assert deployment.ended_at


def test_a_crash_names_its_exit_code(cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, exit_code=137)

    deployment = runtime.run(create_deployment(agent, actor=cast.operator), "failed")

    assert (deployment.error_message or "").startswith(
        "container exited with code 137: Essential container in task exited"
    )


def test_restart_after_a_failure_uses_the_current_agent(
    cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws
) -> None:
    platform.fault("image_pull", cluster=cast.acme.cluster, times=1)
    deployment = runtime.run(create_deployment(agent, actor=cast.operator), "failed")
    update_agent(agent, actor=cast.operator, image="registry.example/support-agent:v2.0.0", cpu=512, memory=1024)

    restart_deployment(deployment, actor=cast.operator)
    assert (deployment.status, deployment.error_message, deployment.generation) == ("deploying", None, 2)
    runtime.run(deployment, "ready")

    assert (deployment.version, deployment.cpu) == ("v2.0.0", 512)
    made = platform.client().describe_task_definition(taskDefinition=str(deployment.task_definition))["taskDefinition"]
    assert (made["revision"], made["containerDefinitions"][0]["image"]) == (2, "registry.example/support-agent:v2.0.0")
    assert services_created(platform, deployment) == 1


def test_a_chosen_version_survives_a_restart(cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster)
    deployment = runtime.run(create_deployment(agent, actor=cast.operator, version="v1.1.0"), "failed")

    restart_deployment(deployment, actor=cast.operator)

    assert (deployment.version, deployment.image.rpartition(":")[2]) == ("v1.1.0", "v1.1.0")


def test_a_deployment_that_never_starts_fails_and_stays_so(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, settings: Any
) -> None:
    platform.fault("no_capacity", cluster=cast.acme.cluster)
    runtime.turn()
    settings.DEPLOYMENTS_START_SECONDS = 0

    runtime.run(deployment, "failed")

    assert "No task started" in (deployment.error_message or "")
    runtime.turn()
    deployment.refresh_from_db()
    assert deployment.status == "failed"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "access_denied", "action": "CreateService"}, "ecs:CreateService"),
        ({"kind": "access_denied", "action": "RegisterTaskDefinition"}, "ecs:RegisterTaskDefinition"),
        (
            {"kind": "error", "action": "CreateService", "code": "InvalidParameterException", "message": "Bad."},
            "Check in ECS",
        ),
    ],
)
def test_a_refused_create_fails_and_can_be_restarted(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, fault: dict[str, str], words: str
) -> None:
    platform.fault(**fault)

    runtime.run(deployment, "failed")

    assert words in (deployment.error_message or "")
    assert (history(deployment)[-1], deployment.next_check_at) == (("deploy.failed", "failed"), None)
    platform.clear_faults()
    restart_deployment(deployment, actor=cast.operator)
    runtime.run(deployment, "ready")


def test_a_missing_cluster_or_platform_service_is_named(cast: Cast, agent: Agent, runtime: Runtime) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_cluster="gone")
    agent.refresh_from_db()
    deployment = create_deployment(Agent.objects.get(pk=agent.pk), actor=cast.operator)

    runtime.run(deployment, "failed")

    assert "ecs:DescribeServices: ClusterNotFoundException" in (deployment.error_message or "")


# --- failing and stale reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["services", "services.desiredCount", "services.status", "services.deployments"])
def test_nothing_is_concluded_from_an_absent_member(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, member: str
) -> None:
    runtime.run(deployment, "ready")
    before = history(deployment)
    platform.fault("member_left_out", action="DescribeServices", member=member)

    for _ in range(3):
        runtime.turn()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.wanted, history(deployment)) == ("ready", "running", before)
    left_out = member.rpartition(".")[2]
    assert deployment.check_error == f"ecs:DescribeServices: IncompleteReply (the reply has no {left_out})."


@pytest.mark.parametrize("fault", ["throttle", "access_denied", "server_error"])
def test_a_failed_read_changes_no_status(
    deployment: Deployment, runtime: Runtime, platform: LocalAws, fault: str
) -> None:
    runtime.run(deployment, "ready")
    seen_at = deployment.last_checked_at
    platform.fault(fault, action="DescribeServices")

    runtime.turn()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.last_checked_at) == ("ready", seen_at)
    assert deployment.check_error
    platform.clear_faults()
    runtime.turn()
    deployment.refresh_from_db()
    assert deployment.check_error is None


def test_a_stale_read_is_not_an_outside_change(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws, settings: Any
) -> None:
    runtime.run(deployment, "ready")
    settings.DEPLOYMENTS_LAG_SECONDS = 15
    platform.fault("stale_reads", seconds=10)

    scale_deployment(deployment, actor=cast.operator, replicas=4)
    for _ in range(6):
        runtime.turn()
        platform.advance(2)
    runtime.run(deployment, "ready")

    assert (deployment.replicas, deployment.running_replicas) == (4, 4)
    assert not deployment.events.exclude(actor__in=["system", cast.operator.email]).exists()


def test_a_row_with_a_failing_step_stops_no_other(
    cast: Cast, agent: Agent, deployment: Deployment, runtime: Runtime
) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(environment={"A": 1})
    other = create_deployment(agent, actor=cast.operator)

    runtime.run(other, "ready")

    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    assert "See the portal's log" in (deployment.check_error or "")


def test_a_deployment_in_another_region_is_not_killed(cast: Cast, deployment: Deployment, runtime: Runtime) -> None:
    """Staff set another region for the organization. The service still runs in the first one."""
    runtime.run(deployment, "ready")
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_region="eu-west-1")

    for _ in range(3):
        runtime.turn()

    deployment.refresh_from_db()
    assert deployment.status == "ready"
    assert deployment.check_error


# --- changes made outside the portal --------------------------------------------------------------------------------


def outside_events(deployment: Deployment) -> list[tuple[str, str]]:
    rows = deployment.events.filter(actor="outside the portal").order_by("sequence")
    return [(event.event_type, event.detail) for event in rows]


def test_a_service_scaled_by_hand_is_followed(deployment: Deployment, runtime: Runtime, platform: LocalAws) -> None:
    runtime.run(deployment, "ready")
    platform.client().update_service(**get_service(deployment), desiredCount=4)

    runtime.turn()
    assert outside_events(deployment) == []  # seen once: reads may lag
    runtime.turn()
    runtime.run(deployment, "ready")

    assert (deployment.replicas, deployment.running_replicas) == (4, 4)
    assert outside_events(deployment) == [("scale", "from 2 to 4")]
    assert AuditEvent.objects.filter(kind="deployment.changed_outside", actor=None).count() == 1
    calls = platform.ledger(action="UpdateService", service=deployment.service_name)
    # Only the outside call: the portal did not undo it.
    assert [call["parameters"]["desiredCount"] for call in calls] == [4]


def test_a_service_stopped_and_started_by_hand_is_followed(
    deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")

    platform.client().update_service(**get_service(deployment), desiredCount=0)
    runtime.run(deployment, "stopped")
    platform.client().update_service(**get_service(deployment), desiredCount=1)
    runtime.run(deployment, "ready")

    assert (deployment.replicas, deployment.wanted) == (1, "running")
    assert outside_events(deployment) == [("stop", "from 2 to 0"), ("restart", "from 0 to 1")]


def test_a_service_deleted_by_hand_becomes_killed(deployment: Deployment, runtime: Runtime, platform: LocalAws) -> None:
    runtime.run(deployment, "ready")

    platform.client().delete_service(**get_service(deployment), force=True)
    runtime.run(deployment, "killed")

    assert deployment.error_message == "The ECS service was deleted outside the portal."
    assert [event for event, _ in outside_events(deployment)] == ["kill"]
    assert deployment.next_check_at is None


def test_a_service_redeployed_by_hand_is_followed(deployment: Deployment, runtime: Runtime, platform: LocalAws) -> None:
    runtime.run(deployment, "ready")
    definition = platform.client().register_task_definition(
        family="by-hand", containerDefinitions=[{"name": "agent", "image": "agent:by-hand", "memory": 512}]
    )["taskDefinition"]["taskDefinitionArn"]
    platform.client().update_service(**get_service(deployment), taskDefinition=definition)

    for _ in range(3):
        runtime.turn()
    runtime.run(deployment, "ready")

    assert (deployment.version, deployment.task_definition) == ("by-hand", definition)
    assert [event for event, _ in outside_events(deployment)] == ["restart"]


def test_a_command_overrides_what_was_done_outside(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")
    platform.client().update_service(**get_service(deployment), desiredCount=1)

    scale_deployment(deployment, actor=cast.operator, replicas=3)
    runtime.run(deployment, "running")
    runtime.run(deployment, "ready")

    assert (deployment.replicas, deployment.running_replicas, outside_events(deployment)) == (3, 3, [])


def test_a_lost_task_shows_with_its_reason(deployment: Deployment, runtime: Runtime, platform: LocalAws) -> None:
    runtime.run(deployment, "ready")
    client = platform.client()
    task = client.list_tasks(cluster=deployment.cluster, serviceName=deployment.service_name)["taskArns"][0]
    client.stop_task(cluster=deployment.cluster, task=task, reason="Host retired")

    runtime.run(deployment, "running", seconds=1)

    event = deployment.events.first()
    assert event
    assert (event.event_type, event.error_message) == ("deploy.running", "Host retired")
    assert event.node_id == task.rpartition("/")[2]


def test_turns_on_a_settled_deployment_write_no_event(deployment: Deployment, runtime: Runtime) -> None:
    runtime.run(deployment, "ready")
    before = history(deployment)

    Deployment.objects.update(next_check_at=Now())
    runtime.turn()
    runtime.turn()

    assert history(deployment) == before


# --- suspended organizations and lost roles ---------------------------------------------------------------------------


WRITES = ("RegisterTaskDefinition", "CreateService", "UpdateService", "DeleteService")


def writes(local_aws: LocalAws, deployment: Deployment) -> int:
    """Return how many writes AWS received for this deployment."""
    named = [entry for action in WRITES for entry in local_aws.ledger(action=action)]
    return len([entry for entry in named if deployment.service_name in str(entry["parameters"])])


@pytest.mark.parametrize("command", ["create", "scale", "stop", "kill"])
@pytest.mark.parametrize("change", ["suspended", "demoted", "removed", "deactivated"])
def test_nothing_is_written_without_the_right_to_it(
    cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws, command: str, change: str
) -> None:
    deployment = create_deployment(agent, actor=cast.operator, replicas=2)
    if command != "create":
        runtime.run(deployment, "ready")
    if command == "scale":
        scale_deployment(deployment, actor=cast.operator, replicas=3)
    elif command == "stop":
        stop_deployment(deployment, actor=cast.operator)
    elif command == "kill":
        kill_deployment(deployment, actor=cast.operator)
    before = writes(platform, deployment)
    members = Membership.objects.filter(user=cast.operator)
    if change == "suspended":
        Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    elif change == "demoted":
        members.update(role=Role.VIEWER)
    elif change == "removed":
        members.delete()
    else:
        User.objects.filter(pk=cast.operator.pk).update(is_active=False)

    for _ in range(3):
        runtime.turn()

    deployment.refresh_from_db()
    assert writes(platform, deployment) == before
    assert "nothing was changed in ECS" in str(deployment.check_error)


def test_it_is_applied_once_the_organization_is_active_again(
    cast: Cast, agent: Agent, runtime: Runtime, platform: LocalAws
) -> None:
    deployment = create_deployment(agent, actor=cast.operator)
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    runtime.turn()
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=True)

    assert runtime.run(deployment, "ready").check_error is None


def test_another_operator_can_ask_for_the_same_again(
    cast: Cast, deployment: Deployment, runtime: Runtime, platform: LocalAws
) -> None:
    runtime.run(deployment, "ready")
    scale_deployment(deployment, actor=cast.operator, replicas=3)
    Membership.objects.filter(user=cast.operator).delete()
    runtime.turn()

    scale_deployment(deployment, actor=cast.admin, replicas=3)

    runtime.run(deployment, "ready")
    assert live(platform, deployment)["desiredCount"] == 3
    assert deployment.requested_by == cast.admin
