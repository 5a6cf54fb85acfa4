"""Formats log records: JSON lines in production, text elsewhere (LOG_FORMAT). Settings load it, so it imports no model.

AWS's own error texts and credentials are left out (portal/aws/log_filter.py).

A record is one line of JSON whatever its texts contain. In text, control characters of the message are escaped, so that
no caller can forge a line; a traceback keeps its lines.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from portal.aws.log_filter import make_safe

# Line breaks, escape sequences of terminals, and characters that change the direction of the text.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    r"""Return the text with its control characters escaped.

    >>> print(escape("one\n2026-01-01 INFO two"))
    one\n2026-01-01 INFO two
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: time (UTC), level, logger, request_id, message, and `exception` if it has one.

    `extra={"fields": {...}}` adds members. Other attributes of a record are left out, because libraries attach whole
    requests to it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": safe(record, record.getMessage()),
            "process": record.process,
        }
        line |= {name: value for name, value in getattr(record, "fields", {}).items() if name not in line}
        if record.exc_info:
            line["exception"] = safe(record, self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Writes a record as text, with the control characters of its message escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escape(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return safe(record, super().format(record))


def safe(record: logging.LogRecord, text: str) -> str:
    return make_safe(text, record.exc_info[1] if record.exc_info else None)
