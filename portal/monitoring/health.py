"""The health checks /health, /livez and /readyz. They report names and verdicts, never addresses or error texts.

A check that hangs counts as failed: it is waited for only briefly (bounded.py).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from portal import __version__, draining
from portal.access import Policy, policy
from portal.aws import silence
from portal.aws.reachability import Reachability, check_regions, summarize
from portal.celery import app
from portal.models import Heartbeat, Organization
from portal.models.people import HEARTBEAT_FRESH_SECONDS, HEARTBEATS
from portal.monitoring.bounded import Check, DatabaseCheck
from portal.tenancy import all_organizations
from portal.wakeup import BROKER_ERRORS, broker_connection

logger = logging.getLogger(__name__)

# /health and /readyz answer within one second, whatever hangs.
WAIT_SECONDS, DATABASE_WAIT_SECONDS = 0.8, 0.4


@policy(Policy.PUBLIC)
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """Answer that the process runs. Checks nothing else, so that a database outage does not restart web processes."""
    return JsonResponse({"status": "alive"})


@policy(Policy.PUBLIC)
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer whether requests can be served: 200 if the database answers, else 503; also 503 while the server stops."""
    status = "stopping" if draining.has_begun() else "ready" if is_database_up() else "unready"
    response = JsonResponse({"status": status}, status=200 if status == "ready" else 503)
    if status != "ready":
        response["Retry-After"] = "5"
    return response


@policy(Policy.PUBLIC)
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Check everything that an upgrade needs, and answer 503 if a part is down.

    `silent` lists the regions and accounts of AWS that do not answer. While others do, AWS is `degraded`, with status 200.
    """
    until = time.monotonic() + WAIT_SECONDS
    broker, noted = BROKER.start(), NOTED.start()
    stored = STORED.verdict(time.monotonic() + DATABASE_WAIT_SECONDS)
    answers = check_regions(stored.regions, until=until)
    aws = summarize(answers, NOTED.wait(noted, until))
    checks = {
        "database": as_verdict(stored.answers),
        "broker": as_verdict(BROKER.wait(broker, until)),
        "worker": as_verdict(not stored.silent_processes),
        "aws": describe_aws(aws),
    }
    status = next((each for each in ("unhealthy", "degraded") if each in checks.values()), "healthy")
    body = {"status": status, "version": __version__, "checks": checks, "silent": aws.silent}
    response = JsonResponse(body, status=503 if status == "unhealthy" else 200)
    if status == "unhealthy":
        response["Retry-After"] = "5"
    return response


def as_verdict(is_healthy: bool) -> str:
    return "healthy" if is_healthy else "unhealthy"


def describe_aws(aws: Reachability) -> str:
    if not aws.is_accepted:
        return "unhealthy"
    return "degraded" if aws.silent else "healthy"


class HealthCheckMiddleware:
    """Answer /livez and /readyz before the Host header is checked. Later middleware checks it for all other paths.

    A load balancer sends the address of the task as Host, which ALLOWED_HOSTS cannot list.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html
    """

    views = {"/livez": livez, "/readyz": readyz}

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = self.views.get(request.path_info)
        if view is None:
            return self.get_response(request)
        response = view(request)
        response["Content-Length"] = str(len(response.content))
        return response


@dataclass(frozen=True)
class Stored:
    """What the database says. `regions`: those of the active organizations."""

    answers: bool
    silent_processes: list[str]
    regions: list[str]


def read_stored() -> Stored:
    """Read what /health needs. *Costs* three queries."""
    if not database_answers():
        return NOTHING_STORED
    try:
        with all_organizations("only the names of regions are shown"):
            regions = Organization.objects.filter(is_active=True).order_by().values_list("deployment_region", flat=True)
            return Stored(True, silent_processes(), list(regions.distinct()))
    except DatabaseError:
        return NOTHING_STORED


def is_database_up() -> bool:
    return DATABASE.verdict(time.monotonic() + WAIT_SECONDS)


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("health: database does not answer")
        return False
    return True


def broker_answers() -> bool:
    """Return whether the broker answers and has the queue, or lets it be created."""
    try:
        with broker_connection() as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=1)
            app.amqp.queues[app.conf.task_default_queue].bind(broker.default_channel).queue_declare()
    except BROKER_ERRORS:
        logger.warning("health: broker does not answer")
        return False
    return True


def silent_processes() -> list[str]:
    """Return the background processes without a heartbeat for HEARTBEAT_FRESH_SECONDS. *Costs* one query."""
    try:
        fresh = set(
            Heartbeat.objects.filter(beat_at__gt=Now() - timedelta(seconds=HEARTBEAT_FRESH_SECONDS)).values_list(
                "name", flat=True
            )
        )
    except DatabaseError:
        return list(HEARTBEATS)
    return [name for name in HEARTBEATS if name not in fresh]


NOTHING_STORED = Stored(False, list(HEARTBEATS), [])
DATABASE = DatabaseCheck(database_answers, if_hanging=False)
STORED = DatabaseCheck(read_stored, if_hanging=NOTHING_STORED)
BROKER = Check(broker_answers, if_hanging=False)
NOTED: Check[dict[tuple[str, str], float]] = Check(silence.read, if_hanging={})
