"""Deployments while Redis is down: an outage counts as a cache miss in pages, reads, commands and the engine."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.commands import mark_watched, scale_deployment
from deployments.models import Deployment
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, Runtime, send_json
from tests.local_aws import LocalAws

SignIn = Callable[[User], Client]
LIST = "/o/acme/deployments/"


@pytest.fixture
def ready(runtime: Runtime, deployment: Deployment) -> Deployment:
    """Return a deployment that runs and has written log lines and metrics."""
    runtime.run(deployment, "ready")
    runtime.local_aws.advance(180)
    return deployment


@pytest.fixture
def deployment_without_cache(ready: Deployment, cache_down: None) -> Deployment:
    return ready


@pytest.mark.parametrize(
    ("path", "region"),
    [
        (LIST, None),
        (LIST, "rows"),
        (f"{LIST}new", None),
        ("{page}", None),
        ("{page}?whole=1", None),
        ("{page}", "state"),
        ("{page}", "timeline"),
        ("{page}", "metrics"),
        ("{page}", "logs"),
        ("{page}?follow=1", "log-poll"),
        ("{page}logs.txt", None),
        ("{page}stop", None),
        ("/o/acme/agents/", None),
        ("/o/acme/agents/{agent}/", None),
    ],
)
def test_pages_work_while_the_cache_is_down(
    cast: Cast, client_for: SignIn, deployment_without_cache: Deployment, path: str, region: str | None
) -> None:
    deployment = deployment_without_cache
    url = path.format(page=f"{LIST}{deployment.pk}/", agent=deployment.agent_id)
    headers = {"HX-Request": "true", "HX-Target": region} if region else {}

    response = client_for(cast.operator).get(url, headers=headers)

    assert response.status_code == 200
    assert "could not be read" not in response.content.decode()


@pytest.mark.parametrize("path", ["", "/{id}", "/{id}/events", "/{id}/logs", "/{id}/metrics"])
def test_api_reads_work_while_the_cache_is_down(
    cast: Cast, client_for: SignIn, deployment_without_cache: Deployment, path: str
) -> None:
    response = client_for(cast.viewer).get(DEPLOYMENTS + path.format(id=deployment_without_cache.pk))

    assert response.status_code == 200
    assert response.json().get("items") != []


def test_logs_and_metrics_without_cache_still_name_the_error_of_aws(
    cast: Cast, client_for: SignIn, deployment_without_cache: Deployment, local_aws: LocalAws
) -> None:
    local_aws.fault("throttle", action="*")
    client = client_for(cast.viewer)

    answers = [client.get(f"{DEPLOYMENTS}/{deployment_without_cache.pk}/{name}") for name in ("logs", "metrics")]

    assert [answer.status_code for answer in answers] == [502, 502]


def test_commands_work_while_the_cache_is_down(
    cast: Cast, client_for: SignIn, deployment_without_cache: Deployment
) -> None:
    client, deployment = client_for(cast.operator), deployment_without_cache

    created = send_json(client, "post", DEPLOYMENTS, {"agent_id": str(deployment.agent_id)})
    scaled = send_json(client, "post", f"{DEPLOYMENTS}/{deployment.pk}/scale", {"replicas": 3})
    stopped = client.post(f"{LIST}{deployment.pk}/stop", {"idempotency_key": "k1"})

    deployment.refresh_from_db()
    assert (created.status_code, scaled.status_code, stopped.status_code) == (201, 200, 302)
    assert (deployment.replicas, deployment.wanted) == (3, "stopped")


def test_engine_works_while_the_cache_is_down(
    cast: Cast, runtime: Runtime, deployment: Deployment, cache_down: None
) -> None:
    """Create and scale one deployment without the cached settings of the platform's agent service."""
    runtime.run(deployment, "ready")
    scale_deployment(deployment, actor=cast.operator, replicas=3)

    runtime.run(deployment, "ready")

    assert (deployment.desired_count, deployment.check_error) == (3, None)


def test_viewing_polls_often_while_the_cache_is_down(deployment_without_cache: Deployment) -> None:
    mark_watched(deployment_without_cache)
    mark_watched()

    deployment_without_cache.refresh_from_db()
    watched_until: Any = deployment_without_cache.watched_until
    assert watched_until > timezone.now() + timedelta(seconds=15)
