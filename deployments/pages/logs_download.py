"""Download of the shown log records, oldest first: as text, as one JSON object a line, or as CSV."""

import json
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from deployments.pages.context import find_deployment
from deployments.pages.logs_region import as_text_lines, build_logs, exact
from deployments.pages.time_window import parse_window
from portal.access import Policy, get_page_organization, person, policy
from portal.cloudwatch.records import Record
from portal.errors import NOT_FOUND, PortalError
from portal.web.csv import csv_response

COLUMNS = ["timestamp", "level", "node_id", "message", "extra_data"]
TYPES = {"txt": "text/plain", "ndjson": "application/x-ndjson"}


@policy(Policy.VIEWER)
@require_safe
def download_logs(request: HttpRequest, slug: str, deployment_id: UUID, form: str) -> HttpResponse:
    """Return the records that the page shows for the same query. The file is named by the agent and the first record."""
    if form not in ("csv", *TYPES):
        raise PortalError("not_found", NOT_FOUND, 404)
    organization = get_page_organization(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    window = parse_window(request.GET, now=timezone.now())
    logs = build_logs(request.GET, deployment, window, reader=person(request))
    records = sorted(logs.records, key=lambda record: (record.timestamp, record.id))
    agent = slugify(deployment.agent.name) or "agent"
    name = f"{agent}-{deployment.short_id}-{logs.since or window.since:%Y%m%dT%H%M%SZ}"
    if form == "csv":
        return csv_response(name, COLUMNS, ([*as_row(record)[:4], record.fields_text] for record in records))
    lines = as_text_lines(records) if form == "txt" else (as_json(record) for record in records)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"', "X-Content-Type-Options": "nosniff"}
    body = "".join(lines)
    if logs.error and form == "txt":
        body += f"# CloudWatch Logs could not be read: {logs.error}\n"
    return HttpResponse(body, content_type=f"{TYPES[form]}; charset=utf-8", headers=headers)


def as_row(record: Record) -> list[object]:
    extra = record.lines[0].extra_data or None
    return [exact(record.timestamp), record.level, record.node_id, record.message, extra]


def as_json(record: Record) -> str:
    return json.dumps(dict(zip(COLUMNS, as_row(record), strict=True)), ensure_ascii=False) + "\n"
