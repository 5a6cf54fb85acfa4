"""The contract harness: one local AWS per session, with its clock frozen until a test advances it.

The files `test_contract_*.py` specify the behaviour of ECS, using only boto3. With these variables they run against a
real AWS account, on a service that may be deployed and scaled and is left as it was. Tests that need faults or their own
service are skipped there:

    CONTRACT_AWS_REGION=eu-central-1 CONTRACT_AWS_CLUSTER=test CONTRACT_AWS_SERVICE=web \
        python -m pytest -c /dev/null --rootdir . --confcutdir tests/sandbox tests/sandbox -k contract
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from tests.local_aws import REGION, LocalAws

REAL_CLUSTER = os.environ.get("CONTRACT_AWS_CLUSTER")
REAL_SERVICE = os.environ.get("CONTRACT_AWS_SERVICE")
REAL_REGION = os.environ.get("CONTRACT_AWS_REGION", REGION)

Json = dict[str, Any]


@pytest.fixture(scope="session")
def aws_server() -> Iterator[LocalAws]:
    server = LocalAws.start()
    server.freeze()
    yield server
    server.stop()


@pytest.fixture
def aws(aws_server: LocalAws) -> Iterator[LocalAws]:
    """Return the session's server without faults and request limits."""
    aws_server.clear_faults()
    aws_server.throttling(enabled=False)
    aws_server.freeze()
    yield aws_server
    aws_server.clear_faults()
    aws_server.clear_platform()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., LocalAws]]:
    """Return a function that starts servers on one data folder, which the test may kill and restart."""
    started: list[LocalAws] = []

    def start(**options: Any) -> LocalAws:
        server = LocalAws.start(tmp_path / "aws", **options)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()


@dataclass
class Ecs:
    """A cluster with a client whose replies are all checked against botocore's model."""

    client: Any
    cluster: str
    local: LocalAws | None
    region: str = REGION
    unknown_fields: list[str] = field(default_factory=list)

    def service(self, desired: int = 2, **body: Any) -> str:
        """Return the name of a service in a steady state: a new one here, the configured one on real AWS."""
        if self.local is None:
            if body:
                pytest.skip("needs its own service")
            return str(REAL_SERVICE)
        name = f"s-{uuid.uuid4().hex[:8]}"
        image = {"image": f"example.org/{name}:v1", "desired_count": desired}
        self.local.seed(cluster=self.cluster, region=self.region, services=[{"name": name, **image, **body}])
        return name

    def fault(self, kind: str, **fields: Any) -> None:
        self.faults().fault(kind, cluster=self.cluster, **fields)

    def faults(self) -> LocalAws:
        """Return the local AWS for injecting faults. Skips the test on a real AWS."""
        if self.local is None:
            pytest.skip("needs the local AWS's faults")
        return self.local

    def describe(self, service: str) -> Json:
        return dict(self.client.describe_services(cluster=self.cluster, services=[service])["services"][0])

    def deployment(self, arn: str) -> Json:
        return dict(self.client.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0])

    def update(self, service: str, **change: Any) -> Json:
        return dict(self.client.update_service(cluster=self.cluster, service=service, **change)["service"])

    def roll(self, service: str, **change: Any) -> str:
        """Start a service deployment and return its ARN."""
        return str(self.update(service, **(change or {"forceNewDeployment": True}))["currentServiceDeployment"])

    def wait(self, condition: Callable[[], Any], *, seconds: int = 300, step: int = 1) -> Any:
        """Return the first true value of the condition, read every `step` seconds of sandbox or real time."""
        for _ in range(0, seconds + step, step):
            value = condition()
            if value:
                return value
            self.pass_time(step)
        raise AssertionError(f"not true within {seconds} s")

    def wait_for(self, arn: str, *statuses: str, seconds: int = 300) -> Json:
        """Return the service deployment after it has reached one of the statuses."""

        def reached() -> Json | None:
            found = self.deployment(arn)
            return found if found["status"] in statuses else None

        step = 1 if any("IN_PROGRESS" in status for status in statuses) else 5  # an ended deployment cannot be missed
        return dict(self.wait(reached, seconds=seconds, step=step))

    def pass_time(self, seconds: float) -> None:
        if self.local:
            self.local.advance(seconds)
        else:
            time.sleep(seconds)

    def messages(self, service: str) -> list[str]:
        return [event["message"] for event in self.describe(service)["events"]]

    def register(self, family: str, *, image: str = "example.org/app:v2") -> str:
        """Register a new task definition revision and return its ARN."""
        reply = self.client.register_task_definition(
            family=family,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[{"name": "app", "image": image, "essential": True}],
        )
        return str(reply["taskDefinition"]["taskDefinitionArn"])


@pytest.fixture
def ecs(request: pytest.FixtureRequest) -> Iterator[Ecs]:
    if REAL_CLUSTER and REAL_SERVICE:
        real = Ecs(boto3.client("ecs", region_name=REAL_REGION), REAL_CLUSTER, None, REAL_REGION)
        yield real
        return
    server: LocalAws = request.getfixturevalue("aws")
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    server.seed(cluster=cluster)
    place = Ecs(server.client(), cluster, server)
    check = check_shape(place.unknown_fields)
    place.client.meta.events.register("after-call.ecs", check)
    yield place
    place.client.meta.events.unregister("after-call.ecs", check)
    assert place.unknown_fields == []


def check_shape(unknown: list[str]) -> Callable[..., None]:
    """Return a botocore handler that records every field of a reply that AWS's model does not have."""

    def after_call(http_response: Any, model: Any, **_: Any) -> None:
        if http_response.status_code == 200 and model.output_shape:
            note_unknown(json.loads(http_response.content), model.output_shape, model.name, unknown)

    return after_call


def note_unknown(value: Any, shape: Shape, path: str, unknown: list[str]) -> None:
    if isinstance(shape, StructureShape):
        for name, member in value.items():
            if name not in shape.members:
                unknown.append(f"{path}.{name}")
            else:
                note_unknown(member, shape.members[name], f"{path}.{name}", unknown)
    elif isinstance(shape, ListShape):
        for member in value:
            note_unknown(member, shape.member, path, unknown)
    elif isinstance(shape, MapShape):
        for member in value.values():
            note_unknown(member, shape.value, path, unknown)
    else:
        kinds = {"string": str, "integer": int, "long": int, "boolean": bool, "timestamp": int | float}
        if not isinstance(value, kinds.get(shape.type_name, object)):
            unknown.append(f"{path}: {value!r} is not of type {shape.type_name}")
