"""State on disk: crashes at any moment, and restarts."""

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from portal.sandbox import moto_state
from portal.sandbox.demo import seed_demo
from portal.sandbox.records import ServiceKey
from portal.sandbox.seed import seed
from portal.sandbox.server import Sandbox
from tests.local_aws import LocalAws

ROLE = "arn:aws:iam::222222222222:role/portal-upgrades"

KEY = ServiceKey("111111111111", "eu-central-1", "c", "web")

Start = Callable[..., LocalAws]


def seeded(server: LocalAws) -> Any:
    """Return a client of a server with one service `c/web` and a frozen clock."""
    server.freeze()
    server.throttling(enabled=False)
    server.seed(cluster="c", services=[{"name": "web", "desired_count": 2}])
    return server.client()


def describe(client: Any) -> Any:
    return client.describe_services(cluster="c", services=["web"])["services"][0]


def get_status(client: Any, arn: str) -> str:
    return str(client.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]["status"])


@dataclass
class Killed:
    """A server that was killed during a rollout and restarted, and its state before the kill."""

    server: LocalAws
    arn: str
    session: dict[str, str]
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def client(self) -> Any:
        return self.server.client()


def everything(server: LocalAws) -> dict[str, Any]:
    client = server.client()
    return {
        "service": describe(client),
        "definitions": [
            client.describe_task_definition(taskDefinition=name)["taskDefinition"] for name in ("kept:1", "web:1")
        ],
        "images": server.client("ecr").describe_images(repositoryName="agent")["imageDetails"],
        "tasks": client.list_tasks(cluster="c")["taskArns"],
        "lines": server.client("logs").filter_log_events(logGroupName="/ecs/web/app")["events"],
        "points": get_points(server),
        "now": server.now(),
        "faults": server.faults(),
        "ledger": server.ledger(),
    }


def get_points(server: LocalAws) -> Any:
    """Return every metric of `c/web` in its last hour."""
    names = (("AWS/ECS", "CPUUtilization"), ("ECS/ContainerInsights", "RunningTaskCount"))
    dimensions = [{"Name": "ClusterName", "Value": "c"}, {"Name": "ServiceName", "Value": "web"}]
    queries = [
        {
            "Id": f"m{number}",
            "MetricStat": {
                "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions},
                "Period": 60,
                "Stat": "Average",
            },
        }
        for number, (namespace, name) in enumerate(names)
    ]
    now = server.now()
    reply = server.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=now - 3600, EndTime=now, ScanBy="TimestampAscending"
    )
    assert all(each["Values"] for each in reply["MetricDataResults"])
    return reply["MetricDataResults"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    folder = tmp_path_factory.mktemp("killed")
    server = LocalAws.start(folder)
    client = seeded(server)
    server.seed(
        roles=[{"arn": ROLE, "external_id": "some-external-id"}],
        images=[{"repository": "agent", "tags": ["v1", "latest"], "pushed_at": 1_700_000_000}],
    )
    session = server.assume(ROLE, external_id="some-external-id")
    server.fault("crash", service="other", times=3)
    container = {"name": "app", "image": "example.org/app:v1", "memory": 64}
    client.register_task_definition(family="kept", cpu="256", memory="512", containerDefinitions=[container])
    client.deregister_task_definition(taskDefinition="web:1")
    reply = client.update_service(cluster="c", service="web", taskDefinition="kept")["service"]
    server.advance(16)
    before = everything(server)
    time.sleep(1.1)  # changes caused only by time are saved once a second
    describe(client)

    server.kill()
    server = LocalAws.start(folder)
    yield Killed(server, reply["currentServiceDeployment"], session, before, everything(server))
    server.stop()


def test_everything_is_as_it_was_before_the_kill(killed: Killed) -> None:
    assert killed.after == killed.before


def test_session_and_role_survive_the_kill(killed: Killed) -> None:
    client = boto3.client("sts", region_name="eu-central-1", endpoint_url=killed.server.url, **killed.session)  # type: ignore[call-overload] # of any names

    assert client.get_caller_identity()["Arn"] == "arn:aws:sts::222222222222:assumed-role/portal-upgrades/test"
    assert killed.server.assume(ROLE, external_id="some-external-id")


def test_rollout_continues_after_the_kill(killed: Killed) -> None:
    killed.server.advance(60)

    assert get_status(killed.client, killed.arn) == "SUCCESSFUL"
    assert describe(killed.client)["currentServiceDeployment"] == killed.arn


def test_no_write_whose_reply_was_sent_is_lost_to_a_kill(own_server: Start) -> None:
    server = own_server()
    client = seeded(server)
    replied: list[str] = []

    def write_until_refused() -> None:
        while True:
            try:
                reply = client.update_service(cluster="c", service="web", forceNewDeployment=True)
            except (BotoCoreError, ClientError):
                return
            replied.append(reply["service"]["currentServiceDeployment"])

    writer = threading.Thread(target=write_until_refused)
    writer.start()
    while len(replied) < 15:
        time.sleep(0.005)
    server.kill()
    writer.join()
    server = own_server()

    listed = server.client().list_service_deployments(cluster="c", service="web", maxResults=100)["serviceDeployments"]
    known = [each["serviceDeploymentArn"] for each in reversed(listed)][1:]
    ledger = [entry["service_deployment_arn"] for entry in server.ledger(action="UpdateService")]
    assert known == ledger
    assert known[: len(replied)] == replied


# The tests below run the application in this process, because starting a server takes seconds.


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """Return a function that starts the application on the same data folder, with moto empty as in a new process."""

    def start(*, demo: bool = False) -> Sandbox:
        moto_state.reset()
        sandbox = Sandbox(data_dir=tmp_path)
        if not sandbox.restore() and demo:
            seed_demo(sandbox)
            sandbox.save()
        return sandbox

    yield start
    moto_state.reset()


def test_time_passes_while_the_server_is_down(restarted: Callable[..., Sandbox]) -> None:
    sandbox = restarted()
    sandbox.clock.set_speed(100)
    seed(sandbox, {"cluster": "c", "services": [{"name": "web", "desired_count": 2}]})
    sandbox.engine.update_service(KEY, None, {"forceNewDeployment": True})
    sandbox.save()

    time.sleep(0.6)
    sandbox = restarted()

    service = sandbox.engine.require(KEY)
    assert service.service_deployments[0].status == "SUCCESSFUL"
    assert sandbox.clock.speed == 100


def test_state_from_a_version_without_logs_is_restored(restarted: Callable[..., Sandbox], tmp_path: Path) -> None:
    restarted(demo=True)
    state = json.loads((tmp_path / "state.json").read_text())
    for service in state["services"]:
        for name in ("past_tasks", "counts", "request_digest"):
            service.pop(name)
    (tmp_path / "state.json").write_text(json.dumps(state))

    assert len(restarted().engine.services) == 6


def test_a_pause_survives_a_restart(restarted: Callable[..., Sandbox]) -> None:
    sandbox = restarted()
    sandbox.clock.set_frozen(True)
    hook = {"targetType": "PAUSE", "lifecycleStages": ["POST_PRODUCTION_TRAFFIC_SHIFT"]}
    blue_green = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1, "lifecycleHooks": [hook]}
    seed(sandbox, {"cluster": "c", "services": [{"name": "web", "deployment_configuration": blue_green}]})
    sandbox.engine.update_service(KEY, None, {"forceNewDeployment": True})
    sandbox.clock.advance(120)
    before = vars(sandbox.engine.require(KEY).service_deployments[0]).copy()
    sandbox.save()

    sandbox = restarted()
    after = sandbox.engine.require(KEY).service_deployments[0]
    restored = copy.deepcopy(vars(after))
    (waiting,) = after.hooks
    place = (KEY.account, KEY.region, after.arn)
    sandbox.engine.continue_service_deployment(*place, hook_id=waiting["hookId"], action="CONTINUE")
    sandbox.clock.advance(120)

    assert restored == before
    assert (restored["lifecycle_stage"], restored["production_weight"]) == ("POST_PRODUCTION_TRAFFIC_SHIFT", 100.0)
    assert waiting["status"] == "SUCCEEDED"
    assert sandbox.engine.require(KEY).service_deployments[0].status == "SUCCESSFUL"


def test_a_rollout_from_a_version_without_stages_goes_on(restarted: Callable[..., Sandbox], tmp_path: Path) -> None:
    sandbox = restarted()
    seed(sandbox, {"cluster": "c", "services": [{"name": "web"}]})
    sandbox.engine.update_service(KEY, None, {"forceNewDeployment": True})
    sandbox.clock.set_frozen(True)
    sandbox.clock.advance(5)
    sandbox.engine.require(KEY)
    sandbox.save()
    state = json.loads((tmp_path / "state.json").read_text())
    new = ("stage_since", "step", "production_weight", "test_weight", "serving_revision_arn", "hooks")
    for each in state["services"][0]["service_deployments"]:
        for name in (*new, "hooks_started_at"):
            each.pop(name)
    for task in state["services"][0]["tasks"]:
        task.pop("exit_codes")
    (tmp_path / "state.json").write_text(json.dumps(state))

    sandbox = restarted()
    sandbox.clock.advance(120)

    assert sandbox.engine.require(KEY).service_deployments[0].status == "SUCCESSFUL"


def test_ledger_line_without_its_effect_is_dropped(restarted: Callable[..., Sandbox]) -> None:
    sandbox = restarted()
    sandbox.ledger.append({"action": "UpdateService"})
    sandbox.save()
    sandbox.ledger.append({"action": "DeleteService"})
    assert sandbox.ledger.path is not None
    with sandbox.ledger.path.open("a") as file:
        file.write('{"sequence": 3, "act')

    sandbox = restarted()
    sandbox.ledger.append({"action": "CreateService"})

    entries = [{"sequence": 1, "action": "UpdateService"}, {"sequence": 2, "action": "CreateService"}]
    assert sandbox.ledger.entries == entries
    sandbox.save()
    assert restarted().ledger.entries == entries


@pytest.mark.parametrize(
    "content",
    ["{", '{"format": 99}', '{"format": 1, "moto": "0.1"}', "[]", json.dumps({"format": 1, "moto": moto.__version__})],
)
def test_unusable_snapshots_are_renamed_with_a_message(
    restarted: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "state.json").write_text(content)

    sandbox = restarted()

    assert sandbox.engine.services == {}
    assert (tmp_path / "state.bad").read_text() == content
    assert not (tmp_path / "state.json").exists()
    errors = capsys.readouterr().err
    assert f"local AWS: {tmp_path}/state.json cannot be used: " in errors
    assert "starting with an empty state" in errors


def test_partly_loaded_snapshot_is_discarded(restarted: Callable[..., Sandbox], tmp_path: Path) -> None:
    sandbox = restarted(demo=True)
    sandbox.faults.add({"kind": "crash"})
    sandbox.save()
    state = json.loads((tmp_path / "state.json").read_text())
    state["services"][-1].pop("desired")
    (tmp_path / "state.json").write_text(json.dumps(state))

    sandbox = restarted()

    assert (sandbox.engine.services, sandbox.faults.active, sandbox.identity.roles) == ({}, [], {})
    assert moto_state.places() == []


def test_demo_is_seeded_at_the_first_start_only(restarted: Callable[..., Sandbox]) -> None:
    sandbox = restarted(demo=True)
    agent = ServiceKey("111111111111", "eu-central-1", "acme-prod-cluster", "acme-prod-agent-service")
    sandbox.engine.update_service(agent, None, {"desiredCount": 5})
    sandbox.save()

    sandbox = restarted(demo=True)

    assert len(sandbox.engine.services) == 6
    assert sandbox.engine.require(agent).desired == 5


def test_saving_the_demo_takes_milliseconds(restarted: Callable[..., Sandbox]) -> None:
    sandbox = restarted(demo=True)
    sandbox.save()

    took = []
    for _ in range(5):  # the fastest run counts, because the machine may be busy
        began = time.perf_counter()
        sandbox.save()
        took.append(time.perf_counter() - began)

    assert min(took) < 0.1
