"""Reads of deployments, events and agents as JSON that PostgreSQL makes (portal/api/json_rows.py)."""

import uuid
from typing import Any

from django.db.models import Case, Count, Exists, IntegerField, OuterRef, UUIDField, Value, When
from django.db.models.expressions import Combinable
from django.http import HttpResponse
from rest_framework.request import Request

from deployments.lists import deployments_rows, deployments_total, events_rows, events_total, find_id_range
from deployments.models import (
    EVENTS_IN_RECORD,
    Agent,
    AgentQuerySet,
    Deployment,
    DeploymentEvent,
    DeploymentQuerySet,
    Revision,
)
from portal.api.conditional import find_known, make_tag
from portal.api.json_rows import (
    Fields,
    JsonObject,
    JsonObjects,
    JsonPage,
    UtcTime,
    as_text,
    read_list,
    read_record,
    revisions_of,
    unless_known,
)
from portal.database.statements import Given
from portal.pagination import aggregate_rows

Json = dict[str, Any]

AGENT: Fields = {
    "id": "id",
    "name": "name",
    "description": "description",
    "image": "image",
    "cpu": "cpu",
    "memory": "memory",
    "environment": "environment",
    "status": Case(When(is_live=True, then=Value("running")), default=Value("stopped")),
    "created_at": UtcTime("created_at"),
}
DEPLOYMENT: Fields = {
    "id": "id",
    "agent_id": "agent_id",
    "agent_name": "agent__name",
    "organization": "organization__slug",
    "status": "status",
    "version": "version",
    "replicas": "replicas",
    "running_replicas": "running_replicas",
    "node_id": "node_id",
    "started_at": UtcTime("started_at"),
    "ended_at": UtcTime("ended_at"),
    "error_message": "error_message",
    "created_at": UtcTime("created_at"),
}
EVENT: Fields = {
    "id": "id",
    "deployment_id": "deployment_id",
    "event_type": "event_type",
    "status": "status",
    "node_id": "node_id",
    "error_message": "error_message",
    "created_at": UtcTime("created_at"),
    "actor": "actor",
}
REVISION: Fields = {
    "agent_id": "agent_id",
    "number": "number",
    "image": "image",
    "digest": "digest",
    "version": "version",
    "cpu": "cpu",
    "memory": "memory",
    "environment": "environment",
    "restored_from": "restored_from__number",
    "live_deployments": "live_deployments",
    "target_deployments": "target_deployments",
    "created_by": "created_by__email",
    "created_at": UtcTime("created_at"),
}
NEWEST_EVENTS = DeploymentEvent.objects.filter(deployment=OuterRef("pk")).order_by("-sequence")[:EVENTS_IN_RECORD]
RECORD: Fields = {**DEPLOYMENT, "events": JsonObjects(NEWEST_EVENTS, EVENT)}
# Each event is counted on its deployment, so that the deployment's revision stands for its events too.
REVISIONS = revisions_of(
    {"id": "id", "revision": "revision", "agent_name": "agent__name", "organization": "organization__slug"}
)


def read_deployments(request: Request, query: Json) -> HttpResponse:
    """Return a page of the organization's deployments. Raises PortalError 404 for the agent of another organization."""
    filters = {name: query[name] for name in ("agent_id", "status", "q")}
    first, last = find_id_range(query["q"]) or (None, None)
    given = filters | {"first_id": first, "last_id": last}
    shape = {name: value is not None for name, value in given.items() if name != "last_id"}
    organization, page = read_list(
        request, build_deployments, skip=query["skip"], limit=query["limit"], given=given, **shape
    )
    return page.respond(request, organization=organization.slug, **filters)


def build_deployments(
    organization: Combinable, *, skip: int, limit: int, agent_id: bool, status: bool, q: bool, first_id: bool
) -> tuple[Any, Any]:
    """Return the items and the total; its shape says which filters there are."""
    filters: Json = {
        "agent_id": Given("agent_id", UUIDField()) if agent_id else None,
        "status": Given("status") if status else None,
        "q": Given("q") if q else None,
        "ids": (Given("first_id", UUIDField()), Given("last_id", UUIDField())) if first_id else None,
    }
    rows = deployments_rows(Deployment.objects.all(), organization, skip=skip, limit=limit, **filters)
    total = deployments_total(organization, **filters)
    if agent_id:
        its_agent = Agent.objects.filter(organization=organization, pk=filters["agent_id"])
        total = Case(When(Exists(its_agent), then=total))
    return as_text(JsonObjects(rows, DEPLOYMENT)), total


def read_deployment(request: Request, deployment_id: uuid.UUID) -> str:
    """Return the record with its newest events, as JSON. Raises PortalError as read_record does."""
    (record,) = read_record(request, build_deployment, {"deployment_id": deployment_id})
    return str(record)


def read_record_of(request: Request, deployment_id: uuid.UUID) -> tuple[str, str]:
    """Return the record as JSON, and its ETag. The record is empty if the client has it."""
    given = {"deployment_id": deployment_id, "known": find_known(request)}
    revisions, texts = read_record(request, build_record, given)
    return (texts[0] if texts else ""), make_tag(revisions)


def build_record(user: Any) -> tuple[Any, list[Any]]:
    rows, texts = build_deployment(user)
    return rows, [REVISIONS, unless_known(REVISIONS, *texts)]


def build_deployment(user: Any) -> tuple[Any, list[Any]]:
    return find_deployment(user), [as_text(JsonObject(RECORD))]


def find_deployment(user: Any) -> DeploymentQuerySet:
    return Deployment.objects.visible_to(user).filter(pk=Given("deployment_id", UUIDField()))


def read_events(request: Request, deployment_id: uuid.UUID, query: Json) -> HttpResponse:
    """Return a page of the deployment's events, newest first. Raises PortalError as read_record does."""
    filters = {name: query[name] for name in ("event_type", "status")}
    skip, limit = query["skip"], query["limit"]
    # Without a filter, `skip` is a placeholder.
    shape = filters | {"limit": limit, "skip": skip if any(filters.values()) else None}
    given = {"deployment_id": deployment_id, "skip": skip}
    status, items, total = read_record(request, build_events, given, **shape)
    heading = {"deployment_id": str(deployment_id), "deployment_status": status}
    return JsonPage(items, total, skip, limit).respond(request, heading, **filters)


def build_events(user: Any, *, skip: int | None, limit: int, **filters: Any) -> tuple[Any, list[Any]]:
    start = Given("skip", IntegerField()) if skip is None else skip
    rows = events_rows(OuterRef("pk"), skip=start, limit=limit, **filters)
    return find_deployment(user), ["status", as_text(JsonObjects(rows, EVENT)), events_total(**filters)]


def read_agents(request: Request, query: Json) -> HttpResponse:
    """Return a page of the organization's agents, newest first."""
    given = {"q": query["q"]}
    organization, page = read_list(
        request, build_agents, skip=query["skip"], limit=query["limit"], given=given, q=query["q"] is not None
    )
    return page.respond(request, organization=organization.slug, q=query["q"])


def build_agents(organization: Combinable, *, skip: int, limit: int, q: bool) -> tuple[Any, Any]:
    rows = Agent.objects.for_list(organization, q=Given("q") if q else None)
    return as_text(JsonObjects(rows[skip : skip + limit], AGENT)), aggregate_rows(rows, Count("*"))


def read_agent(request: Request, agent_id: uuid.UUID) -> str:
    """Return an agent's record as JSON. Raises PortalError as read_record does."""
    (record,) = read_record(request, build_agent, {"agent_id": agent_id})
    return str(record)


def build_agent(user: Any) -> tuple[Any, list[Any]]:
    return find_agent(user).with_status(), [as_text(JsonObject(AGENT))]


def find_agent(user: Any) -> AgentQuerySet:
    return Agent.objects.visible_to(user).filter(pk=Given("agent_id", UUIDField()))


def read_revisions(request: Request, agent_id: uuid.UUID, query: Json) -> HttpResponse:
    """Return a page of the agent's revisions, newest first. Raises PortalError as read_record does."""
    skip, limit = query["skip"], query["limit"]
    items, total = read_record(request, build_revisions, {"agent_id": agent_id}, skip=skip, limit=limit)
    return JsonPage(items, total, skip, limit).respond(request, {"agent_id": str(agent_id)})


def build_revisions(user: Any, *, skip: int, limit: int) -> tuple[Any, list[Any]]:
    rows = Revision.objects.for_list(OuterRef("pk"))
    items = as_text(JsonObjects(rows[skip : skip + limit], REVISION))
    return find_agent(user), [items, aggregate_rows(Revision.objects.filter(agent=OuterRef("pk")), Count("*"))]
