"""/health, /livez and /readyz. test_headers.py tests them in production's settings with the database down."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from portal import __version__
from portal.aws.reachability import check_regions, forget_answers
from portal.models import Heartbeat, User
from portal.tasks import record_heartbeat
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.processes import wait_for

PARTS = ("database", "broker", "worker", "aws")


@pytest.fixture
def alive(db: None, local_aws: LocalAws) -> None:
    """Make every part healthy."""
    record_heartbeat("scheduler")
    record_heartbeat("worker")
    check_regions([], until=time.monotonic() + 10)  # the first call takes longer, because it creates the client


@pytest.fixture
def only_portal_example(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["portal.example"]


def assert_down(response: Any, part: str) -> None:
    """Check for a 503 that names only this part and nothing else."""
    verdicts = {name: "unhealthy" if name == part else "healthy" for name in PARTS}
    assert response.status_code == 503
    assert response.json() == {"status": "unhealthy", "version": __version__, "checks": verdicts, "silent": []}
    assert response.headers["Retry-After"] == "5"


def test_healthy_when_every_part_is_up(alive: None) -> None:
    response = Client().get("/health")

    assert response.status_code == 200
    verdicts = dict.fromkeys(PARTS, "healthy")
    assert response.json() == {"status": "healthy", "version": __version__, "checks": verdicts, "silent": []}


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_a_process_that_was_never_seen_is_down(alive: None, name: str) -> None:
    Heartbeat.objects.filter(name=name).delete()

    assert_down(Client().get("/health"), "worker")


@pytest.mark.parametrize(("seconds", "status"), [(25, 200), (31, 503)])
def test_a_heartbeat_is_fresh_for_thirty_seconds(alive: None, seconds: int, status: int) -> None:
    Heartbeat.objects.filter(name="worker").update(beat_at=Now() - timedelta(seconds=seconds))

    assert Client().get("/health").status_code == status


def test_a_broker_that_does_not_answer_is_down(alive: None, broker_down: None) -> None:
    assert_down(Client().get("/health"), "broker")


def test_aws_that_refuses_the_portals_credentials_is_down(alive: None, local_aws: LocalAws) -> None:
    local_aws.fault("access_denied", action="GetCallerIdentity")
    forget_answers()

    assert_down(Client().get("/health"), "aws")


def test_a_silent_region_is_named_and_the_others_count(
    alive: None, cast: Cast, platform: LocalAws, client_for: Callable[[User], Client]
) -> None:
    platform.fault("delay", seconds=4, region="us-east-1")
    client_for(cast.outsider).get("/o/globex/versions/")  # a page of an account in that region

    places = [{"region": "us-east-1", "account": "...2222"}, {"region": "us-east-1", "account": None}]
    response = wait_for(lambda: (answer := Client().get("/health")).json()["silent"] == places and answer)
    assert response.status_code == 200
    assert response.json()["checks"]["aws"] == response.json()["status"] == "degraded"


def test_aws_is_not_called_at_every_request(alive: None, local_aws: LocalAws) -> None:
    Client().get("/health")
    local_aws.fault("access_denied", action="GetCallerIdentity")

    assert Client().get("/health").status_code == 200


def test_livez_touches_no_database() -> None:
    response = Client().get("/livez")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_readyz_checks_only_the_database(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        response = Client().get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("host", ["10.0.12.34", "10.0.12.34:8000", "[fd00::1]:8000", "evil.example", "a b", ""])
def test_a_load_balancer_may_send_any_host(db: None, only_portal_example: None, path: str, host: str) -> None:
    response = Client().get(path, headers={"Host": host})

    assert response.status_code == 200
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/health", "/metrics", "/livez/", "/livez/x", "/api/v1/auth/session", "/", "/nowhere"]
)
def test_every_other_path_refuses_a_foreign_host(db: None, only_portal_example: None, path: str) -> None:
    response = Client().get(path, headers={"Host": "10.0.12.34"})

    assert response.status_code == 400
    assert "10.0.12.34" not in response.content.decode()


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_they_answer_head_and_refuse_other_methods(alive: None, path: str) -> None:
    head = Client().head(path)

    assert (head.status_code, head.content) == (200, b"")
    assert [getattr(Client(), method)(path).status_code for method in ("post", "put", "delete")] == [405, 405, 405]
