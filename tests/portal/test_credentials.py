"""Assumed roles: how often and when they are assumed, and the cost of a client."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from portal.aws import credentials, ecs
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsUnavailable
from portal.models import Organization
from tests.conftest import Cast
from tests.local_aws import LocalAws


def read(organization: Organization) -> ecs.Service:
    name = f"{organization.deployment_stack}-agent-service"
    found = ecs.describe_services(organization.aws_target, str(organization.cluster), [name])
    return found.services[name]


def write(organization: Organization, before_call: object = ecs.do_nothing) -> ecs.Service:
    return ecs.update_service(
        organization.aws_target,
        str(organization.cluster),
        f"{organization.deployment_stack}-agent-service",
        task_definition=f"{organization.deployment_stack}-agent",
        force_new_deployment=True,
        before_call=before_call,  # type: ignore[arg-type] # any callable
    )


def test_reads_and_writes_of_a_target_share_one_assumed_role(platform: LocalAws, cast: Cast) -> None:
    read(cast.globex)
    platform.fault("access_denied", action="AssumeRole")

    assert write(cast.globex).deployments


def test_forgetting_a_target_drops_the_role_of_reads_and_writes(platform: LocalAws, cast: Cast) -> None:
    write(cast.globex)
    platform.fault("access_denied", action="AssumeRole")
    credentials.drop_session(cast.globex.aws_target)

    with pytest.raises(AwsDenied):
        read(cast.globex)
    with pytest.raises(AwsDenied):
        write(cast.globex)


def test_the_role_is_assumed_before_the_write(platform: LocalAws, cast: Cast) -> None:
    def no_more_roles() -> None:
        platform.fault("access_denied", action="AssumeRole")

    assert write(cast.globex, no_more_roles).deployments


def test_concurrent_readers_share_one_assumption(platform: LocalAws, cast: Cast) -> None:
    """Only one AssumeRole is refused: with one each, the other readers would have an answer."""
    platform.fault("delay", action="AssumeRole", seconds=0.5)
    platform.fault("access_denied", action="AssumeRole", times=1)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, cast.globex) for _ in range(4)]

    assert [type(reader.exception()) for reader in readers] == [AwsDenied] * 4


def test_no_write_is_sent_if_the_role_is_not_assumed(platform: LocalAws, cast: Cast) -> None:
    platform.fault("server_error", action="AssumeRole")

    with pytest.raises(AwsUnavailable) as caught:
        write(cast.globex)

    assert caught.value.action == "sts:AssumeRole"
    assert caught.value.may_have_happened is False
    assert platform.ledger(action="UpdateService") == []


def test_targets_share_one_service_model(local_aws: LocalAws) -> None:
    """A model of its own took 12 MB and a third of a second for each client."""
    first, second = AwsTarget("eu-central-1"), AwsTarget("eu-west-3")
    credentials.client(first, "ecs")
    tracemalloc.start()

    credentials.client(second, "ecs")

    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 3_000_000
