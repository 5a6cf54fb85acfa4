"""Task definitions through boto3: every field of a registration is returned, with ECS's checks and defaults."""

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from tests.sandbox.conftest import Ecs

Json = dict[str, Any]


@pytest.fixture
def family(ecs: Ecs) -> str:
    ecs.faults()
    return f"f-{uuid.uuid4().hex[:8]}"


def everything(shape: Shape, path: str = "") -> Any:
    """Return a value for each member of a botocore shape, at any depth."""
    if isinstance(shape, StructureShape):
        return {name: everything(member, f"{path}-{name}") for name, member in shape.members.items()}
    if isinstance(shape, ListShape):
        return [everything(shape.member, path)]
    if isinstance(shape, MapShape):
        return {"key": everything(shape.value, path)}
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else path.strip("-")[-40:]  # type: ignore[attr-defined] # a StringShape
    return {"integer": 7, "long": 7, "boolean": True, "double": 0.5, "float": 0.5}[shape.type_name]


def whole_registration(ecs: Ecs, family: str) -> Json:
    """Return a registration that uses every field botocore knows."""
    shape = ecs.client.meta.service_model.operation_model("RegisterTaskDefinition").input_shape
    return {
        **everything(shape),
        "family": family,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "pidMode": "task",
        "cpu": "1024",
        "memory": "2048",
    }


def minimal(family: str, **fields: Any) -> Json:
    return {"family": family, "containerDefinitions": [{"name": "app", "image": "i", "memory": 64}], **fields}


def refusal(ecs: Ecs, **registration: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        ecs.client.register_task_definition(**registration)
    return refused.value.response["Error"]["Code"], refused.value.response["Error"]["Message"]


def test_every_field_of_a_registration_comes_back(ecs: Ecs, family: str) -> None:
    wanted = whole_registration(ecs, family)

    registered = ecs.client.register_task_definition(**wanted)["taskDefinition"]
    reply = ecs.client.describe_task_definition(taskDefinition=family, include=["TAGS"])
    described = reply["taskDefinition"]

    assert {name: described.get(name) for name in wanted if name != "tags"} == {
        name: value for name, value in wanted.items() if name != "tags"
    }
    assert reply["tags"] == wanted["tags"]
    assert registered == described
    assert "tags" not in ecs.client.describe_task_definition(taskDefinition=family)


def test_what_ecs_adds_cannot_be_registered(ecs: Ecs, family: str) -> None:
    added = ecs.client.register_task_definition(**whole_registration(ecs, family))["taskDefinition"]
    taken = ecs.client.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members

    assert set(added) - set(taken) == {
        *("taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities"),
        *("registeredAt", "registeredBy"),
    }
    assert added["registeredBy"] == "arn:aws:iam::111111111111:user/portal"
    assert added["requiresAttributes"]


def test_same_registration_creates_another_revision(ecs: Ecs, family: str) -> None:
    first, second = (
        ecs.client.register_task_definition(**minimal(family))["taskDefinition"]["revision"] for _ in range(2)
    )

    assert (first, second) == (1, 2)


def test_defaults_are_filled_in(ecs: Ecs, family: str) -> None:
    container = {"name": "app", "image": "i", "portMappings": [{"containerPort": 8080}]}
    fargate = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "0.5 vCPU", "memory": "1 GB"}

    made = ecs.client.register_task_definition(family=family, containerDefinitions=[container], **fargate)
    definition = made["taskDefinition"]

    assert (definition["cpu"], definition["memory"]) == ("512", "1024")
    (kept,) = definition["containerDefinitions"]
    assert kept["portMappings"] == [{"containerPort": 8080, "hostPort": 8080, "protocol": "tcp"}]
    assert (kept["essential"], kept["environment"], kept["mountPoints"], kept["cpu"]) == (True, [], [], 0)


def test_the_order_of_environment_and_secrets_is_not_kept(ecs: Ecs, family: str) -> None:
    environment = [{"name": name, "value": "1"} for name in ("ZEBRA", "ANT", "MULE")]
    secrets = [{"name": name, "valueFrom": "arn"} for name in ("Z", "A")]
    container = {"name": "app", "image": "i", "memory": 64, "environment": environment, "secrets": secrets}

    made = ecs.client.register_task_definition(family=family, containerDefinitions=[container])["taskDefinition"]

    (kept,) = made["containerDefinitions"]
    assert [each["name"] for each in kept["environment"]] == ["ANT", "MULE", "ZEBRA"]
    assert [each["name"] for each in kept["secrets"]] == ["A", "Z"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"family": "two words"}, "Family"),
        ({"containerDefinitions": []}, "Container list cannot be empty"),
        ({"containerDefinitions": [{"name": "a", "image": "i", "memory": 64}] * 2}, "unique"),
        ({"requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512"}, "awsvpc"),
        ({"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc"}, "task level"),
        (
            {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "4096"},
            "No Fargate configuration",
        ),
        ({"tags": [{"key": "aws:owner", "value": "me"}]}, "aws: prefixed"),
    ],
)
def test_invalid_registration_is_refused(ecs: Ecs, family: str, change: Json, named: str) -> None:
    code, message = refusal(ecs, **{**minimal(family), **change})

    assert code in ("ClientException", "InvalidParameterException")
    assert named in message


def test_revisions_are_listed_in_order_and_paged(ecs: Ecs, family: str) -> None:
    arns = [
        ecs.client.register_task_definition(**minimal(family))["taskDefinition"]["taskDefinitionArn"] for _ in range(12)
    ]
    ecs.client.deregister_task_definition(taskDefinition=arns[3])

    newest = ecs.client.list_task_definitions(familyPrefix=family, sort="DESC", maxResults=2)
    rest = ecs.client.list_task_definitions(familyPrefix=family, sort="DESC", nextToken=newest["nextToken"])
    inactive = ecs.client.list_task_definitions(familyPrefix=family, status="INACTIVE")

    assert newest["taskDefinitionArns"] == arns[:-3:-1]
    assert rest["taskDefinitionArns"] == [arn for arn in arns[-3::-1] if arn != arns[3]]
    assert inactive["taskDefinitionArns"] == [arns[3]]
    assert ecs.client.list_task_definitions(familyPrefix=family[:-1])["taskDefinitionArns"] == []


def test_a_deregistered_revision_is_still_described(ecs: Ecs, family: str) -> None:
    arn = ecs.client.register_task_definition(**minimal(family))["taskDefinition"]["taskDefinitionArn"]
    ecs.client.deregister_task_definition(taskDefinition=arn)

    described = ecs.client.describe_task_definition(taskDefinition=arn)["taskDefinition"]

    assert described["status"] == "INACTIVE"
    assert described["deregisteredAt"] >= described["registeredAt"]


def test_definitions_over_64_kib_are_refused(ecs: Ecs) -> None:
    environment = [{"name": f"NAME_{number}", "value": "x" * 1000} for number in range(66)]
    large = minimal("large")
    large["containerDefinitions"][0]["environment"] = environment

    with pytest.raises(ClientError, match="Max allowed length is '65536' bytes") as refused:
        ecs.client.register_task_definition(**large)
    large["containerDefinitions"][0]["environment"] = environment[:60]

    assert refused.value.response["Error"]["Code"] == "ClientException"
    assert ecs.client.register_task_definition(**large)["taskDefinition"]["revision"] == 1


def test_seeded_definitions_look_like_those_of_cloudformation(ecs: Ecs) -> None:
    service = ecs.service(container="agent", tags={"stack": "acme"})
    arn = ecs.describe(service)["taskDefinition"]

    reply = ecs.client.describe_task_definition(taskDefinition=arn, include=["TAGS"])

    assert [tag["key"] for tag in reply["tags"]] == ["aws:cloudformation:stack-name", "stack"]
    definition = reply["taskDefinition"]
    assert definition["runtimePlatform"] == {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"}
    assert definition["containerDefinitions"][0]["healthCheck"]["retries"] == 10
    assert definition["registeredAt"].timestamp() < ecs.faults().now()


def test_what_moto_forgets_survives_a_restart(own_server: Any) -> None:
    server = own_server()
    server.client().register_task_definition(**minimal("kept", enableFaultInjection=True))
    before = server.client().describe_task_definition(taskDefinition="kept")["taskDefinition"]
    server.kill()

    after = own_server().client().describe_task_definition(taskDefinition="kept")["taskDefinition"]

    assert after == before
    assert after["enableFaultInjection"] is True
