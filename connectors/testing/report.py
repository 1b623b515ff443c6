"""A plugin of pytest that sums up a suite check by check, for ``connectors test``."""

from __future__ import annotations

import re
from typing import Any

import pytest

from connectors.testing.hooks import CHECK

#: How pytest's outcomes are told.
WORDS = {"passed": "passed", "failed": "FAILED", "error": "ERROR", "skipped": "left out"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write one line for each check, in the order of their ids, for each suite."""
    suites: dict[str, list[str]] = {}
    for outcome, word in WORDS.items():
        for report in terminalreporter.stats.get(outcome, []):
            if isinstance(report, pytest.TestReport):
                path, _, name = report.nodeid.rpartition("::")
                line = f"{_title(name)}: {word}{_reason(report)}"
                suites.setdefault(path.rpartition("::")[2], []).append(line)
    for suite, lines in sorted(suites.items()):
        terminalreporter.section(f"checks of {suite}")
        for line in sorted(lines):
            terminalreporter.write_line(line)


def _title(name: str) -> str:
    found = CHECK.match(name)
    return found[1].replace("_", " ") if found else name


def _reason(report: pytest.TestReport) -> str:
    if not isinstance(report.longrepr, tuple):
        return ""
    said = re.sub(r"^Skipped: ", "", str(report.longrepr[2]))
    return f" ({said})"
