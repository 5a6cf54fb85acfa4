"""Task definition revisions: reads one completely, registers a copy with another image, and finds that copy again.

A revision never changes, and RegisterTaskDefinition has no idempotency token. If the reply to a registration was lost,
the revision is found by its content.

botocore drops members of a reply that its model does not have. A copy would lose them without notice, so the raw reply is
compared with the model, and a task definition with an unknown member is not copied.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.model import OperationModel

from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget, client
from portal.aws.ecs.calls import open_writer, read
from portal.aws.errors import AwsRefused, complete, incomplete, need, translated
from portal.aws.permissions import Scope, Use, find_role_arns

# Key of the names in the parsed reply.
UNKNOWN_MEMBERS = "unknownMembers"


@dataclass(frozen=True)
class Revision:
    """A revision. `content` holds the parameters of RegisterTaskDefinition in ECS's own shape and is passed back as is."""

    arn: str
    content: dict[str, Any]

    @property
    def family(self) -> str:
        return str(self.content["family"])

    def with_image(self, names: Collection[str], image: str) -> dict[str, Any]:
        """Return the content with another image in the containers with these names."""
        containers = [
            {**each, "image": image} if each["name"] in names else each for each in self.content["containerDefinitions"]
        ]
        return {**self.content, "containerDefinitions": containers}


def read_revision(target: AwsTarget, name: str) -> Revision | None:
    """Read the revision with this ARN, or the newest ACTIVE one of a family. None if there is none. One call.

    Raises AwsUnavailable if the reply lacks a member that every revision has, and AwsRefused if it has one that the
    installed botocore does not know, because a copy could not be registered.
    """
    action = "ecs:DescribeTaskDefinition"
    client(target, "ecs").meta.events.register(
        "before-parse.ecs.DescribeTaskDefinition", note_unknown_members, unique_id="note_unknown_members"
    )
    try:
        reply = read(
            target,
            action,
            "describe_task_definition",
            taskDefinition=name,
            include=["TAGS"],
        )
    except AwsRefused as error:
        if error.code == "ClientException":
            return None
        raise
    with complete(action):
        raw = {**reply["taskDefinition"], "tags": [tag for tag in reply.get("tags", []) if not is_aws_own(tag)]}
    missing = find_missing_member(raw)
    if missing:
        raise incomplete(missing, action)
    if reply.get(UNKNOWN_MEMBERS):
        names = ", ".join(reply[UNKNOWN_MEMBERS])
        why = f"the portal's botocore does not know {names}, so a copy of {raw['taskDefinitionArn']} would lose it"
        raise AwsRefused("UnknownMember", action=action, why=why)
    # The names are read from botocore's model, so that members that AWS adds later are copied too.
    model = client(target, "ecs").meta.service_model
    members = model.operation_model("RegisterTaskDefinition").input_shape.members
    content = {name: raw[name] for name in members if name in raw}
    if not content["tags"]:
        del content["tags"]
    return Revision(arn=raw["taskDefinitionArn"], content=content)


def note_unknown_members(
    operation_model: OperationModel,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: Any,
) -> None:
    """Add to a parsed reply the members of its task definition that are not in botocore's model. A botocore handler."""
    if response_dict["status_code"] != 200:
        return
    try:
        body = json.loads(response_dict["body"])
    except ValueError:
        return  # botocore raises its own error about it
    names = sorted(set(find_unknown_members(body, operation_model.output_shape, "")))
    customized_response_dict[UNKNOWN_MEMBERS] = names


def find_unknown_members(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Yield the paths of members with a value that the shape does not have, without the indexes of lists."""
    if value is None or shape is None:
        return
    if shape.type_name == "structure" and isinstance(value, dict):
        known = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        for name, each in value.items():
            inner = f"{path}.{name}" if path else name
            if name in known:
                yield from find_unknown_members(each, known[name], inner)
            elif each not in (None, "", [], {}):
                yield inner
    elif shape.type_name == "list" and isinstance(value, list):
        for each in value:
            yield from find_unknown_members(each, shape.member, path)
    elif shape.type_name == "map" and isinstance(value, dict):
        for each in value.values():
            yield from find_unknown_members(each, shape.value, path)


def find_missing_member(raw: dict[str, Any]) -> str | None:
    """Return the first missing member of those that every revision has; None if all are there."""
    of_all = [name for name in ("taskDefinitionArn", "family", "containerDefinitions") if not raw.get(name)]
    containers = raw.get("containerDefinitions", [])
    of_each = [name for container in containers for name in ("name", "image") if not container.get(name)]
    of_tags = ["key" for tag in raw.get("tags", []) if not tag.get("key")]
    return next(iter([*of_all, *of_each, *of_tags]), None)


def is_aws_own(tag: dict[str, str]) -> bool:
    """Return whether AWS set the tag itself (CloudFormation's `aws:..`). Only AWS may register such tags."""
    return tag.get("key", "").lower().startswith("aws:")


def register_revision(
    target: AwsTarget, content: dict[str, Any], *, before_call: Callable[[], None] = do_nothing
) -> str:
    """Register a revision with one call and return its ARN. `before_call` as for update_service.

    Raises AwsUnavailable, in which case the revision may exist anyway.
    """
    action = "ecs:RegisterTaskDefinition"
    roles = {content.get("executionRoleArn"), content.get("taskRoleArn")}
    writer = open_writer(target, action, Scope(Use.DEFINITION, roles=find_role_arns(target.role_arn, roles)))
    before_call()
    with translated(action):
        reply = writer.register_task_definition(**content)
    with complete(action):
        return str(need(reply["taskDefinition"], "taskDefinitionArn"))


def is_same(content: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether both describe the same revision. ECS does not keep the order of environment, secrets, tags etc."""
    return bool(_canonical(content) == _canonical(other))


def _canonical(value: Any) -> Any:
    """Return the value with lists of objects sorted. Lists of strings, such as a command, keep their order."""
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_canonical(each) for each in value]
        is_objects = any(isinstance(each, dict) for each in inner)
        return sorted(inner, key=lambda each: json.dumps(each, sort_keys=True)) if is_objects else inner
    return value
