"""Headers against other origins, the reports of browsers about the Content-Security-Policy, and /.well-known/security.txt.

Reports are counted by directive and never stored, because anybody can send any content.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from csp.constants import HEADER as CSP_HEADER
from csp.utils import build_policy
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe
from prometheus_client.core import GaugeMetricFamily

from portal import soft_cache
from portal.access import Policy, policy
from portal.errors import PortalError, respond
from portal.monitoring.prometheus import Gauges, gauge_by

CSP_REPORTS_PATH = "/csp-reports"
# Browser features that no page uses: https://www.w3.org/TR/permissions-policy/. The clipboard and security keys are used.
UNUSED_FEATURES = (
    *("accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation"),
    *("gyroscope", "hid", "idle-detection", "magnetometer", "microphone", "midi", "payment", "picture-in-picture"),
    *("screen-wake-lock", "serial", "usb", "xr-spatial-tracking"),
)
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in UNUSED_FEATURES),
    "Reporting-Endpoints": f'csp="{CSP_REPORTS_PATH}"',
}
MAX_REPORT_BYTES = 16 * 1024
REPORTS_PER_MINUTE = 600
COUNTED_SECONDS = 24 * 60 * 60
# The directives that a report may name; any other name is counted as `other`.
DIRECTIVES = (
    *(
        "base-uri",
        "connect-src",
        "default-src",
        "font-src",
        "form-action",
        "frame-ancestors",
        "img-src",
        "manifest-src",
    ),
    *(
        "object-src",
        "script-src",
        "script-src-attr",
        "script-src-elem",
        "style-src",
        "style-src-attr",
        "style-src-elem",
    ),
)
OTHER = "other"
# https://www.rfc-editor.org/rfc/rfc9116: less than a year.
SECURITY_TXT_LASTS = timedelta(days=180)


class HeadersMiddleware:
    """Adds HEADERS and the Content-Security-Policy to every response, those of static files included. HEAD gets no content.

    Every response has the same policy, so it is made once, while django-csp's middleware makes it for each response.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.headers = HEADERS | {CSP_HEADER: build_policy()}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in self.headers.items():
            response.headers.setdefault(name, value)
        if request.method == "HEAD" and not response.streaming and response.content:
            # Django leaves that to the server, and gunicorn logs a warning for each.
            response.headers["Content-Length"] = str(len(response.content))
            response.content = b""
        return response


@policy(Policy.PUBLIC)
@csrf_exempt
@require_POST
def csp_reports(request: HttpRequest) -> HttpResponse:
    """Count a browser's reports by directive. 413 for a body over 16 KiB, 429 for more than REPORTS_PER_MINUTE."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_REPORT_BYTES:
        return respond(request, PortalError("too_large", "A report has at most 16 KiB.", 413))
    minute = int(timezone.now().timestamp()) // 60
    if soft_cache.count(f"csp-reports:minute:{minute}", seconds=60) > REPORTS_PER_MINUTE:
        return respond(request, PortalError("too_many_requests", "Too many reports.", 429, retry_after=60))
    for directive in find_directives(request.body):
        soft_cache.count(f"csp-reports:{directive}", seconds=COUNTED_SECONDS)
    return HttpResponse(status=204)


def find_directives(body: bytes) -> set[str]:
    """Return the directives that the reports name, `other` for unknown ones. Empty if this is not a report.

    Takes both forms: `{"csp-report": {..}}` (report-uri) and `[{"type": "csp-violation", "body": {..}}]` (report-to).
    """
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        return set()
    reports: list[Any] = sent if isinstance(sent, list) else [sent]
    named = set()
    for report in reports[:100]:
        inner = (report.get("csp-report") or report.get("body")) if isinstance(report, dict) else None
        if isinstance(inner, dict):
            text = (
                inner.get("effectiveDirective") or inner.get("effective-directive") or inner.get("violated-directive")
            )
            directive = str(text or "").partition(" ")[0]
            named.add(directive if directive in DIRECTIVES else OTHER)
    return named


def gauges() -> Gauges:
    """Yield how many reports browsers sent, by directive, since the count last began (at most a day)."""
    counted = [(name, float(soft_cache.read(f"csp-reports:{name}") or 0)) for name in (*DIRECTIVES, OTHER)]
    family: GaugeMetricFamily = gauge_by(
        "directive", "csp_reports", "Reports about the Content-Security-Policy within a day.", counted
    )
    yield family


@policy(Policy.PUBLIC)
@require_safe
def security_txt(request: HttpRequest) -> HttpResponse:
    """Return whom to tell about a vulnerability (RFC 9116)."""
    expires = timezone.now() + SECURITY_TXT_LASTS
    lines = [
        f"Contact: {settings.SECURITY_CONTACT}",
        f"Expires: {expires:%Y-%m-%d}T00:00:00Z",
        "Preferred-Languages: en",
    ]
    if settings.PORTAL_URL:
        lines.append(f"Canonical: {settings.PORTAL_URL}/.well-known/security.txt")
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")
