"""The ledger of write calls."""

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Ecs


def test_update_is_recorded_with_the_deployment_it_started(ecs: Ecs) -> None:
    service = ecs.service()

    reply = ecs.update(service, forceNewDeployment=True)

    (entry,) = ecs.faults().ledger(cluster=ecs.cluster)
    assert entry["action"] == "UpdateService"
    assert (entry["account"], entry["region"]) == ("111111111111", "eu-central-1")
    assert (entry["cluster"], entry["service"]) == (ecs.cluster, service)
    assert entry["parameters"] == {"cluster": ecs.cluster, "service": service, "forceNewDeployment": True}
    assert entry["service_deployment_arn"] == reply["currentServiceDeployment"]
    assert entry["deployment_id"] == reply["deployments"][0]["id"]
    assert (entry["effect"], entry["delivered"], entry["error"]) == (True, True, None)


def test_update_that_starts_nothing_names_no_deployment(ecs: Ecs) -> None:
    service = ecs.service()

    ecs.update(service, desiredCount=3)

    (entry,) = ecs.faults().ledger(cluster=ecs.cluster)
    assert (entry["effect"], entry["deployment_id"], entry["service_deployment_arn"]) == (True, None, None)


def test_refused_write_is_recorded_with_its_error(ecs: Ecs) -> None:
    with pytest.raises(ClientError):
        ecs.update("nobody", desiredCount=3)

    (entry,) = ecs.faults().ledger(cluster=ecs.cluster)
    assert (entry["error"], entry["effect"]) == ("ServiceNotFoundException", False)
    assert entry["error_message"] == "Service not found."


def test_reads_are_not_recorded(ecs: Ecs) -> None:
    ecs.describe(ecs.service())

    assert ecs.faults().ledger(cluster=ecs.cluster) == []


def test_registered_revision_is_recorded_with_its_arn(ecs: Ecs) -> None:
    arn = ecs.register("ledger-family")

    assert ecs.faults().ledger(action="RegisterTaskDefinition")[-1]["task_definition_arn"] == arn


def test_ledger_is_filtered_and_numbered_in_order(ecs: Ecs) -> None:
    one, two = ecs.service(), ecs.service()
    local = ecs.faults()

    for service in (one, two, one):
        ecs.roll(service)

    everything = local.ledger(cluster=ecs.cluster)
    numbers = [entry["sequence"] for entry in everything]
    assert numbers == sorted(set(numbers))
    assert [entry["service"] for entry in everything] == [one, two, one]
    assert len(local.ledger(cluster=ecs.cluster, service=one)) == 2
    assert len(local.ledger(cluster=ecs.cluster, since=numbers[0])) == 2
    assert local.ledger(cluster=ecs.cluster, effect=False) == []
    assert local.ledger(cluster=ecs.cluster, action="DeleteService") == []
