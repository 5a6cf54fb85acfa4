"""The health checks /health, /livez and /readyz. They report names and verdicts, never addresses or error texts."""

import logging
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from portal import __version__, draining, soft_cache
from portal.access import Policy, policy
from portal.aws.sts import caller_is_known
from portal.celery import app
from portal.models import Heartbeat
from portal.wakeup import BROKER_ERRORS, broker_connection

logger = logging.getLogger(__name__)

HEARTBEATS = ("scheduler", "worker")
HEARTBEAT_FRESH_SECONDS = 30
AWS_CACHE_SECONDS = 15


@policy(Policy.PUBLIC)
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """Answer that the process runs. Checks nothing else, so that a database outage does not restart web processes."""
    return JsonResponse({"status": "alive"})


@policy(Policy.PUBLIC)
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer whether requests can be served: 200 if the database answers, else 503; also 503 while the server stops."""
    status = "stopping" if draining.has_begun() else "ready" if database_answers() else "unready"
    response = JsonResponse({"status": status}, status=200 if status == "ready" else 503)
    if status != "ready":
        response["Retry-After"] = "5"
    return response


@policy(Policy.PUBLIC)
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Check everything that an upgrade needs, and answer 503 if a part is down."""
    checks = {
        "database": database_answers(),
        "broker": broker_answers(),
        "worker": not silent_processes(),
        "aws": aws_answers(),
    }
    healthy = all(checks.values())
    response = JsonResponse(
        {
            "status": "healthy" if healthy else "unhealthy",
            "version": __version__,
            "checks": {name: "healthy" if verdict else "unhealthy" for name, verdict in checks.items()},
        },
        status=200 if healthy else 503,
    )
    if not healthy:
        response["Retry-After"] = "5"
    return response


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


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("health: database does not answer")
        return False
    return True


def broker_answers() -> bool:
    """Whether the broker answers and has the queue, or takes it."""
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


def aws_answers() -> bool:
    """Return whether AWS accepts the portal's own credentials. Calls AWS at most once per AWS_CACHE_SECONDS."""
    known: bool | None = soft_cache.read("health:aws")
    if known is None:
        known = caller_is_known()
        soft_cache.write("health:aws", known, seconds=AWS_CACHE_SECONDS)
    return known
