"""CSV downloads of lists. Cells are escaped so that a spreadsheet does not run them as formulas."""

import csv
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.forms import Form
from django.http import HttpResponse

from portal.errors import PortalError
from portal.safe_text import safe_text

# The most rows in a file. Narrower filters return the rest.
MAX_ROWS = 10_000
# What begins a formula (https://owasp.org/www-community/attacks/CSV_Injection), also in the full-width and small forms that
# some spreadsheets accept, and after spaces and marks that a spreadsheet drops.
DROPPED = '[\\s"\u00ad\u180e\u2060-\u2064\ufffd\ufeff\u200b-\u200f]*'
SIGNS = "[=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
FORMULA = re.compile(f"{DROPPED}{SIGNS}|[\t\r\n]")
# A spreadsheet that separates cells by semicolons may start a new cell after one inside ours.
FORMULA_INSIDE = re.compile(f"[;\uff1b](?={DROPPED}{SIGNS})")


def check_filters(form: Form) -> None:
    """Raise PortalError 400 `bad_filter` for invalid filters, because an empty file could not report them."""
    if not form.is_valid():
        said = " ".join(f"{name}: {' '.join(str(one) for one in errors)}" for name, errors in form.errors.items())
        raise PortalError("bad_filter", f"Nothing was exported. {said}", 400)


def csv_response(name: str, header: list[str], rows: Iterable[Iterable[Any]]) -> HttpResponse:
    """Return a CSV download with this name. Times are ISO 8601 in UTC; None is empty."""
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"', "X-Content-Type-Options": "nosniff"},
    )
    writer = csv.writer(response)
    writer.writerow(header)
    writer.writerows([as_cell(value) for value in row] for row in rows)
    return response


def as_cell(value: Any) -> str:
    """Return the value as the text of a cell.

    >>> as_cell("=1+1"), as_cell(None), as_cell(-3), as_cell("done;=1+1")
    ("'=1+1", '', '-3', "done;'=1+1")
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, int | float):
        return str(value)
    text = FORMULA_INSIDE.sub(r"\g<0>'", safe_text(str(value)))
    return f"'{text}" if FORMULA.match(text) else text
