"""benchmarks/plots.py draws what was measured, and the page has a place for all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pictures
import plots
import pytest
from pictures import Bar, Plot

PAGE = plots.DOCS / "performance.md"
NAMES = ["goals", *pictures.FROM_RUNS, *pictures.FROM_FLOWS]
LOAD = {"requests_per_second": 2000.0, "cpu_us_per_request": 300.0, "server_us": 80.0,
        "p50_ms": 20.0, "p99_ms": 60.0}  # fmt: skip


def rectangles(picture: str, name: str) -> list[float]:
    """Return the widths of the bars of a class."""
    found = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect")
    return [float(each.attrib["width"]) for each in found if each.attrib["class"] == name]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_a_place_for_each_question(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert "| a | b |" in plots.replaced(page, name, "| a | b |")


def test_a_bar_is_as_long_as_its_value_says() -> None:
    bars = [Bar(label="a <b>", value=10.0, shown="10 µs", is_ours=False),
            Bar(label="c", value=5.0, part=1.0, shown="5 µs", goal=8.0)]  # fmt: skip

    picture = plots.svg(Plot(title="Cost & time", bars=bars))

    (other,), (ours,), (part,) = (rectangles(picture, n) for n in ("other", "ours", "part"))
    assert (ours / other, part / ours) == (pytest.approx(0.5, 0.01), pytest.approx(0.2, 0.01))
    assert "prefers-color-scheme: dark" in picture


@pytest.mark.parametrize(
    ("goal", "value", "share"),
    [("≥ 10", 5.0, 0.5), ("≥ 10", 50.0, 2.0), ("≤ 10", 20.0, 0.5), ("≤ 10", 0.0, 2.0)],
)
def test_a_goal_s_bar_is_as_long_as_it_is_reached(goal: str, value: float, share: float) -> None:
    row = {"topic": "start", "what": "it", "goal": goal, "aim": 10.0, "measured": str(value),
           "value": value, "reached": share >= 1}  # fmt: skip

    (bar,) = pictures.goals([row]).bars

    assert (bar.value, bar.is_ours) == (share, share >= 1)


def test_what_was_measured_replaces_the_page_s_table_and_what_failed_leaves_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "images").mkdir()
    page = tmp_path / "performance.md"
    places = "".join(
        f"<!-- measured: {name} -->\n\nold {name}\n\n<!-- end -->\n"
        for name in ("goals", "stores", "receipt")
    )
    page.write_text(places, encoding="utf-8")
    row = {"topic": "PostgreSQL", "what": "64 connections", "goal": "≥ 0.75", "aim": 0.75,
           "measured": "0.6", "value": 0.6, "reached": False}  # fmt: skip
    machine = {"date": "2026-11-29", "cores": 2, "cpu": "a processor", "python": "3.11.7",
               "versions": {"flask": "3.1.3"}, "load": [0.5, 0.4, 0.3]}  # fmt: skip
    runs = {
        "accept, postgres": {"report": {"sqlite": LOAD, "accept": {**LOAD, "p99_ms": 70.0}}},
        "receipt 20": {"report": None},
    }
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps({"quick": True, "machine": machine, "rows": [row], "runs": runs}),
        encoding="utf-8",
    )

    subprocess.run(
        [sys.executable, str(Path(plots.__file__)), "--table", report, "--docs", tmp_path],
        check=True, timeout=60,
    )  # fmt: skip

    written = page.read_text(encoding="utf-8")
    assert "2026-11-29, --quick: 2 cores of a processor, load 0.5 at the start" in written
    assert "| ≥ 0.75 | 0.6      | not reached |" in written
    assert (
        "| PostgreSQL | 2,000 | 300 µs, 80 of them the server's | 20.0 ms | 70.0 ms |" in written
    )
    assert "old receipt" in written
    drawn = {each.name for each in (tmp_path / "images").iterdir()}
    assert drawn == {"performance-goals.svg", "performance-stores.svg"}
