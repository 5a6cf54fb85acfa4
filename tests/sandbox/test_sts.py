"""Accounts, roles and sessions."""

import uuid

import pytest
from botocore.exceptions import ClientError

from tests.local_aws import LocalAws

ACCOUNT = "555555555555"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/portal-upgrades"


def test_unknown_access_key_is_the_portals_own_account(aws: LocalAws) -> None:
    identity = aws.client("sts").get_caller_identity()

    assert identity["Account"] == "111111111111"
    assert identity["Arn"] == "arn:aws:iam::111111111111:user/portal"


def test_assumed_role_acts_in_its_own_account(aws: LocalAws) -> None:
    aws.seed(roles=[{"arn": ROLE, "external_id": "secret"}])

    identity = aws.client("sts", role_arn=ROLE, external_id="secret").get_caller_identity()

    assert identity["Account"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/portal-upgrades/test"
    assert identity["UserId"].endswith(":test")


@pytest.mark.parametrize("external_id", [None, "wrong"])
def test_wrong_or_missing_external_id_is_denied(aws: LocalAws, external_id: str | None) -> None:
    aws.seed(roles=[{"arn": ROLE, "external_id": "secret"}])

    with pytest.raises(ClientError) as refused:
        aws.assume(ROLE, external_id=external_id)

    error = refused.value.response["Error"]
    assert error["Code"] == "AccessDenied"
    assert error["Message"] == (
        f"User: arn:aws:iam::111111111111:user/portal is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
    )


def test_unknown_role_is_denied_with_the_same_error(aws: LocalAws) -> None:
    with pytest.raises(ClientError, match=r"AccessDenied.*is not authorized to perform: sts:AssumeRole"):
        aws.assume(f"arn:aws:iam::{ACCOUNT}:role/never-made", external_id="secret")


def test_role_without_external_id_takes_any(aws: LocalAws) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/open"
    aws.seed(roles=[{"arn": role}])

    assert aws.assume(role)
    assert aws.assume(role, external_id="whatever")


def test_accounts_and_regions_do_not_see_each_other(aws: LocalAws) -> None:
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    aws.seed(roles=[{"arn": ROLE, "external_id": "secret"}])
    mine = aws.seed(cluster=cluster, services=[{"name": "web"}])["services"][0]["service_deployment_arn"]
    aws.seed(account=ACCOUNT, region="us-east-1", cluster=cluster, services=[{"name": "web", "desired_count": 5}])
    theirs = aws.client(region="us-east-1", role_arn=ROLE, external_id="secret")
    elsewhere = aws.client(region="eu-central-1", role_arn=ROLE, external_id="secret")

    service = theirs.describe_services(cluster=cluster, services=["web"])["services"][0]
    foreign = theirs.describe_service_deployments(serviceDeploymentArns=[mine])

    assert service["desiredCount"] == 5
    assert service["serviceArn"] == f"arn:aws:ecs:us-east-1:{ACCOUNT}:service/{cluster}/web"
    assert foreign["failures"][0]["reason"] == "MISSING"
    with pytest.raises(ClientError, match="ClusterNotFoundException"):
        elsewhere.describe_services(cluster=cluster, services=["web"])
    assert not elsewhere.list_task_definitions(familyPrefix="web")["taskDefinitionArns"]
