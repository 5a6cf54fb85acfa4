"""CloudWatch Logs filter patterns: terms, `?optional`, `-excluded`, "phrases", %regular expressions% and JSON.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html. Patterns in brackets for
space-delimited lines are not supported. They are refused, so that unfiltered lines are not mistaken for filtered ones.
"""

import fnmatch
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from portal.sandbox.errors import AwsError

Matches = Callable[[str], bool]

TERM = re.compile(r'([?-]?)("(?:[^"\\]|\\.)*"|%[^%]+%|[^\s"%]+)\s*')
TOKEN = re.compile(r'\s*(\(|\)|&&|\|\||!=|>=|<=|=|>|<|"(?:[^"\\]|\\.)*"|%[^%]+%|[^\s()=<>!&|"]+)')
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
}
MISSING = object()


def invalid_pattern() -> AwsError:
    return AwsError("InvalidParameterException", "Invalid filter pattern")


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Matches:
    """Return a function that tests messages against the pattern. Raises InvalidParameterException if it is invalid."""
    pattern = pattern.strip()
    if not pattern or pattern == '" "':
        return lambda _message: True
    if pattern.startswith("["):
        raise AwsError(
            "InvalidParameterException", "The local AWS does not support patterns for space-delimited lines."
        )
    return json_pattern(pattern) if pattern.startswith("{") else term_pattern(pattern)


def term_pattern(pattern: str) -> Matches:
    """Match all plain terms and none of the `-` terms. Without plain terms, also match at least one `?` term."""
    terms: dict[str, list[Matches]] = {"": [], "?": [], "-": []}
    at = 0
    while at < len(pattern):
        found = TERM.match(pattern, at)
        if found is None:
            raise invalid_pattern()
        terms[found[1]].append(term(found[2]))
        at = found.end()

    def matches(message: str) -> bool:
        if any(each(message) for each in terms["-"]) or not all(each(message) for each in terms[""]):
            return False
        # AWS ignores optional terms if there are required ones.
        return bool(terms[""]) or not terms["?"] or any(each(message) for each in terms["?"])

    return matches


def term(text: str) -> Matches:
    if text.startswith("%"):
        return regular_expression(text)
    wanted = unquoted(text)
    return lambda message: wanted in message


def regular_expression(text: str) -> Matches:
    try:
        expression = re.compile(text[1:-1])
    except re.error as error:
        raise invalid_pattern() from error
    return lambda message: expression.search(message) is not None


def unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def json_pattern(pattern: str) -> Matches:
    """Match patterns such as `{ $.level = "error" && $.ms > 100 }`. A line that is not a JSON object never matches."""
    if not pattern.endswith("}"):
        raise invalid_pattern()
    inside = pattern[1:-1].strip()
    tokens = [each[1] for each in TOKEN.finditer(inside)]
    if "".join(tokens) != re.sub(r'\s+(?=(?:[^"]*"[^"]*")*[^"]*$)', "", inside):
        raise invalid_pattern()
    condition = any_of(tokens)
    if tokens:
        raise invalid_pattern()

    def matches(message: str) -> bool:
        if not message.startswith("{"):
            return False
        try:
            return condition(json.loads(message))
        except ValueError:
            return False

    return matches


Condition = Callable[[Any], bool]


def any_of(tokens: list[str]) -> Condition:
    parts = [all_of(tokens)]
    while tokens[:1] == ["||"]:
        tokens.pop(0)
        parts.append(all_of(tokens))
    return lambda value: any(part(value) for part in parts)


def all_of(tokens: list[str]) -> Condition:
    parts = [comparison(tokens)]
    while tokens[:1] == ["&&"]:
        tokens.pop(0)
        parts.append(comparison(tokens))
    return lambda value: all(part(value) for part in parts)


def comparison(tokens: list[str]) -> Condition:
    if tokens[:1] == ["("]:
        tokens.pop(0)
        inner = any_of(tokens)
        if tokens[:1] != [")"]:
            raise invalid_pattern()
        tokens.pop(0)
        return inner
    if len(tokens) < 3 or not tokens[0].startswith("$."):
        raise invalid_pattern()
    path, operator, operand = tokens.pop(0), tokens.pop(0), tokens.pop(0)
    if operator == "IS":
        return named_condition(path, operand)
    if (operator, operand) == ("NOT", "EXISTS"):
        return lambda value: selected(value, path) is MISSING
    if operator not in COMPARISONS:
        raise invalid_pattern()
    return value_condition(path, operator, operand)


def named_condition(path: str, name: str) -> Condition:
    wanted = {"TRUE": True, "FALSE": False, "NULL": None}
    if name not in wanted:
        raise invalid_pattern()
    return lambda value: selected(value, path) is wanted[name]


def value_condition(path: str, operator: str, operand: str) -> Condition:
    if operand.startswith("%"):
        matches = regular_expression(operand)
        return lambda value: matches(str(selected(value, path))) is (operator == "=")
    number = as_number(operand)

    def holds(value: Any) -> bool:
        found = selected(value, path)
        if number is not None and isinstance(found, int | float) and not isinstance(found, bool):
            return COMPARISONS[operator](found, number)
        if operator not in ("=", "!=") or not isinstance(found, str):
            return False
        return fnmatch.fnmatchcase(found, unquoted(operand).replace("[", "[[]")) is (operator == "=")

    return holds


def as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def selected(value: Any, path: str) -> Any:
    """Return the value at a selector such as `$.error.codes[0]`, or MISSING."""
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path[1:]):
        if name:
            value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
        else:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else MISSING
    return value
