"""The IAM policies: the files are what the code builds, limited to one cluster, and the admin shows them filled in."""

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from django.test import Client

from portal.aws import credentials
from portal.aws.permissions import PERMISSIONS
from portal.aws.policies import build_portal_policy, build_queue_by_name_policy, build_role_policy, build_trust_policy
from portal.models import Organization, User
from tests.conftest import Cast
from tests.local_aws import ROOT, LocalAws

SignedIn = Callable[[User], Client]
PORTAL, OTHER = "arn:aws:iam::111111111111:role", "arn:aws:iam::222222222222:role"
QUEUE = "arn:aws:sqs:eu-central-1:111111111111"
FILES: dict[str, dict[str, Any]] = {
    "organization-role.json": build_role_policy(
        account="222222222222",
        region="eu-central-1",
        cluster="acme-prod-cluster",
        roles=[f"{OTHER}/acme-prod-execution", f"{OTHER}/acme-prod-task"],
    ),
    "organization-trust.json": build_trust_policy(
        principal=f"{PORTAL}/operations-portal", external_id="the-external-id-of-the-organization"
    ),
    "portal-role.json": build_portal_policy(roles=[f"{OTHER}/operations-portal"], queue=f"{QUEUE}:operations-portal"),
    "portal-role-queue-by-name.json": build_queue_by_name_policy(f"{QUEUE}:operations-portal-celery"),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_file_is_the_policy_that_the_code_builds(name: str) -> None:
    # To update a file, copy what the code builds.
    assert (ROOT / "docs/deploy/iam" / name).read_text() == json.dumps(FILES[name], indent=2) + "\n"


def test_the_role_of_an_organization_may_make_every_call_and_no_other() -> None:
    allowed = [action for statement in FILES["organization-role.json"]["Statement"] for action in statement["Action"]]

    assert sorted(allowed) == sorted(permission.action for permission in PERMISSIONS if permission.uses)


def test_only_what_iam_cannot_limit_is_allowed_everywhere() -> None:
    everywhere = {
        action
        for statement in FILES["organization-role.json"]["Statement"]
        if statement["Resource"] == ["*"] and "Condition" not in statement
        for action in statement["Action"]
    }

    assert everywhere == {"ecs:DescribeTaskDefinition", "ecs:RegisterTaskDefinition", "cloudwatch:GetMetricData"}


def read_policies(client: Client, organization: Organization) -> dict[str, dict[str, Any]]:
    """Return the policies on the admin's page by their titles."""
    page = client.get(f"/admin/portal/organization/{organization.pk}/iam-policies/").content.decode()
    found = re.findall(r'<pre class="policy" tabindex="0" aria-label="([^"]*)">(.*?)</pre>', page, re.S)
    return {unescape(title): json.loads(unescape(text)) for title, text in found}


def test_the_admin_shows_the_policies_filled_in(platform: LocalAws, cast: Cast, client_for: SignedIn) -> None:
    role, portal = cast.globex.deployment_role_arn, "arn:aws:iam::111111111111:user/portal"
    cast.globex.deployment_task_role_arn = f"{OTHER}/agents"
    cast.globex.save()

    policies = read_policies(client_for(cast.staff), cast.globex)

    assert policies == {
        f"Policy of {role}": build_role_policy(
            account="222222222222",
            region=cast.globex.deployment_region,
            cluster=str(cast.globex.cluster),
            roles=[f"{OTHER}/agents"],
        ),
        f"Trust policy of {role}": build_trust_policy(principal=portal, external_id=cast.globex.deployment_external_id),
        f"Addition to the policy of {portal}": build_portal_policy(roles=[role]),
    }


def test_without_a_role_the_portals_own_gets_the_policy(platform: LocalAws, cast: Cast, client_for: SignedIn) -> None:
    (policy,) = read_policies(client_for(cast.staff), cast.acme).values()

    assert policy == build_role_policy(
        account="111111111111",
        region=cast.acme.deployment_region,
        cluster=str(cast.acme.cluster),
        roles=[f"{PORTAL}/*"],
    )


def test_the_policies_are_shown_while_aws_is_silent(platform: LocalAws, cast: Cast, client_for: SignedIn) -> None:
    platform.fault("access_denied", action="GetCallerIdentity")

    policies = read_policies(client_for(cast.staff), cast.globex)

    trust = policies[f"Trust policy of {cast.globex.deployment_role_arn}"]
    assert trust["Statement"][0]["Principal"] == {"AWS": f"{PORTAL}/operations-portal"}


@pytest.fixture
def role_of_the_portal(platform: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the portal run with a session of a role that has a path, as a task of ECS does."""
    role = f"{PORTAL}/ecs/portal"
    platform.seed(roles=[{"arn": role, "external_id": None}])
    for name, value in platform.assume(role).items():
        monkeypatch.setenv(name.upper(), value)
    credentials._target_sessions.clear()
    yield
    credentials._target_sessions.clear()


@pytest.mark.usefixtures("role_of_the_portal")
def test_the_path_of_a_role_is_said_to_be_unknown(cast: Cast, client_for: SignedIn) -> None:
    page = client_for(cast.staff).get(f"/admin/portal/organization/{cast.globex.pk}/iam-policies/").content.decode()

    doubt = "if it has a path, as role/ecs/portal has, put in that ARN"
    title = f"Trust policy of {cast.globex.deployment_role_arn}"
    assert doubt in page.partition(f"<h2>{title}</h2>")[2].partition("<pre")[0]
    assert page.count(doubt) == 1
    assert f"{PORTAL}/portal" in page


def test_an_organization_without_a_cluster_has_no_policies(cast: Cast, client_for: SignedIn) -> None:
    bare = Organization.objects.create(slug="bare", name="Bare")

    page = client_for(cast.staff).get(f"/admin/portal/organization/{bare.pk}/iam-policies/")

    assert b"Neither cluster nor stack is set" in page.content
