"""Request limits: token buckets per account, region and category."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws import LocalAws
from tests.sandbox.conftest import Ecs

# A tenth of AWS's limits: a burst of 5 service modifications, then one every 2 s.
SCALE = 0.1


def calls_until_throttled(call: Any, *, limit: int = 60) -> int:
    for number in range(limit):
        try:
            call()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ThrottlingException":
                raise
            return number
    return limit


def test_throttled_service_modifications_have_no_effect(ecs: Ecs) -> None:
    service = ecs.service()
    ecs.faults().throttling(scale=SCALE)

    done = calls_until_throttled(lambda: ecs.roll(service))

    assert 5 <= done <= 6
    ledger = ecs.faults().ledger(cluster=ecs.cluster, action="UpdateService")
    assert [entry["error"] for entry in ledger] == [None] * done + ["ThrottlingException"]
    assert ledger[-1]["effect"] is False


def test_stopping_a_service_deployment_counts_as_a_modification(ecs: Ecs) -> None:
    service = ecs.service()
    arn = ecs.roll(service)
    ecs.faults().throttling(scale=SCALE)

    done = calls_until_throttled(lambda: ecs.client.stop_service_deployment(serviceDeploymentArn=arn))

    assert 5 <= done <= 6
    with pytest.raises(ClientError, match="ThrottlingException"):
        ecs.roll(service)
    assert ecs.deployment(arn)["status"] == "ROLLBACK_REQUESTED"


def test_registering_task_definitions_is_limited_most_tightly(ecs: Ecs) -> None:
    ecs.faults().throttling(scale=SCALE)

    done = calls_until_throttled(lambda: ecs.register("many"))

    assert done == 2


def test_categories_accounts_and_regions_have_own_buckets(ecs: Ecs) -> None:
    service = ecs.service()
    local = ecs.faults()
    role = "arn:aws:iam::444444444444:role/portal"
    local.seed(roles=[{"arn": role}])
    other_account = local.client(role_arn=role)
    other_region = local.client(region="us-west-2")
    local.throttling(scale=SCALE)

    calls_until_throttled(lambda: ecs.client.list_service_deployments(cluster=ecs.cluster, service=service))

    assert ecs.describe(service)["serviceName"] == service
    for client in (other_account, other_region):
        with pytest.raises(ClientError, match="ClusterNotFoundException"):
            client.list_service_deployments(cluster=ecs.cluster, service=service)


def test_limits_can_be_switched_off(aws: LocalAws) -> None:
    client = aws.client()

    aws.throttling(enabled=False)

    assert calls_until_throttled(client.list_clusters, limit=60) == 60


def test_limits_are_on_after_a_reset(aws: LocalAws) -> None:
    aws.reset()
    aws.freeze()
    client = aws.client()

    assert 50 <= calls_until_throttled(client.list_clusters, limit=400) < 400
