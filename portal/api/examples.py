"""Examples of the OpenAPI document: one of each body, made of its schema, with the values below where they say more.

Made of the schema, an example has every member and fits. tests/portal/test_schema.py validates each.
"""

from typing import Any

Json = dict[str, Any]

TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
FORMATS = {"date-time": "2026-11-28T16:03:10Z", "uuid": "0b6f0c5e-9d0e-4b39-8c38-2c6f0b5b7f1d"}
UPGRADE = "upgrade-2026-1128-160310-50d288"
DEFINITION = "arn:aws:ecs:eu-central-1:111111111111:task-definition/prod-agent"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
# The value of a member, by its name or by schema and name. Others are the default, the first choice, null or by type.
VALUES: Json = {
    "actor": "operator@acme.example",
    "agent": "v9.9.1",
    "agent_name": "Digest",
    "cluster": "prod",
    "code": "123456",
    "cpu": 256,
    "cpu_usage": 12.5,
    "created_by": "operator@acme.example",
    "customer-portal": "v4.2.0",
    "decided_by": "admin@acme.example",
    "DeploymentNotice.status": "failed",
    "DeploymentNotice.title": "Acme Robotics (production): Digest failed",
    "DeploymentNotice.url": "https://portal.example.com/o/acme/deployments/0b6f0c5e-9d0e-4b39-8c38-2c6f0b5b7f1d/",
    "desired_count": 3,
    "DeploymentRecord.status": "ready",
    "DeploymentRecord.started_at": "2026-11-28T16:03:44Z",
    "DeploymentSummary.status": "ready",
    "DeploymentSummary.started_at": "2026-11-28T16:03:44Z",
    "description": "Writes the daily digest.",
    "detail": "3 of 3 tasks run.",
    "DifferenceRecord.after": "acme/digest:v1.3.0",
    "DifferenceRecord.before": "acme/digest:v1.2.0",
    "email": "operator@acme.example",
    "environment": {"LOG_LEVEL": "info"},
    "estimated_seconds": 240,
    "estimated_time": "about 4 minutes",
    "EvidencePlace.environment": "production",
    "EvidencePlace.name": "Acme Robotics",
    "from_version": "v9.9.0",
    "generated_at": "2026-11-28T17:00:00Z",
    "has_more": False,
    "HistoryItem.completed_at": "2026-11-28T16:07:02Z",
    "HistoryItem.status": "SUCCESS",
    "HistoryItem.success": True,
    "hook_id": "hook-1",
    "image": "111111111111.dkr.ecr.eu-central-1.amazonaws.com/acme/digest:v1.2.0",
    "initiated_by": "operator@acme.example",
    "limit": 50,
    "LogRecord.id": "38911023",
    "LogRecord.level": "INFO",
    "may_start": True,
    "Membership.name": "Acme Robotics",
    "memory": 512,
    "memory_usage": 40.1,
    "message": "Agent runs v9.9.1.",
    "name": "Digest",
    "not_secrets": [],
    "node_id": "0d5f0c7ea1b24b0e8f3a9a2f7a1f1c55",
    "number": 3,
    "orchestrator": "v7.1.3",
    "organization": "acme",
    "outcome": "completed",
    "password": "correct horse battery staple",
    "period_seconds": 60,
    "Person.name": "Olivia Operator",
    "previous_task_definition": f"{DEFINITION}:41",
    "reason": "OPS-412",
    "region": "eu-central-1",
    "replicas": 2,
    "requested_by": "operator@acme.example",
    "running_count": 3,
    "running_replicas": 2,
    "service_name": "prod-agent-service",
    "services": ["agent"],
    "sha256": DIGEST.removeprefix("sha256:"),
    "skip": 0,
    "slug": "acme",
    "status_url": f"/api/v1/deployments/upgrade/{UPGRADE}",
    "strategy": "ROLLING",
    "success": False,
    "Accepted.success": True,
    "success_count": 1,
    "failed_count": 0,
    "tags": ["v9.9.1", "latest"],
    "task_definition": f"{DEFINITION}:42",
    "title": "Services are steady",
    "TestNotice.title": "Acme Robotics (production): test",
    "to_version": "v9.9.1",
    "total": 1,
    "upgrade_id": UPGRADE,
    "UpgradeNotice.override_reason": "",
    "UpgradeNotice.title": "Acme Robotics (production): upgrade started",
    "UpgradeRecord.status": "IN_PROGRESS",
    "url": f"https://portal.example.com/o/acme/upgrades/{UPGRADE}/",
    "ServiceEntry.status": "IN_PROGRESS",
    "version": "v9.9.1",
    "WaitingNotice.override_reason": "",
    "WaitingNotice.title": "Acme Robotics (production): rollout of agent service waits for a decision",
}
# An example of each error status: code and detail, and what else its body has.
ERRORS: dict[str, Json] = {
    "400": {
        "code": "invalid",
        "detail": "Not accepted: replicas. See errors.",
        "errors": {"replicas": ["At most 10."]},
    },
    "401": {"code": "not_authenticated", "detail": "Sign in first: POST /api/v1/auth/login."},
    "403": {"code": "scope_missing", "detail": "The token CI lacks the scope upgrade.", "scope": "upgrade"},
    "404": {"code": "not_found", "detail": "This does not exist, or you do not have access to it."},
    "409": {"code": "upgrade_in_progress", "detail": "Agent is being upgraded.", "upgrade_id": UPGRADE},
    "413": {"code": "too_large", "detail": "The request is larger than 1 MiB."},
    "415": {"code": "unsupported_media_type", "detail": 'Unsupported media type "text/plain" in request.'},
    "422": {"code": "idempotency_mismatch", "detail": "This Idempotency-Key was used for another request."},
    "429": {"code": "too_many_requests", "detail": "You sent too many requests of this kind."},
    "502": {"code": "aws_unavailable", "detail": "The logs could not be read from AWS."},
    "503": {"code": "dependency_down", "detail": "A service that the portal depends on is down."},
}


def add_examples(result: Json, **_: Any) -> Json:
    """Give each request and response an example, kept once in `components`. A hook of spectacular."""
    kept = result["components"].setdefault("examples", {})
    for status, name, media in list_bodies(result):
        if name:
            is_error = name == "Refusal"
            key = f"Error{status}" if is_error else name
            kept[key] = {"value": ERRORS[status] if is_error else build(result, media["schema"])}
            media["examples"] = {"example": {"$ref": f"#/components/examples/{key}"}}
    return result


def list_bodies(document: Json) -> list[tuple[str, str, Json]]:
    """Return status, name of the schema and media type of each body. Status is empty for a request, name for no schema."""
    paths = [*document["paths"].values(), *document.get("webhooks", {}).values()]
    operations = [operation for each in paths for operation in each.values()]
    bodies = [
        (status, body)
        for operation in operations
        for status, body in [("", operation.get("requestBody", {})), *operation["responses"].items()]
    ]
    return [
        (status, media["schema"].get("$ref", "").rpartition("/")[2], media)
        for status, body in bodies
        for media in body.get("content", {}).values()
    ]


def build(document: Json, schema: Json, name: str = "", owner: str = "") -> Any:
    """Return an example of this schema. `name`: of the member that it is, in the schema `owner`."""
    if "$ref" in schema:
        found = schema["$ref"].rpartition("/")[2]
        return build(document, document["components"]["schemas"][found], name, found)
    if "allOf" in schema:
        return build(document, schema["allOf"][0], name, owner)
    for key in (f"{owner}.{name}", name):
        if key in VALUES and fits(VALUES[key], schema):
            return VALUES[key]
    if "properties" in schema:
        members: Json = schema["properties"]
        return {each: build(document, member, each, owner) for each, member in members.items()}
    if schema.get("default") is not None:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    return by_type(document, schema, name, owner)


def by_type(document: Json, schema: Json, name: str, owner: str) -> Any:
    """Return null if that fits, else a value of this type and format."""
    kinds = list_types(schema)
    if "null" in kinds or not kinds:
        return None
    if kinds == ["array"]:
        return [build(document, schema["items"], name, owner)]
    if kinds == ["string"]:
        return FORMATS.get(schema.get("format", ""), "text")
    return {"integer": schema.get("minimum", 1), "number": 1, "boolean": False, "object": {}}[kinds[0]]


def list_types(schema: Json) -> list[str]:
    if any(each.get("type") == "null" for each in schema.get("oneOf", [])):
        return ["null"]
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def fits(value: Any, schema: Json) -> bool:
    """Return whether the value, and each of an array, has the schema's type and is one of its choices."""
    if "enum" in schema:
        return value in schema["enum"]
    if schema.get("format") in FORMATS and schema["format"] != "date-time":
        return False
    if isinstance(value, list) and not all(fits(each, schema.get("items", {})) for each in value):
        return False
    kinds = [TYPES[kind] for kind in list_types(schema)]
    is_flag = isinstance(value, bool)
    return any(isinstance(value, kind) and (not is_flag or kind is bool) for kind in kinds)
