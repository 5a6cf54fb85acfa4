"""GET /metrics for Prometheus: gauges about work in progress and the counters of all processes, read from the database.

Its own token (METRICS_TOKEN) protects it, because it covers all organizations; without a token it is closed. Each app
lists its gauges in settings.GAUGES. No label contains an organization's name.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from django.conf import settings
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Extract, Now
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from portal.access import Policy, policy
from portal.errors import NOT_FOUND, PortalError, respond
from portal.models import Heartbeat
from portal.tenancy import all_organizations

Gauges: TypeAlias = Iterator[Metric]


@policy(Policy.PUBLIC)
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in Prometheus text format. 404 if METRICS_TOKEN is not set, 401 without it as bearer token."""
    if not settings.METRICS_TOKEN:
        return respond(request, PortalError("not_found", NOT_FOUND, 404))
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {settings.METRICS_TOKEN}".encode()):
        answer = HttpResponse("Send the METRICS_TOKEN as a bearer token.\n", status=401, content_type="text/plain")
        answer["WWW-Authenticate"] = "Bearer"
        return answer
    registry = CollectorRegistry()
    registry.register(DatabaseCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class DatabaseCollector(Collector):
    """Collects everything that settings.GAUGES lists, with a few queries each."""

    def collect(self) -> Gauges:
        for name in settings.GAUGES:
            gauges: Callable[[], Gauges] = import_string(name)
            # Not around a yield: the context must not depend on who takes the next gauge.
            with all_organizations("gauges count the rows of every organization"):
                found = list(gauges())
            yield from found

    def describe(self) -> Gauges:
        """Yield nothing. Without this the registry would collect everything at registration to learn the names."""
        yield from ()


def gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"portal_{name}", help_text, value=value)


def gauge_by(label: str, name: str, help_text: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"portal_{name}", help_text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def seconds_since(field: str) -> Extract:
    """Return an expression: the seconds since `field` on the database's clock; negative for a future time."""
    return Extract(ExpressionWrapper(Now() - F(field), DurationField()), "epoch")


def heartbeats() -> Gauges:
    yield gauge_by(
        "process",
        "heartbeat_age_seconds",
        "Seconds since the last heartbeat of a background process.",
        Heartbeat.objects.order_by("name").values_list("name", seconds_since("beat_at")),
    )
