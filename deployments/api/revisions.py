"""Revision routes of the API: what each deploy of an agent runs, the differences between two, and the way back to one."""

import uuid
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments import commands
from deployments.api import reads
from deployments.api.deployments import LOCATION, WRITE_ERRORS, find_agent
from deployments.api.serializers import Envelope, StrictInteger
from deployments.models import MAX_NUMBER, Agent, Revision, find_numbers
from deployments.revisions import Difference, compare
from portal.access import Policy, person
from portal.api.routes import (
    IDEMPOTENCY_KEY,
    PageQuery,
    StrictSerializer,
    api_route,
    errors,
    get_idempotency_key,
    read_body,
    read_query,
)
from portal.errors import found_or_404
from portal.models import Scope
from portal.times import utc

Json = dict[str, Any]


# --- requests ---------------------------------------------------------------------------------------------------------


class RevisionQuery(StrictSerializer):
    compare = serializers.IntegerField(
        min_value=1,
        max_value=MAX_NUMBER,
        allow_null=True,
        default=None,
        help_text="The number of the revision to compare with. Without it: the one before, if there is one.",
    )


class RestoreBody(StrictSerializer):
    newest = StrictInteger(
        min_value=1,
        max_value=MAX_NUMBER,
        allow_null=True,
        default=None,
        help_text="The newest number that you saw. If the agent was deployed meanwhile, the answer is 409.",
    )


# --- records ----------------------------------------------------------------------------------------------------------


class RevisionSummary(serializers.Serializer[Any]):
    agent_id = serializers.UUIDField()
    number = serializers.IntegerField()
    image = serializers.CharField()
    digest = serializers.CharField(allow_null=True)
    version = serializers.CharField(allow_null=True)
    cpu = serializers.IntegerField()
    memory = serializers.IntegerField()
    environment = serializers.DictField(child=serializers.CharField(allow_blank=True))
    restored_from = serializers.IntegerField(allow_null=True)
    live_deployments = serializers.IntegerField(help_text="Live deployments in which it is rolled out.")
    target_deployments = serializers.IntegerField(help_text="Live deployments that should run it.")
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()


class RevisionList(Envelope):
    items = RevisionSummary(many=True)
    agent_id = serializers.UUIDField()


class DifferenceRecord(serializers.Serializer[Any]):
    field = serializers.ChoiceField(choices=["image", "digest", "cpu", "memory", "environment"])
    name = serializers.CharField(allow_null=True, help_text="The variable, for `environment`.")
    before = serializers.CharField(allow_null=True, allow_blank=True)
    after = serializers.CharField(allow_null=True, allow_blank=True)


class RevisionRecord(RevisionSummary):
    compared_with = serializers.IntegerField(allow_null=True)
    differences = DifferenceRecord(many=True)


def revision_record(revision: Revision) -> Json:
    """Return the record. The revision must come from for_detail()."""
    return {
        "agent_id": str(revision.agent_id),
        "number": revision.number,
        "image": revision.image,
        "digest": revision.digest,
        "version": revision.version,
        "cpu": revision.cpu,
        "memory": revision.memory,
        "environment": revision.environment,
        "restored_from": revision.restored_from.number if revision.restored_from else None,
        "live_deployments": revision.live_deployments,
        "target_deployments": revision.target_deployments,
        "created_by": revision.created_by.email,
        "created_at": utc(revision.created_at),
    }


def full_record(revision: Revision, other: Revision | None) -> Json:
    """Return the record with its differences from the other revision."""
    differences = compare(other, revision) if other else []
    number = other.number if other else None
    compared = {"compared_with": number, "differences": [difference_record(each) for each in differences]}
    return revision_record(revision) | compared


def difference_record(difference: Difference) -> Json:
    return {
        "field": "environment" if difference.is_variable else difference.name,
        "name": difference.name if difference.is_variable else None,
        "before": difference.before,
        "after": difference.after,
    }


# --- routes -----------------------------------------------------------------------------------------------------------


@extend_schema(
    operation_id="revisions_list",
    tags=["agents"],
    summary="Revisions of an agent",
    parameters=[PageQuery],
    responses={200: RevisionList, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def revisions(request: Request, agent_id: uuid.UUID) -> HttpResponse:
    """List what each deploy of the agent runs, newest first."""
    return reads.read_revisions(request, agent_id, read_query(request, PageQuery))


@extend_schema(
    operation_id="revisions_read",
    tags=["agents"],
    summary="One revision, and what it changes",
    parameters=[RevisionQuery],
    responses={200: RevisionRecord, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def revision(request: Request, agent_id: uuid.UUID, number: int) -> Response:
    """Return one revision with its differences from another one, as values before and after."""
    compared_with = read_query(request, RevisionQuery)["compare"]
    return respond(request, find_agent(request, agent_id), number, compared_with)


@extend_schema(
    operation_id="revisions_restore",
    tags=["agents"],
    summary="Return to a revision",
    parameters=[IDEMPOTENCY_KEY, LOCATION],
    request=RestoreBody,
    responses={201: RevisionRecord, **WRITE_ERRORS, **errors(409)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.DEPLOY)
def restore(request: Request, agent_id: uuid.UUID, number: int) -> Response:
    """Deploy this revision again, as a new one. The agent gets its settings.

    The agent's live deployments with other settings, and the newest one if it failed, roll to it in place. Without any live
    or failed one, a deployment with one task is created.
    """
    read_query(request)
    newest = read_body(request, RestoreBody)["newest"]
    agent = find_agent(request, agent_id)
    made = commands.restore_revision(
        find_revision(request, agent, number),
        actor=person(request),
        newest=newest,
        idempotency_key=get_idempotency_key(request),
    )
    location = reverse("api-revision", args=[agent.pk, made.number])
    response = respond(request, agent, made.number, None, status=201)
    response["Location"] = location
    return response


def respond(request: Request, agent: Agent, number: int, compared_with: int | None, *, status: int = 200) -> Response:
    """Return the response about a revision. *Raises* PortalError 404 if it or the one to compare with does not exist."""
    revisions = Revision.objects.visible_to(request.user).filter(agent=agent).for_detail()
    found, other = find_numbers(revisions, number, compared_with or number - 1)
    if compared_with is not None:
        found_or_404(other)
    return Response(full_record(found_or_404(found), other), status=status)


def find_revision(request: Request, agent: Agent, number: int) -> Revision:
    """Return a revision of the agent. *Raises* PortalError 404 if there is none with this number."""
    visible = Revision.objects.visible_to(request.user).for_detail()
    return found_or_404(visible.filter(agent=agent, number=number).first())
