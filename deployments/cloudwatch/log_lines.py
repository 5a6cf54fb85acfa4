"""Parses a raw log line into safe text, level, message and fields. Pure; takes time linear in the line's length.

Escape sequences are removed. NUL, control characters, bidirectional marks and invalid Unicode are replaced by a mark. A
line of more than MAX_LINE characters is truncated, and its text says so. HTML is kept, because templates escape it.
"""

import json
import re
from typing import Any

from portal.safe_text import safe_text

MAX_LINE = 16 * 1024
MAX_DEPTH, MAX_FIELDS = 6, 100

LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
SAME_LEVEL = {
    "TRACE": "DEBUG",
    "VERBOSE": "DEBUG",
    "NOTICE": "INFO",
    "INFORMATION": "INFO",
    "WARN": "WARNING",
    "ERR": "ERROR",
    "SEVERE": "ERROR",
    "CRIT": "CRITICAL",
    "FATAL": "CRITICAL",
    "PANIC": "CRITICAL",
    "EMERGENCY": "CRITICAL",
    "ALERT": "CRITICAL",
}
LEVEL_KEYS = ("level", "severity", "levelname", "log_level", "lvl", "log.level")
MESSAGE_KEYS = ("message", "msg", "event", "text")
# bunyan and pino write levels as numbers, from 10 (trace) to 60 (fatal).
NUMBERED = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARNING", 50: "ERROR", 60: "CRITICAL"}

LEVEL_WORD = re.compile(r"(?<![A-Za-z0-9_])(" + "|".join([*LEVELS, *SAME_LEVEL]) + r")(?![A-Za-z0-9_])")
LEVEL_SEARCH_LENGTH = 120


def read_line(raw: str) -> dict[str, Any]:
    """Return the parts of a line: `level`, `message`, `extra_data` and `cut`.

    `level` is one of LEVELS, or None if the line names none. `extra_data` holds the other fields of a JSON line. `cut` is
    true if the line was truncated.
    """
    cut = len(raw) > MAX_LINE
    fields = None if cut else as_fields(raw)
    if fields is None:
        text = safe_text(raw[:MAX_LINE]).rstrip()
        if cut:
            text += f" … (truncated: {MAX_LINE:,} of {len(raw):,} characters shown)"
        return {"level": find_level(text), "message": text, "extra_data": None, "cut": cut}
    level = next((parse_level(fields[key]) for key in LEVEL_KEYS if key in fields), None)
    key = next((key for key in MESSAGE_KEYS if isinstance(fields.get(key), str)), None)
    message = fields[key] if key else safe_text(raw).rstrip()
    extra = {name: value for name, value in fields.items() if name != key and name not in LEVEL_KEYS}
    return {"level": level, "message": message, "extra_data": extra or None, "cut": False}


def as_fields(raw: str) -> dict[str, Any] | None:
    """Return the fields of a JSON object as safe values, or None if the line is not a JSON object."""
    if not raw.lstrip().startswith("{"):
        return None
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return safe_value(parsed) if isinstance(parsed, dict) else None


def safe_value(value: Any, depth: int = 0) -> Any:
    """Return a JSON value that is safe to show: safe texts, at most MAX_DEPTH levels, and only numbers that JSON allows."""
    if isinstance(value, str):
        return safe_text(value)
    if depth >= MAX_DEPTH and isinstance(value, dict | list):
        return "…"
    if isinstance(value, dict):
        return {safe_text(name): safe_value(each, depth + 1) for name, each in list(value.items())[:MAX_FIELDS]}
    if isinstance(value, list):
        return [safe_value(each, depth + 1) for each in value[:MAX_FIELDS]]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def parse_level(value: Any) -> str | None:
    """Return the standard level for a level name or number, or None if it is unknown.

    >>> parse_level("warn"), parse_level(50), parse_level("loud")
    ('WARNING', 'ERROR', None)
    """
    if isinstance(value, str):
        word = value.strip().upper()
        return word if word in LEVELS else SAME_LEVEL.get(word)
    return NUMBERED.get(value) if isinstance(value, int) else None


def find_level(text: str) -> str | None:
    """Return the first level in capitals near the start of a plain text line, or None."""
    found = LEVEL_WORD.search(text[:LEVEL_SEARCH_LENGTH])
    return parse_level(found[1]) if found else None
