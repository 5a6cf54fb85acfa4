"""Replies of AWS without a member that its model does not require: nothing fails, and nothing is concluded.

Each member of each reply is left out in turn, as botocore's model of the service lists them.
"""

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from botocore.model import ListShape, Shape, StructureShape
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from portal.aws import ecr, ecs
from portal.aws.errors import AwsUnavailable
from portal.aws.revisions import read_revision
from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import PREFLIGHT, VERSIONS, make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout
from upgrades.states import Outcome, Phase, Status

SignIn = Callable[[User], Client]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

PAGES = [
    "/o/acme/",
    "/o/acme/versions/",
    "/o/acme/upgrades/new?service=all&version=v9.9.1&checks=1",
    "/o/acme/upgrades/{upgrade_id}/rollback",
    PREFLIGHT,
    VERSIONS,
]


@dataclass
class Replies:
    """The replies of AWS about acme's platform: each read as boto3 makes it, and as the portal does."""

    aws: LocalAws
    cast: Cast

    def __post_init__(self) -> None:
        self.aws.throttling(enabled=False)  # hundreds of reads in a row, more than AWS allows
        acme, client = self.cast.acme, self.aws.client()
        cluster, stack, target = str(acme.cluster), acme.deployment_stack, acme.aws_target
        names = [f"{stack}-{service}-service" for service in ("agent", "orchestrator", "customer-portal")]
        agent = client.describe_services(cluster=cluster, services=names[:1])["services"][0]
        self.definition = agent["taskDefinition"]
        arn = agent["currentServiceDeployment"]
        deployment = client.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]
        revision = deployment["targetServiceRevision"]["arn"]
        tasks = client.list_tasks(cluster=cluster, serviceName=names[0])["taskArns"]
        repository = ecr.Repository("111111111111", "eu-central-1", "axonflow-agent")
        since = timezone.now() - timedelta(days=1)
        self.asked: dict[str, dict[str, Any]] = {
            "DescribeClusters": {"clusters": [cluster]},
            "DescribeServices": {"cluster": cluster, "services": names},
            "ListServiceDeployments": {"cluster": cluster, "service": names[0]},
            "DescribeServiceDeployments": {"serviceDeploymentArns": [arn]},
            "DescribeServiceRevisions": {"serviceRevisionArns": [revision]},
            "DescribeTaskDefinition": {"taskDefinition": self.definition},
            "ListTasks": {"cluster": cluster, "serviceName": names[0]},
            "DescribeTasks": {"cluster": cluster, "tasks": tasks},
            "DescribeImages": {"repositoryName": "axonflow-agent"},
        }
        self.reads: dict[str, list[Callable[[], Any]]] = {
            "DescribeClusters": [lambda: ecs.describe_cluster(target, cluster)],
            "DescribeServices": [lambda: ecs.describe_services(target, cluster, names)],
            "ListServiceDeployments": [
                lambda: ecs.list_service_deployments(target, cluster, names[0], created_after=since)
            ],
            "DescribeServiceDeployments": [lambda: ecs.describe_service_deployments(target, [arn])],
            "DescribeServiceRevisions": [lambda: ecs.revision_task_definitions(target, [revision])],
            "DescribeTaskDefinition": [
                lambda: ecs.describe_task_definition(target, self.definition),
                lambda: read_revision(target, self.definition),
            ],
            "ListTasks": [lambda: ecs.list_tasks(target, cluster, names[0])],
            "DescribeTasks": [
                lambda: ecs.running_tasks(target, cluster, names[0]),
                lambda: ecs.describe_tasks(target, cluster, tasks),
                lambda: ecs.stopped_tasks(target, cluster, names[0], started_by=agent["deployments"][0]["id"]),
            ],
            "DescribeImages": [lambda: ecr.list_images(target, repository)],
        }

    def members(self, action: str) -> list[str]:
        """Return the members of the reply that AWS's model does not require, by their paths."""
        client = self.aws.client("ecr" if action == "DescribeImages" else "ecs")
        method = next(name for name, called in client.meta.method_to_api_mapping.items() if called == action)
        reply = getattr(client, method)(**self.asked[action])
        shape = client.meta.service_model.operation_model(action).output_shape
        return list(dict.fromkeys(optional_members(reply, shape, ())))

    def noticed(self, action: str) -> Iterator[tuple[str, str]]:
        """Leave out each member that the portal reads, in turn. Yield the fault's id and the member's path."""
        whole = [read() for read in self.reads[action]]
        for member in self.members(action):
            fault = self.aws.fault("member_left_out", action=action, member=member)["id"]
            if [read_or_not_known(read) for read in self.reads[action]] != whole:
                yield fault, member
            self.aws.clear_faults(fault)


def optional_members(value: Any, shape: Shape, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(shape, ListShape):
        for each in value:
            yield from optional_members(each, shape.member, path)
    elif isinstance(shape, StructureShape):
        for name in shape.members.keys() & value.keys():
            if name not in shape.required_members:
                yield ".".join((*path, name))
            yield from optional_members(value[name], shape.members[name], (*path, name))


def read_or_not_known(read: Callable[[], Any]) -> Any:
    """Return what the portal reads from the reply. An incomplete reply is the only error that it may raise."""
    try:
        return read()
    except AwsUnavailable as error:
        if error.code != "IncompleteReply":
            raise
        return error.code


@pytest.fixture
def replies(platform: LocalAws, cast: Cast) -> Replies:
    """Return the replies while the agent service is rolling and one of its new tasks has crashed."""
    place = {"cluster": cast.acme.cluster, "service": f"{cast.acme.deployment_stack}-agent-service"}
    platform.fault("crash", **place, times=1, task_count=1)
    platform.client().update_service(**place, forceNewDeployment=True)
    platform.advance(30)
    return Replies(platform, cast)


ACTIONS = [
    "DescribeClusters",
    "DescribeServices",
    "ListServiceDeployments",
    "DescribeServiceDeployments",
    "DescribeServiceRevisions",
    "DescribeTaskDefinition",
    "ListTasks",
    "DescribeTasks",
    "DescribeImages",
]


@pytest.mark.parametrize("action", ACTIONS)
def test_no_page_fails_over_an_absent_member(cast: Cast, replies: Replies, client_for: SignIn, action: str) -> None:
    """A member that the portal's own reading ignores cannot matter to a page."""
    client = client_for(cast.operator)
    client.raise_request_exception = False
    upgrade = make_upgrade(cast.acme, by=cast.operator, cluster=cast.acme.cluster, region=cast.acme.deployment_region)
    upgrade.rollouts.update(task_definition=replies.definition, previous_task_definition=f"{replies.definition}0")

    noticed = []
    answers: dict[str, int] = {}
    for _, member in replies.noticed(action):
        noticed.append(member)
        cache.clear()
        for page in PAGES:
            path = page.format(upgrade_id=upgrade.upgrade_id)
            answers[f"{path} without {member}"] = client.get(path).status_code

    assert noticed
    assert {name: status for name, status in answers.items() if status != 200} == {}


@pytest.mark.parametrize("phase", [Phase.DUE, Phase.CALLING, Phase.WATCHING])
def test_no_rollout_ends_over_an_absent_member(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, phase: Phase
) -> None:
    lost = {Phase.DUE: "throttle", Phase.CALLING: "server_error"}.get(phase)
    if lost:
        platform.fault(lost, action="UpdateService")
    settings.UPGRADE_ADOPT_SECONDS = 3600
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    for _ in range(3):
        engine.step()
    rollout = Rollout.objects.get()
    assert rollout.phase == phase
    replies = Replies(platform, cast)

    moved: dict[str, tuple[str, str | None]] = {}
    for action in ACTIONS:
        for _, member in replies.noticed(action):
            engine.step()
            rollout.refresh_from_db()
            if rollout.phase != phase or "could not process" in (rollout.check_error or ""):
                moved[f"{action} without {member}"] = rollout.phase, rollout.check_error

    assert moved == {}
    platform.clear_faults()
    settings.UPGRADE_ADOPT_SECONDS = 0
    assert engine.run(upgrade).status == Status.SUCCESS
    assert len(platform.ledger(action="RegisterTaskDefinition", effect=True)) == 1


@pytest.mark.parametrize(
    ("action", "member"),
    [
        ("RegisterTaskDefinition", "taskDefinition"),
        ("RegisterTaskDefinition", "taskDefinition.taskDefinitionArn"),
        ("UpdateService", "service"),
        ("UpdateService", "service.desiredCount"),
        ("UpdateService", "service.deployments"),
        ("UpdateService", "service.deployments.id"),
        ("UpdateService", "service.currentServiceDeployment"),
    ],
)
def test_a_write_whose_reply_lacks_a_member_is_made_once(
    cast: Cast, engine: Engine, platform: LocalAws, action: str, member: str
) -> None:
    platform.fault("member_left_out", action=action, member=member)

    upgrade = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1"))

    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert len(platform.ledger(action=action, effect=True)) == 1


def test_what_ecs_left_out_is_named(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    platform.fault("member_left_out", action="DescribeServices", member="services.desiredCount")

    page = " ".join(html.unescape(client_for(cast.viewer).get("/o/acme/").content.decode()).split())
    body = client_for(cast.viewer).get(PREFLIGHT).json()

    said = "The state of the agent service is not known: ECS's reply has no"
    assert f'{said} <span class="mono">desiredCount</span>.' in page
    checks = {check["check"]: check for check in body["checks"]}
    for name in ("cluster_and_services", "steady", "circuit_breaker"):
        assert checks[name]["status"] == "unknown"
        assert "Agent service (desiredCount)" in checks[name]["detail"]
