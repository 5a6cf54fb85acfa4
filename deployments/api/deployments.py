"""Deployment routes of the API. Each parses its input, runs one query or command, and returns a record.

Served at the documented root paths and under /api/v1. Agent routes are in agents.py.
"""

import uuid
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments import commands
from deployments.api import reads, serializers
from deployments.models import Agent, Deployment
from portal.access import Policy, get_api_organization, person
from portal.api.json_rows import respond_json
from portal.api.links import link_cursor, link_pages
from portal.api.routes import (
    IDEMPOTENCY_KEY,
    ORGANIZATION,
    NoBody,
    api_route,
    errors,
    get_idempotency_key,
    rate_limited,
    read_body,
    read_query,
)
from portal.api.rows import find_row
from portal.cloudwatch.logs import EARLIER_READS, read_logs
from portal.cloudwatch.metrics import CHOSEN_READS, read_metrics
from portal.errors import PortalError
from portal.models import Organization, Scope
from portal.times import utc

Json = dict[str, Any]

LOCATION = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[201], description="URL of the new record."
)
WRITE_ERRORS = errors(400, 401, 403, 404, 413, 415, 422, 503)


@extend_schema(
    methods=["GET"],
    operation_id="deployments_list",
    tags=["deployments"],
    summary="Deployments of an organization",
    parameters=[ORGANIZATION, serializers.DeploymentQuery],
    responses={200: serializers.DeploymentList, **errors(400, 401, 404, 503)},
)
@extend_schema(
    methods=["POST"],
    operation_id="deployments_create",
    tags=["deployments"],
    summary="Deploy an agent",
    parameters=[ORGANIZATION, IDEMPOTENCY_KEY, LOCATION],
    request=serializers.CreateBody,
    responses={201: serializers.DeploymentRecord, **WRITE_ERRORS},
)
@api_route("GET", "POST", allow=Policy.VIEWER, scope=Scope.DEPLOY)
def deployments(request: Request) -> HttpResponse:
    """List the organization's deployments, newest first, or deploy one of its agents (POST)."""
    if request.method == "POST":
        return create(request)
    return reads.read_deployments(request, read_query(request, serializers.DeploymentQuery))


def create(request: Request) -> HttpResponse:
    read_query(request)
    body = read_body(request, serializers.CreateBody)
    agent = find_agent(request, body.pop("agent_id"), get_api_organization(request))
    deployment = commands.create_deployment(
        agent, actor=person(request), idempotency_key=get_idempotency_key(request), **body
    )
    location = reverse("api-deployment", args=[deployment.pk])
    return respond_json(reads.read_deployment(request, deployment.pk), status=201, headers={"Location": location})


@extend_schema(
    operation_id="agents_deploy",
    tags=["deployments"],
    summary="Deploy this agent",
    parameters=[IDEMPOTENCY_KEY, LOCATION],
    request=None,
    responses={201: serializers.Deployed, **WRITE_ERRORS},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.DEPLOY)
def deploy(request: Request, agent_id: uuid.UUID) -> Response:
    """Deploy one replica of the agent. Runs the same command as POST /deployments."""
    read_query(request)
    read_body(request, NoBody)
    deployment = commands.create_deployment(
        find_agent(request, agent_id), actor=person(request), idempotency_key=get_idempotency_key(request)
    )
    location = reverse("api-deployment", args=[deployment.pk])
    body = {"deployment_id": str(deployment.pk), "status": deployment.status}
    return Response(body, status=201, headers={"Location": location})


@extend_schema(
    methods=["GET"],
    operation_id="deployments_read",
    tags=["deployments"],
    summary="One deployment",
    responses={200: serializers.DeploymentRecord, **errors(400, 401, 404, 503)},
)
@extend_schema(
    methods=["DELETE"],
    operation_id="deployments_kill",
    tags=["deployments"],
    summary="Kill a deployment",
    parameters=[IDEMPOTENCY_KEY],
    request=None,
    responses={204: None, **WRITE_ERRORS},
)
@api_route("GET", "DELETE", allow=Policy.VIEWER, scope=Scope.DEPLOY)
def deployment(request: Request, deployment_id: uuid.UUID) -> HttpResponse:
    """Return one deployment with its newest events, or kill it (DELETE).

    A killed deployment keeps its record. Its ECS service is deleted afterwards.
    """
    read_query(request)
    if request.method == "DELETE":
        found = find_deployment(request, deployment_id, "agent")
        read_body(request, NoBody)
        commands.kill_deployment(found, actor=person(request), idempotency_key=get_idempotency_key(request))
        return Response(status=204)
    record, tag = reads.read_record_of(request, deployment_id)
    commands.mark_watched(Deployment(pk=deployment_id))
    return respond_json(record, headers={"ETag": tag})


@extend_schema(
    operation_id="deployments_events",
    tags=["deployments"],
    summary="Event history of a deployment",
    parameters=[serializers.EventQuery],
    responses={200: serializers.EventList, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def events(request: Request, deployment_id: uuid.UUID) -> HttpResponse:
    """List the deployment's events, newest first."""
    return reads.read_events(request, deployment_id, read_query(request, serializers.EventQuery))


@extend_schema(
    operation_id="deployments_logs",
    tags=["deployments"],
    summary="Logs of a deployment",
    parameters=[serializers.LogQuery, *rate_limited(200)],
    responses={200: serializers.LogList, **errors(400, 401, 404, 429, 502, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def logs(request: Request, deployment_id: uuid.UUID) -> Response:
    """List the log lines of all tasks of the deployment, stopped tasks included, newest first.

    Pass `next_cursor` of one page as `cursor` to get the next page.
    """
    query = read_query(request, serializers.LogQuery)
    found = find_deployment(request, deployment_id)
    page = read_logs(found.cloudwatch, **query, reader=person(request))
    refuse_unread("logs", page.read_at is None, page.error)
    items = [serializers.log_record(line, found) for line in page.items]
    answer = {"items": items, "skip": query["skip"], "limit": query["limit"], "level": query["level"], "q": query["q"]}
    answer |= {"since": utc(query["since"]), "until": utc(query["until"])}
    answer |= {"next_cursor": page.next_cursor, "has_more": page.has_more}
    links = link_cursor(request, limit=query["limit"], next_cursor=page.next_cursor)
    read = {"read_at": utc(page.read_at), "error": page.error or page.note}
    return Response(heading(found) | answer | read, headers=links | EARLIER_READS.headers_for(person(request)))


@extend_schema(
    operation_id="deployments_metrics",
    tags=["deployments"],
    summary="Metrics of a deployment",
    parameters=[serializers.MetricQuery, *rate_limited(200)],
    responses={200: serializers.MetricList, **errors(400, 401, 404, 429, 502, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def metrics(request: Request, deployment_id: uuid.UUID) -> Response:
    """List CPU and memory usage in percent of what is reserved, newest first. No point means that no task was running."""
    query = read_query(request, serializers.MetricQuery)
    skip, limit = query.pop("skip"), query.pop("limit")
    found = find_deployment(request, deployment_id)
    series = read_metrics(found.cloudwatch, **query, reader=person(request))
    refuse_unread("metrics", series.read_at is None, series.error)
    newest = series.points[::-1]
    items = [serializers.metric_record(point, found) for point in newest[skip : skip + limit]]
    has_more = len(newest) > skip + limit
    answer: Json = {"items": items, "skip": skip, "limit": limit}
    answer |= {"period_seconds": series.period_seconds, "has_more": has_more}
    answer |= {"since": utc(series.since), "until": utc(series.until)}
    links = link_pages(request, skip=skip, limit=limit, has_more=has_more)
    read = {"read_at": utc(series.read_at), "error": series.error}
    return Response(heading(found) | answer | read, headers=links | CHOSEN_READS.headers_for(person(request)))


@extend_schema(
    operation_id="deployments_restart",
    tags=["deployments"],
    summary="Restart a deployment",
    parameters=[IDEMPOTENCY_KEY],
    request=None,
    responses={200: serializers.DeploymentRecord, **WRITE_ERRORS},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.DEPLOY)
def restart(request: Request, deployment_id: uuid.UUID) -> HttpResponse:
    """Restart a stopped or failed deployment."""
    read_query(request)
    read_body(request, NoBody)
    return act(request, deployment_id, commands.restart_deployment)


@extend_schema(
    operation_id="deployments_stop",
    tags=["deployments"],
    summary="Stop a deployment",
    parameters=[IDEMPOTENCY_KEY],
    request=None,
    responses={200: serializers.DeploymentRecord, **WRITE_ERRORS},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.DEPLOY)
def stop(request: Request, deployment_id: uuid.UUID) -> HttpResponse:
    """Stop all tasks. The status becomes `stopped` once ECS reports that none is running."""
    read_query(request)
    read_body(request, NoBody)
    return act(request, deployment_id, commands.stop_deployment)


@extend_schema(
    operation_id="deployments_scale",
    tags=["deployments"],
    summary="Scale a deployment",
    parameters=[IDEMPOTENCY_KEY],
    request=serializers.ScaleBody,
    responses={200: serializers.DeploymentRecord, **WRITE_ERRORS},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.DEPLOY)
def scale(request: Request, deployment_id: uuid.UUID) -> HttpResponse:
    """Change the number of replicas of a running deployment."""
    read_query(request)
    body = read_body(request, serializers.ScaleBody)
    return act(request, deployment_id, commands.scale_deployment, **body)


def act(request: Request, deployment_id: uuid.UUID, command: Callable[..., Deployment], **asked: Any) -> HttpResponse:
    found = find_deployment(request, deployment_id, "agent")
    command(found, actor=person(request), idempotency_key=get_idempotency_key(request), **asked)
    return respond_json(reads.read_deployment(request, deployment_id))


def find_deployment(request: Request, deployment_id: uuid.UUID, *related: str) -> Deployment:
    """Return a deployment that the user may see, with these `related` rows. Commands name its agent in the audit row.

    *Raises* PortalError 404 if it does not exist or belongs to another organization, 403 `mfa_required_by_organization`.
    """
    return find_row(request, Deployment, deployment_id, *related)


def find_agent(request: Request, agent_id: uuid.UUID, organization: Organization | None = None) -> Agent:
    """Return an agent that the user may see.

    *Raises* PortalError 404 if it does not exist or belongs to another organization, 403 `mfa_required_by_organization`.
    """
    return find_row(request, Agent, agent_id, within=organization)


def heading(deployment: Deployment) -> Json:
    """Return the fields that start each response about one deployment, so that clients need no second call."""
    return {"deployment_id": str(deployment.pk), "deployment_status": deployment.status}


def refuse_unread(what: str, is_unread: bool, error: str | None) -> None:
    """Raise PortalError 502 if AWS did not answer and nothing was read before. Older data is returned with its age."""
    if is_unread:
        raise PortalError(
            "aws_unavailable", f"The {what} could not be read from AWS. {error} Try again in a few seconds.", 502
        )
