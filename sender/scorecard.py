"""What came of scenarios: for the terminal, as JSON, as JUnit XML, and as a page."""

from __future__ import annotations

import json
import re
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
from sender.scenarios.base import Verdict

SIGNS: dict[Verdict, str] = {"passed": "✓", "failed": "✗", "skipped": "·"}
COLOURS: dict[Verdict, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}
#: What XML cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_right(outcomes: Sequence[Outcome]) -> bool:
    """Whether no scenario failed, and one at least was played."""
    verdicts = {each.verdict for each in outcomes}
    return "failed" not in verdicts and "passed" in verdicts


def show_list(scenarios: Sequence[Scenario] = SCENARIOS) -> None:
    """Print what each scenario does, what is right, and why."""
    for each in scenarios:
        click.secho(each.name, bold=True)
        click.echo(f"  does:   {each.title}\n  right:  {each.right}\n  why:    {each.why}")


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the scorecard: a line each, and under what failed, what should have been, and why."""
    for each in outcomes:
        head = f"{SIGNS[each.verdict]} {each.scenario.name:24}"
        click.secho(head, fg=COLOURS[each.verdict], nl=False)
        click.echo(f"{each.seconds:5.1f} s  {each.skipped or each.scenario.title}")
        if each.verdict == "failed":
            click.echo(_faults(each))
    click.echo(summary(outcomes))


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say in one line how many passed, failed and were skipped."""
    counts = Counter(each.verdict for each in outcomes)
    return ", ".join(f"{counts[each]} {each}" for each in SIGNS if counts[each])


def as_json(outcome: Outcome) -> str:
    """Describe an outcome as a JSON object in one line."""
    return json.dumps(_fields(outcome), ensure_ascii=False)


def as_junit(outcomes: Sequence[Outcome], *, url: str) -> bytes:
    """Describe *outcomes* as JUnit XML, a test case each."""
    counts = Counter(each.verdict for each in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name=_xml(f"gofax-sender scenarios {shown(url)}"),
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
        lines.append(f"    wanted  {report.one_line(fault.what)}")
        lines.append(f"    saw     {report.one_line(fault.saw)}")
    lines.append(f"    right   {outcome.scenario.right}")
    lines.append(f"    why     {outcome.scenario.why}")
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
            {"what": each.what, "passed": each.passed, "saw": each.saw} for each in outcome.checks
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
        ElementTree.SubElement(case, "skipped", message=_xml(outcome.skipped))
    if outcome.verdict == "failed":
        message = "; ".join(f"{each.what}: saw {each.saw}" for each in outcome.faults)
        failure = ElementTree.SubElement(case, "failure", message=_xml(message))
        failure.text = _xml(f"right: {outcome.scenario.right}\nwhy: {outcome.scenario.why}")
    ElementTree.SubElement(case, "system-out").text = _xml(
        "\n".join(
            f"{'passed' if each.passed else 'failed'}: {each.what} (saw {each.saw})"
            for each in outcome.checks
        )
    )
    return case


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
