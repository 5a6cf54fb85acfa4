"""The control API: seeding, invalid input, the clock."""

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.local_aws import ControlApiError, LocalAws
from tests.processes import wait_for


def test_health_answers(aws: LocalAws) -> None:
    assert aws.call("GET", "health")["status"] == "ok"


def test_a_connection_stays_open_from_call_to_call(aws: LocalAws) -> None:
    with closing(HTTPConnection(aws.url.removeprefix("http://"), timeout=10)) as connection:
        sockets = []
        for method, path, body in (("POST", "seed", b"not JSON"), ("GET", "nothing", b""), ("GET", "health", b"")):
            connection.request(method, f"/_sandbox/{path}", body)
            connection.getresponse().read()
            sockets.append(connection.sock)

    assert sockets[0] is not None
    assert sockets == [sockets[0]] * 3


def test_seeded_service_is_steady_with_one_completed_deployment(aws: LocalAws) -> None:
    cluster = f"c-{uuid.uuid4().hex[:8]}"

    made = aws.seed(
        cluster=cluster,
        services=[
            {
                "name": "acme-agent-service",
                "family": "acme-agent",
                "container": "agent",
                "image": "example.org/agent:v1",
                "desired_count": 3,
                "breaker": True,
                "rollback": False,
                "minimum_percent": 50,
                "maximum_percent": 150,
                "environment": {"LOG_LEVEL": "info"},
                "secrets": {"TOKEN": "arn:aws:secretsmanager:eu-central-1:111111111111:secret:token"},
            }
        ],
    )["services"][0]
    client = aws.client()
    service = client.describe_services(cluster=cluster, services=["acme-agent-service"])["services"][0]
    definition = client.describe_task_definition(taskDefinition=made["task_definition"])["taskDefinition"]

    assert service["currentServiceDeployment"] == made["service_deployment_arn"]
    assert [(each["id"], each["rolloutState"]) for each in service["deployments"]] == [
        (made["deployment_id"], "COMPLETED")
    ]
    assert (service["runningCount"], service["pendingCount"]) == (3, 0)
    assert service["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": False}
    assert service["deploymentConfiguration"]["minimumHealthyPercent"] == 50
    container = definition["containerDefinitions"][0]
    assert (container["name"], container["image"]) == ("agent", "example.org/agent:v1")
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/ecs/acme/agent"
    assert container["environment"] == [{"name": "LOG_LEVEL", "value": "info"}]
    assert definition["family"] == "acme-agent"


def test_seeding_takes_milliseconds(aws: LocalAws) -> None:
    aws.seed(cluster="warm", services=[{"name": "web"}])

    took = []
    for _ in range(5):  # the fastest run counts, because the machine may be busy
        began = time.monotonic()
        aws.seed(cluster=f"c-{uuid.uuid4().hex[:8]}", services=[{"name": f"s{number}"} for number in range(3)])
        took.append(time.monotonic() - began)

    assert min(took) < 0.1


def test_seeded_image_is_in_ecr_and_others_cannot_be_pulled(aws: LocalAws) -> None:
    cluster, repository = f"c-{uuid.uuid4().hex[:8]}", f"r-{uuid.uuid4().hex[:8]}"
    registry = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"
    pushed = {"repository": repository, "tags": ["v1", "latest"], "pushed_at": 1_700_000_000}
    aws.seed(cluster=cluster, images=[pushed], services=[{"name": "web", "image": f"{registry}/{repository}:v1"}])
    client = aws.client()

    (image,) = aws.client("ecr").describe_images(repositoryName=repository)["imageDetails"]
    definition = client.register_task_definition(
        family="web", containerDefinitions=[{"name": "app", "memory": 64, "image": f"{registry}/{repository}:v2"}]
    )["taskDefinition"]["taskDefinitionArn"]
    arn = client.update_service(cluster=cluster, service="web", taskDefinition=definition)["service"][
        "currentServiceDeployment"
    ]
    aws.advance(60)

    assert sorted(image["imageTags"]) == ["latest", "v1"]
    assert image["imagePushedAt"].timestamp() == 1_700_000_000
    task = client.list_tasks(cluster=cluster, serviceName="web")["taskArns"][0]
    container = client.describe_tasks(cluster=cluster, tasks=[task])["tasks"][0]["containers"][0]
    assert container["imageDigest"] == image["imageDigest"]
    deployment = client.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]
    assert deployment["deploymentCircuitBreaker"]["status"] == "TRIGGERED"


def test_state_lists_services_with_counts(aws: LocalAws) -> None:
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    aws.seed(cluster=cluster, services=[{"name": "web", "desired_count": 2}])

    (service,) = [each for each in aws.state() if each["cluster"] == cluster]

    assert (service["name"], service["desired"], service["running"], service["pending"]) == ("web", 2, 2, 0)
    assert service["service_deployment_status"] == "SUCCESSFUL"


def test_control_api_shows_deployments_despite_stale_reads(aws: LocalAws) -> None:
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    seeded = aws.seed(cluster=cluster, services=[{"name": "web"}])["services"][0]["service_deployment_arn"]
    aws.fault("stale_reads", cluster=cluster, seconds=90)
    aws.fault("crash", cluster=cluster)
    client = aws.client()
    arn = client.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]
    aws.advance(80)

    web = aws.deployments(cluster)["web"]
    shown = client.describe_services(cluster=cluster, services=["web"])["services"][0]

    assert [each["arn"] for each in web["deployments"]] == [arn["currentServiceDeployment"], seeded]
    assert (web["status"], web["deployments"][1]["status"]) == ("ACTIVE", "SUCCESSFUL")
    assert web["deployments"][0]["status"] == "ROLLBACK_SUCCESSFUL"
    assert web["deployments"][0]["breaker"] == "TRIGGERED"
    assert shown["currentServiceDeployment"] == seeded
    with pytest.raises(ControlApiError, match="`cluster`"):
        aws.call("GET", "deployments")


def test_clock_is_frozen_advanced_and_sped_up(aws: LocalAws) -> None:
    frozen = aws.freeze()

    assert aws.now() == frozen
    assert aws.advance(90) == pytest.approx(frozen + 90)
    aws.call("POST", "clock", {"speed": 1000.0, "frozen": False})
    time.sleep(0.05)
    assert aws.now() > frozen + 90 + 40
    aws.call("POST", "clock", {"speed": 1.0, "frozen": True})


def test_a_faster_pace_keeps_the_clock(own_server: Callable[..., LocalAws]) -> None:
    """A rollout of 40 seconds ends within a few, and none of its times is ahead of ours."""
    aws = own_server(pace=20, demo=True)
    client, place = aws.client(), {"cluster": "acme-prod-cluster"}
    client.update_service(**place, service="acme-prod-agent-service", forceNewDeployment=True)

    def read() -> dict[str, Any]:
        return client.describe_services(**place, services=["acme-prod-agent-service"])["services"][0]

    wait_for(lambda: read()["deployments"][0]["rolloutState"] == "COMPLETED", seconds=20)
    events = [each["createdAt"].timestamp() for each in read()["events"]]
    assert len(events) > 2
    assert max(events) <= time.time() + 1
    assert aws.now() == pytest.approx(time.time(), abs=1)


def test_reset_drops_everything(aws: LocalAws) -> None:
    role = "arn:aws:iam::666666666666:role/gone"
    aws.seed(cluster="gone", services=[{"name": "web"}], images=[{"repository": "gone", "tags": ["v1"]}])
    aws.seed(roles=[{"arn": role}])
    aws.fault("throttle", action="Nothing")
    aws.client().update_service(cluster="gone", service="web", forceNewDeployment=True)

    aws.reset()
    aws.freeze()

    assert aws.state() == []
    assert aws.faults() == []
    assert aws.ledger() == []
    assert aws.client().list_clusters()["clusterArns"] == []
    assert aws.client("ecr").describe_repositories()["repositories"] == []
    assert abs(aws.now() - time.time()) < 5


def test_state_can_be_seeded_again_after_two_resets(aws: LocalAws) -> None:
    for _ in range(2):
        aws.reset()
        aws.freeze()
        aws.seed(cluster="again", services=[{"name": "web"}])

        assert len(aws.client().list_services(cluster="again")["serviceArns"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("faults", {"kind": "explode"}, "`kind`"),
        ("faults", {}, "`kind`"),
        ("faults", {"kind": "crash", "services": "web"}, "`services`"),
        ("faults", {"kind": "crash", "times": "many"}, "`times`"),
        ("faults", {"kind": "crash", "times": 0}, "`times`"),
        ("faults", {"kind": "crash", "times": -1}, "`times`"),
        ("faults", {"kind": "crash", "service": 7}, "`service`"),
        ("faults", {"kind": "crash", "rollbacks": "yes"}, "`rollbacks`"),
        ("faults", {"kind": "error"}, "`code`"),
        ("faults", {"kind": "slow"}, "`factor`"),
        ("faults", {"kind": "alarm", "alarm_names": "one"}, "`alarm_names`"),
        ("clock", {"advance_seconds": -1}, "`advance_seconds`"),
        ("clock", {"advance_seconds": True}, "`advance_seconds`"),
        ("clock", {"speed": 0}, "`speed`"),
        ("clock", {"frozen": 1}, "`frozen`"),
        ("clock", {"faster": 1}, "`faster`"),
        ("throttling", {"enabled": "no"}, "`enabled`"),
        ("throttling", {"scale": 0}, "`scale`"),
        ("seed", {"services": [{"name": "web"}]}, "`cluster`"),
        ("seed", {"cluster": 5}, "`cluster`"),
        ("seed", {"cluster": "c", "services": [{}]}, "`services[0].name`"),
        ("seed", {"cluster": "c", "services": [{"name": "web", "desired": 2}]}, "`services[0].desired`"),
        ("seed", {"cluster": "c", "services": [{"name": "web", "desired_count": "2"}]}, "`services[0].desired_count`"),
        ("seed", {"cluster": "c", "services": [{"name": "web", "desired_count": True}]}, "`services[0].desired_count`"),
        ("seed", {"cluster": "c", "services": {"name": "web"}}, "`services`"),
        ("seed", {"roles": [{"arn": "portal"}]}, "`roles[0].arn`"),
        ("seed", {"images": [{"repository": "r"}]}, "`images[0]`"),
        ("seed", {"clusters": ["c"]}, "`clusters`"),
    ],
)
def test_bad_input_is_refused_with_the_field_named(aws: LocalAws, path: str, body: Any, named: str) -> None:
    with pytest.raises(ControlApiError) as refused:
        aws.call("POST", path, body)

    assert refused.value.status == 400
    assert named in refused.value.message


@pytest.mark.parametrize("query", ["colour=red", "since=soon"])
def test_unknown_ledger_filter_is_refused(aws: LocalAws, query: str) -> None:
    with pytest.raises(ControlApiError) as refused:
        aws.call("GET", f"ledger?{query}")

    assert refused.value.status == 400
    assert query.split("=")[0] in refused.value.message


def test_body_that_is_not_a_json_object_is_refused(aws: LocalAws) -> None:
    with pytest.raises(ControlApiError) as refused:
        aws.call("POST", "clock", ["not", "an", "object"])  # type: ignore[arg-type] # refused

    assert (refused.value.status, refused.value.message) == (400, "The body must be a JSON object.")


def test_unknown_route_method_and_fault_are_refused(aws: LocalAws) -> None:
    for method, path, status in (("GET", "nowhere", 404), ("DELETE", "clock", 405), ("DELETE", "faults?id=no", 400)):
        with pytest.raises(ControlApiError) as refused:
            aws.call(method, path)

        assert refused.value.status == status
