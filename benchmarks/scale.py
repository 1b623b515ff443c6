"""What carries how much: one node and several, PostgreSQL and SQLite, small tables and large.

python benchmarks/scale.py --tables [--sizes 10000,10000000] [--rounds 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rig
import tables


def main() -> int:
    options = _options()
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in ("gofax-relay", "sqlalchemy", "psycopg")},
        "command": " ".join(["python", *sys.argv]),
        **tables.measure(options),
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print_tables(report)
    return 0 if report["worst_ratio"] <= options.within else 1


def _print_tables(report: Mapping[str, Any]) -> None:
    print(f"{report['date']}  python {report['python']}  {report['versions']}")
    for kind, sizes in report["tables"].items():
        clock, processor = (
            tables.ratios(sizes, unit=each) for each in ("clock_ms", "processor_ms")
        )
        rows = [
            (what, *(f"{sizes[size][what]['clock_ms']:.2f}" for size in sizes), clock[what],
             *(f"{sizes[size][what]['processor_ms']:.2f}" for size in sizes), processor[what])
            for what in clock
        ]  # fmt: skip
        heads = [f"{size:,}" for size in sizes]
        print(f"\n{kind}: ms on the clock, then of processors, by number of events")
        print(rig.table(["", *heads, "ratio", *heads, "ratio"], rows))


def _sizes(text: str) -> list[int]:
    return sorted(int(each) for each in text.split(","))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="small tables beside large ones")
    parser.add_argument("--sizes", type=_sizes, default=[10_000, 1_000_000], metavar="N,N",
                        help="events of each store (2 kB each)")  # fmt: skip
    parser.add_argument("--databases", type=lambda text: text.split(","),
                        default=["sqlite", "postgres"], metavar="KIND,KIND")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed")
    parser.add_argument("--within", type=float, default=9.9, help="exit 1 beyond this ratio")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
