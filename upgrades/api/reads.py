"""Reads of upgrades as JSON that PostgreSQL makes (portal/api/json_rows.py).

The sentences about an upgrade follow from its rollouts by functions of states.py. PostgreSQL therefore makes two texts of
each upgrade: the record, into which Python writes the sentences, and the far larger list of its checks, which it does not
read.
"""

import json
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, Case, Count, ExpressionWrapper, OuterRef, Q, Subquery, TextField, Value, When
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import NullIf
from django.http import HttpResponse
from rest_framework.request import Request

from portal.api.conditional import find_known, make_tag
from portal.api.json_rows import (
    ChoiceLabel,
    Fields,
    JsonObject,
    JsonObjects,
    JsonPage,
    TextArray,
    UtcMicroseconds,
    as_text,
    dumps,
    read_list,
    read_record,
    revisions_of,
    unless_known,
)
from portal.database.statements import Given
from portal.pagination import aggregate_rows
from upgrades.lists import upgrades_total
from upgrades.models import Decision, Kind, Rollout, Upgrade, UpgradeCheck, UpgradeEvent, event_actor, event_uuid
from upgrades.states import OPEN, MatrixRow, PreflightCheck, Status, describe_errors, describe_upgrade

Json = dict[str, Any]
FILTERS = ("status", "service", "version", "initiated_by", "validation")

HOOK = ("id", "type", "stage", "status", "expires_at", "timeout_action", "target")
DECISION: Fields = {
    "hook_id": "hook_id",
    "stage": "stage",
    "action": "action",
    "reason": "reason",
    "decided_by": "decided_by_email",
    "decided_at": UtcMicroseconds("decided_at"),
    "sent_at": UtcMicroseconds("sent_at"),
    "ended_at": UtcMicroseconds("ended_at"),
    "error": "error",
}
DECISIONS = Decision.objects.filter(rollout=OuterRef("pk")).order_by("-decided_at", "-id")
SERVICE: Fields = {
    "service": "service",
    "service_name": "service_name",
    "status": "status",
    "outcome": "outcome",
    "desired_count": "desired_count",
    "running_count": "running_count",
    "pending_count": "pending_count",
    "failed_tasks": "failed_tasks",
    "from_version": "from_version",
    "to_version": "to_version",
    "task_definition": "task_definition",
    "previous_task_definition": "previous_task_definition",
    "deployment_id": "deployment_id",
    "rollout_reason": "rollout_reason",
    "error_message": "error_message",
    "started_at": UtcMicroseconds("started_at"),
    "completed_at": UtcMicroseconds("completed_at"),
    "last_checked_at": UtcMicroseconds("last_checked_at"),
    "strategy": "strategy",
    "lifecycle_stage": "lifecycle_stage",
    "stage_began_at": UtcMicroseconds("stage_began_at"),
    "production_weight": "production_weight",
    "test_weight": "test_weight",
    "source_weight": "source_weight",
    "target_running": "target_running",
    "target_pending": "target_pending",
    "source_running": "source_running",
    "bake_ends_at": UtcMicroseconds("bake_ends_at"),
    "hook": Case(When(hook__isnull=False, then=JsonObject({name: KeyTransform(name, "hook") for name in HOOK}))),
    "decision": Subquery(DECISIONS.values_list(JsonObject(DECISION))[:1]),
    "is_stalled": "is_stalled",
    "is_overdue": "is_overdue",
    "deadline_at": UtcMicroseconds("deadline_at"),
    "is_draining": "is_draining",
}
# An entry of the timeline: with its number as id, and as actor the address that is stored.
ENTRY: Fields = {
    "id": "id",
    "kind": "kind",
    "service": "rollout__service",
    "actor": "actor_email",
    "message": "message",
    "created_at": UtcMicroseconds("created_at"),
}
# What the sentences follow from.
FACTS: Fields = {name: name for name in ("service", "status", "outcome", "rollout_reason", "error_message")}
CHECK: Fields = {
    "stage": "stage",
    "check": "name",
    "title": ChoiceLabel("name", [*PreflightCheck.choices, *MatrixRow.choices]),
    "status": "status",
    "detail": "detail",
    "evidence": "evidence",
    "checked_by": NullIf("checked_by_email", Value(""), output_field=TextField()),
    "note": NullIf("note", Value(""), output_field=TextField()),
    "checked_at": UtcMicroseconds("checked_at"),
}
ROLLOUTS = Rollout.objects.filter(upgrade=OuterRef("pk")).order_by("position")
CHECKS = UpgradeCheck.objects.filter(upgrade=OuterRef("pk")).order_by("stage", "position")
# All rows of an upgrade's record. A change of `last_checked_at` alone counts no revision.
COUNTED: Fields = {"id": "id", "revision": "revision"}
REVISIONS = revisions_of(
    {
        "id": "id",
        "revision": "revision",
        "organization": "organization__slug",
        "services": JsonObjects(ROLLOUTS, {**COUNTED, "last_checked_at": "last_checked_at"}),
        "checks": JsonObjects(CHECKS, COUNTED),
        "decisions": JsonObjects(Decision.objects.filter(rollout__upgrade=OuterRef("pk")).order_by("id"), COUNTED),
    }
)


def upgrade_fields(services: Fields) -> Fields:
    """Return the members of an upgrade's record, without `checks`. Python fills the sentences in."""
    return {
        "success": ExpressionWrapper(Q(status=Status.SUCCESS), BooleanField()),
        "upgrade_id": "upgrade_id",
        "organization": "organization__slug",
        "status": "status",
        "kind": "kind",
        "version": "version",
        "force_new_deployment": "force_new_deployment",
        "reason": "reason",
        "initiated_by": "initiated_by_email",
        "services": JsonObjects(ROLLOUTS, services),
        "success_count": "success_count",
        "failed_count": "failed_count",
        "validation": "validation",
        "message": Value(None, TextField()),
        "error_message": Value(None, TextField()),
        "override_reason": NullIf("override_reason", Value(""), output_field=TextField()),
        "started_at": UtcMicroseconds("started_at"),
        "completed_at": UtcMicroseconds("completed_at"),
    }


def parts(services: Fields) -> list[Any]:
    """Return the two texts of an upgrade: its record, and its checks."""
    return [as_text(JsonObject(upgrade_fields(services))), as_text(JsonObjects(CHECKS, CHECK))]


def with_sentences(text: str) -> Json:
    """Return the record of this JSON text with `message` and `error_message`, which follow from its services."""
    record: Json = json.loads(text)
    services = record["services"]
    states = [(each["service"], Status(each["status"]), each["outcome"]) for each in services]
    reasons = {each["service"]: each["rollout_reason"] for each in services}
    is_rollback = record["kind"] == Kind.ROLLBACK
    record["message"] = describe_upgrade(Status(record["status"]), states, reasons=reasons, is_rollback=is_rollback)
    record["error_message"] = describe_errors(
        (each["service"], each["outcome"], each["error_message"]) for each in services
    )
    return record


def read_upgrade(request: Request, upgrade_id: str) -> tuple[str, bool]:
    """Return the upgrade's record as JSON, and whether it is open. Raises PortalError as read_record does."""
    text, checks = read_record(request, build_upgrade, {"upgrade_id": upgrade_id})
    record = with_sentences(text)
    return f'{dumps(record)[:-1]},"checks":{checks}}}', record["status"] in OPEN


def read_status(request: Request, upgrade_id: str) -> tuple[str, str, bool]:
    """Return the upgrade's record as JSON, its ETag, and whether it is open. The record is empty if the client has it.

    *Raises* PortalError as read_record does.
    """
    given = {"upgrade_id": upgrade_id, "known": find_known(request)}
    status, revisions, texts = read_record(request, build_status, given)
    body = ""
    if texts is not None:
        text, checks = texts
        body = f'{dumps(with_sentences(text))[:-1]},"checks":{checks}}}'
    return body, make_tag(revisions), status in OPEN


def build_status(user: Any) -> tuple[Any, list[Any]]:
    rows, texts = build_upgrade(user)
    return rows, ["status", REVISIONS, unless_known(REVISIONS, *texts)]


def build_upgrade(user: Any) -> tuple[Any, list[Any]]:
    return Upgrade.objects.visible_to(user).filter(upgrade_id=Given("upgrade_id")), parts(SERVICE)


def read_history(request: Request, query: Json) -> HttpResponse:
    """Return a page of the organization's upgrades, newest first."""
    filters = {name: query[name] for name in FILTERS}
    shape = {name: value is not None for name, value in filters.items()}
    # There are three services, and `all` is none of them.
    shape["service"] = filters["service"]
    page = {"skip": query["skip"], "limit": query["limit"]}
    given = filters | {"initiated_by": (filters["initiated_by"] or "").lower()}
    organization, found = read_list(request, build_history, **page, given=given, **shape)
    items = ",".join(history_item(record, checks) for record, checks in found.items)
    return JsonPage(f"[{items}]", found.total, **page).respond(request, organization=organization.slug, **filters)


def history_item(text: str, checks: str) -> str:
    """Return an item of the history: the record, with the names of its services, and their number."""
    item = with_sentences(text)
    item["services"] = [each["service"] for each in item["services"]]
    return f'{dumps(item)[:-1]},"checks":{checks},"service_count":{len(item["services"])}}}'


def build_history(
    organization: Combinable, *, skip: int, limit: int, service: str | None, **given: bool
) -> tuple[Any, Any]:
    filters: Json = {name: Given(name) if is_given else None for name, is_given in given.items()}
    filters["service"] = service
    rows = Upgrade.objects.filter(organization=organization).matching(**filters).newest_first()[skip : skip + limit]
    return ArraySubquery(rows.values_list(TextArray(*parts(FACTS)))), upgrades_total(organization, **filters)


def read_timeline(request: Request, upgrade_id: str, query: Json) -> HttpResponse:
    """Return a page of the upgrade's timeline, newest first. Raises PortalError as read_record does."""
    status, slug, entries, total = read_record(request, build_timeline, {"upgrade_id": upgrade_id}, **query)
    items = json.loads(entries)
    for item in items:
        item["id"] = event_uuid(item["id"])
        item["actor"] = event_actor(item["actor"], item["kind"])
    heading = {"upgrade_id": upgrade_id, "upgrade_status": status, "organization": slug}
    return JsonPage(dumps(items), total, query["skip"], query["limit"]).respond(request, heading, kind=query["kind"])


def build_timeline(user: Any, *, skip: int, limit: int, kind: str | None) -> tuple[Any, list[Any]]:
    found = Upgrade.objects.visible_to(user).filter(upgrade_id=Given("upgrade_id"))
    rows = UpgradeEvent.objects.of_upgrade(OuterRef("pk"), kind=kind)
    entries = JsonObjects(rows.order_by("-created_at", "-id")[skip : skip + limit], ENTRY)
    return found, ["status", "organization__slug", as_text(entries), aggregate_rows(rows, Count("*"))]
