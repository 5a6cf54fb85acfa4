"""Agent routes of the API. An agent describes what to run; a deployment runs it."""

import uuid

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from deployments import commands
from deployments.api import reads, serializers
from deployments.api.deployments import LOCATION, WRITE_ERRORS, find_agent
from portal.access import Policy, get_api_organization, person
from portal.api.json_rows import respond_json
from portal.api.routes import (
    IDEMPOTENCY_KEY,
    ORGANIZATION,
    api_route,
    errors,
    get_idempotency_key,
    read_body,
    read_query,
)
from portal.models import Scope


@extend_schema(
    methods=["GET"],
    operation_id="agents_list",
    tags=["agents"],
    summary="Agents of an organization",
    parameters=[ORGANIZATION, serializers.AgentQuery],
    responses={200: serializers.AgentList, **errors(400, 401, 404, 503)},
)
@extend_schema(
    methods=["POST"],
    operation_id="agents_create",
    tags=["agents"],
    summary="Create an agent",
    parameters=[ORGANIZATION, IDEMPOTENCY_KEY, LOCATION],
    request=serializers.AgentBody,
    responses={201: serializers.AgentRecord, **WRITE_ERRORS},
)
@api_route("GET", "POST", allow=Policy.VIEWER, scope=Scope.DEPLOY)
def agents(request: Request) -> HttpResponse:
    """List the organization's agents, newest first, or create one (POST). Pass secrets by ARN, never as values."""
    if request.method == "POST":
        return create(request)
    return reads.read_agents(request, read_query(request, serializers.AgentQuery))


def create(request: Request) -> HttpResponse:
    read_query(request)
    body = read_body(request, serializers.AgentBody)
    organization = get_api_organization(request)
    made = commands.create_agent(
        organization, actor=person(request), idempotency_key=get_idempotency_key(request), **body
    )
    location = reverse("api-agent", args=[made.pk])
    return respond_json(reads.read_agent(request, made.pk), status=201, headers={"Location": location})


@extend_schema(
    methods=["GET"],
    operation_id="agents_read",
    tags=["agents"],
    summary="One agent",
    responses={200: serializers.AgentRecord, **errors(400, 401, 404, 503)},
)
@extend_schema(
    methods=["PATCH"],
    operation_id="agents_change",
    tags=["agents"],
    summary="Change an agent",
    request=serializers.AgentBody(partial=True),
    responses={200: serializers.AgentRecord, **errors(400, 401, 403, 404, 413, 415, 503)},
)
@api_route("GET", "PATCH", allow=Policy.VIEWER, scope=Scope.DEPLOY)
def agent(request: Request, agent_id: uuid.UUID) -> HttpResponse:
    """Return one agent, or change it (PATCH). A change applies to its future deployments."""
    read_query(request)
    if request.method == "PATCH":
        found = find_agent(request, agent_id)
        changes = read_body(request, serializers.AgentBody, partial=True)
        commands.update_agent(found, actor=person(request), **changes)
    return respond_json(reads.read_agent(request, agent_id))
