"""Scorecards of scenarios: for the terminal, as JSON, as JUnit XML, and as a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

import click
from jinja2 import Environment, StrictUndefined

from sender import report
from sender.delivery import shown
from sender.scenarios import SCENARIOS, Outcome, Scenario
from sender.scenarios.base import Check, Verdict
from sender.terminal import say, wrapped

SIGNS: dict[Verdict, str] = {"passed": "✓", "failed": "✗", "skipped": "·"}
COLOURS: dict[Verdict, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}


def is_right(outcomes: Sequence[Outcome]) -> bool:
    """Whether no scenario failed, and one at least was played."""
    verdicts = {each.verdict for each in outcomes}
    return "failed" not in verdicts and "passed" in verdicts


def show_list(scenarios: Sequence[Scenario] = SCENARIOS) -> None:
    """Print what each scenario does, what is right, and why."""
    for each in scenarios:
        click.secho(each.name, bold=True)
        for head, text in (("does:", each.title), ("right:", each.right), ("why:", each.why)):
            click.echo(wrapped(f"  {head:8}", text))


def show(outcome: Outcome) -> None:
    """Print an outcome in a line, and under a failure what was expected, and why."""
    head = f"{SIGNS[outcome.verdict]} {outcome.scenario.name:22}{outcome.seconds:5.1f} s  "
    said = report.one_line(outcome.skipped) if outcome.skipped else outcome.scenario.title
    line = wrapped(head, said)
    say(click.style(line[:24], fg=COLOURS[outcome.verdict]) + line[24:])
    if outcome.verdict == "failed":
        say(_faults(outcome))


def show_end(outcomes: Sequence[Outcome]) -> None:
    """Print the warnings, each once, and how many passed, failed and were skipped."""
    warned: dict[str, list[str]] = {}
    for outcome in outcomes:
        for each in outcome.warnings:
            warned.setdefault(each, []).append(outcome.scenario.name)
    for warning, names in warned.items():
        click.echo(wrapped("warning  ", f"{', '.join(names)}: {warning}"))
    click.echo(summary(outcomes))


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say in one line how many passed, failed and were skipped."""
    counts = Counter(each.verdict for each in outcomes)
    said = [f"{SIGNS[each]} {counts[each]} {each}" for each in SIGNS if counts[each]]
    return ", ".join(said) or "nothing was played"


def as_json(outcome: Outcome) -> str:
    """Describe an outcome as a JSON object in one line."""
    return json.dumps(_fields(outcome))


def as_junit(outcomes: Sequence[Outcome], *, url: str) -> bytes:
    """Describe *outcomes* as JUnit XML, a test case each."""
    counts = Counter(each.verdict for each in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name=report.harmless(f"gofax-sender scenarios {shown(url)}"),
        tests=str(len(outcomes)),
        failures=str(counts["failed"]),
        errors="0",
        skipped=str(counts["skipped"]),
        time=f"{sum(each.seconds for each in outcomes):.3f}",
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    for each in outcomes:
        suite.append(_case(each))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def as_html(outcomes: Sequence[Outcome], *, url: str) -> str:
    """Describe *outcomes* as a page that needs nothing else."""
    source = files("sender").joinpath("scorecard.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["one_line"] = report.one_line
    return environment.from_string(source).render(
        url=shown(url),
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=summary(outcomes),
        outcomes=outcomes,
        signs=SIGNS,
    )


def described(outcome: Outcome) -> str:
    """Describe a failed outcome in a few lines."""
    return f"{outcome.scenario.name}: {outcome.scenario.title}\n{_faults(outcome)}"


def _faults(outcome: Outcome) -> str:
    lines = []
    for fault in outcome.faults:
        lines.append(wrapped("    wanted  ", report.one_line(fault.what)))
        lines.append(wrapped("    saw     ", report.one_line(fault.saw)))
    lines.append(wrapped("    right   ", outcome.scenario.right))
    lines.append(wrapped("    why     ", outcome.scenario.why))
    return "\n".join(lines)


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.scenario.name,
        "verdict": outcome.verdict,
        "title": outcome.scenario.title,
        "right": outcome.scenario.right,
        "why": outcome.scenario.why,
        "seconds": round(outcome.seconds, 3),
        "skipped": outcome.skipped,
        "checks": [
            {
                "what": each.what,
                "passed": each.passed,
                "saw": each.saw,
                "warning": each.warning,
            }
            for each in outcome.checks
        ],
    }


def _case(outcome: Outcome) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname="gofax_sender.scenarios",
        name=outcome.scenario.name,
        time=f"{outcome.seconds:.3f}",
    )
    if outcome.skipped is not None:
        ElementTree.SubElement(case, "skipped", message=report.harmless(outcome.skipped))
    if outcome.verdict == "failed":
        message = "; ".join(_said(each) for each in outcome.faults)
        failure = ElementTree.SubElement(case, "failure", message=report.harmless(message))
        failure.text = f"right: {outcome.scenario.right}\nwhy: {outcome.scenario.why}"
    ElementTree.SubElement(case, "system-out").text = "\n".join(
        f"{'passed' if each.passed else 'failed'}: {report.harmless(_said(each))}"
        for each in outcome.checks
    )
    return case


def _said(check: Check) -> str:
    warning = f"; warning: {check.warning}" if check.warning else ""
    return f"{check.what}: saw {check.saw}{warning}"
