"""A plugin of pytest for ``connectors test``: one line for each check, and each cause once."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import pytest

from connectors.testing.findings import kind_of
from connectors.testing.hooks import CHECK
from connectors.testing.suite import ConnectorSuite

#: How pytest's outcomes are told.
WORDS = {"passed": "passed", "failed": "FAILED", "error": "ERROR", "skipped": "left out"}
CHECKS = sorted(found[1] for each in dir(ConnectorSuite) if (found := CHECK.match(each)))


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """Refuse an unknown check id in ``-k``, which pytest would take for a check of no suite."""
    for asked in re.findall(r"\bC\d+\w*", config.option.keyword):
        if not any(asked.lower() in each.lower() for each in CHECKS):
            raise pytest.UsageError(
                f"there is no check {asked}: the checks are {CHECKS[0][:3]} to {CHECKS[-1][:3]}"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a check found, without its traceback."""
    report = yield
    if call.excinfo is not None and report.failed:
        error = call.excinfo.value
        said = str(error)
        if not isinstance(error, pytest.fail.Exception):
            said = "\n".join([kind_of(error), *getattr(error, "__notes__", ())])
        report.sections.append(("found", said))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write one line for each check, in the order of their ids, for each suite."""
    suites: dict[str, list[tuple[str, str, pytest.TestReport]]] = {}
    for outcome, word in WORDS.items():
        for report in terminalreporter.stats.get(outcome, []):
            if isinstance(report, pytest.TestReport):
                path, _, name = report.nodeid.rpartition("::")
                checked = (_title(name), word, report)
                suites.setdefault(path.rpartition("::")[2], []).append(checked)
    for suite, checks in sorted(suites.items()):
        terminalreporter.section(f"checks of {suite}")
        seen: dict[str, str] = {}
        for title, word, report in sorted(checks, key=lambda each: each[:2]):
            known, news = _found(report, title=title, seen=seen)
            terminalreporter.write_line(f"{title}: {word}{known or _reason(report)}")
            for line in news:
                terminalreporter.write_line(f"    {line}")


def _title(name: str) -> str:
    found = CHECK.match(name)
    return found[1].replace("_", " ") if found else name


def _reason(report: pytest.TestReport) -> str:
    if not isinstance(report.longrepr, tuple):
        return ""
    said = re.sub(r"^Skipped: ", "", str(report.longrepr[2]))
    return f" ({said})"


def _found(
    report: pytest.TestReport, *, title: str, seen: dict[str, str]
) -> tuple[str, list[str]]:
    """Return the earlier checks that found the same as this one, and what only this one found.

    *seen* holds each cause with the title of the check that found it first.
    """
    earlier, news, is_news = [], [], False
    for line in next((said for name, said in report.sections if name == "found"), "").split("\n"):
        if line and not line.startswith(" "):
            first = seen.setdefault(line.partition(", wanted ")[0], title)
            is_news = first == title
            earlier += [] if is_news or line.startswith("mend: ") else [first[:3]]
        news += [line] if line and is_news else []
    return f" (as {', '.join(dict.fromkeys(earlier))})" if earlier else "", news
