"""Upgrades to a version: the chosen image, pinned by its digest, in a revision that differs in nothing else."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now

from portal.errors import PortalError
from tests.conftest import Cast, Engine
from tests.faults.test_never_doubled import deployments
from tests.local_aws import LocalAws
from tests.processes import start_step, wait_for
from tests.upgrades.conftest import push_untagged
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import EventKind, Outcome, Phase, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

REGISTRY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"
OUTPUT_ONLY = {"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt"}


def trigger(cast: Cast, service: str = "agent", version: str = "v9.9.1", **options: Any) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, version=version, **options)


def registrations(local_aws: LocalAws) -> list[dict[str, Any]]:
    return local_aws.ledger(action="RegisterTaskDefinition", effect=True)


def get_place(cast: Cast, service: str = "agent") -> dict[str, str]:
    return {"cluster": str(cast.acme.cluster), "service": f"{cast.acme.deployment_stack}-{service}-service"}


def service_now(local_aws: LocalAws, cast: Cast, service: str = "agent") -> dict[str, Any]:
    place = get_place(cast, service)
    (found,) = local_aws.client().describe_services(cluster=place["cluster"], services=[place["service"]])["services"]
    return dict(found)


def definition_now(local_aws: LocalAws, cast: Cast, service: str = "agent") -> dict[str, Any]:
    """Return the service's task definition with its tags."""
    arn = service_now(local_aws, cast, service)["taskDefinition"]
    reply = local_aws.client().describe_task_definition(taskDefinition=arn, include=["TAGS"])
    return {**reply["taskDefinition"], "tags": reply.get("tags", [])}


def running_digests(local_aws: LocalAws, cast: Cast, service: str = "agent") -> set[str]:
    place = get_place(cast, service)
    arns = local_aws.client().list_tasks(cluster=place["cluster"], serviceName=place["service"])["taskArns"]
    tasks = local_aws.client().describe_tasks(cluster=place["cluster"], tasks=arns)["tasks"]
    return {container["imageDigest"] for task in tasks for container in task["containers"]}


def deploy(local_aws: LocalAws, cast: Cast, definition: dict[str, Any], service: str = "agent") -> str:
    """Register a task definition and roll the service to it outside the portal. Return its ARN."""
    arn = local_aws.client().register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    local_aws.client().update_service(**get_place(cast, service), taskDefinition=arn)
    local_aws.advance(300)
    return str(arn)


def plain_definition(cast: Cast, image: str, service: str = "agent", **fields: Any) -> dict[str, Any]:
    container = {"name": service, "image": image, "essential": True, "memory": 512}
    family = f"{cast.acme.deployment_stack}-{service}"
    return {"family": family, "containerDefinitions": [container], **fields}


def put_image(local_aws: LocalAws, tags: list[str], *, repository: str = "axonflow-agent") -> str:
    """Push an image now and return its digest. Its tags move from other images."""
    seeded = local_aws.seed(images=[{"repository": repository, "tags": tags, "pushed_at": local_aws.now()}])
    return str(seeded["images"][f"{repository}:{tags[0]}"])


# --- it works ------------------------------------------------------------------------------------------------------


def test_a_version_is_rolled_pinned_by_its_digest(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    before = service_now(platform, cast)["taskDefinition"]

    upgrade = engine.run(trigger(cast))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert (rollout.from_version, rollout.to_version) == ("v9.9.0", "v9.9.1")
    assert (rollout.from_digest, rollout.to_digest) == (registry["agent:v9.9.0"], registry["agent:v9.9.1"])
    assert rollout.previous_task_definition == before
    assert rollout.task_definition == service_now(platform, cast)["taskDefinition"] != before
    (container,) = definition_now(platform, cast)["containerDefinitions"]
    assert container["image"] == f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"
    assert running_digests(platform, cast) == {registry["agent:v9.9.1"]}
    assert len(registrations(platform)) == len(deployments(platform, cast.acme)) == 1
    told = upgrade.events.get(kind=EventKind.REVISION_REGISTERED).message
    assert f"v9.9.1 ({registry['agent:v9.9.1']}). Nothing else differs" in told


def test_the_chosen_images_are_recorded_with_the_request(
    cast: Cast, platform: LocalAws, registry: dict[str, str]
) -> None:
    upgrade = trigger(cast, "all")

    assert upgrade.version == "v9.9.1"
    assert {(rollout.service, rollout.wanted_version, rollout.wanted_image) for rollout in upgrade.rollouts.all()} == {
        (service, "v9.9.1", f"{REGISTRY}/axonflow-{service}@{registry[f'{service}:v9.9.1']}")
        for service in ("agent", "orchestrator", "customer-portal")
    }


def test_all_rolls_each_service_to_its_own_image(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.SUCCESS
    for service in ("agent", "orchestrator", "customer-portal"):
        assert running_digests(platform, cast, service) == {registry[f"{service}:v9.9.1"]}


def test_every_field_and_every_sidecar_is_kept(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    role = "arn:aws:iam::111111111111:role/agent"
    deploy(
        platform,
        cast,
        {
            "family": f"{cast.acme.deployment_stack}-agent",
            "taskRoleArn": role,
            "executionRoleArn": role,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "1024",
            "memory": "4096",
            "pidMode": "task",
            "ephemeralStorage": {"sizeInGiB": 60},
            "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
            "volumes": [
                {"name": "scratch"},
                {
                    "name": "shared",
                    "efsVolumeConfiguration": {
                        "fileSystemId": "fs-0a1b2c3d",
                        "rootDirectory": "/data",
                        "transitEncryption": "ENABLED",
                    },
                },
            ],
            "tags": [{"key": "stack", "value": "acme"}, {"key": "managed-by", "value": "cloudformation"}],
            "containerDefinitions": [
                {
                    "name": "log-router",
                    "image": f"{REGISTRY}/fluent-bit:2.1",
                    "essential": False,
                    "firelensConfiguration": {"type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}},
                },
                {
                    "name": "agent",
                    "image": f"{REGISTRY}/axonflow-agent:v9.9.0",
                    "essential": True,
                    "command": ["serve", "--verbose", "--port", "8080"],
                    "portMappings": [{"containerPort": 8080, "protocol": "tcp", "name": "http", "appProtocol": "http"}],
                    "environment": [{"name": "EMPTY", "value": ""}, {"name": "LOG_LEVEL", "value": "info"}],
                    "secrets": [
                        {"name": "DATABASE_URL", "valueFrom": "arn:aws:ssm:eu-central-1:111111111111:parameter/db"}
                    ],
                    "mountPoints": [{"sourceVolume": "shared", "containerPath": "/data", "readOnly": True}],
                    "dependsOn": [{"containerName": "log-router", "condition": "START"}],
                    "healthCheck": {
                        "command": ["CMD-SHELL", "curl -f http://localhost:8080/health || exit 1"],
                        "interval": 30,
                        "timeout": 5,
                        "retries": 10,
                        "startPeriod": 180,
                    },
                    "linuxParameters": {"initProcessEnabled": True},
                    "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
                    "logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "cloudwatch"}},
                    "stopTimeout": 90,
                    "readonlyRootFilesystem": True,
                    "dockerLabels": {"team": "platform"},
                },
            ],
        },
    )
    before = definition_now(platform, cast)

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    after = definition_now(platform, cast)
    pinned = f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"
    assert [each["image"] for each in after["containerDefinitions"]] == [f"{REGISTRY}/fluent-bit:2.1", pinned]
    after["containerDefinitions"][1]["image"] = f"{REGISTRY}/axonflow-agent:v9.9.0"
    assert comparable(after) == comparable(before)


def comparable(definition: dict[str, Any]) -> Any:
    kept = {name: value for name, value in definition.items() if name not in OUTPUT_ONLY}
    kept["tags"] = sorted(kept["tags"], key=lambda tag: tag["key"])
    return json.loads(json.dumps(kept, default=str))


def test_tags_of_aws_itself_are_left_out(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """CloudFormation sets them, and ECS refuses to register them for anyone else."""
    assert [tag["key"] for tag in definition_now(platform, cast)["tags"]] == ["aws:cloudformation:stack-name"]

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    assert definition_now(platform, cast)["tags"] == []


def test_the_running_revision_is_copied_not_the_newest(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """A newer revision was registered but never rolled. A version upgrade must not include its changes."""
    unrolled = plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.8.0", cpu="256", memory="512")
    platform.client().register_task_definition(**unrolled)

    engine.run(trigger(cast))

    assert (definition_now(platform, cast)["cpu"], definition_now(platform, cast)["memory"]) == ("1024", "2048")


def test_a_stacks_container_may_be_named_after_its_image(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    containers = [
        {"name": "sidecar", "image": f"{REGISTRY}/envoy:1", "essential": True, "memory": 64},
        {"name": "axonflow-agent", "image": f"{REGISTRY}/axonflow-agent:v9.9.0", "essential": True, "memory": 512},
    ]
    deploy(platform, cast, {"family": f"{cast.acme.deployment_stack}-agent", "containerDefinitions": containers})

    engine.run(trigger(cast))

    images = [each["image"] for each in definition_now(platform, cast)["containerDefinitions"]]
    assert images == [f"{REGISTRY}/envoy:1", f"{REGISTRY}/axonflow-agent@{registry['agent:v9.9.1']}"]


def test_another_account_has_a_registry_of_its_own(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(trigger_upgrade(cast.globex, actor=cast.outsider, service="agent", version="v9.9.1"))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.to_version) == (Status.SUCCESS, "v9.9.1")
    assert str(rollout.wanted_image).startswith("222222222222.dkr.ecr.us-east-1.amazonaws.com/axonflow-agent@sha256:")


def test_an_image_without_a_tag_is_chosen_by_its_digest(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    nameless = push_untagged(platform)

    upgrade = engine.run(trigger(cast, version=nameless))

    assert upgrade.rollouts.get().to_digest == nameless
    assert running_digests(platform, cast) == {nameless}


# --- latest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_latest_is_resolved_at_the_trigger_and_recorded(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], force: bool
) -> None:
    upgrade = trigger(cast, version="latest", force_new_deployment=force)
    put_image(platform, ["v9.9.2", "latest"])  # too late

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (upgrade.version, rollout.wanted_version, rollout.to_version) == ("latest", "v9.9.1", "v9.9.1")
    assert (upgrade.status, rollout.outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert running_digests(platform, cast) == {registry["agent:v9.9.1"]}


def test_without_the_tag_latest_the_newest_tagged_is_rolled(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-agent", imageIds=[{"imageTag": "latest"}])
    platform.advance(60)
    newest = put_image(platform, ["v9.10.0"])

    upgrade = engine.run(trigger(cast, version="latest"))

    assert (upgrade.rollouts.get().to_version, upgrade.rollouts.get().to_digest) == ("v9.10.0", newest)


def test_latest_that_already_runs_changes_nothing(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    put_image(platform, ["v9.9.0", "latest"])

    upgrade = engine.run(trigger(cast, version="latest"))

    rollout = upgrade.rollouts.get()
    assert rollout.outcome == Outcome.NO_CHANGE
    assert (rollout.to_version, rollout.to_digest) == ("v9.9.0", registry["agent:v9.9.0"])
    assert platform.ledger() == []


# --- nothing to change, by digest ----------------------------------------------------------------------------------


def test_the_same_image_under_another_name_changes_nothing(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    put_image(platform, ["v9.9.0", "stable"])

    upgrade = engine.run(trigger(cast, version="stable"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE
    assert platform.ledger() == []


def test_the_same_name_with_another_image_is_rolled(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """The tag moved after the tasks had started, so the name is the same but the image differs."""
    rebuilt = put_image(platform, ["rebuilt", "v9.9.0"])

    upgrade = engine.run(trigger(cast, version="v9.9.0"))

    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert running_digests(platform, cast) == {rebuilt}


def test_a_version_that_runs_is_not_rolled_again(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    engine.run(trigger(cast))

    upgrade = engine.run(trigger(cast))

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.from_version, rollout.to_version) == (Outcome.NO_CHANGE, "v9.9.1", "v9.9.1")
    assert len(registrations(platform)) == len(deployments(platform, cast.acme)) == 1


def test_a_reused_revision_has_no_registration_entry(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    before = service_now(platform, cast)["taskDefinition"]
    engine.run(trigger(cast))
    platform.client().update_service(**get_place(cast), taskDefinition=before)
    platform.advance(300)

    again = engine.run(trigger(cast))

    assert again.rollouts.get().outcome == Outcome.COMPLETED
    assert UpgradeEvent.objects.filter(kind=EventKind.REVISION_REGISTERED).count() == 1


def test_a_forced_upgrade_rolls_the_same_revision_again(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    first = engine.run(trigger(cast))

    again = engine.run(trigger(cast, force_new_deployment=True))

    assert again.rollouts.get().outcome == Outcome.COMPLETED
    assert again.rollouts.get().task_definition == first.rollouts.get().task_definition
    assert (len(registrations(platform)), len(deployments(platform, cast.acme))) == (1, 2)


@pytest.mark.parametrize(("version", "outcome"), [("v9.9.0", Outcome.NO_CHANGE), ("v9.9.1", Outcome.COMPLETED)])
def test_names_are_compared_if_tasks_cannot_be_read(
    cast: Cast, engine: Engine, platform: LocalAws, version: str, outcome: Outcome
) -> None:
    platform.fault("access_denied", action="DescribeTasks")

    upgrade = engine.run(trigger(cast, version=version))

    assert upgrade.rollouts.get().outcome == outcome


# --- nothing to change, unless an outside deployment is in progress or has failed ----------------------------------


def start_outside(local_aws: LocalAws, cast: Cast, image: str, service: str = "agent") -> str:
    """Start a deployment of the image outside the portal and return its task definition. No time passes."""
    definition = plain_definition(cast, image, service)
    arn = local_aws.client().register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    local_aws.client().update_service(**get_place(cast, service), taskDefinition=arn)
    return str(arn)


def fail_outside(local_aws: LocalAws, cast: Cast, image: str, service: str = "agent") -> str:
    """Deploy the image outside the portal. Its tasks crash, and the circuit breaker stops it without a rollback."""
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    local_aws.client().update_service(**get_place(cast, service), deploymentConfiguration=breaker)
    local_aws.fault("crash", **get_place(cast, service), times=1)
    arn = start_outside(local_aws, cast, image, service)
    local_aws.advance(300)
    return arn


@pytest.mark.parametrize("interfere", [start_outside, fail_outside], ids=["under_way", "failed"])
@pytest.mark.parametrize("image", ["v9.9.0", "v9.9.1"])
def test_an_outside_deployment_that_has_not_ended_is_replaced(
    cast: Cast,
    engine: Engine,
    platform: LocalAws,
    registry: dict[str, str],
    interfere: Callable[[LocalAws, Cast, str], str],
    image: str,
) -> None:
    """The tasks run v9.9.0, but ECS still rolls to the other task definition, or would start the next task from it."""
    theirs = interfere(platform, cast, f"{REGISTRY}/axonflow-agent:{image}")
    assert running_digests(platform, cast) == {registry["agent:v9.9.0"]}

    upgrade = engine.run(trigger(cast, version="v9.9.0", override_reason="it replaces the outside deployment"))

    rollout = upgrade.rollouts.get()
    assert (upgrade.status, rollout.outcome, rollout.attempts) == (Status.SUCCESS, Outcome.COMPLETED, 1)
    assert rollout.previous_task_definition == theirs
    assert running_digests(platform, cast) == {registry["agent:v9.9.0"]}
    assert service_now(platform, cast)["deployments"][0]["id"] == rollout.deployment_id


def test_an_outside_deployment_before_its_turn_is_replaced(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, "all", version="v9.9.0")
    start_outside(platform, cast, f"{REGISTRY}/axonflow-customer-portal:v9.9.1", "customer-portal")
    for _ in range(3):
        engine.step()  # each service has had its turn, and no time has passed in ECS

    engine.run(upgrade)

    assert list(upgrade.rollouts.order_by("position").values_list("outcome", flat=True)) == [
        Outcome.NO_CHANGE,
        Outcome.NO_CHANGE,
        Outcome.COMPLETED,
    ]


def test_a_foreign_image_that_has_not_ended_well_is_rolled(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    theirs = start_outside(platform, cast, "ghcr.io/getaxonflow/axonflow-agent:v9.9.0")

    upgrade = engine.run(trigger(cast, version="latest", override_reason="it is rolling"))

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.task_definition) == (Outcome.COMPLETED, theirs)


def test_a_completed_outside_deployment_is_no_change(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.9.1"))
    before = len(platform.ledger(action="UpdateService"))

    upgrade = engine.run(trigger(cast, version="v9.9.1"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE
    assert len(platform.ledger(action="UpdateService")) == before


def test_a_version_that_ecs_rolled_back_to_is_no_change(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", **get_place(cast), times=1)
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent:v9.9.1"))

    upgrade = engine.run(trigger(cast, version="v9.9.0"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


# --- never twice ---------------------------------------------------------------------------------------------------


def test_a_lost_registration_is_found_by_its_content(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("reply_lost", action="RegisterTaskDefinition", times=1)
    upgrade = trigger(cast)
    engine.step()
    assert upgrade.rollouts.get().check_error == "ecs:RegisterTaskDefinition: ConnectionClosedError."

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert len(registrations(platform)) == len(deployments(platform, cast.acme)) == 1


@pytest.mark.parametrize(("fault", "registered"), [("timeout_before", 0), ("timeout_after", 1)])
def test_a_worker_killed_while_registering_is_recovered(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str, registered: int
) -> None:
    upgrade = trigger(cast)
    pk = upgrade.rollouts.get().pk
    platform.fault(fault, action="RegisterTaskDefinition", times=1, seconds=3)
    worker = start_step(pk)
    wait_for(lambda: platform.faults() == [])  # the call is on its way
    wait_for(lambda: len(registrations(platform)) == registered)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert upgrade.rollouts.get().phase == Phase.DUE

    engine.run(upgrade)

    assert upgrade.status == Status.SUCCESS
    assert len(deployments(platform, cast.acme)) == 1
    if registered:
        assert len(registrations(platform)) == 1


def test_a_lost_update_service_is_adopted_by_its_revision(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("reply_lost", action="UpdateService", times=1)

    upgrade = engine.run(trigger(cast))

    (call,) = deployments(platform, cast.acme)
    assert upgrade.rollouts.get().deployment_id == call["deployment_id"]
    assert len(registrations(platform)) == 1


@pytest.mark.parametrize("fault", ["throttle", "server_error", "expired_token"])
def test_a_registration_that_aws_cannot_take_is_retried(
    cast: Cast, engine: Engine, platform: LocalAws, fault: str
) -> None:
    platform.fault(fault, action="RegisterTaskDefinition", times=2)

    upgrade = engine.run(trigger(cast))

    assert upgrade.status == Status.SUCCESS
    assert len(registrations(platform)) == len(deployments(platform, cast.acme)) == 1


# --- refused by AWS ------------------------------------------------------------------------------------------------


def test_a_denied_registration_names_the_permission(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="RegisterTaskDefinition")

    upgrade = engine.run(trigger(cast))

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome) == (Status.FAILED, Outcome.ACCESS_DENIED)
    assert "ecs:RegisterTaskDefinition" in (rollout.error_message or "")
    assert deployments(platform, cast.acme) == []


def test_a_missing_pass_role_permission_is_named(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    message = (
        "User: arn:aws:sts::111111111111:assumed-role/portal/s is not authorized to perform: iam:PassRole on resource: "
        "arn:aws:iam::111111111111:role/agent because no identity-based policy allows the iam:PassRole action"
    )
    platform.fault("error", action="RegisterTaskDefinition", code="AccessDeniedException", message=message)

    upgrade = engine.run(trigger(cast))

    assert upgrade.rollouts.get().outcome == Outcome.ACCESS_DENIED
    assert "iam:PassRole" in (upgrade.error_message or "")


def test_a_refused_registration_says_where_to_find_the_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("error", action="RegisterTaskDefinition", code="ClientException", message="Too many containers.")

    upgrade = engine.run(trigger(cast))

    assert upgrade.rollouts.get().outcome == Outcome.REFUSED
    assert "ecs:RegisterTaskDefinition: ClientException (AWS request " in (upgrade.error_message or "")
    assert "CloudTrail" in (upgrade.error_message or "")
    assert "Too many containers." not in (upgrade.error_message or "")


# --- registries that cannot be read or lack the version --------------------------------------------------------------


def test_a_foreign_registry_rolls_the_same_task_definition(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    image = "ghcr.io/getaxonflow/axonflow-agent:v9.9.0"
    arn = deploy(platform, cast, plain_definition(cast, image))

    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.task_definition, rollout.wanted_version) == (Outcome.COMPLETED, arn, None)
    assert (rollout.from_version, rollout.to_version) == ("v9.9.0", "v9.9.0")
    assert {rollout.to_digest} == running_digests(platform, cast)


def test_a_foreign_registry_has_no_versions_to_choose(cast: Cast, platform: LocalAws) -> None:
    deploy(platform, cast, plain_definition(cast, "ghcr.io/getaxonflow/axonflow-agent:v9.9.0"))

    refused = refusal(cast)

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert "agent service: ghcr.io/getaxonflow/axonflow-agent is not in Amazon ECR" in refused.message


def refusal(cast: Cast, service: str = "agent", version: str = "v9.9.1") -> PortalError:
    """Return the error that refuses the trigger. Check that nothing is written."""
    before = Upgrade.objects.count()
    with pytest.raises(PortalError) as refused:
        trigger(cast, service, version)
    assert Upgrade.objects.count() == before
    return refused.value


def test_a_registry_that_denies_access_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("access_denied", action="DescribeImages")

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert "ecr:DescribeImages" in refused.message
    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert registrations(platform) == []


def test_a_missing_repository_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-agent", force=True)

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest"))

    assert "Amazon ECR has no repository axonflow-agent in eu-central-1" in refused.message
    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


def test_a_repository_without_a_tagged_image_is_limited(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    ecr = platform.client("ecr")
    ecr.delete_repository(repositoryName="axonflow-agent", force=True)
    ecr.create_repository(repositoryName="axonflow-agent")

    upgrade = engine.run(trigger(cast, version="latest"))

    assert upgrade.rollouts.get().outcome == Outcome.NO_CHANGE


def test_an_ambiguous_container_is_left_unchanged(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    image = f"{REGISTRY}/axonflow-agent:v9.9.0"
    containers = [{"name": name, "image": image, "essential": True, "memory": 64} for name in ("one", "two")]
    deploy(platform, cast, {"family": f"{cast.acme.deployment_stack}-agent", "containerDefinitions": containers})

    refused = refusal(cast)
    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    assert "cannot identify the container" in refused.message
    assert (upgrade.status, registrations(platform)[1:]) == (Status.SUCCESS, [])


@pytest.mark.parametrize("fault", ["throttle", "server_error", "timeout_before"])
@pytest.mark.parametrize("action", ["DescribeImages", "DescribeServices"])
def test_an_explicit_version_needs_aws_to_answer(cast: Cast, platform: LocalAws, fault: str, action: str) -> None:
    platform.fault(fault, action=action, account="111111111111")

    refused = refusal(cast)

    assert (refused.code, refused.status) == ("registry_unavailable", 502)


def test_a_resolved_version_needs_no_registry(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    platform.fault("throttle", action="DescribeImages")

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert upgrade.rollouts.get().to_version == "v9.9.1"


def test_latest_is_resolved_later_if_the_registry_is_down(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    platform.fault("throttle", action="DescribeImages")
    upgrade = trigger(cast, version="latest")
    engine.step()
    waiting = upgrade.rollouts.get()
    assert (waiting.phase, waiting.wanted_version, waiting.wanted_image) == (Phase.DUE, "latest", None)
    assert (waiting.check_error or "").startswith("ecr:DescribeImages: ThrottlingException (AWS request ")
    platform.clear_faults()

    engine.run(upgrade)

    assert upgrade.rollouts.get().to_version == "v9.9.1"
    assert running_digests(platform, cast) == {registry["agent:v9.9.1"]}


@pytest.mark.parametrize("version", ["v1.0.0", "not a tag", "-x", "sha256:abc", "sha256:" + 64 * "0"])
def test_an_unknown_version_is_refused(cast: Cast, platform: LocalAws, version: str) -> None:
    refused = refusal(cast, version=version)

    assert (refused.code, refused.status) == ("version_unavailable", 400)
    assert f"agent service: the repository axonflow-agent has no image {version}" in refused.message


def test_a_version_that_one_service_lacks_names_the_service(cast: Cast, platform: LocalAws) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-orchestrator", imageIds=[{"imageTag": "v9.8.0"}])

    refused = refusal(cast, "all", "v9.8.0")

    assert "(orchestrator: the repository axonflow-orchestrator has no image v9.8.0)" in refused.message
    assert trigger(cast, "agent", "v9.8.0").version == "v9.8.0"


def test_a_disabled_service_may_lack_the_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-customer-portal", force=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=0)

    upgrade = engine.run(trigger(cast, "all"))

    assert upgrade.status == Status.SUCCESS
    assert upgrade.rollouts.get(service="customer-portal").outcome == Outcome.DISABLED


def test_a_service_scaled_up_meanwhile_keeps_its_image(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-customer-portal", force=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=0)
    upgrade = trigger(cast, "all", force_new_deployment=True)
    platform.client().update_service(**get_place(cast, "customer-portal"), desiredCount=2)

    engine.run(upgrade)

    last = upgrade.rollouts.get(service="customer-portal")
    assert (upgrade.status, last.outcome) == (Status.PARTIAL, Outcome.NOT_ATTEMPTED)
    assert "v9.9.1 is not available: Amazon ECR has no repository axonflow-customer-portal" in (
        last.error_message or ""
    )


def test_a_missing_cluster_needs_no_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    cast.acme.deployment_cluster = "gone"
    cast.acme.save()

    upgrade = engine.run(trigger(cast, override_reason="to see the error of ECS"))

    assert upgrade.rollouts.get().outcome == Outcome.SERVICE_MISSING


def test_a_missing_service_needs_no_version(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.client().delete_service(**get_place(cast, "orchestrator"), force=True)
    platform.advance(600)

    upgrade = engine.run(trigger(cast, "all", override_reason="it is created again later"))

    outcomes = list(upgrade.rollouts.values_list("outcome", flat=True))
    assert outcomes == [Outcome.COMPLETED, Outcome.SERVICE_MISSING, Outcome.COMPLETED]


# --- names of pinned images ----------------------------------------------------------------------------------------


def test_a_pinned_image_is_named_by_past_rollouts(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    engine.run(trigger(cast))
    platform.client("ecr").delete_repository(repositoryName="axonflow-agent", force=True)

    upgrade = engine.run(trigger(cast, version="latest", force_new_deployment=True))

    assert (upgrade.rollouts.get().from_version, upgrade.rollouts.get().to_version) == ("v9.9.1", "v9.9.1")


@pytest.mark.parametrize("known", [True, False])
def test_an_image_pinned_outside_is_named_by_tag_or_digest(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], known: bool
) -> None:
    digest = registry["agent:v9.9.1"] if known else push_untagged(platform)
    deploy(platform, cast, plain_definition(cast, f"{REGISTRY}/axonflow-agent@{digest}"))

    upgrade = trigger(cast, version="v9.8.0")
    engine.start(upgrade)

    assert upgrade.rollouts.get().from_version == ("v9.9.1" if known else digest[:19])


# --- rows of other kinds -------------------------------------------------------------------------------------------


def test_a_row_of_the_previous_release_rolls_the_current_image(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast, version="latest", force_new_deployment=True)
    Rollout.objects.filter(upgrade=upgrade).update(wanted_version=None, wanted_image=None)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.to_version) == (Outcome.COMPLETED, "v9.9.0")
    assert rollout.task_definition == rollout.previous_task_definition
    assert registrations(platform) == []


def test_a_rollback_records_versions_and_digests(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    before = service_now(platform, cast)["taskDefinition"]
    upgrade = engine.run(trigger(cast))

    back = engine.run(rollback_upgrade(upgrade, actor=cast.operator))

    rollout = back.rollouts.get()
    assert (rollout.outcome, rollout.task_definition) == (Outcome.COMPLETED, before)
    assert (rollout.from_version, rollout.to_version) == ("v9.9.1", "v9.9.0")
    assert (rollout.from_digest, rollout.to_digest) == (registry["agent:v9.9.1"], registry["agent:v9.9.0"])
    assert len(registrations(platform)) == 1


def test_the_lease_is_renewed_before_each_call(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """A lease lost before the registration ends the step: nothing is registered, nothing is written."""
    upgrade = trigger(cast)
    pk = upgrade.rollouts.get().pk
    platform.fault("delay", action="DescribeTaskDefinition", seconds=2, times=1)
    worker = start_step(pk)
    wait_for(lambda: platform.faults() == [])
    Rollout.objects.filter(pk=pk).update(lease_epoch=100, lease_until=Now())
    worker.wait()

    assert platform.ledger() == []
    assert upgrade.rollouts.get().phase == Phase.DUE


# --- several containers with the same image -------------------------------------------------------------------------


def deploy_containers(local_aws: LocalAws, cast: Cast, **images: str) -> None:
    """Roll the agent service to a task definition with these images by container."""
    containers = [
        {"name": name, "image": f"{REGISTRY}/{image}", "essential": True, "memory": 64}
        for name, image in images.items()
    ]
    deploy(local_aws, cast, {"family": f"{cast.acme.deployment_stack}-agent", "containerDefinitions": containers})


def images_now(local_aws: LocalAws, cast: Cast) -> dict[str, str]:
    containers = definition_now(local_aws, cast)["containerDefinitions"]
    return {each["name"]: each["image"].removeprefix(f"{REGISTRY}/") for each in containers}


@pytest.mark.parametrize("other", ["axonflow-agent:v9.9.0", "axonflow-agent:v9.8.0"])
def test_all_containers_with_the_image_are_moved(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str], other: str
) -> None:
    deploy_containers(platform, cast, agent="axonflow-agent:v9.9.0", worker=other, proxy="axonflow-orchestrator:v9.9.0")

    upgrade = engine.run(trigger(cast))

    moved = f"axonflow-agent@{registry['agent:v9.9.1']}"
    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED
    assert images_now(platform, cast) == {"agent": moved, "worker": moved, "proxy": "axonflow-orchestrator:v9.9.0"}


def test_a_container_that_was_left_behind_is_moved(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    moved = f"axonflow-agent@{registry['agent:v9.9.1']}"
    deploy_containers(platform, cast, agent=moved, worker="axonflow-agent:v9.9.0")

    first = engine.run(trigger(cast))
    again = engine.run(trigger(cast))

    assert (first.rollouts.get().outcome, again.rollouts.get().outcome) == (Outcome.COMPLETED, Outcome.NO_CHANGE)
    assert images_now(platform, cast) == {"agent": moved, "worker": moved}
