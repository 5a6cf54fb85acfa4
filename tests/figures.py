"""Lines of figures that tests print in the summary of a run, also when xdist's workers run them.

pytest reads the hooks of tests/conftest.py only: with xdist, the process that prints collects no test and so loads no other
conftest.py.
"""

from collections import Counter, defaultdict

import pytest

LINE, STATUSES = "line of figures", "statuses of answers: "
_lines: list[str] = []
_statuses: dict[str, Counter[int]] = defaultdict(Counter)


def print_line(request: pytest.FixtureRequest, line: str) -> None:
    """Print the line in the terminal summary. Call it before the test's teardown ends."""
    request.node.user_properties.append((LINE, line))


def add_statuses(request: pytest.FixtureRequest, statuses: Counter[int], *, of: str) -> None:
    """Count these answers in the line about all of one kind of tests. `of`: the name of the kind."""
    request.node.user_properties.append((f"{STATUSES}{of}", list(statuses.items())))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "teardown":
        return
    for name, value in report.user_properties:
        if name == LINE:
            _lines.append(str(value))
        elif name.startswith(STATUSES) and isinstance(value, list):
            _statuses[name.removeprefix(STATUSES)].update(dict(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _lines:
        terminalreporter.write_line(line)
    for kind, statuses in _statuses.items():
        answers = ", ".join(f"{status}: {times}" for status, times in sorted(statuses.items()))
        terminalreporter.write_line(f"{kind}: {statuses.total()} requests; answers by status: {answers}")
