"""How many inputs `make fuzz` tries, and how they were answered.

make fuzz             the short form: 1,000 requests
make fuzz N=10000     the full form
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.figures import add_statuses

CASES = int(os.environ.get("N") or 1000)

# Harmless unless a page, a file or a log takes them for something else than text.
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7|add:7 }}{% debug %}",
    "${7*7}#{7*7}",
    "javascript:alert(1)",
    '=HYPERLINK("https://evil.example")',
    "\uff1d1+1",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "a\r\nX-Injected: 1",
    "../../etc/passwd",
    "' OR 1=1 --",
    "\u0000",
    "\U0001f680 \u0301\u0489",
    "9" * 400,
    "a" * 70_000,
    "[]",
    "{}",
    "null",
    "-1",
    "1e400",
    "NaN",
    " ",
]


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Callable[[int], None]]:
    """Return a function to call with the status of each answer. At the end, print how often each status came."""
    statuses: Counter[int] = Counter()

    def add(status: int) -> None:
        statuses[status] += 1

    yield add
    add_statuses(request, statuses, of="fuzz")
