"""Download of the shown log lines as a text file."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from deployments.pages.context import find_deployment
from deployments.pages.live_regions import log_text
from deployments.pages.time_window import parse_window
from portal.access import Policy, get_page_organization, person, policy


@policy(Policy.VIEWER)
@require_safe
def download_logs(request: HttpRequest, slug: str, deployment_id: UUID) -> HttpResponse:
    """Return the lines that the page shows for the same query, as text with their times."""
    organization = get_page_organization(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    window = parse_window(request.GET, now=timezone.now())
    name = f"{deployment.agent_id}-{deployment.short_id}-{window.since:%Y%m%dT%H%M%SZ}.txt"
    return HttpResponse(
        log_text(request.GET, deployment, window, reader=person(request)),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"},
    )
