"""Draw the plots of docs/performance.md from what run_all.py and baselines/compare.py wrote.

    python benchmarks/plots.py [--table FILE] [--baselines FILE] [--folder docs/images]

Each plot is an SVG of horizontal bars, on a card of its own, light or dark as the reader's screen
is. A plot whose benchmark failed is left as it is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: Pixels: of a picture, of the labels at its left, of the values at its right, of a bar.
WIDTH, LABELS, VALUES, LINE, TOP = 760, 290, 150, 26, 44

STYLE = """\
.card { fill: #ffffff; stroke: #d0d7de; } text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 14px; } .ours { fill: #0969da; } .other { fill: #8c959f; }
.part { fill: #54aeff; } .goal { stroke: #cf222e; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d; } text { fill: #f0f6fc; }
.ours { fill: #4493f8; } .other { fill: #767e87; } .part { fill: #a5d6ff; }
.goal { stroke: #f85149; } }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A line of a plot."""

    label: str
    value: float
    #: Behind the bar.
    shown: str
    is_ours: bool = True
    #: Of the value, what is drawn in another colour at the end.
    part: float = 0.0
    #: Where a mark shows the goal.
    goal: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Bars on one scale, which begins at 0."""

    title: str
    bars: Sequence[Bar]


Runs = Mapping[str, Any]


def goals(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Show each figure as a share of its goal: what reaches the mark is good enough."""
    bars = [
        Bar(
            label=f"{row['topic']}: {row['what']}",
            value=min(2.0, _share(row)),
            shown=f"{row['measured']} ({row['goal']})",
            is_ours=bool(row["reached"]),
            goal=1.0,
        )
        for row in rows
        if row["value"] is not None
    ]
    return Plot(title="Measured, as a share of the goal (red); blue: reached", bars=bars)


def _share(row: Mapping[str, Any]) -> float:
    value, aim = float(row["value"]), float(row["aim"])
    return value / aim if row["goal"].startswith("≥") else aim / value


def accept(runs: Runs) -> Plot:
    bars = []
    for connections in (32, 64):
        found = runs[f"accept {connections}"]
        for name, label in (("verify", "only verified"), ("accept", "accepted")):
            spent = found[name]["cpu_us_per_request"]
            bars.append(Bar(label=f"{label}, {connections} connections", value=spent,
                            shown=f"{spent:.0f} µs", is_ours=name == "accept"))  # fmt: skip
    return Plot(title="CPU time of a request, SQLite", bars=bars)


def webhook(runs: Runs) -> Plot:
    found = runs["accept, webhook"]
    names = {"webhook": "webhook, no-op command, no store", "accept": "gofax-relay, SQLite"}
    bars = [_speed(label, found[name], is_ours=name == "accept") for name, label in names.items()]
    return Plot(title="Requests a second on one core, 64 connections", bars=bars)


def _speed(label: str, found: Mapping[str, float], *, is_ours: bool = True) -> Bar:
    speed = found["requests_per_second"]
    return Bar(label=label, value=speed, shown=f"{speed:,.0f}/s", is_ours=is_ours)


def stores(runs: Runs) -> Plot:
    found = runs["accept, postgres"]
    bars = []
    for name, label in (("sqlite", "SQLite"), ("accept", "PostgreSQL and its server")):
        spent, server = found[name]["cpu_us_per_request"], found[name]["server_us"]
        bars.append(Bar(label=label, value=spent, part=server, shown=f"{spent:.0f} µs"))
    return Plot(title="CPU time of an accept; lighter: the server's", bars=bars)


def receivers(runs: Runs) -> Plot:
    bars = []
    for bench, store in (("two receivers", "SQLite"), ("two receivers, postgres", "PostgreSQL")):
        for name, label in (("one", "one process"), ("accept", "two processes")):
            bars.append(_speed(f"{label}, {store}", runs[bench][name], is_ours=name == "accept"))
    return Plot(title="Accepts a second, all cores shared with the load", bars=bars)


def receipt(runs: Runs) -> Plot:
    bars = []
    for rate in (20, 50):
        for name, goal in (("p50", 15.0), ("p99", 60.0)):
            value = runs[f"receipt {rate}"][f"{name}_ms"]
            bars.append(Bar(label=f"{rate} events/s, {name}", value=value,
                            shown=f"{value:.0f} ms", goal=goal))  # fmt: skip
    return Plot(title="From the 200 to the stand-in's receipt", bars=bars)


def tables(runs: Runs) -> Plot:
    bars = []
    for kind, name in (("sqlite", "SQLite"), ("postgres", "PostgreSQL")):
        found = runs[f"tables, {kind}"]
        ratios = {
            step: ratio
            for step, ratio in found["cpu_ratios"][kind].items()
            if step.startswith(("accept", "claim", "record"))
        }
        ratios["pages, the dearest"] = max(found["page_cpu_ratios"][kind].values())
        bars += [
            Bar(label=f"{step}, {name}", value=ratio, shown=f"{ratio:.2f}", goal=1.15)
            for step, ratio in ratios.items()
        ]
    return Plot(title="CPU time in the large store / in the small one", bars=bars)


def cost(flows: Mapping[str, Any]) -> Plot:
    bars = []
    for name, flow in flows.items():
        spent = flow["cost"]["cpu_seconds"]
        bars.append(Bar(label=flow["name"], value=spent, shown=f"{spent:,} s",
                        is_ours=name == "relay"))  # fmt: skip
    return Plot(title="CPU time of a million events, all processes", bars=bars)


def lost(flows: Mapping[str, Any]) -> Plot:
    bars = []
    for name, flow in flows.items():
        for which, found in flow["kills"].items():
            if found["answered"] and "Redis" not in which:
                share = 100 * found["lost"] / found["answered"]
                away = ", destination away" if "away" in which else ""
                shown = f"{found['lost']} of {found['answered']}"
                bars.append(Bar(label=flow["name"] + away, value=share, shown=shown,
                                is_ours=name == "relay"))  # fmt: skip
    return Plot(title="Lost of what was answered 200, after kill -9 of all processes", bars=bars)


#: From the table's runs.
PLOTS: Mapping[str, Callable[[Runs], Plot]] = {
    "accept": accept,
    "webhook": webhook,
    "stores": stores,
    "receivers": receivers,
    "receipt": receipt,
    "tables": tables,
}
#: From the comparison with what others write.
BASELINES: Mapping[str, Callable[[Mapping[str, Any]], Plot]] = {"cost": cost, "lost": lost}


def svg(plot: Plot) -> str:
    """Draw a plot."""
    height = TOP + LINE * len(plot.bars) + 10
    largest = max([1e-9, *(max(bar.value, bar.goal or 0.0) for bar in plot.bars)])
    scale = (WIDTH - LABELS - VALUES) / largest
    drawn = "\n".join(
        part for at, bar in enumerate(plot.bars) for part in _bar(bar, TOP + LINE * at, scale)
    )
    said = escape(f"{plot.title}. " + "; ".join(f"{b.label}: {b.shown}" for b in plot.bars))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" \
height="{height}" role="img" aria-label="{said}">
<style>
{STYLE}</style>
<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>
<text class="title" x="14" y="26">{escape(plot.title)}</text>
{drawn}
</svg>
"""


def _bar(bar: Bar, top: int, scale: float) -> Iterator[str]:
    length, part, middle = bar.value * scale, bar.part * scale, top + 16
    name = "ours" if bar.is_ours else "other"
    yield f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
    yield _rectangle(name, LABELS, top, length)
    if part:
        yield _rectangle("part", LABELS + length - part, top, part)
    ends = length
    if bar.goal is not None:
        at = LABELS + bar.goal * scale
        yield f'<path class="goal" d="M{at:.1f} {top} V{top + 22}"/>'
        ends = max(length, bar.goal * scale)
    yield f'<text x="{LABELS + ends + 8:.1f}" y="{middle}">{escape(bar.shown)}</text>'


def _rectangle(name: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{name}" x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="18" rx="2"/>'


def drawn(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the SVG of each plot whose benchmarks ran."""
    if "rows" in report:
        yield "goals", svg(goals(report["rows"]))
        runs = {name: run["report"] for name, run in report["runs"].items() if run["report"]}
        for name, draw in PLOTS.items():
            try:
                yield name, svg(draw(runs))
            except KeyError as error:
                print(f"{name}: nothing from {error}")
    if "flows" in report:
        for name, compare in BASELINES.items():
            yield name, svg(compare(report["flows"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, metavar="FILE", help="from run_all.py --json")
    parser.add_argument("--baselines", type=Path, metavar="FILE",
                        help="from baselines/compare.py --json")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=IMAGES)
    options = parser.parse_args()
    for file in (options.table, options.baselines):
        if file is None:
            continue
        for name, picture in drawn(json.loads(file.read_text())):
            (options.folder / f"performance-{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
