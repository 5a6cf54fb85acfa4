"""Download of a deployment's log records."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from deployments.pages.context import find_deployment
from portal.access import Policy, get_page_organization, person, policy
from portal.web.observe.download import check_form, check_window, download_records
from portal.web.observe.logs import build_logs
from portal.web.observe.time_window import parse_window


@policy(Policy.VIEWER)
@require_safe
def download_logs(request: HttpRequest, slug: str, deployment_id: UUID, form: str) -> HttpResponse:
    """Return the records that the page shows for the same query. The file is named by the agent.

    *Raises* PortalError 400 for an invalid window, 404 for another form.
    """
    check_form(form)
    organization = get_page_organization(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    window = parse_window(request.GET, now=timezone.now())
    check_window(window)
    logs = build_logs(request.GET, deployment.cloudwatch, window, reader=person(request))
    return download_records(logs, form, name=f"{slugify(deployment.agent.name) or 'agent'}-{deployment.short_id}")
