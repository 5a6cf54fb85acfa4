"""Pre-flight: how long it takes, how long its findings are kept, and what happens when a check hangs or crashes."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from portal.models import Organization, User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.outside import Outside, as_json, outside
from tests.upgrades.conftest import (
    UPGRADE,
    Door,
    assert_refused,
    post_json,
)
from tests.upgrades.preflight_checks import ask
from upgrades.checks import preflight
from upgrades.states import CheckStatus

SignIn = Callable[[User], Client]
PROBES = ["agent_health", "orchestrator_health", "connectors", "providers"]


@pytest.fixture
def server() -> Iterator[Outside]:
    with outside() as running:
        yield running


HEALTHY = {
    "/health": {"status": "healthy", "components": {"llm_router": True}},
    "/mcp/health": {"healthy": True, "total_connectors": 1},
    "/api/v1/llm-providers/status": {"providers": {"openai": {"status": "healthy"}}},
}


def stand_in(server: Outside, organization: Organization, *, seconds: float = 0, healthy: bool = True) -> None:
    """Use the test's own server as the organization's platform."""
    organization.platform_agent_url = organization.platform_orchestrator_url = server.url
    organization.save()
    for path, body in HEALTHY.items():
        server.answers[path] = as_json(body, status=200 if healthy else 503, seconds=seconds)


def test_a_trigger_waits_at_most_four_seconds(
    cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn
) -> None:
    stand_in(server, cast.acme, seconds=20)
    platform.fault("delay", action="DescribeServices", account="111111111111", seconds=20)
    client = client_for(cast.operator)
    client.get("/api/v1/auth/session")
    began = time.monotonic()

    response = post_json(client, UPGRADE, {"service": "agent"})

    assert time.monotonic() - began < 8  # 10 in sequence; a busy machine adds to the 4
    assert "No complete response within 3 seconds" in assert_refused(response, 409, "preflight_failed")["detail"]


def test_the_probes_run_in_parallel(cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn) -> None:
    stand_in(server, cast.acme, seconds=1)
    began = time.monotonic()

    checks = ask(client_for(cast.viewer))

    assert time.monotonic() - began < 3.8  # 4 in sequence
    assert [checks[name]["status"] for name in PROBES] == ["pass"] * 4


def test_findings_are_cached_for_all_users(cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn) -> None:
    stand_in(server, cast.acme)
    for person in (cast.viewer, cast.operator, cast.admin):
        ask(client_for(person))
        ask(client_for(person), service="agent")

    assert len(server.requests) == 4


def test_another_organization_or_address_is_read_again(
    cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn
) -> None:
    stand_in(server, cast.acme, healthy=False)
    with outside() as other:
        stand_in(other, cast.globex)
        assert [ask(client_for(cast.outsider))[name]["status"] for name in PROBES] == ["pass"] * 4
        assert [ask(client_for(cast.viewer))[name]["status"] for name in PROBES] == ["fail"] * 4
        stand_in(other, cast.acme)
        assert [ask(client_for(cast.viewer))[name]["status"] for name in PROBES] == ["pass"] * 4


def test_a_failed_check_is_repeated_at_the_trigger(
    cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn, door: Door
) -> None:
    """A failure that the page showed some seconds ago may have been fixed since."""
    stand_in(server, cast.acme, healthy=False)
    client = client_for(cast.operator)
    assert ask(client)["agent_health"]["status"] == "fail"
    stand_in(server, cast.acme)
    time.sleep(1.1)

    assert door.trigger(client, cast.acme).status_code == door.accepted

    assert len(server.requests) == 8


def test_a_failure_that_is_unknown_now_still_blocks(
    cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn
) -> None:
    stand_in(server, cast.acme, healthy=False)
    client = client_for(cast.operator)
    assert ask(client)["agent_health"]["status"] == "fail"
    stand_in(server, cast.acme, seconds=9)
    time.sleep(1.1)
    preflight.ProbeBatch(cast.acme, fresh_seconds=1)  # another request is waiting for an answer

    response = post_json(client, UPGRADE, {"service": "agent"})

    assert "agent_health" in assert_refused(response, 409, "preflight_failed")["checks"]


def test_concurrent_requests_wait_for_one_reading(cast: Cast, platform: LocalAws, server: Outside) -> None:
    stand_in(server, cast.acme, seconds=0.5)
    found: list[list[CheckStatus]] = []

    def read_preflight() -> None:
        asking = preflight.ProbeBatch(cast.acme, fresh_seconds=5)
        found.append([dated.finding.status for dated in asking.answers(time.monotonic() + 3).values()])

    threads = [threading.Thread(target=read_preflight) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[CheckStatus.PASS] * 4] * 20
    assert len(server.requests) == 4


def test_after_a_request_died_findings_are_unknown_for_a_while(cast: Cast, platform: LocalAws, server: Outside) -> None:
    stand_in(server, cast.acme, seconds=5)
    preflight.ProbeBatch(cast.acme, fresh_seconds=5)  # and its answers are never collected

    late = preflight.ProbeBatch(cast.acme, fresh_seconds=5).answers(time.monotonic() + 0.2)

    assert {dated.finding.detail for dated in late.values()} == {preflight.TOO_LATE}


def test_a_crashed_probe_is_unknown_and_later_repeated(
    cast: Cast, platform: LocalAws, server: Outside, client_for: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise MemoryError

    stand_in(server, cast.acme)
    cast.acme.platform_agent_url = server.url.replace("http:", "https:")
    cast.acme.save()
    client = client_for(cast.viewer)
    with monkeypatch.context() as broken:
        broken.setattr(ssl.SSLContext, "wrap_socket", break_down)
        checks = ask(client)
    assert [checks[name]["status"] for name in PROBES] == ["unknown", "pass", "unknown", "pass"]
    assert "The portal failed to run this check" in checks["agent_health"]["detail"]

    stand_in(server, cast.acme)

    assert [ask(client)[name]["status"] for name in PROBES] == ["pass"] * 4
