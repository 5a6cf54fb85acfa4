"""GET /api/v1/deployments/versions (spec/api.md section 4)."""

from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import VERSIONS, assert_refused, make_upgrade

SignIn = Callable[[User], Client]


def test_what_runs_and_what_ran(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    upgrade.rollouts.update(to_version="v9.8.0")

    response = client_for(cast.viewer).get(VERSIONS)

    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["organization", "versions", "current", "selection", "message"]
    assert body["organization"] == "acme"
    assert body["versions"] == ["v9.9.0", "v9.8.0"]
    assert body["current"] == {"agent": "v9.9.0", "orchestrator": "v9.9.0", "customer-portal": "v9.9.0"}
    assert body["selection"] == "limited"
    assert body["message"].startswith("Version selection is limited")


def test_a_service_that_is_missing_has_null(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_platform(local_aws, cast.acme)
    local_aws.client().delete_service(
        cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-agent-service", force=True
    )
    local_aws.advance(600)

    assert client_for(cast.viewer).get(VERSIONS).json()["current"]["agent"] is None


def test_aws_being_down_is_said_and_history_still_told(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    make_upgrade(cast.acme, by=cast.operator).rollouts.update(to_version="v9.8.0")
    platform.fault("access_denied", action="*", account="111111111111")

    body = client_for(cast.viewer).get(VERSIONS).json()

    assert body["versions"] == ["v9.8.0"]
    assert body["current"] == {"agent": None, "orchestrator": None, "customer-portal": None}
    assert "could not be read" in body["message"]


def test_an_organization_without_cluster_is_told_so(cast: Cast, client_for: SignIn, local_aws: LocalAws) -> None:
    body = client_for(cast.newcomer).get(VERSIONS).json()

    assert (body["organization"], body["versions"]) == ("initech", [])
    assert "neither cluster nor stack" in body["message"]


def test_another_organizations_past_is_not_told(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    make_upgrade(cast.globex, by=cast.outsider).rollouts.update(to_version="v-of-globex")

    assert "v-of-globex" not in client_for(cast.viewer).get(VERSIONS).content.decode()


def test_a_consultant_names_the_organization(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.consultant)

    assert_refused(client.get(VERSIONS), 400, "organization_required")
    assert client.get(VERSIONS, headers={"X-Organization": "globex"}).json()["organization"] == "globex"


@pytest.mark.parametrize("person", ["outsider", "stranger", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str) -> None:
    client = client_for(getattr(cast, person))

    assert_refused(client.get(VERSIONS, headers={"X-Organization": "acme"}), 404, "not_found")


def test_anonymous_gets_401(cast: Cast) -> None:
    assert_refused(Client().get(VERSIONS), 401, "not_authenticated")


@pytest.mark.parametrize("query", ["service=agent", "x="])
def test_an_unknown_query_key_is_400(cast: Cast, client_for: SignIn, query: str) -> None:
    assert_refused(client_for(cast.viewer).get(f"{VERSIONS}?{query}"), 400, "invalid")


def test_another_method_is_405_and_a_trailing_slash_404(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.admin)

    assert_refused(client.post(VERSIONS), 405, "method_not_allowed")
    assert_refused(client.get(f"{VERSIONS}/"), 404, "not_found")
