"""Draw the plots of docs/performance.md, and write its tables, from what was measured.

    python benchmarks/plots.py [--table FILE] [--baselines FILE] [--docs docs]

The files are those that run_all.py and baselines/compare.py wrote. Each plot is an SVG of
horizontal bars, on a card of its own, light or dark as the reader's screen is. Table and plot
stand in the page between ``<!-- measured: NAME -->`` and ``<!-- end -->``. What failed stays as it
was.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pictures
import run_all
from pictures import Bar, Plot

DOCS = Path(__file__).parents[1] / "docs"
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


def shown(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Plot]]:
    """Yield the name, the text and the plot of each question whose benchmarks ran."""
    if "rows" in report:
        rows = [run_all.Row(**row) for row in report["rows"]]
        text = f"{run_all.described(report)}\n\n{run_all.table(rows)}"
        yield "goals", text, pictures.goals(report["rows"])
        runs = {name: run["report"] for name, run in report["runs"].items() if run["report"]}
        for name, draw in pictures.FROM_RUNS.items():
            try:
                plot = draw(runs)
            except KeyError as error:
                print(f"{name} stays as it was: there is no {error}")
            else:
                yield name, plot.table(), plot
    if "flows" in report:
        for name, compare in pictures.FROM_FLOWS.items():
            plot = compare(report["flows"])
            yield name, f"{_run(report)}\n\n{plot.table()}", plot


def _run(report: Mapping[str, Any]) -> str:
    """Say when and how flows were compared."""
    times = "once" if report["rounds"] == 1 else f"{report['rounds']} times"
    return (
        f"{report['date']}, load {report['load']:.1f} at the start: {report['events']:,} events at"
        f" {report['rate']:g}/s; each kill {times}, the destination answering in"
        f" {report['latency_ms']:g} ms."
    )


def replaced(page: str, name: str, text: str) -> str:
    """Put *text* where the page has what was measured under this name."""
    found = re.compile(f"(<!-- measured: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    return found.sub(lambda place: f"{place[1]}\n{text}\n{place[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, metavar="FILE", help="from run_all.py --json")
    parser.add_argument("--baselines", type=Path, metavar="FILE",
                        help="from baselines/compare.py --json")  # fmt: skip
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER")
    options = parser.parse_args()
    page = options.docs / "performance.md"
    for file in (options.table, options.baselines):
        if file is None:
            continue
        for name, text, plot in shown(json.loads(file.read_text())):
            picture = f"images/performance-{name}.svg"
            (options.docs / picture).write_text(svg(plot), encoding="utf-8")
            block = f"{text}\n\n![{plot.title}]({picture})"
            written = replaced(page.read_text(encoding="utf-8"), name, block)
            page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
