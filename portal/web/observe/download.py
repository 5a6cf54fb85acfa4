"""Downloads of the shown log records, oldest first: as text, as one JSON object a line, or as CSV."""

import json
from collections.abc import Callable

from django.http import HttpResponse

from portal.cloudwatch.records import Record
from portal.errors import NOT_FOUND, PortalError
from portal.web.csv import csv_response
from portal.web.observe.logs import Logs, as_text_lines, exact
from portal.web.observe.time_window import Window

COLUMNS = ["timestamp", "level", "node_id", "message", "extra_data"]
# How each form is named on the page.
FORMS = {"txt": "text", "ndjson": "NDJSON", "csv": "CSV"}
TYPES = {"txt": "text/plain", "ndjson": "application/x-ndjson"}


def check_form(form: str) -> None:
    """Raise PortalError 404 for an unknown form."""
    if form not in FORMS:
        raise PortalError("not_found", NOT_FOUND, 404)


def check_window(window: Window) -> None:
    """Raise PortalError 400 `bad_filter` for an invalid window, in place of which the page shows the last hour."""
    if window.error:
        raise PortalError("bad_filter", f"Nothing was exported. {window.error}", 400)


def list_downloads(address: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return name and address of each download. `address` makes the address of a form."""
    return [(name, address(form)) for form, name in FORMS.items()]


def download_records(logs: Logs, form: str, *, name: str) -> HttpResponse:
    """Return the records as a file with this name and the time of the first one."""
    records = sorted(logs.records, key=lambda record: (record.timestamp, record.id))
    name = f"{name}-{records[0].timestamp:%Y%m%dT%H%M%SZ}" if records else name
    if form == "csv":
        return csv_response(name, COLUMNS, ([*as_row(record)[:4], record.fields_text] for record in records))
    body = "".join(as_text_lines(records) if form == "txt" else (as_json(record) for record in records))
    if logs.error and form == "txt":
        body += f"# CloudWatch Logs could not be read: {logs.error}\n"
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(body, content_type=f"{TYPES[form]}; charset=utf-8", headers=headers)


def as_row(record: Record) -> list[object]:
    extra = record.lines[0].extra_data or None
    return [exact(record.timestamp), record.level, record.node_id, record.message, extra]


def as_json(record: Record) -> str:
    return json.dumps(dict(zip(COLUMNS, as_row(record), strict=True)), ensure_ascii=False) + "\n"
