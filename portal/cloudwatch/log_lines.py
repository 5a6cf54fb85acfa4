"""Parses a raw log line into safe text, level, message and fields. Pure; takes time linear in the line's length.

Escape sequences are removed. NUL, control characters, bidirectional marks and invalid Unicode are replaced by a mark. A
line of more than MAX_LINE characters is truncated, and its text says so. HTML is kept, because templates escape it.

Levels and messages are found in what applications write: JSON of many libraries, also behind a time or wrapped by a log
router, logfmt, klog, nginx, .NET, Serilog, Monolog, PHP, panics of Go and Rust, and words in capitals.
"""

import json
import re
from typing import Any

from portal.safe_text import safe_text

MAX_LINE = 16 * 1024
# A longer JSON line is not parsed. CloudWatch takes no longer events (FilterLogEvents returns at most 1 MB).
MAX_JSON = 256 * 1024
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
    "EMERG": "CRITICAL",
    "ALERT": "CRITICAL",
    # .NET's console
    "TRCE": "DEBUG",
    "DBUG": "DEBUG",
    "FAIL": "ERROR",
    # log15, and logrus on a terminal
    "EROR": "ERROR",
    "DEBU": "DEBUG",
    "ERRO": "ERROR",
    "FATA": "CRITICAL",
}
# Of Serilog and zerolog. In a sentence they may be anything, so they count only where a level is expected.
SHORT_LEVEL = {
    "VRB": "DEBUG",
    "TRC": "DEBUG",
    "DBG": "DEBUG",
    "INF": "INFO",
    "WRN": "WARNING",
    "FTL": "CRITICAL",
    "PNC": "CRITICAL",
}
# In lower case, because libraries write `level`, `Level` and `LEVEL`. `@l` and `@mt` are Serilog's, `severitytext` and
# `body` OpenTelemetry's.
LEVEL_KEYS = (
    "level",
    "severity",
    "levelname",
    "log_level",
    "loglevel",
    "lvl",
    "log.level",
    "@l",
    "@level",
    "severitytext",
    "severity_text",
    "severitynumber",
    "severity_number",
)
MESSAGE_KEYS = (
    "message",
    "msg",
    "event",
    "text",
    "@message",
    "@m",
    "renderedmessage",
    "@mt",
    "messagetemplate",
    "body",
)
# Log routers (FireLens, the json-file driver) put the line itself here.
WRAPPED_KEY = "log"
# bunyan and pino write levels as numbers, from 10 (trace) to 60 (fatal).
NUMBERED = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARNING", 50: "ERROR", 60: "CRITICAL"}
# OpenTelemetry counts from 1 (trace) to 24 (fatal), four numbers for each of these.
SEVERITIES = ["DEBUG", *LEVELS]

NAMES = "|".join([*LEVELS, *SAME_LEVEL])
ALL_NAMES = "|".join([NAMES, *SHORT_LEVEL])
# In capitals, and no part of a word, a path, a query or an assignment: `GET /search?q=ERROR` names no level.
LEVEL_WORD = re.compile(rf"(?<![A-Za-z0-9_=/?&+.%'\"])({NAMES})(?![A-Za-z0-9_=/])")
LEVEL_SEARCH_LENGTH = 120
# Numbers and signs, as in a time, with which many lines begin.
TIME = r"[\[\]0-9TZ:.,/+\- \t]{0,48}"
# The level stands first. `Error: x` may be the name of an exception.
STATES_LEVEL = re.compile(rf"{TIME}(?:{NAMES})\b|(?:{NAMES.lower()}):")
BEFORE_JSON = re.compile(rf"{TIME}(?=\{{)")
IN_BRACKETS = re.compile(rf"{TIME}\[\s?({ALL_NAMES})\s?\]", re.IGNORECASE)
# `[10:00:00 INF] x` of Serilog, `10:00AM INF x` of zerolog, `[2026-11-28 10:00:00,000: ERROR/MainProcess] x` of Celery
AFTER_TIME = re.compile(rf"{TIME}[0-9]:[0-9]{TIME}(?:[AP]M)?[\s|]({ALL_NAMES})[\s/|\]]", re.IGNORECASE)
# `error: x`, `fatal error: x`, `PHP Parse error:  x`
PHP_TIME = r"(?:\[[0-9]{2}-[A-Z][a-z]{2}-[0-9]{4} [0-9:]{8}[^\]]{0,40}\] )?"
PHP = r"(?:(?:NOTICE: )?PHP message: )?(?:PHP (?:\w+ ){0,2}?)?"
BEFORE_COLON = re.compile(rf"{PHP_TIME}{TIME}{PHP}({NAMES})(?: error)?:", re.IGNORECASE)
# `[2026-11-28 10:00:00] production.ERROR: x` of Monolog
AFTER_CHANNEL = re.compile(rf"\[{TIME}[\w-]+\.({NAMES}):")
# Of Rust, and of Go's net/http
PANIC = re.compile(rf"{TIME}(?:thread '[^']*'(?: \([0-9]+\))? panicked at|http: panic serving) ")
LOGFMT = re.compile(rf"(?:^|\s)(?:level|lvl|severity)=\"?({ALL_NAMES})\b", re.IGNORECASE)
LOGFMT_MESSAGE = re.compile(r"(?:^|\s)(?:msg|message)=")
KLOG = re.compile(r"([IWEF])[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2}")
KLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}


def read_line(raw: str) -> dict[str, Any]:
    """Return the parts of a line: `level`, `message`, `extra_data` and `cut`.

    `level` is one of LEVELS, or None if the line names none. `extra_data` holds the other fields of a JSON line, also a
    level that is not known; None if the line is not JSON. `cut` is true if the line was truncated. Only a line of text that
    a log router wrapped into JSON has `is_wrapped`, which is true.
    """
    fields = as_fields(raw) if len(raw) <= MAX_JSON else None
    if fields is not None:
        return read_fields(fields, raw)
    text = as_text(raw[:MAX_LINE])
    return {"level": find_level(text), "extra_data": None, **truncate(text, len(raw))}


def truncate(text: str, length: int) -> dict[str, Any]:
    """Return the message, and whether it was cut. `length`: that of the whole text."""
    if length <= MAX_LINE:
        return {"message": text, "cut": False}
    return {"message": f"{text[:MAX_LINE]} … (truncated: {MAX_LINE:,} of {length:,} characters shown)", "cut": True}


def read_fields(fields: dict[str, Any], raw: str, *, is_wrapped: bool = False) -> dict[str, Any]:
    """Return the parts of a JSON line. A line that a log router wrapped into JSON is read itself."""
    names = {name.lower(): name for name in reversed(fields)}
    key = next((names[each] for each in MESSAGE_KEYS if isinstance(fields.get(names.get(each, "")), str)), None)
    wrapped = fields.get(names.get(WRAPPED_KEY, ""))
    if key is None and isinstance(wrapped, str) and not is_wrapped:
        inner_fields = as_fields(wrapped)
        inner = read_fields(inner_fields, wrapped, is_wrapped=True) if inner_fields is not None else read_line(wrapped)
        outer = {name: value for name, value in fields.items() if name != names[WRAPPED_KEY]}
        level = inner["level"] or find_field_level(fields, names)
        mark = {"is_wrapped": True} if inner_fields is None else {}
        return inner | mark | {"level": level, "extra_data": outer | (inner["extra_data"] or {})}
    level = find_field_level(fields, names)
    said = {
        names[key]
        for key in LEVEL_KEYS
        if key in names and parse_field_level(key, fields[names[key]]) == level is not None
    }
    extra = {name: value for name, value in fields.items() if name != key and name not in said}
    message = as_text(fields[key] if key else raw)
    return {"level": level, "extra_data": extra, **truncate(message, len(message))}


def find_field_level(fields: dict[str, Any], names: dict[str, str]) -> str | None:
    """Return the first known level of a JSON line. `names`: its fields' names by their lower case."""
    levels = [parse_field_level(key, fields[names[key]]) for key in LEVEL_KEYS if key in names]
    nested = fields.get(names.get(WRAPPED_KEY, ""))
    if isinstance(nested, dict):  # Elastic's schema: {"log": {"level": "error"}}
        levels.append(parse_level(nested.get("level")))
    return next((level for level in levels if level), None)


def parse_field_level(key: str, value: Any) -> str | None:
    """Return the standard level for the value of a field, or None if it is unknown. `key`: one of LEVEL_KEYS."""
    if key not in ("severitynumber", "severity_number"):
        return parse_level(value)
    return SEVERITIES[(value - 1) // 4] if type(value) is int and 1 <= value <= 24 else None


def as_text(raw: str) -> str:
    return safe_text(drop_overwritten(raw)).rstrip()


def drop_overwritten(raw: str) -> str:
    """Return the text as a terminal shows it: without what a carriage return lets the rest of the line overwrite."""
    if "\r" not in raw:
        return raw
    lines = raw.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def as_fields(raw: str) -> dict[str, Any] | None:
    """Return the fields of a JSON object as safe values, or None if the line is not one. A time may stand before it."""
    before = BEFORE_JSON.match(raw)
    if before is None:
        return None
    try:
        parsed = json.loads(raw[before.end() :])
    except (ValueError, RecursionError):
        return None
    return safe_value(parsed) if isinstance(parsed, dict) else None


def safe_value(value: Any, depth: int = 0) -> Any:
    """Return a JSON value that is safe to show: safe texts, at most MAX_DEPTH levels, and only numbers that JSON allows."""
    if isinstance(value, str):
        return safe_text(drop_overwritten(value))
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
        return word if word in LEVELS else SAME_LEVEL.get(word) or SHORT_LEVEL.get(word)
    return NUMBERED.get(value) if isinstance(value, int) else None


def find_level(text: str) -> str | None:
    """Return the level that a plain text line names near its start, or None."""
    start = text[:LEVEL_SEARCH_LENGTH]
    klog = KLOG.match(start)
    if klog:
        return KLOG_LEVELS[klog[1]]
    if PANIC.match(start):
        return "CRITICAL"
    logfmt = LOGFMT.search(start)
    if logfmt and LOGFMT_MESSAGE.search(text):
        return parse_level(logfmt[1])
    found = (
        IN_BRACKETS.match(start)
        or BEFORE_COLON.match(start)
        or AFTER_CHANNEL.match(start)
        or AFTER_TIME.match(start)
        or LEVEL_WORD.search(start)
        or logfmt
    )
    return parse_level(found[1]) if found else None
