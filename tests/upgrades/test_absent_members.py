"""Replies of AWS without a member that its model does not require: nothing fails, and nothing is concluded.

Each such member of each reply is left out in turn, and set to empty, as botocore's model of the service lists them.
"""

import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from botocore.parsers import create_parser
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from portal.aws import credentials, ecr, ecs, ecs_runtime, logs, metrics
from portal.aws.ecs.service import parse_service
from portal.aws.revisions import read_revision
from portal.aws.sts import caller_account
from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.replay import Change, Read, Replay, read_or_error, replaying
from tests.upgrades.conftest import PREFLIGHT, VERSIONS, Door, make_upgrade
from tests.upgrades.rollouts import get_service_name
from tests.upgrades.test_other_controllers import hand_over
from tests.upgrades.test_strategies import configure, decide, is_baking, is_waiting, pause, run_until, trigger
from upgrades.commands.trigger import trigger_upgrade
from upgrades.inventory.diffs import Diff, ask
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.images import RequestedImage
from upgrades.models import Rollout, Upgrade
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
NONE_YET = (None, Outcome.ROLLING_BACK)
# The status of a page whose other checks do not run in tests.
UNHEALTHY = {"/health": 503}
NAMES_CONTROLLER = {"services.deploymentController", "services.deploymentController.type"}
CONNECTION = "/admin/portal/organization/{}/test-connection/"


@dataclass
class Platform:
    """What the portal reads of acme's platform. `reads`: the functions that read an action's reply."""

    aws: LocalAws
    cast: Cast
    replay: Replay
    definition: str = ""
    reads: dict[str, list[Read]] = field(default_factory=dict)

    def record(self) -> None:
        """Record the replies as they are now."""
        self.replay.forget()
        self.aws.throttling(enabled=False)
        acme, client = self.cast.acme, self.aws.client()
        cluster, stack, target = str(acme.cluster), acme.deployment_stack, acme.aws_target
        names = [f"{stack}-{service}-service" for service in ("agent", "orchestrator", "customer-portal")]
        agent = client.describe_services(cluster=cluster, services=names[:1])["services"][0]
        self.definition = definition = agent["taskDefinition"]
        arn = agent["currentServiceDeployment"]
        deployment = client.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]
        revision = deployment["targetServiceRevision"]["arn"]
        tasks = client.list_tasks(cluster=cluster, serviceName=names[0])["taskArns"]
        started_by = agent["deployments"][0]["id"]
        repository = ecr.Repository("111111111111", "eu-central-1", "axonflow-agent")
        digests = [image.digest for image in ecr.list_images(target, repository).images]
        since = timezone.now() - timedelta(days=1)
        globex = self.cast.globex.aws_target
        self.reads = {
            "DescribeClusters": [lambda: ecs.describe_cluster(target, cluster)],
            "DescribeServices": [
                lambda: ecs.describe_services(target, cluster, names),
                lambda: ecs.describe_services(target, cluster, names[:1]),
            ],
            "ListServiceDeployments": [
                lambda: ecs.list_service_deployments(target, cluster, names[0], created_after=since)
            ],
            "DescribeServiceDeployments": [lambda: ecs.describe_service_deployments(target, [arn])],
            "DescribeServiceRevisions": [lambda: ecs.revision_task_definitions(target, [revision])],
            "DescribeTaskDefinition": [
                lambda: ecs.describe_task_definition(target, definition),
                lambda: read_revision(target, definition),
            ],
            "ListTasks": [lambda: ecs.list_tasks(target, cluster, names[0])],
            "DescribeTasks": [
                lambda: ecs.running_tasks(target, cluster, names[0]),
                lambda: ecs.describe_tasks(target, cluster, tasks),
                lambda: ecs.stopped_tasks(target, cluster, names[0], started_by=started_by),
            ],
            "DescribeImages": [
                lambda: ecr.list_images(target, repository),
                lambda: ecr.find_image(target, repository, "v9.9.1"),
            ],
            "BatchGetImage": [lambda: ecr.read_manifests(target, repository, digests)],
            "GetCallerIdentity": [lambda: caller_account(target)],
            "AssumeRole": [lambda: assume(globex)],
        }
        for read in (read for reads in self.reads.values() for read in reads):
            read()

    def reads_of_deployments(self) -> dict[str, list[Read]]:
        """Return what is read for deployments of agents, of a log group with one line."""
        acme = self.cast.acme
        target, cluster, name = acme.aws_target, str(acme.cluster), f"{acme.deployment_stack}-agent-service"
        group, now, client = f"/test/{cluster}", timezone.now(), self.aws.client("logs")
        start, end = now - timedelta(hours=1), now + timedelta(hours=1)
        client.create_log_group(logGroupName=group)
        client.create_log_stream(logGroupName=group, logStreamName="agent/1")
        events = [{"timestamp": int(now.timestamp() * 1000), "message": "Started."}]
        client.put_log_events(logGroupName=group, logStreamName="agent/1", logEvents=events)
        span = {"start": int(start.timestamp() * 1000), "end": int(end.timestamp() * 1000)}
        return {
            "DescribeServices": [lambda: ecs_runtime.read_template(target, cluster, name)],
            "DescribeTaskDefinition": [
                lambda: ecs_runtime.read_template(target, cluster, name),
                lambda: ecs_runtime.find_task_definition(target, self.definition, generation=1),
            ],
            "DescribeTasks": [lambda: ecs_runtime.running_tasks(target, cluster, name)],
            "FilterLogEvents": [lambda: logs.newest_events(target, group, stream_prefix="agent", most=10, **span)],
            "GetMetricData": [
                lambda: metrics.service_metrics(
                    target, cluster=cluster, service=name, start=start, end=end, period_seconds=60
                )
            ],
        }

    def diff(self) -> Diff:
        """Return the differences that the page of a plan shows for the agent service."""
        image = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/axonflow-agent:v9.9.1"
        now = RunningService("agent", "Agent", "agent", task_definition=self.definition)
        return ask(self.cast.acme.aws_target, now, RequestedImage("v9.9.1", image), {})

    def different(self, action: str) -> Iterator[Any]:
        return self.replay.different(action, self.reads[action])


def assume(target: credentials.AwsTarget) -> str:
    credentials.drop_session(target)
    return caller_account(target)


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying() as started:
        yield started


@pytest.fixture
def rolling(platform: LocalAws, cast: Cast, replay: Replay) -> Platform:
    """Return the platform while the agent service is rolling and one of its new tasks has crashed."""
    place = {"cluster": cast.acme.cluster, "service": f"{cast.acme.deployment_stack}-agent-service"}
    platform.fault("crash", **place, times=1, task_count=1)
    platform.client().update_service(**place, forceNewDeployment=True)
    platform.advance(30)
    rolling = Platform(platform, cast, replay)
    rolling.record()
    return rolling


def test_no_read_fails_over_an_absent_member(rolling: Platform) -> None:
    reads = {action: list(each) for action, each in rolling.reads.items()}
    for action, each in rolling.reads_of_deployments().items():
        reads.setdefault(action, []).extend(each)
        for read in each:
            read()
    changes = {action: rolling.replay.changes(action) for action in reads}

    wrong = [rolling.replay.wrong_errors(action, each) for action, each in reads.items()]

    assert all(changes.values()), changes
    assert [errors for errors in wrong if errors] == []


@pytest.mark.fuzz
def test_no_page_fails_over_an_absent_member(cast: Cast, rolling: Platform, client_for: SignIn) -> None:
    """A member that the portal's own reading ignores cannot matter to a page."""
    client, outsider, staff = (client_for(person) for person in (cast.operator, cast.outsider, cast.staff))
    for each in (client, outsider, staff):
        each.raise_request_exception = False
    upgrade = make_upgrade(cast.acme, by=cast.operator, cluster=cast.acme.cluster, region=cast.acme.deployment_region)
    upgrade.rollouts.update(task_definition=rolling.definition, previous_task_definition=f"{rolling.definition}0")
    pages = [(client.get, page.format(upgrade_id=upgrade.upgrade_id)) for page in PAGES]
    pages += [(staff.post, CONNECTION.format(cast.acme.pk)), (client.get, "/health")]
    by_role = [(outsider.get, "/o/globex/"), (staff.post, CONNECTION.format(cast.globex.pk))]
    readers = []
    for request, path in pages:
        forget(cast)
        readers.append((request, path, rolling.replay.actions(partial(request, path))))
    readers += [(request, path, {"AssumeRole"}) for request, path in by_role]
    rolling.reads["DescribeTasks"].pop()  # pages do not read why tasks stopped
    rolling.reads["DescribeTaskDefinition"][1] = rolling.diff  # all that pages read of a revision
    noticed: dict[str, int] = dict.fromkeys(rolling.reads, 0)
    failed: dict[str, int] = {}
    for action in rolling.reads:
        for change in rolling.different(action):
            for request, path in [(request, path) for request, path, actions in readers if action in actions]:
                noticed[action] += 1
                forget(cast)
                status = request(path).status_code
                if status not in (200, UNHEALTHY.get(path)):
                    failed[f"{path}: {change}"] = status

    assert failed == {}
    assert all(noticed.values()), noticed


def forget(cast: Cast) -> None:
    cache.clear()
    credentials.drop_session(cast.globex.aws_target)


@pytest.mark.fuzz
@pytest.mark.parametrize("phase", [Phase.DUE, Phase.CALLING, Phase.WATCHING])
def test_no_rollout_ends_over_an_absent_member(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any, replay: Replay, phase: Phase
) -> None:
    lost = {Phase.DUE: "throttle", Phase.CALLING: "server_error"}.get(phase)
    if lost:
        platform.fault(lost, action="UpdateService")
    settings.UPGRADE_ADOPT_SECONDS = 3600
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    for _ in range(3):
        engine.step()
    assert Rollout.objects.get().phase == phase
    read = Platform(platform, cast, replay)
    read.record()

    moved = [
        (str(change), row["phase"], row["outcome"], row["check_error"])
        for change, row in steps(engine, read, times=1 if phase == Phase.DUE else 2)
        if row["phase"] != phase or "could not process" in (row["check_error"] or "")
    ]

    assert moved == []
    platform.clear_faults()
    settings.UPGRADE_ADOPT_SECONDS = 0
    assert engine.run(upgrade).status == Status.SUCCESS
    assert len(platform.ledger(action="RegisterTaskDefinition", effect=True)) == 1


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("crashes", "outcome"), [(False, Outcome.COMPLETED), (True, Outcome.ROLLED_BACK)], ids=["ends well", "rolls back"]
)
def test_no_absent_member_makes_a_verdict_wrong(
    cast: Cast, engine: Engine, platform: LocalAws, replay: Replay, crashes: bool, outcome: Outcome
) -> None:
    """The verdict on a deployment that has ended in ECS is the right one, or there is none yet."""
    if crashes:
        place = {"cluster": cast.acme.cluster, "service": f"{cast.acme.deployment_stack}-agent-service"}
        platform.fault("crash", **place)
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    engine.start(upgrade)
    platform.advance(3600)
    read = Platform(platform, cast, replay)
    read.record()

    verdicts = {(str(change), row["outcome"], row["error_message"]) for change, row in steps(engine, read)}

    assert [each for each in verdicts if each[1] not in (outcome, *NONE_YET)] == []
    engine.run(upgrade)
    assert upgrade.rollouts.get().outcome == outcome


def steps(engine: Engine, read: Platform, *, times: int = 2) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Let the engine step with each change, from the same state. Yield the change and the rollout's row then."""
    rows = [(model, model.objects.values().get()) for model in (Upgrade, Rollout)]

    def restore() -> None:
        for model, row in rows:
            model.objects.filter(pk=row["id"]).update(**row)

    asked = read.replay.actions(engine.step)
    restore()
    for action in asked & read.reads.keys():
        for change in read.different(action):
            for _ in range(times):
                engine.step()
            yield change, Rollout.objects.values().get()
            restore()


def test_null_is_read_as_absent(rolling: Platform) -> None:
    """botocore leaves out what is null. So no other test sets a member to null."""
    client = rolling.aws.client()
    shape = client.meta.service_model.operation_model("DescribeServices").output_shape
    parser = create_parser("json")

    def parse(body: Any) -> Any:
        return parser.parse({"status_code": 200, "headers": {}, "body": json.dumps(body).encode()}, shape)["services"]

    assert parse({"services": [{"status": None, "deployments": [{"id": None}]}]}) == [{"deployments": [{}]}]


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


@pytest.mark.fuzz
def test_an_incomplete_reply_to_update_service_ends_nothing(
    cast: Cast, engine: Engine, platform: LocalAws, replay: Replay
) -> None:
    """Whatever the reply lacks, the rollout follows the one deployment that the call started."""
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", version="v9.9.1")
    rows = [(model, model.objects.values().get()) for model in (Upgrade, Rollout)]
    with replay.recording():
        engine.step()
    followed = Rollout.objects.values_list("phase", "outcome", "deployment_id", "service_deployment_arn")
    engine.step()
    expected, moved, tried = followed.get(), {}, 0

    for change in replay.distinct("UpdateService", lambda reply: parse_service(reply["service"])):
        for model, row in rows:
            model.objects.filter(pk=row["id"]).update(**row)
        replay.change, tried = change, tried + 1
        engine.step()
        replay.change = None
        for _ in range(2):
            engine.step()
        if followed.get() != expected:
            moved[str(change)] = followed.get()

    assert expected[0] == Phase.WATCHING
    assert (tried > 10, moved) == (True, {})
    assert engine.run(upgrade).status == Status.SUCCESS
    assert len(platform.ledger(action="UpdateService", effect=True)) == 1


def test_no_decision_fails_over_an_absent_member(
    cast: Cast, engine: Engine, platform: LocalAws, replay: Replay
) -> None:
    """Of these replies the portal reads nothing: the next observation shows the effect."""
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=[pause("POST_SCALE_UP")])
    rollout = run_until(engine, trigger(cast), is_waiting)
    target, arn, hook = cast.acme.aws_target, str(rollout.service_deployment_arn), rollout.hook or {}
    writes = {
        "ContinueServiceDeployment": partial(
            ecs.continue_service_deployment, target, arn, hook_id=hook["id"], action="CONTINUE"
        ),
        "StopServiceDeployment": partial(ecs.stop_service_deployment, target, arn),
    }
    for write in writes.values():
        write()

    wrong = {action: replay.wrong_errors(action, [write]) for action, write in writes.items()}

    assert all(replay.changes(action) for action in writes)
    assert {action: errors for action, errors in wrong.items() if errors} == {}


@pytest.mark.fuzz
@pytest.mark.parametrize("outcome", [Outcome.WAITING_FOR_DECISION, Outcome.BAKING])
def test_no_absent_member_ends_a_pause_or_a_bake(
    cast: Cast, engine: Engine, platform: LocalAws, replay: Replay, outcome: Outcome
) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=60, lifecycleHooks=[pause("POST_SCALE_UP")])
    upgrade = trigger(cast)
    rollout = run_until(engine, upgrade, is_waiting)
    if outcome == Outcome.BAKING:
        decide(platform, rollout, "CONTINUE")
        run_until(engine, upgrade, is_baking)
    read = Platform(platform, cast, replay)
    read.record()

    moved = [
        (str(change), row["phase"], row["outcome"], row["check_error"])
        for change, row in steps(engine, read)
        if row["phase"] != Phase.WATCHING
        or row["outcome"] not in (outcome, None)
        or row["is_stalled"]
        or row["is_overdue"]
        or "could not process" in (row["check_error"] or "")
    ]

    assert moved == []


def test_a_service_without_deployments_is_incomplete(rolling: Platform) -> None:
    """Every active service that ECS deploys has one, so none proves nothing: neither an end nor a change from outside."""
    acme = rolling.cast.acme
    rolling.replay.change = Change("DescribeServices", ("services", "deployments"), [])

    reading = ecs.describe_services(acme.aws_target, str(acme.cluster), [f"{acme.deployment_stack}-agent-service"])

    assert (reading.services, list(reading.left_out.values())) == ({}, ["deployments"])


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


@pytest.mark.parametrize("controller", ["EXTERNAL", "CODE_DEPLOY", "EXPRESS"])
def test_no_absent_member_hides_another_controller(
    cast: Cast, platform: LocalAws, replay: Replay, controller: str
) -> None:
    """Whatever else the reply lacks, the portal knows that it cannot upgrade the service, unless the entry says nothing."""
    hand_over(platform, cast, controller)
    target, cluster, name = cast.acme.aws_target, str(cast.acme.cluster), get_service_name(cast, "orchestrator")
    read = partial(ecs.describe_services, target, cluster, [name])
    assert read().services[name].is_foreign
    identifying = {"services", "services.serviceArn", "services.status"}
    identifying |= {"services.resourceManagementType"} if controller == "EXPRESS" else NAMES_CONTROLLER

    hidden = []
    for change in replay.changes("DescribeServices"):
        replay.change = change
        service = read_or_error(read).services.get(name)
        if (service is None or not service.is_foreign) and ".".join(change.path) not in identifying:
            hidden.append(str(change))
    replay.change = None

    assert hidden == []


@pytest.mark.parametrize("member", ["desiredCount", "runningCount", "pendingCount"])
def test_another_controller_is_refused_without_counts(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door, member: str
) -> None:
    hand_over(platform, cast, "EXTERNAL", service="agent")
    platform.fault("member_left_out", action="DescribeServices", member=f"services.{member}")

    response = door.trigger(client_for(cast.operator), cast.acme, service="agent", override_reason="start anyway")

    assert response.status_code == 400
    assert "deployed by another controller (EXTERNAL)" in door.get_text(response)
