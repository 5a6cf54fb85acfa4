"""Lines of figures that tests print in the summary of a run, also when xdist's workers run them.

pytest reads the hooks of tests/conftest.py only: with xdist, the process that prints collects no test and so loads no other
conftest.py.
"""

import pytest

LINE = "line of figures"
_lines: list[str] = []


def print_line(request: pytest.FixtureRequest, line: str) -> None:
    """Print the line in the terminal summary. Call it before the test's teardown ends."""
    request.node.user_properties.append((LINE, line))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _lines.extend(str(value) for name, value in report.user_properties if name == LINE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _lines:
        terminalreporter.write_line(line)
