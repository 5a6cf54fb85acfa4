"""A cache or broker that accepts connections and never answers: the first callers wait, the others do not ask it."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from portal.celery import app
from portal.models import User
from portal.outages import forget_outages
from tests.conftest import PASSWORD, Cast
from tests.local_aws import LocalAws
from upgrades.models import Rollout

SignIn = Callable[[User], Client]


class Silent:
    """A server that accepts connections, reads nothing and never answers, as a stopped Redis does."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.address = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"

    def count_connections(self) -> int:
        """Return how many connections were made since the last count."""
        count = 0
        while True:
            try:
                self.listening.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        listening.setblocking(False)
        yield Silent(listening)


@pytest.fixture
def cache_silent(silent: Silent, settings: Any) -> Silent:
    settings.OUTAGE_RETRY_SECONDS = 60
    settings.CACHES = {"default": settings.CACHES["default"] | {"BACKEND": "portal.cache.RedisCache"}}
    settings.CACHES["default"] |= {"LOCATION": silent.address, "OPTIONS": {"socket_timeout": 0.1}}
    forget_outages()
    return silent


@pytest.fixture
def broker_silent(silent: Silent, broker_down: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Silent:
    settings.OUTAGE_RETRY_SECONDS = 60
    for name in ("broker_url", "broker_write_url", "broker_read_url"):
        monkeypatch.setitem(app.conf, name, silent.address)
    return silent


def test_a_trigger_waits_once_for_a_silent_cache(
    cast: Cast, platform: LocalAws, client_for: SignIn, cache_silent: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"service": "all", "force_new_deployment": True})
    client = client_for(cast.operator)

    accepted = client.post("/api/v1/deployments/upgrade", body, content_type="application/json")
    calls = cache_silent.count_connections()
    page = client.get("/o/acme/upgrades/new")

    assert (accepted.status_code, page.status_code) == (202, 200)
    assert calls in (1, 2)  # the request, and the thread that reads the registries at the same moment
    assert cache_silent.count_connections() == 0
    assert caplog.text.count("cache does not answer") == 1


def test_a_trigger_waits_once_for_a_silent_broker(
    cast: Cast, platform: LocalAws, client_for: SignIn, broker_silent: Silent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        for service in ("agent", "orchestrator"):
            body = json.dumps({"service": service, "force_new_deployment": True})
            accepted = client_for(cast.operator).post(
                "/api/v1/deployments/upgrade", body, content_type="application/json"
            )
            assert accepted.status_code == 202

    assert Rollout.objects.due().count() == 2
    assert broker_silent.count_connections() == 1


def test_a_sign_in_is_503_while_its_limits_cannot_be_counted(cast: Cast, cache_silent: Silent) -> None:
    body = json.dumps({"email": cast.viewer.email, "password": PASSWORD})

    answers = [Client().post("/api/v1/auth/login", body, content_type="application/json") for _ in range(3)]

    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "5")] * 3
    assert answers[0].json()["code"] == "dependency_down"
    assert cache_silent.count_connections() == 1
