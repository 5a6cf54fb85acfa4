"""The API routes of the validation (the portal's own checks, signatures) and of the evidence of an upgrade."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import Policy, person
from portal.api.conditional import make_tag
from portal.api.routes import NoBody, api_route, errors, read_body, read_query
from portal.attempts import note_organization
from portal.models import Scope
from upgrades.api import records
from upgrades.api.evidence import build_evidence
from upgrades.api.requests import SignBody
from upgrades.api.upgrades import AGAIN, RETRY_AFTER, find_upgrade
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
    summary="Sign a validation check",
    request=SignBody,
    responses={200: records.Matrix, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("GET", "POST", allow=Policy.VIEWER, scope=Scope.APPROVE)
def validation(request: Request, upgrade_id: str) -> Response:
    """Return the post-upgrade matrix: results of the portal's own checks, and signatures. POST signs one row.

    Signing needs the role operator. A failure needs a note, and so does a pass if the portal's own check failed.
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
    summary="Repeat the automatic validation checks",
    parameters=[RETRY_AFTER],
    request=None,
    responses={202: records.Matrix, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.UPGRADE)
def probe(request: Request, upgrade_id: str) -> Response:
    """Start the portal's own checks of the validation again. Signatures are kept."""
    read_query(request)
    read_body(request, NoBody)
    upgrade = probe_again(find_upgrade(request, upgrade_id), actor=person(request))
    return Response(records.matrix_record(upgrade), status=202, headers=AGAIN)


@extend_schema(
    operation_id="deployments_upgrade_evidence",
    tags=["upgrades"],
    summary="Evidence of an upgrade",
    responses={200: records.Evidence, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def evidence(request: Request, upgrade_id: str) -> Response:
    """Return everything about the upgrade in one document for an auditor.

    It can be generated at any time. It is complete once the upgrade has ended and been validated.
    """
    read_query(request)
    upgrade = find_upgrade(request, upgrade_id)
    note_organization(upgrade.organization)
    document = build_evidence(upgrade)
    # It is saved, not shown: and what is saved is in the audit trail. The checksum leaves out when it was generated.
    headers = {
        "Content-Disposition": f'attachment; filename="{upgrade.upgrade_id}-evidence.json"',
        "ETag": make_tag(document["sha256"]),
    }
    return Response(document, headers=headers)
