"""Measure everything that docs/performance.md has a goal for, and print the table.

    python benchmarks/run_all.py [--quick] [--json FILE] [--only WORDS] [--strict]

``--quick`` takes less than 5 minutes on two cores; the full run takes five interleaved pairs and
larger sizes, for hours. Each benchmark is a process of its own; one that fails is a row of the
table. With ``--strict`` the exit code is 1 if a goal is missed, otherwise it is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIBRARIES = ("gofax-relay", "flask", "granian", "sqlalchemy", "psycopg", "requests", "orjson",
             "hubspot-api-client", "zenpy", "pymsteams", "celery")  # fmt: skip
#: Time in which a benchmark that was interrupted stops its servers.
GRACE = 60

#: What a benchmark prints with ``--json``.
Report = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A benchmark's command, and what makes it quick or thorough."""

    command: str
    quick: str = ""
    full: str = ""
    #: Seconds, quick and full, after which it is interrupted.
    limits: tuple[int, int] = (60, 1800)

    def arguments(self, *, quick: bool) -> list[str]:
        return shlex.split(f"{self.command} {self.quick if quick else self.full} --json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """The largest or the smallest value that is good enough."""

    value: float
    unit: str = ""
    is_least: bool = True

    def is_reached(self, measured: float) -> bool:
        return measured >= self.value if self.is_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {_shown(self.value, self.unit)}"


def at_least(value: float, unit: str = "") -> Goal:
    return Goal(value=value, unit=unit)


def at_most(value: float, unit: str = "") -> Goal:
    return Goal(value=value, unit=unit, is_least=False)


def at(*keys: str) -> Callable[[Report], float]:
    """Return what reads the figure below these keys."""

    def read(report: Report) -> float:
        found: Any = report
        for key in keys:
            found = found[key]
        return float(found)

    return read


def largest(*keys: str, of: Sequence[str] = ("",)) -> Callable[[Report], float]:
    """Return what reads the largest figure below these keys whose names begin with one *of*."""

    def read(report: Report) -> float:
        found: Any = report
        for key in keys:
            found = found[key]
        return max(value for name, value in found.items() if name.startswith(tuple(of)))

    return read


def smallest(*reads: Callable[[Report], float]) -> Callable[[Report], float]:
    """Return what reads the smallest of several figures."""
    return lambda report: min(read(report) for read in reads)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a question: which benchmark gives it, and how it is read from its report."""

    topic: str
    what: str
    goal: Goal
    bench: str
    read: Callable[[Report], float]


#: Five pairs, as every ratio of the full run has.
PAIRS = "--seconds 5 --rounds 5"
BRIEF = "--seconds 2 --rounds 2"

BENCHES = {
    "accept 32": Bench(command="accept.py --connections 32", quick=BRIEF, full=PAIRS),
    "accept 64": Bench(command="accept.py --connections 64", quick=BRIEF, full=PAIRS),
    "accept, webhook": Bench(command="accept.py --against webhook", quick=BRIEF, full=PAIRS),
    "accept, postgres": Bench(
        command="accept.py --postgres --against sqlite", quick=BRIEF, full=PAIRS),
    "two receivers": Bench(
        command="accept.py --receivers 2 --against one", quick=BRIEF, full=PAIRS),
    "two receivers, postgres": Bench(
        command="accept.py --postgres --receivers 2 --against one", quick=BRIEF, full=PAIRS),
    "deliver": Bench(
        command="deliver.py --latencies 0",
        quick="--events 1500 --rounds 1", full="--events 6000 --rounds 5"),
    "vendors": Bench(
        command="vendors.py", quick="--events 200 --rounds 1", full="--events 1000 --rounds 5"),
    "receipt 20": Bench(
        command="deliver.py --receipt --rate 20",
        quick="--seconds 8 --rounds 1", full="--seconds 30 --rounds 5"),
    "receipt 50": Bench(
        command="deliver.py --receipt --rate 50",
        quick="--seconds 6 --rounds 1", full="--seconds 30 --rounds 5"),
    "backlog": Bench(
        command="draining.py", quick="--backlog 4000 --seconds 2 --rounds 1",
        full="--backlog 100000 --seconds 5 --rounds 5"),
    "serve": Bench(
        command="serve.py",
        quick="--rounds 1 --events 10000", full="--rounds 5 --events 1000000",
        limits=(120, 2 * 3600)),
    "tables, sqlite": Bench(
        command="scale.py --tables --pages --databases sqlite",
        quick="--sizes 10000,300000 --rounds 15",
        full="--sizes 10000,10000000 --rounds 200", limits=(120, 6 * 3600)),
    "tables, postgres": Bench(
        command="scale.py --tables --pages --databases postgres",
        quick="--sizes 10000,30000 --rounds 8",
        full="--sizes 10000,10000000 --rounds 200", limits=(120, 6 * 3600)),
}  # fmt: skip

QUESTIONS = {
    "accept": "accept / verify-only view: CPU of a request, SQLite",
    "webhook": "accepts/s on one core / Debian's webhook with HMAC and a no-op command",
    "PostgreSQL": "accept on PostgreSQL / on SQLite: CPU, server included",
    "receivers": "two receiver processes / one",
    "deliver": "deliver at 0 ms / bare requests loop on as many threads: CPU",
    "vendors": "delivery / the SDK's bare calls: CPU, first or next message",
    "receipt": "from the 200 to the stand-in's receipt",
    "backlog": "accept while 100,000 deliveries drain / accept alone",
    "memory": "serve: PSS of all processes",
    "start": "time until it is done",
    "size": "10 million events in the store / 10 thousand: CPU of the dearest",
}
#: Steps of an event's life, by how their names begin.
STEPS = ("accept", "claim", "record")

#: Every figure of the page by its question: its goal, and where it is measured.
FIGURES = (
    Figure("accept", "32 connections", at_least(0.5), "accept 32", at("ratio")),
    Figure("accept", "64 connections", at_least(0.6), "accept 64", at("ratio")),
    Figure("webhook", "64 connections", at_least(3, "×"), "accept, webhook", at("speed")),
    Figure("PostgreSQL", "64 connections", at_least(0.75), "accept, postgres", at("ratio")),
    Figure("receivers", "accepts/s, SQLite", at_least(1.6, "×"), "two receivers", at("speed")),
    Figure("receivers", "CPU, PostgreSQL", at_most(1.15, "×"),
           "two receivers, postgres", at("cost")),
    Figure("deliver", "webhook", at_least(0.8), "deliver", at("webhook, 0 ms", "cpu_ratio")),
    Figure("deliver", "Teams", at_least(0.8), "deliver", at("teams, 0 ms", "cpu_ratio")),
    Figure("vendors", "HubSpot", at_least(0.7), "vendors",
           smallest(at("hubspot, first", "cpu_ratio"), at("hubspot, next", "cpu_ratio"))),
    Figure("vendors", "Zendesk", at_least(0.7), "vendors",
           smallest(at("zendesk, first", "cpu_ratio"), at("zendesk, next", "cpu_ratio"))),
    Figure("receipt", "20 events/s, p50", at_most(15, "ms"), "receipt 20", at("p50_ms")),
    Figure("receipt", "20 events/s, p99", at_most(60, "ms"), "receipt 20", at("p99_ms")),
    Figure("receipt", "50 events/s, p50", at_most(15, "ms"), "receipt 50", at("p50_ms")),
    Figure("receipt", "50 events/s, p99", at_most(60, "ms"), "receipt 50", at("p99_ms")),
    Figure("backlog", "accepts/s", at_least(0.7), "backlog", at("ratio")),
    Figure("memory", "idle, without admin pages", at_most(100, "MiB"),
           "serve", at("idle_pss_mib")),
    Figure("memory", "idle, with admin pages", at_most(150, "MiB"),
           "serve", at("idle_pss_with_admin_mib")),
    Figure("memory", "after many events / after 2,000", at_most(1.1),
           "serve", at("pss_growth")),
    Figure("start", "--version", at_most(0.15, "s"), "serve", at("version_seconds")),
    Figure("start", "events, small store", at_most(0.4, "s"), "serve", at("events_seconds")),
    Figure("start", "first 200 after serve", at_most(0.7, "s"),
           "serve", at("first_200_seconds")),
    Figure("size", "step, SQLite", at_most(1.15),
           "tables, sqlite", largest("cpu_ratios", "sqlite", of=STEPS)),
    Figure("size", "step, PostgreSQL", at_most(1.15),
           "tables, postgres", largest("cpu_ratios", "postgres", of=STEPS)),
    Figure("size", "page, SQLite", at_most(1.15),
           "tables, sqlite", largest("page_cpu_ratios", "sqlite")),
    Figure("size", "page, PostgreSQL", at_most(1.15),
           "tables, postgres", largest("page_cpu_ratios", "postgres")),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of the table."""

    topic: str
    what: str
    goal: str
    #: With its unit; or why it could not be measured.
    measured: str
    #: The goal as a number.
    aim: float
    value: float | None = None
    reached: bool | None = None

    @property
    def question(self) -> str:
        return QUESTIONS[self.topic]

    @property
    def verdict(self) -> str:
        return {True: "reached", False: "not reached", None: "–"}[self.reached]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What became of a benchmark."""

    command: str
    seconds: float
    report: Report | None = None
    #: Why there is no report.
    failed: str = ""


def run(bench: Bench, *, quick: bool) -> Run:
    """Run a benchmark to its end, and read its report."""
    arguments = bench.arguments(quick=quick)
    begun = time.monotonic()
    report = None
    printed, failed = _output(arguments, limit=bench.limits[0 if quick else 1])
    if not failed:
        try:
            report = json.loads(printed)
        except ValueError:
            failed = "printed no report"
    return Run(
        command=shlex.join(["python", f"benchmarks/{arguments[0]}", *arguments[1:-1]]),
        seconds=round(time.monotonic() - begun, 1),
        report=report,
        failed=failed,
    )


def _output(arguments: Sequence[str], *, limit: int) -> tuple[str, str]:
    """Return what a benchmark prints, and why it failed, if it did."""
    command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=_obey_interrupts,
    ) as process:  # fmt: skip
        try:
            printed, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "", f"took more than {limit} s"
        finally:
            _end(process)
    return printed, "" if process.returncode == 0 else _reason(said, process.returncode)


def _obey_interrupts() -> None:
    # A shell's background jobs ignore SIGINT, and so would what they start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _reason(said: str, code: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # Folders of the run are gone, and say nothing.
    return re.sub(r"/\S+/", "", lines[-1]) if lines else f"exit code {code}"


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt a benchmark that still runs, so that it stops its servers; kill what is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            # Not communicate: a command that it has left behind may hold its pipes open.
            process.wait(timeout=GRACE)
    # It was started in a session of its own, and so were its commands.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def row(figure: Figure, run: Run) -> Row:
    """Compare what a benchmark measured with the goal."""
    said = {"topic": figure.topic, "what": figure.what, "goal": str(figure.goal),
            "aim": figure.goal.value}  # fmt: skip
    if run.report is None:
        return Row(**said, measured=f"failed: {run.failed}")
    try:
        value = figure.read(run.report)
    except (KeyError, TypeError, ValueError) as error:
        return Row(**said, measured=f"failed: no such figure in its report: {error}")
    return Row(
        **said,
        measured=_shown(value, figure.goal.unit),
        value=value,
        reached=figure.goal.is_reached(value),
    )


def _shown(value: float, unit: str) -> str:
    return f"{value:.3g}{' ' if unit else ''}{unit}"


def machine() -> dict[str, Any]:
    """Describe what everything runs on, and how busy it is."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": dict(_versions(LIBRARIES)),
        "load": [round(each, 2) for each in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def wanted(only: str) -> Sequence[Figure]:
    """Return the figures whose question, name or benchmark has the words *only*."""
    return [
        figure
        for figure in FIGURES
        if only.lower() in f"{QUESTIONS[figure.topic]} {figure.what} {figure.bench}".lower()
    ]


def main() -> int:
    options = _options()
    figures = wanted(options.only)
    report: dict[str, Any] = {"quick": options.quick, "machine": machine()}
    print(f"{described(report)}\n")
    runs: dict[str, Run] = {}
    for name in dict.fromkeys(figure.bench for figure in figures):
        print(f"… {' '.join(BENCHES[name].arguments(quick=options.quick))}", file=sys.stderr)
        runs[name] = run(BENCHES[name], quick=options.quick)
    rows = [row(figure, runs[figure.bench]) for figure in figures]
    print(table(rows))
    if options.json:
        report["rows"] = [asdict(each) for each in rows]
        report["runs"] = {name: asdict(each) for name, each in runs.items()}
        options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return 1 if options.strict and not all(each.reached for each in rows) else 0


def described(report: Mapping[str, Any]) -> str:
    """Say when, on what and how thoroughly it was measured."""
    where = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    return (
        f"{where['date']}, {'--quick' if report['quick'] else 'the full run'}: {where['cores']}"
        f" cores of {where['cpu']}, load {where['load'][0]} at the start; Python"
        f" {where['python']}, {versions}."
    )


def table(rows: Sequence[Row]) -> str:
    """Format rows as a table of Markdown, each question once."""
    cells = [("question", "", "goal", "measured", "")]
    for at, each in enumerate(rows):
        is_new = at == 0 or rows[at - 1].topic != each.topic
        question = each.question if is_new else ""
        cells.append((question, each.what, each.goal, each.measured, each.verdict))
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="take less than 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all reports to FILE")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="only what has WORDS in its question or name")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit 1 if a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
