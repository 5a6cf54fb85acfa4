"""From what a task wrote to a line that may be shown: safe text, level, message, fields. Pure, linear in the line's length.

NUL, control and direction-changing characters, escape sequences and what is no Unicode are taken out or marked; a line of
more than MAX_LINE characters is cut and says so. HTML is text like any other: templates escape it.
"""

import json
import re
from typing import Any

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
# bunyan and pino write numbers: 10 trace to 60 fatal.
NUMBERED = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARNING", 50: "ERROR", 60: "CRITICAL"}

# ECMA-48 sequences, unfinished ones too. Possessive, so that nothing is tried twice.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[PX^_][^\x1b\x9c]*+(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*+[0-~]?"
)
# Control characters but tab and newline; surrogates; marks that change the direction of what follows.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARK = "\ufffd"
LEVEL_WORD = re.compile(r"(?<![A-Za-z0-9_])(" + "|".join([*LEVELS, *SAME_LEVEL]) + r")(?![A-Za-z0-9_])")
WHERE_A_LEVEL_STANDS = 120


def safe_text(text: str) -> str:
    """The text without escape sequences, with a mark for each character that must not reach a page."""
    return UNSAFE.sub(MARK, ESCAPES.sub("", text))


def read_line(raw: str) -> dict[str, Any]:
    """`level` (of LEVELS, None where the line names none), `message`, `extra_data` (a JSON line's other fields), `cut`."""
    cut = len(raw) > MAX_LINE
    fields = None if cut else as_fields(raw)
    if fields is None:
        text = safe_text(raw[:MAX_LINE]).rstrip()
        if cut:
            text += f" … (cut: the line has {len(raw):,} characters, {MAX_LINE:,} are shown)"
        return {"level": level_of_text(text), "message": text, "extra_data": None, "cut": cut}
    level = next((level_of(fields[key]) for key in LEVEL_KEYS if key in fields), None)
    key = next((key for key in MESSAGE_KEYS if isinstance(fields.get(key), str)), None)
    message = fields[key] if key else safe_text(raw).rstrip()
    extra = {name: value for name, value in fields.items() if name != key and name not in LEVEL_KEYS}
    return {"level": level, "message": message, "extra_data": extra or None, "cut": False}


def as_fields(raw: str) -> dict[str, Any] | None:
    """A JSON object's fields, made safe; None for a line that is none."""
    if not raw.lstrip().startswith("{"):
        return None
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return safe_value(parsed) if isinstance(parsed, dict) else None


def safe_value(value: Any, depth: int = 0) -> Any:
    """JSON as it may be shown: every text safe, not deeper than MAX_DEPTH, numbers that JSON has."""
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


def level_of(value: Any) -> str | None:
    """
    >>> level_of("warn"), level_of(50), level_of("loud")
    ('WARNING', 'ERROR', None)
    """
    if isinstance(value, str):
        word = value.strip().upper()
        return word if word in LEVELS else SAME_LEVEL.get(word)
    return NUMBERED.get(value) if isinstance(value, int) else None


def level_of_text(text: str) -> str | None:
    """The first level that stands, in capitals, near the beginning of a plain line."""
    found = LEVEL_WORD.search(text[:WHERE_A_LEVEL_STANDS])
    return level_of(found[1]) if found else None
