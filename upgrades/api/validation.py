"""The routes of the validation: what the portal found after an upgrade, what people signed, and all of it as evidence."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import Policy, person
from portal.api.routes import NoBody, api_route, errors, read_body, read_query
from upgrades.api import records
from upgrades.api.evidence import evidence_of
from upgrades.api.requests import SignBody
from upgrades.api.upgrades import find_upgrade
from upgrades.commands.sign import probe_again, sign_check


@extend_schema(
    methods=["GET"],
    operation_id="deployments_upgrade_validation",
    tags=["upgrades"],
    summary="Validation of an upgrade",
    responses={200: records.Matrix, **errors(400, 401, 404, 503)},
)
@extend_schema(
    methods=["POST"],
    operation_id="deployments_upgrade_sign",
    tags=["upgrades"],
    summary="Sign a check of the validation",
    request=SignBody,
    responses={200: records.Matrix, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("GET", "POST", allow=Policy.VIEWER)
def validation(request: Request, upgrade_id: str) -> Response:
    """The post-upgrade matrix: what the portal found, what people signed. POST signs one row, as operator.

    A note is needed for a failure, and for a pass where the portal's own check failed.
    """
    read_query(request)
    if request.method != "POST":
        return Response(records.matrix_record(find_upgrade(request, upgrade_id)))
    body = read_body(request, SignBody)
    upgrade = sign_check(find_upgrade(request, upgrade_id), actor=person(request), **body)
    return Response(records.matrix_record(upgrade))


@extend_schema(
    operation_id="deployments_upgrade_probe_again",
    tags=["upgrades"],
    summary="Probe an upgrade again",
    request=None,
    responses={202: records.Matrix, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("POST", allow=Policy.OPERATOR)
def probe(request: Request, upgrade_id: str) -> Response:
    """Begin the portal's own checks of the validation anew; what people signed stays."""
    read_query(request)
    read_body(request, NoBody)
    upgrade = probe_again(find_upgrade(request, upgrade_id), actor=person(request))
    return Response(records.matrix_record(upgrade), status=202)


@extend_schema(
    operation_id="deployments_upgrade_evidence",
    tags=["upgrades"],
    summary="Evidence of an upgrade",
    responses={200: records.Evidence, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def evidence(request: Request, upgrade_id: str) -> Response:
    """Everything about it in one document for an auditor; at any time, best after its validation."""
    read_query(request)
    return Response(evidence_of(find_upgrade(request, upgrade_id)))
