"""Assumed roles: how often and when they are assumed, and the cost of a client."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest

from portal.aws import credentials, ecs
from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsDenied, AwsUnavailable
from portal.models import Organization
from tests.conftest import Cast
from tests.local_aws import LocalAws


def read(organization: Organization) -> ecs.Service:
    name = f"{organization.deployment_stack}-agent-service"
    found = ecs.describe_services(organization.aws_target, str(organization.cluster), [name])
    return found.services[name]


def write(organization: Organization, before_call: object = do_nothing) -> ecs.Service:
    return ecs.update_service(
        organization.aws_target,
        str(organization.cluster),
        f"{organization.deployment_stack}-agent-service",
        task_definition=f"{organization.deployment_stack}-agent",
        force_new_deployment=True,
        before_call=before_call,  # type: ignore[arg-type] # any callable
    )


def test_the_reads_of_an_organization_share_one_assumed_role(platform: LocalAws, cast: Cast) -> None:
    read(cast.globex)
    platform.fault("access_denied", action="AssumeRole")

    assert read(cast.globex).deployments
    assert ecs.describe_cluster(cast.globex.aws_target, str(cast.globex.cluster)).active_services == 3


def test_a_session_is_renewed_before_it_ends(platform: LocalAws, cast: Cast) -> None:
    """A session of 15 minutes is not renewed at each call, and no call is made with one that is about to end."""
    read(cast.globex)
    session = next(each for each in credentials._target_sessions if each.role_arn)
    held = credentials._target_sessions[session].session.get_credentials()
    first, started = held.get_frozen_credentials(), held._time_fetcher()
    seen = []
    for seconds in (0, 590, 610):
        held._time_fetcher = partial(lambda at: at, started + timedelta(seconds=seconds))
        seen.append(held.get_frozen_credentials())
        assert held._expiry_time > held._time_fetcher()

    assert seen[:2] == [first, first]
    assert seen[2] != first


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
