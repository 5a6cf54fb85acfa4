"""Concurrent triggers over real HTTP and real connections: one upgrade, and a correct answer to every caller."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, audited_changes
from tests.local_aws import LocalAws
from tests.outside import as_json, outside
from tests.upgrades.conftest import UPGRADE
from upgrades.models import Rollout, Upgrade

pytestmark = pytest.mark.django_db(transaction=True)

SignIn = Callable[[User], Client]


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.content))


class Crowd:
    """Callers that start together, each with a session and a connection of its own."""

    def __init__(self, url: str, client_for: SignIn) -> None:
        self.address = urlsplit(url).netloc
        self.client_for = client_for

    def trigger(self, callers: list[tuple[User, dict[str, Any], dict[str, str]]]) -> list[Answer]:
        """POST (person, body, headers) of all callers at the same time and return the answers in their order."""
        answers: dict[int, Answer] = {}
        together = threading.Barrier(len(callers))
        cookies = [self.get_cookies(person) for person, _, _ in callers]
        connections = [self.connect() for _ in callers]

        def call(number: int) -> None:
            _, body, headers = callers[number]
            together.wait()
            connections[number].request("POST", UPGRADE, json.dumps(body), cookies[number] | headers)
            reply = connections[number].getresponse()
            answers[number] = Answer(reply.status, reply.read())

        threads = [threading.Thread(target=call, args=(number,)) for number in range(len(callers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        for connection in connections:
            connection.close()
        return [answers[number] for number in range(len(callers))]

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that the server has already accepted. Its queue is too short for forty new ones."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        connection.request("GET", "/livez")
        connection.getresponse().read()
        return connection

    def get_cookies(self, person: User) -> dict[str, str]:
        client = self.client_for(person)
        client.get("/api/v1/auth/session")
        token = client.cookies["csrftoken"].value
        return {
            "Content-Type": "application/json",
            "Cookie": f"sessionid={client.cookies['sessionid'].value}; csrftoken={token}",
            "X-CSRFToken": token,
        }


@pytest.fixture
def crowd(cast: Cast, platform: LocalAws, live_server: Any, client_for: SignIn) -> Crowd:
    return Crowd(live_server.url, client_for)


def test_of_forty_concurrent_triggers_exactly_one_is_accepted(cast: Cast, crowd: Crowd) -> None:
    people = [cast.operator, cast.admin, cast.consultant]
    body = {"service": "agent", "force_new_deployment": True}
    named = {"X-Organization": "acme"}

    answers = crowd.trigger([(people[number % 3], body, named) for number in range(40)])

    assert Counter(answer.status for answer in answers) == {202: 1, 409: 39}
    upgrade = Upgrade.objects.get()
    assert {answer.body["upgrade_id"] for answer in answers} == {upgrade.upgrade_id}
    assert Rollout.objects.count() == 1
    assert audited_changes().count() == 1


def test_an_unhealthy_platform_refuses_all_but_is_read_twice(cast: Cast, crowd: Crowd, platform: LocalAws) -> None:
    """Read once for display and once before a refusal. One request reads, and the others wait for its result."""
    with outside() as server:
        server.otherwise = as_json({"status": "starting", "healthy": False}, seconds=0.5)
        cast.acme.platform_agent_url = cast.acme.platform_orchestrator_url = server.url
        cast.acme.save()

        answers = crowd.trigger([(cast.operator, {"service": "agent"}, {})] * 20)

        assert {(answer.status, answer.body["code"]) for answer in answers} == {(409, "preflight_failed")}
        assert len(server.requests) <= 3 * 4
    assert Upgrade.objects.count() == 0


def test_twenty_concurrent_requests_with_one_key_are_one_upgrade(cast: Cast, crowd: Crowd) -> None:
    body = {"service": "all", "reason": "OPS-1"}

    answers = crowd.trigger([(cast.operator, body, {"Idempotency-Key": "once"})] * 20)

    assert {answer.status for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Upgrade.objects.count() == 1
    assert audited_changes().count() == 1


def test_of_two_concurrent_requests_with_one_key_one_wins(cast: Cast, crowd: Crowd) -> None:
    key = {"Idempotency-Key": "once"}

    answers = crowd.trigger([(cast.operator, {"service": service}, key) for service in ("agent", "orchestrator")] * 8)

    assert Counter(answer.status for answer in answers) == {202: 8, 422: 8}
    assert Upgrade.objects.count() == 1


def test_all_and_single_services_never_overlap_or_deadlock(cast: Cast, crowd: Crowd) -> None:
    targets = ["all", "customer-portal", "all", "agent", "orchestrator"] * 6

    answers = crowd.trigger([(cast.operator, {"service": target}, {}) for target in targets])

    assert {answer.status for answer in answers} == {202, 409}
    accepted = {answer.body["upgrade_id"] for answer in answers if answer.status == 202}
    assert accepted == set(Upgrade.objects.values_list("upgrade_id", flat=True))
    services = list(Rollout.objects.values_list("service", flat=True))
    assert len(services) == len(set(services))
    assert {answer.body["upgrade_id"] for answer in answers if answer.status == 409} <= accepted


def test_two_organizations_do_not_block_each_other(cast: Cast, crowd: Crowd) -> None:
    body = {"service": "all"}

    answers = crowd.trigger([(person, body, {}) for person in (cast.operator, cast.outsider)] * 5)

    assert Counter(answer.status for answer in answers) == {202: 2, 409: 8}
    assert {upgrade.organization for upgrade in Upgrade.objects.all()} == {cast.acme, cast.globex}
