"""benchmarks/run_all.py asks what was promised, and goes on when a benchmark fails."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_all
from run_all import Bench, Figure, Run, at, at_least, at_most, largest

SCRIPT = Path(run_all.__file__)


def test_each_benchmark_that_a_figure_needs_is_there() -> None:
    assert {figure.bench for figure in run_all.FIGURES} == set(run_all.BENCHES)


def test_the_questions_are_those_that_were_promised() -> None:
    promised = """\
    accept 32 connections ≥ 0.5
    accept 64 connections ≥ 0.6
    webhook 64 connections ≥ 3 ×
    PostgreSQL 64 connections ≥ 0.75
    receivers accepts/s, SQLite ≥ 1.6 ×
    receivers CPU, PostgreSQL ≤ 1.15 ×
    deliver webhook ≥ 0.8
    deliver Teams ≥ 0.8
    vendors HubSpot ≥ 0.7
    vendors Zendesk ≥ 0.7
    receipt 20 events/s, p50 ≤ 15 ms
    receipt 20 events/s, p99 ≤ 60 ms
    receipt 50 events/s, p50 ≤ 15 ms
    receipt 50 events/s, p99 ≤ 60 ms
    backlog accepts/s ≥ 0.7
    memory idle, without admin pages ≤ 100 MiB
    memory idle, with admin pages ≤ 150 MiB
    memory after many events / after 2,000 ≤ 1.1
    start --version ≤ 0.15 s
    start events, small store ≤ 0.4 s
    start first 200 after serve ≤ 0.7 s
    size step, SQLite ≤ 1.15
    size step, PostgreSQL ≤ 1.15
    size page, SQLite ≤ 1.15
    size page, PostgreSQL ≤ 1.15"""

    asked = [f"{each.topic} {each.what} {each.goal}" for each in run_all.FIGURES]

    assert asked == [line.strip() for line in promised.splitlines()]
    assert {each.topic for each in run_all.FIGURES} == set(run_all.QUESTIONS)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", run_all.BENCHES)
def test_each_benchmark_understands_what_it_is_called_with(
    name: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, *arguments = run_all.BENCHES[name].arguments(quick=quick)
    monkeypatch.setattr(sys, "argv", [script, *arguments])

    assert importlib.import_module(Path(script).stem)._options().json is True


def figure(**changes: object) -> Figure:
    said = {"topic": "accept", "what": "32", "goal": at_least(0.5), "bench": "accept 32",
            "read": at("ratio")}  # fmt: skip
    return Figure(**{**said, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("goal", "ratio", "reached"),
    [
        (at_least(0.5), 0.5, True),
        (at_least(0.5), 0.49, False),
        (at_most(1.15, "×"), 1.15, True),
        (at_most(1.15, "×"), 1.2, False),
    ],
)
def test_what_was_measured_is_compared_with_the_goal(
    goal: run_all.Goal, ratio: float, reached: bool
) -> None:
    run = Run(command="", seconds=1.0, report={"ratio": ratio})

    assert run_all.row(figure(goal=goal), run).reached is reached


def test_the_worst_of_several_steps_counts() -> None:
    read = largest("ratios", of=("accept", "claim"))

    assert read({"ratios": {"accept 1": 1.0, "claim 32": 1.2, "events": 9.0}}) == 1.2


def test_a_report_without_the_figure_is_a_row_that_says_so() -> None:
    row = run_all.row(figure(), Run(command="", seconds=1.0, report={"speed": 2.0}))

    assert row.measured == "failed: no such figure in its report: 'ratio'"
    assert row.reached is None


def test_a_benchmark_that_takes_too_long_is_ended() -> None:
    bench = Bench(command="load.py --count 1000000", limits=(3, 3))

    run = run_all.run(bench, quick=True)

    assert run.failed == "took more than 3 s"


def test_a_benchmark_that_fails_is_a_row_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without wrk in PATH no accept can be measured.
    called = [sys.executable, str(SCRIPT), "--quick", "--only", "32 connections"]
    written = tmp_path / "report.json"

    done = subprocess.run(
        [*called, "--json", str(written)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "| failed: wrk is needed (Debian: apt-get install wrk) |" in done.stdout
    report = json.loads(written.read_text())
    assert [row["reached"] for row in report["rows"]] == [None]
    assert report["machine"]["cores"] >= 1

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [*called[1:], "--strict"])

    assert run_all.main() == 1
