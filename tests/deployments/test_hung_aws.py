"""Logs and metrics while AWS hangs: reads are shared, a silent account is left alone, and the last data keeps its age."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from deployments.models import Agent, Deployment
from portal.aws import bulkhead
from portal.cloudwatch.logs import read_logs
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, assert_refused, make_deployment
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]
SILENT = "AWS did not answer; trying again in a few seconds"


@pytest.fixture
def deployments(cast: Cast, agent: Agent, local_aws: LocalAws) -> list[Deployment]:
    """Return two deployments of acme with a log group."""
    local_aws.throttling(enabled=False)
    local_aws.client("logs").create_log_group(logGroupName="/hung")
    made = [make_deployment(cast, agent) for _ in range(2)]
    Deployment.objects.update(log_group="/hung")
    return list(Deployment.objects.filter(pk__in=[each.pk for each in made]).select_related("organization"))


def put_line(local_aws: LocalAws, deployment: Deployment) -> None:
    client, stream = local_aws.client("logs"), f"{deployment.service_name}/agent/t1"
    client.create_log_stream(logGroupName="/hung", logStreamName=stream)
    event = {"timestamp": int(deployment.created_at.timestamp() * 1000), "message": "kept"}
    client.put_log_events(logGroupName="/hung", logStreamName=stream, logEvents=[event])


def test_readers_of_the_first_lines_share_one_call(deployments: list[Deployment], local_aws: LocalAws) -> None:
    """Only one call is refused: with a call each, the other readers would have an answer."""
    local_aws.fault("delay", action="FilterLogEvents", seconds=0.5)
    local_aws.fault("access_denied", action="FilterLogEvents", times=1)

    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(read_logs, [deployments[0].cloudwatch] * 4))

    assert ["AccessDenied" in str(page.error) for page in pages] == [True] * 4


def test_a_silent_account_is_not_asked_for_a_while(
    cast: Cast, client_for: SignIn, deployments: list[Deployment], local_aws: LocalAws
) -> None:
    put_line(local_aws, deployments[0])
    kept = read_logs(deployments[0].cloudwatch).read_at
    cache.delete(f"logs:{deployments[0].pk}:tail:fresh")
    client = client_for(cast.viewer)
    hang = local_aws.fault("delay", action="FilterLogEvents", seconds=5)

    first = client.get(f"{DEPLOYMENTS}/{deployments[0].pk}/logs").json()
    local_aws.clear_faults(hang["id"])  # whoever asks again now gets an answer
    second = assert_refused(client.get(f"{DEPLOYMENTS}/{deployments[1].pk}/logs"), 502, "aws_unavailable")

    cache.delete(f"logs:{deployments[0].pk}:tail:fresh")
    again = [client.get(f"{DEPLOYMENTS}/{deployments[0].pk}/logs").json() for _ in range(2)]

    assert ([line["message"] for line in first["items"]], SILENT in first["error"]) == (["kept"], True)
    assert [(answer["read_at"], SILENT in str(answer["error"])) for answer in again] == [(first["read_at"], True)] * 2
    assert kept
    assert datetime.fromisoformat(first["read_at"]) == kept
    assert SILENT in second["detail"]
    assert client.get(f"{DEPLOYMENTS}/{deployments[1].pk}/metrics").status_code == 200  # another service of AWS


def test_a_silent_account_is_asked_again_after_seconds(
    cast: Cast, client_for: SignIn, deployments: list[Deployment], local_aws: LocalAws, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bulkhead, "QUIET_SECONDS", 0.0)
    hang = local_aws.fault("delay", action="GetMetricData", seconds=5)
    client, path = client_for(cast.viewer), f"{DEPLOYMENTS}/{deployments[0].pk}/metrics"
    assert_refused(client.get(path), 502, "aws_unavailable")
    local_aws.clear_faults(hang["id"])
    cache.clear()

    assert client.get(path).status_code == 200
