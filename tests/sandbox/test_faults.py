"""API faults: their errors, whether calls take effect, and the scope of a fault."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tests.local_aws import ControlApiError, LocalAws
from tests.sandbox.conftest import Ecs


def get_code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def get_deployments(ecs: Ecs, service: str) -> int:
    reply = ecs.client.list_service_deployments(cluster=ecs.cluster, service=service)
    return len(reply["serviceDeployments"])


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ({"kind": "throttle"}, "ThrottlingException", 400),
        ({"kind": "access_denied"}, "AccessDeniedException", 400),
        ({"kind": "expired_token"}, "ExpiredTokenException", 400),
        ({"kind": "server_error"}, "ServerException", 500),
        ({"kind": "server_error", "status": 503}, "ServerException", 503),
        ({"kind": "error", "code": "PlatformUnknownException", "message": "no"}, "PlatformUnknownException", 400),
    ],
)
def test_error_fault_refuses_the_call_once_without_effect(ecs: Ecs, fault: Any, code: str, status: int) -> None:
    service = ecs.service()
    ecs.fault(**fault, action="UpdateService", times=1)

    with pytest.raises(ClientError) as refused:
        ecs.roll(service)

    assert get_code(refused) == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert get_deployments(ecs, service) == 1
    ecs.roll(service)
    assert get_deployments(ecs, service) == 2


def test_access_denied_names_principal_action_and_resource(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.fault("access_denied", action="UpdateService")

    with pytest.raises(ClientError) as refused:
        ecs.roll(service)

    assert refused.value.response["Error"]["Message"] == (
        "User: arn:aws:iam::111111111111:user/portal is not authorized to perform: ecs:UpdateService on resource: "
        f"arn:aws:ecs:eu-central-1:111111111111:service/{ecs.cluster}/{service} "
        "because no identity-based policy allows the ecs:UpdateService action"
    )


def test_fault_without_times_lasts_until_cleared(ecs: Ecs) -> None:
    service = ecs.service()
    local = ecs.faults()
    fault = local.fault("throttle", cluster=ecs.cluster, action="DescribeServices")

    for _ in range(3):
        with pytest.raises(ClientError):
            ecs.describe(service)
    local.clear_faults(fault["id"])

    assert ecs.describe(service)["serviceName"] == service


def test_fault_of_a_family_applies_only_to_its_registrations(ecs: Ecs) -> None:
    ecs.faults().fault("throttle", family="meant")

    with pytest.raises(ClientError) as refused:
        ecs.register("meant")

    assert get_code(refused) == "ThrottlingException"
    assert ecs.register("other").endswith("task-definition/other:1")
    assert ecs.describe(ecs.service())["status"] == "ACTIVE"


def test_fault_matches_service_action_account_and_region(ecs: Ecs) -> None:
    meant, other = ecs.service(), ecs.service()
    local = ecs.faults()
    local.fault("throttle", service=meant, action="UpdateService")
    local.fault("throttle", account="999999999999", service=other)
    local.fault("throttle", region="us-west-2", service=other)

    ecs.roll(other)
    ecs.describe(meant)

    with pytest.raises(ClientError, match="ThrottlingException"):
        ecs.roll(meant)


def test_fault_reaches_the_call_about_a_service_deployment(ecs: Ecs) -> None:
    service = ecs.service()
    arn = ecs.roll(service)
    ecs.fault("throttle", service=service, action="StopServiceDeployment")

    with pytest.raises(ClientError, match="ThrottlingException"):
        ecs.client.stop_service_deployment(serviceDeploymentArn=arn)


def test_faults_apply_to_other_aws_services_too(aws: LocalAws) -> None:
    aws.fault("access_denied", action="DescribeRepositories", times=1)
    aws.fault("throttle", action="GetCallerIdentity", times=1)
    ecr, sts = aws.client("ecr"), aws.client("sts")

    with pytest.raises(ClientError, match="AccessDeniedException"):
        ecr.describe_repositories()
    with pytest.raises(ClientError, match="Throttling"):
        sts.get_caller_identity()

    assert sts.get_caller_identity()["Account"] == "111111111111"


def test_lost_reply_took_effect(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.fault("reply_lost", action="UpdateService", times=1)

    with pytest.raises(ConnectionClosedError):
        ecs.roll(service)

    assert get_deployments(ecs, service) == 2
    entry = ecs.faults().ledger(cluster=ecs.cluster)[-1]
    assert (entry["effect"], entry["delivered"]) == (True, False)
    assert entry["service_deployment_arn"] == ecs.describe(service)["currentServiceDeployment"]


def test_timeout_before_the_effect_starts_no_deployment(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.fault("timeout_before", action="UpdateService", times=1, seconds=0.6)
    hasty = ecs.faults().client(read_timeout=0.2)

    with pytest.raises(ReadTimeoutError):
        hasty.update_service(cluster=ecs.cluster, service=service, forceNewDeployment=True)
    time.sleep(0.6)

    assert get_deployments(ecs, service) == 1
    entry = ecs.faults().ledger(cluster=ecs.cluster)[-1]
    assert (entry["effect"], entry["delivered"], entry["deployment_id"]) == (False, False, None)


@pytest.mark.parametrize("kind", ["timeout_before", "delay"])
def test_a_call_held_back_over_a_reset_is_forgotten(aws_server: LocalAws, kind: str) -> None:
    aws_server.fault(kind, action="CreateCluster", times=1, seconds=0.6)
    hasty = aws_server.client(read_timeout=0.2)
    with pytest.raises(ReadTimeoutError):
        hasty.create_cluster(clusterName="held-back")

    aws_server.reset()
    aws_server.freeze()
    time.sleep(0.6)

    assert aws_server.ledger() == []
    assert aws_server.client().list_clusters()["clusterArns"] == []


def test_timeout_after_the_effect_leaves_a_deployment(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.fault("timeout_after", action="UpdateService", times=1, seconds=0.6)
    hasty = ecs.faults().client(read_timeout=0.2)

    with pytest.raises(ReadTimeoutError):
        hasty.update_service(cluster=ecs.cluster, service=service, forceNewDeployment=True)

    assert get_deployments(ecs, service) == 2


def test_hanging_call_does_not_hold_up_others(ecs: Ecs) -> None:
    service, other = ecs.service(), ecs.service()
    ecs.fault("timeout_after", service=service, action="UpdateService", times=1, seconds=3)
    hasty = ecs.faults().client(read_timeout=0.2)

    with pytest.raises(ReadTimeoutError):
        hasty.update_service(cluster=ecs.cluster, service=service, forceNewDeployment=True)
    began = time.monotonic()
    ecs.roll(other)

    assert time.monotonic() - began < 2.5


def test_delayed_call_still_succeeds(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.fault("delay", action="DescribeServices", times=1, seconds=0.3)

    began = time.monotonic()
    ecs.describe(service)

    assert time.monotonic() - began >= 0.3


def test_stale_reads_show_the_state_before_the_write_for_a_while(ecs: Ecs) -> None:
    service = ecs.service()
    before = ecs.describe(service)["currentServiceDeployment"]
    ecs.fault("stale_reads", service=service, seconds=5, times=1)

    reply = ecs.update(service, forceNewDeployment=True)
    at_once = ecs.describe(service)["currentServiceDeployment"]
    unseen = ecs.client.describe_service_deployments(serviceDeploymentArns=[reply["currentServiceDeployment"]])
    listed = get_deployments(ecs, service)
    ecs.pass_time(6)

    assert reply["currentServiceDeployment"] != before
    assert at_once == before
    assert unseen["failures"][0]["reason"] == "MISSING"
    assert listed == 1
    assert ecs.describe(service)["currentServiceDeployment"] == reply["currentServiceDeployment"]
    assert ecs.deployment(reply["currentServiceDeployment"])["status"] == "IN_PROGRESS"


def test_stale_read_of_a_created_service_misses_it(ecs: Ecs) -> None:
    ecs.fault("stale_reads", service="fresh", seconds=5, times=1)

    ecs.client.create_service(
        cluster=ecs.cluster, serviceName="fresh", taskDefinition=ecs.register("fresh"), desiredCount=1
    )

    assert ecs.client.describe_services(cluster=ecs.cluster, services=["fresh"])["failures"][0]["reason"] == "MISSING"
    ecs.pass_time(6)
    assert ecs.describe("fresh")["status"] == "ACTIVE"


def test_times_limits_the_deployments_that_a_fault_hits(ecs: Ecs) -> None:
    service = ecs.service(desired=1)
    ecs.fault("crash", service=service, times=1)

    first = ecs.wait_for(ecs.roll(service), "ROLLBACK_SUCCESSFUL", "SUCCESSFUL")
    second = ecs.wait_for(ecs.roll(service), "ROLLBACK_SUCCESSFUL", "SUCCESSFUL")

    assert (first["status"], second["status"]) == ("ROLLBACK_SUCCESSFUL", "SUCCESSFUL")


def test_expired_session_is_refused(aws: LocalAws) -> None:
    role = "arn:aws:iam::333333333333:role/short"
    aws.seed(roles=[{"arn": role}])
    client = aws.client("sts", role_arn=role)
    aws.fault("expired_token", account="333333333333", times=1)

    with pytest.raises(ClientError, match="ExpiredToken"):
        client.get_caller_identity()

    assert client.get_caller_identity()["Account"] == "333333333333"


def test_a_member_is_left_out_of_every_entry_of_a_reply(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.faults().fault("member_left_out", action="DescribeServices", member="services.deployments.id", times=1)

    without, whole = ecs.describe(service), ecs.describe(service)

    assert all("id" not in deployment for deployment in without["deployments"])
    assert without["deployments"][0].items() < whole["deployments"][0].items()
    with pytest.raises(ControlApiError, match="`member` is missing"):
        ecs.faults().fault("member_left_out", action="DescribeServices")
