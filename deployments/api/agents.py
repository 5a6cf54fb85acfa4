"""Agent routes of the API. An agent describes what to run; a deployment runs it."""

import uuid

from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments import commands
from deployments.api import serializers
from deployments.api.deployments import LOCATION, WRITE_ERRORS, find_agent
from deployments.models import Agent
from portal.access import Policy, get_api_organization, person
from portal.api.routes import (
    IDEMPOTENCY_KEY,
    ORGANIZATION,
    api_route,
    errors,
    get_idempotency_key,
    read_body,
    read_query,
)
from portal.pagination import paginate


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
@api_route("GET", "POST", allow=Policy.VIEWER)
def agents(request: Request) -> Response:
    """List the organization's agents, newest first, or create one (POST). Pass secrets by ARN, never as values."""
    if request.method == "POST":
        return create(request)
    query = read_query(request, serializers.AgentQuery)
    organization = get_api_organization(request)
    rows = Agent.objects.visible_to(request.user).for_list(organization, q=query["q"])
    page = paginate(rows, skip=query["skip"], limit=query["limit"])
    records = [serializers.agent_record(agent) for agent in page.items]
    return Response(page.envelope(records, organization=organization.slug, q=query["q"]))


def create(request: Request) -> Response:
    read_query(request)
    body = read_body(request, serializers.AgentBody)
    organization = get_api_organization(request)
    made = commands.create_agent(
        organization, actor=person(request), idempotency_key=get_idempotency_key(request), **body
    )
    location = reverse("api-agent", args=[made.pk])
    return Response(serializers.agent_record(made), status=201, headers={"Location": location})


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
@api_route("GET", "PATCH", allow=Policy.VIEWER)
def agent(request: Request, agent_id: uuid.UUID) -> Response:
    """Return one agent, or change it (PATCH). A change applies to its future deployments."""
    read_query(request)
    found = find_agent(request, agent_id)
    if request.method == "PATCH":
        changes = read_body(request, serializers.AgentBody, partial=True)
        found = commands.update_agent(found, actor=person(request), **changes)
    return Response(serializers.agent_record(found))
