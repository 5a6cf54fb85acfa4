"""Upgrades to a version: the chosen image, pinned by its digest, in a revision that differs in nothing else."""

import json
import signal
from typing import Any

import pytest
from django.db.models.functions import Now

from tests.conftest import Cast, Engine
from tests.faults.test_never_doubled import deployments
from tests.local_aws import LocalAws
from tests.processes import start_step, wait_for
from tests.upgrades.conftest import push_untagged
from tests.upgrades.versions import (
    REGISTRY,
    definition_now,
    deploy,
    get_place,
    plain_definition,
    put_image,
    registrations,
    running_digests,
    service_now,
    trigger,
)
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, UpgradeEvent
from upgrades.states import EventKind, Outcome, Phase, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


OUTPUT_ONLY = {"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt"}


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


ROLE = "arn:aws:iam::111111111111:role/agent"
# A task definition with much that the portal has no word for, and a sidecar.
DEFINITION: dict[str, Any] = {
    "taskRoleArn": ROLE,
    "executionRoleArn": ROLE,
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
            "secrets": [{"name": "DATABASE_URL", "valueFrom": "arn:aws:ssm:eu-central-1:111111111111:parameter/db"}],
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
}


def test_every_field_and_every_sidecar_is_kept(
    cast: Cast, engine: Engine, platform: LocalAws, registry: dict[str, str]
) -> None:
    deploy(platform, cast, {"family": f"{cast.acme.deployment_stack}-agent", **DEFINITION})
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
