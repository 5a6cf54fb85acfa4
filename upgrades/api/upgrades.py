"""The upgrade routes of the API. Each validates its input, runs one query or command, and returns a record."""

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import (
    Policy,
    get_api_organization,
    is_fresh,
    person,
    require_second_factor,
    session_ends_at,
)
from portal.api.json_rows import respond_json
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
from portal.errors import found_or_404
from portal.models import Scope
from upgrades.api import reads, records
from upgrades.api.requests import (
    DecisionBody,
    HistoryQuery,
    PreflightQuery,
    RollbackBody,
    StatusQuery,
    TimelineQuery,
    TriggerBody,
)
from upgrades.api.waiting import MAX_WAIT_SECONDS, Wait, wait_until
from upgrades.checks.preflight import run as run_preflight
from upgrades.commands.decide import decide_rollout
from upgrades.commands.refusals import trigger_limit
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.estimates import format_seconds
from upgrades.inventory.catalogue import read_catalogue
from upgrades.models import Upgrade
from upgrades.states import Status, get_services

LOCATION = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[202], description="The same as `status_url`."
)
# How long a client that polls waits for news.
POLL_AGAIN_SECONDS = 2
AGAIN = {"Retry-After": str(POLL_AGAIN_SECONDS)}
RETRY_AFTER = OpenApiParameter(
    "Retry-After",
    int,
    OpenApiParameter.HEADER,
    response=[200, 202],
    description="Seconds after which to ask again. On 200: while it runs, or with `wait` while it is not as far.",
)


@extend_schema(
    operation_id="deployments_versions",
    tags=["upgrades"],
    summary="Available and running versions",
    parameters=[ORGANIZATION],
    responses={200: records.VersionList, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def versions(request: Request) -> Response:
    """Return the versions in the registries of the three services, newest first, and which services run them.

    `selection` is `available` if Amazon ECR can be read. Each version then shows which services have it, and its digest for
    each. It is `limited` if no registry can be read, and `message` says why. Only `latest` can then be chosen, and the list
    contains the running versions and those of past upgrades, without digests.
    """
    read_query(request)
    organization = get_api_organization(request)
    catalogue = read_catalogue(organization)
    body = {
        "organization": organization.slug,
        "versions": records.VersionItem(catalogue.versions, many=True).data,
        "current": catalogue.running,
        "selection": catalogue.selection,
        "message": catalogue.describe(),
    }
    return Response(body)


@extend_schema(
    operation_id="deployments_preflight",
    tags=["upgrades"],
    summary="Pre-flight checks of an upgrade",
    parameters=[ORGANIZATION, PreflightQuery],
    responses={200: records.PreflightRecord, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def preflight(request: Request) -> Response:
    """Return the checks before an upgrade. Results may be some seconds old.

    A failed check blocks an upgrade unless the trigger gives an `override_reason`. An unknown check does not block.
    """
    query = read_query(request, PreflightQuery)
    organization = get_api_organization(request)
    checked = run_preflight(organization, get_services(query["service"]), session_ends_at=session_ends_at(request))
    body = {"organization": organization.slug, "service": query["service"], "checks": checked.checks}
    record = records.PreflightRecord(body | {"may_start": checked.may_start, "checked_at": checked.checked_at})
    return Response(record.data)


@extend_schema(
    operation_id="deployments_upgrade_trigger",
    tags=["upgrades"],
    summary="Trigger an upgrade",
    parameters=[ORGANIZATION, IDEMPOTENCY_KEY, LOCATION, RETRY_AFTER, *rate_limited(202)],
    request=TriggerBody,
    responses={202: records.Accepted, **errors(400, 401, 403, 404, 409, 413, 415, 422, 429, 502, 503)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.UPGRADE)
def trigger(request: Request) -> Response:
    """Record an upgrade to be carried out.

    202 means that the upgrade is recorded and will be carried out, not that it is complete. Poll `status_url` until the
    status is final.

    Where the organization requires re-authentication, `all` and forced upgrades answer 403 `reauthentication_required`
    until POST /auth/reauthenticate has succeeded within the last 5 minutes.
    """
    read_query(request)
    body = read_body(request, TriggerBody)
    upgrade = trigger_upgrade(
        get_api_organization(request),
        actor=person(request),
        session_ends_at=session_ends_at(request),
        is_fresh=is_fresh(request),
        idempotency_key=get_idempotency_key(request),
        **body,
    )
    return accepted(upgrade)


@extend_schema(
    operation_id="deployments_upgrade_status",
    tags=["upgrades"],
    summary="Status of an upgrade",
    parameters=[StatusQuery, RETRY_AFTER],
    responses={200: records.UpgradeRecord, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def status(request: Request, upgrade_id: str) -> HttpResponse:
    """Return the recorded upgrade. Each service shows its state in ECS as of `last_checked_at`.

    With `wait` the answer is held until the upgrade is as far, for `timeout` seconds at most. Without a free place to wait,
    and after the time, it is the present state, with `Retry-After`.
    """
    query = read_query(request, StatusQuery)
    again = None
    if query["wait"]:
        again = wait_until(request, upgrade_id, Wait(query["wait"]), query["timeout"] or MAX_WAIT_SECONDS)
    record, tag, is_open = reads.read_status(request, upgrade_id)
    if is_open and not query["wait"]:
        again = POLL_AGAIN_SECONDS
    return respond_json(record, headers={"ETag": tag, **({"Retry-After": str(again)} if again else {})})


@extend_schema(
    operation_id="deployments_upgrade_stop",
    tags=["upgrades"],
    summary="Stop an upgrade",
    parameters=[RETRY_AFTER],
    request=None,
    responses={202: records.UpgradeRecord, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.UPGRADE)
def stop(request: Request, upgrade_id: str) -> HttpResponse:
    """Request a stop. ECS rolls back the running rollout, and later services are not attempted."""
    read_query(request)
    read_body(request, NoBody)
    stop_upgrade(find_upgrade(request, upgrade_id), actor=person(request))
    return respond_json(reads.read_upgrade(request, upgrade_id)[0], status=202, headers=AGAIN)


@extend_schema(
    operation_id="deployments_upgrade_decision",
    tags=["upgrades"],
    summary="Decide at a pause",
    parameters=[RETRY_AFTER],
    request=DecisionBody,
    responses={202: records.UpgradeRecord, **errors(400, 401, 403, 404, 409, 413, 415, 503)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.APPROVE)
def decision(request: Request, upgrade_id: str) -> HttpResponse:
    """Continue a paused rollout, or roll it back.

    The decision is for exactly the pause with `hook_id`. If another one waits by now, or none, the answer is 409. If the
    organization requires a second person, the one who triggered the upgrade may not continue it (403). Where it requires
    re-authentication, continuing answers 403 `reauthentication_required` like a trigger. Repeating the same
    decision is harmless. 202 means that it is recorded and will be sent to ECS: poll `decision` of the service's entry.
    """
    read_query(request)
    body = read_body(request, DecisionBody)
    decide_rollout(find_upgrade(request, upgrade_id), actor=person(request), is_fresh=is_fresh(request), **body)
    return respond_json(reads.read_upgrade(request, upgrade_id)[0], status=202, headers=AGAIN)


@extend_schema(
    operation_id="deployments_upgrade_events",
    tags=["upgrades"],
    summary="Timeline of an upgrade",
    parameters=[TimelineQuery],
    responses={200: records.TimelineList, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def events(request: Request, upgrade_id: str) -> HttpResponse:
    """Return requests of people, actions of the portal and events of ECS, newest first."""
    return reads.read_timeline(request, upgrade_id, read_query(request, TimelineQuery))


@extend_schema(
    operation_id="deployments_upgrade_rollback",
    tags=["upgrades"],
    summary="Roll an upgrade back",
    parameters=[IDEMPOTENCY_KEY, LOCATION, RETRY_AFTER],
    request=RollbackBody,
    responses={202: records.Accepted, **errors(400, 401, 403, 404, 409, 413, 415, 422, 503)},
)
@api_route("POST", allow=Policy.OPERATOR, scope=Scope.UPGRADE)
def rollback(request: Request, upgrade_id: str) -> Response:
    """Record a new upgrade of kind `rollback`.

    Each service that completed goes back to its recorded previous task definition. `services` in the answer lists the
    services that will be rolled back. Services that cannot be rolled back, or that no longer run what the upgrade left, are
    not changed. If no service can be rolled back, the answer is 400 `rollback_impossible` with the reason. It is 409 while
    the upgrade is running.
    """
    read_query(request)
    body = read_body(request, RollbackBody)
    upgrade = rollback_upgrade(
        find_upgrade(request, upgrade_id),
        actor=person(request),
        session_ends_at=session_ends_at(request),
        idempotency_key=get_idempotency_key(request),
        **body,
    )
    return accepted(upgrade)


@extend_schema(
    operation_id="deployments_upgrade_history",
    tags=["upgrades"],
    summary="History of upgrades",
    parameters=[ORGANIZATION, HistoryQuery],
    responses={200: records.History, **errors(400, 401, 404, 503)},
)
@api_route("GET", allow=Policy.VIEWER)
def history(request: Request) -> HttpResponse:
    """Return past and running upgrades, newest first."""
    return reads.read_history(request, read_query(request, HistoryQuery))


def find_upgrade(request: Request, upgrade_id: str) -> Upgrade:
    """Return the upgrade.

    *Raises* PortalError 404 if it does not exist or belongs to another organization, 403 `mfa_required_by_organization`.
    """
    visible = Upgrade.objects.visible_to(request.user).for_record()
    upgrade = found_or_404(visible.filter(upgrade_id=upgrade_id).first())
    require_second_factor(request.user, upgrade.organization)
    return upgrade


def accepted(upgrade: Upgrade) -> Response:
    """Return the 202 answer. It holds only what never changes, so that a repeated Idempotency-Key gets the same one."""
    rollouts = upgrade.recorded or list(upgrade.rollouts.all())
    names = ", then ".join(rollout.service for rollout in rollouts)
    status_url = reverse("upgrade-status", args=[upgrade.upgrade_id])
    body = {
        "success": True,
        "upgrade_id": upgrade.upgrade_id,
        "status": Status.PENDING.value,
        "organization": upgrade.organization.slug,
        "services": [
            {"service": rollout.service, "service_name": rollout.service_name, "status": Status.PENDING.value}
            for rollout in rollouts
        ],
        "message": f"Recorded: {names}. Accepted does not mean done: poll status_url until the status is final.",
        "estimated_time": format_seconds(upgrade.estimated_seconds),
        "estimated_seconds": upgrade.estimated_seconds,
        "status_url": status_url,
    }
    headers = {"Location": status_url, **AGAIN}
    if upgrade.triggers_left is not None:
        headers |= trigger_limit(upgrade.organization).headers(upgrade.triggers_left)
    return Response(body, status=202, headers=headers)
