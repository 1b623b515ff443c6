"""A plugin of pytest that sums up a suite check by check, for ``connectors test``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.testing.hooks import CHECK

#: How pytest's outcomes are told.
WORDS = {"passed": "passed", "failed": "FAILED", "error": "ERROR", "skipped": "left out"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write one line for each check, in the order of their ids."""
    lines = sorted(_lines(terminalreporter.stats))
    if lines:
        terminalreporter.section("checks")
    for line in lines:
        terminalreporter.write_line(line)


def _lines(stats: dict[str, list[Any]]) -> Iterator[str]:
    for outcome, word in WORDS.items():
        for report in stats.get(outcome, []):
            if isinstance(report, pytest.TestReport):
                yield f"{_title(report.nodeid)}: {word}{_reason(report)}"


def _title(nodeid: str) -> str:
    name = nodeid.rpartition("::")[2]
    found = CHECK.match(name)
    return found[1].replace("_", " ") if found else name


def _reason(report: pytest.TestReport) -> str:
    if not isinstance(report.longrepr, tuple):
        return ""
    said = re.sub(r"^Skipped: ", "", str(report.longrepr[2]))
    return f" ({said})"
