"""The connection test: what staff see about an organization's AWS account, and missing permissions."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.admin.connection_test import Step, StepStatus
from portal.admin.connection_test import test_connection as try_connection
from portal.aws.deadline import call_with_deadline
from portal.aws.errors import AwsUnavailable
from portal.errors import PortalError
from portal.models import AuditEvent, Organization, User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.conftest import audit_kinds

pytestmark = pytest.mark.usefixtures("registry")

SignedIn = Callable[[User], Client]
WRITES = {
    "ecs:UpdateService",
    "ecs:RegisterTaskDefinition",
    "iam:PassRole",
    "ecs:StopServiceDeployment",
    "ecs:ContinueServiceDeployment",
}


def get_page_url(organization: Organization) -> str:
    return f"/admin/portal/organization/{organization.pk}/test-connection/"


def permissions(steps: list[Step], status: StepStatus) -> set[str | None]:
    return {step.permission for step in steps if step.status == status}


def test_a_connection_that_works(platform: LocalAws, cast: Cast) -> None:
    steps = try_connection(cast.acme, actor=cast.staff)

    assert permissions(steps, StepStatus.OK) == {
        "sts:GetCallerIdentity",
        "ecs:DescribeClusters",
        "ecs:DescribeServices",
        "ecs:DescribeTaskDefinition",
        "ecr:DescribeImages",
        "ecr:BatchGetImage",
        "ecs:ListServiceDeployments",
        "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions",
        "ecs:ListTasks",
        "ecs:DescribeTasks",
    }
    assert permissions(steps, StepStatus.FAILED) == set()
    assert sum(step.name.startswith(f"Find {cast.acme.deployment_stack}-") for step in steps) == 3


def test_a_write_permission_is_never_ok(platform: LocalAws, cast: Cast) -> None:
    steps = try_connection(cast.acme, actor=cast.staff)

    assert permissions(steps, StepStatus.UNKNOWN) == WRITES
    assert platform.ledger() == []


def test_each_test_assumes_the_role_again(platform: LocalAws, cast: Cast) -> None:
    before = try_connection(cast.globex, actor=cast.staff)
    platform.seed(roles=[{"arn": cast.globex.deployment_role_arn, "external_id": "another-one"}])
    after = try_connection(cast.globex, actor=cast.staff)

    assert (before[0].status, before[0].permission) == (StepStatus.OK, "sts:AssumeRole")
    assert before[0].detail == "This is AWS account 222222222222."
    assert after[0].status == StepStatus.FAILED


def test_a_role_that_does_not_trust_the_portal_ends_the_test(platform: LocalAws, cast: Cast) -> None:
    cast.globex.deployment_external_id = "wrong"

    first, *rest = try_connection(cast.globex, actor=cast.staff)

    assert (first.status, first.permission) == (StepStatus.FAILED, "sts:AssumeRole")
    assert "sts:AssumeRole is missing" in first.detail
    assert "AccessDenied" in first.detail
    assert {step.status for step in rest} == {StepStatus.UNKNOWN}


@pytest.mark.parametrize(
    "action",
    [
        "DescribeClusters",
        "DescribeServices",
        "DescribeTaskDefinition",
        "DescribeImages",
        "BatchGetImage",
        "ListServiceDeployments",
        "DescribeServiceDeployments",
        "DescribeServiceRevisions",
        "ListTasks",
        "DescribeTasks",
    ],
)
def test_the_missing_permission_is_named_and_only_that(platform: LocalAws, cast: Cast, action: str) -> None:
    platform.fault("access_denied", action=action)

    steps = try_connection(cast.acme, actor=cast.staff)

    (failed,) = [step for step in steps if step.status == StepStatus.FAILED]
    permission = f"ecr:{action}" if action in ("DescribeImages", "BatchGetImage") else f"ecs:{action}"
    assert failed.permission == permission
    assert failed.detail.startswith(f"The permission {permission} is missing. ")
    assert f"{permission}: AccessDeniedException (AWS request " in failed.detail


def test_a_missing_repository_is_named(platform: LocalAws, cast: Cast) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-agent", force=True)

    (failed,) = [step for step in try_connection(cast.acme, actor=cast.staff) if step.status == StepStatus.FAILED]

    assert failed.permission == "ecr:DescribeImages"
    assert "RepositoryNotFoundException" in failed.detail


def test_images_elsewhere_cannot_be_listed(local_aws: LocalAws, cast: Cast) -> None:
    service = {"name": f"{cast.acme.deployment_stack}-agent-service", "image": "ghcr.io/getaxonflow/axonflow-agent:v1"}
    local_aws.seed(cluster=cast.acme.cluster, services=[service])

    (step,) = [step for step in try_connection(cast.acme, actor=cast.staff) if step.permission == "ecr:DescribeImages"]

    assert step.status == StepStatus.UNKNOWN
    assert "only the version latest can be chosen" in step.detail


def test_the_permission_that_aws_names_counts(platform: LocalAws, cast: Cast) -> None:
    message = "User: x is not authorized to perform: ecs:ListTagsForResource on resource: y"
    platform.fault("error", action="DescribeServices", code="AccessDeniedException", message=message)

    steps = try_connection(cast.acme, actor=cast.staff)

    assert permissions(steps, StepStatus.FAILED) == {"ecs:ListTagsForResource"}


def test_all_missing_permissions_are_named_together(platform: LocalAws, cast: Cast) -> None:
    for action in ("DescribeServices", "ListServiceDeployments", "ListTasks"):
        platform.fault("access_denied", action=action)

    steps = try_connection(cast.acme, actor=cast.staff)

    assert permissions(steps, StepStatus.FAILED) == {
        "ecs:DescribeServices",
        "ecs:ListServiceDeployments",
        "ecs:ListTasks",
    }
    assert permissions(steps, StepStatus.UNKNOWN) - WRITES == {
        "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions",
        "ecs:DescribeTasks",
    }


def test_a_missing_cluster_ends_the_test(platform: LocalAws, cast: Cast) -> None:
    cast.acme.deployment_cluster = "elsewhere"

    steps = try_connection(cast.acme, actor=cast.staff)

    (failed,) = [step for step in steps if step.status == StepStatus.FAILED]
    assert failed.name == "Find the cluster"
    assert "no active cluster elsewhere in eu-central-1" in failed.detail
    assert permissions(steps, StepStatus.OK) == {"sts:GetCallerIdentity"}


def test_a_missing_service_is_named(local_aws: LocalAws, cast: Cast) -> None:
    stack = cast.acme.deployment_stack
    image = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/axonflow-orchestrator:v9.9.0"
    service = {"name": f"{stack}-orchestrator-service", "image": image}
    local_aws.seed(cluster=cast.acme.cluster, services=[service])

    steps = try_connection(cast.acme, actor=cast.staff)

    failed = [step.name for step in steps if step.status == StepStatus.FAILED]
    assert failed == [f"Find {stack}-agent-service", f"Find {stack}-customer-portal-service"]
    assert "ecs:ListServiceDeployments" in permissions(steps, StepStatus.OK)


@pytest.mark.parametrize("kind", ["throttle", "server_error"])
def test_a_step_that_aws_does_not_answer_is_not_known(platform: LocalAws, cast: Cast, kind: str) -> None:
    platform.fault(kind, action="DescribeServices")

    steps = try_connection(cast.acme, actor=cast.staff)

    assert permissions(steps, StepStatus.FAILED) == set()
    assert permissions(steps, StepStatus.OK) == {"sts:GetCallerIdentity", "ecs:DescribeClusters"}
    assert "Not tested, because AWS did not answer this step: Read the services." in {step.detail for step in steps}


def test_a_step_is_bounded_in_time() -> None:
    never = threading.Event()
    started_at = time.monotonic()

    with pytest.raises(AwsUnavailable, match="no answer within"):
        call_with_deadline(lambda: never.wait(3), "ecs:DescribeClusters", seconds=0.05)

    assert time.monotonic() - started_at < 1
    never.set()


def test_missing_cluster_and_stack_say_what_to_fill_in(cast: Cast) -> None:
    (step,) = try_connection(cast.initech, actor=cast.staff)

    assert step.status == StepStatus.FAILED
    assert "Fill in the stack" in step.detail


def test_a_missing_stack_says_what_to_fill_in(platform: LocalAws, cast: Cast) -> None:
    cast.acme.deployment_cluster, cast.acme.deployment_stack = str(cast.acme.cluster), ""

    steps = try_connection(cast.acme, actor=cast.staff)

    assert [step.status for step in steps[:3]] == [StepStatus.OK, StepStatus.OK, StepStatus.FAILED]
    assert "The stack is empty" in steps[2].detail


def test_only_staff_test_a_connection(cast: Cast) -> None:
    with pytest.raises(PortalError) as refused:
        try_connection(cast.acme, actor=cast.admin)

    assert refused.value.status == 403
    assert audit_kinds() == []


def test_the_test_is_in_the_audit_trail(platform: LocalAws, cast: Cast) -> None:
    try_connection(cast.globex, actor=cast.staff)

    event = AuditEvent.objects.get()
    assert (event.kind, event.organization, event.actor) == (
        "organization.connection_tested",
        cast.globex,
        cast.staff,
    )
    assert event.data["steps"]["Find the cluster"] == "ok"
    assert cast.globex.deployment_external_id not in str(event.data)


def test_the_button_on_the_organization_page(platform: LocalAws, client_for: SignedIn, cast: Cast) -> None:
    platform.fault("access_denied", action="ListTasks")
    staff = client_for(cast.staff)

    shown = staff.get(f"/admin/portal/organization/{cast.acme.pk}/change/").content.decode()
    page = staff.post(get_page_url(cast.acme)).content.decode()

    assert f'<form method="post" action="{get_page_url(cast.acme)}">' in shown
    assert "The permission ecs:ListTasks is missing." in page
    assert re.findall(r'<tr class="(\w+)">', page).count("failed") == 1
    assert "style=" not in page


def test_a_get_request_tests_nothing(client_for: SignedIn, cast: Cast) -> None:
    assert client_for(cast.staff).get(get_page_url(cast.acme)).status_code == 405
    assert audit_kinds() == []


def test_the_button_is_for_staff(client_for: SignedIn, client: Client, cast: Cast) -> None:
    assert client_for(cast.admin).post(get_page_url(cast.acme)).status_code == 403
    assert client.post(get_page_url(cast.acme)).status_code == 302
    assert audit_kinds() == []


def test_an_unknown_organization_is_404(client_for: SignedIn, cast: Cast) -> None:
    unknown = Organization(slug="unknown")

    assert client_for(cast.staff).post(get_page_url(unknown)).status_code == 404


def test_several_organizations_are_tested_from_the_list(platform: LocalAws, client_for: SignedIn, cast: Cast) -> None:
    chosen: dict[str, Any] = {"action": "test_connections", "_selected_action": [cast.acme.pk, cast.globex.pk]}

    page = client_for(cast.staff).post("/admin/portal/organization/", chosen).content.decode()

    assert re.findall(r"<h2>([\w ]+): ", page) == ["Acme Robotics", "Globex"]
    assert audit_kinds() == ["organization.connection_tested"] * 2


def test_too_many_organizations_are_refused(client_for: SignedIn, cast: Cast) -> None:
    made = [Organization.objects.create(slug=f"o{number}", name=f"O{number}") for number in range(6)]
    chosen: dict[str, Any] = {"action": "test_connections", "_selected_action": [each.pk for each in made]}

    page = client_for(cast.staff).post("/admin/portal/organization/", chosen, follow=True).content.decode()

    assert "Choose 5 organizations at most" in page
    assert audit_kinds() == []
