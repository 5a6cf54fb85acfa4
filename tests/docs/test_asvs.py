"""docs/asvs.md has a row for each requirement of ASVS 5.0.0 up to level 2, and names only evidence that exists."""

import ast
import functools
import re
from collections import Counter

from tests.local_aws import ROOT

LEVELS = {"1": 70, "2": 183}
# The requirements of levels 1 and 2, chapter by chapter.
CHAPTERS = [27, 11, 19, 10, 9, 35, 18, 7, 7, 29, 14, 9, 13, 9, 13, 16, 7]
# Columns: id, level, requirement, result, evidence.
ROWS = re.findall(
    r"^\| ([0-9.]+) \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$", (ROOT / "docs" / "asvs.md").read_text(), re.M
)
REASONS = {"pass": ".", "not applicable": ".", "open": "risk (low|medium): ."}


def find_named(evidence: str) -> list[tuple[str, str]]:
    """Return the paths that the evidence names, each with the name of a test or an empty text."""
    names = re.findall(r"`([\w.-]+/[^`]*|[\w.-]+\.(?:md|txt|toml))`", evidence)
    return [(path, test) for path, _, test in (name.partition("::") for name in names)]


@functools.cache
def exists(path: str, test: str) -> bool:
    if not test:
        return (ROOT / path).exists()
    tree = ast.parse((ROOT / path).read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == test for node in tree.body)


def test_each_requirement_has_one_row() -> None:
    ids = [row[0] for row in ROWS]

    assert ids == sorted(set(ids), key=lambda each: [int(part) for part in each.split(".")])
    assert Counter(row[1] for row in ROWS) == LEVELS
    assert list(Counter(each.split(".")[0] for each in ids).values()) == CHAPTERS


def test_each_row_has_a_result_with_its_reason_or_risk() -> None:
    assert [row for row in ROWS if not re.match(REASONS.get(row[3], "$"), row[4])] == []


def test_what_passes_names_a_file_and_what_is_named_exists() -> None:
    assert [row for row in ROWS if row[3] == "pass" and not find_named(row[4])] == []
    assert [(row[0], *named) for row in ROWS for named in find_named(row[4]) if not exists(*named)] == []
