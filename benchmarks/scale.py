"""Measure the load that nodes carry, on PostgreSQL and SQLite, with small and large tables.

The figure that counts is the CPU time of an event, accepted and delivered, because everything
shares a few processors. ``--tables`` fills stores of several sizes, which then take turns; ten
million events need 20 GB for a while.

    python benchmarks/scale.py [--nodes 1,2,4] [--engines threads,celery] [--rounds 3] [--json]
    python benchmarks/scale.py --each 150 [--nodes 1,2,4] [--engines threads,celery]
    python benchmarks/scale.py --tables [--sizes 10000,10000000] [--rounds 200] [--pages] [--json]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nodes
import rig
import tables


def main() -> int:
    options = _options()
    # Servers and nodes have to end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measure, show = (
        (tables.measure, _show_tables) if options.tables else (nodes.measure, _show_nodes)
    )
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in ("gofax-relay", "sqlalchemy", "psycopg")},
        "command": " ".join(["python", *sys.argv]),
        **measure(options),
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"{report['date']}  python {report['python']}  {report['versions']}")
        show(report)
    return 0 if report.get("worst_ratio", 0) <= options.within else 1


def _show_nodes(report: Mapping[str, Any]) -> None:
    columns = {"a second": "per_second", "relay µs": "relay_us", "server µs": "server_us",
               "together": "us", "p50 ms": "p50_ms", "p99 ms": "p99_ms"}  # fmt: skip
    for what, costs in report["nodes"].items():
        rows = [(where, *(cost[name] for name in columns.values()))
                for where, cost in costs.items()]  # fmt: skip
        print(f"\n{what}: a second, and microseconds of CPU for each")
        print(rig.table(["", *columns], rows))


def _show_tables(report: Mapping[str, Any]) -> None:
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
        print(f"\n{kind}: wall ms, then CPU ms, by number of events")
        print(rig.table(["", *heads, "ratio", *heads, "ratio"], rows))
    for kind, found in report["pages"].items():
        print(f"\n{kind}: pages of the console, wall ms, then CPU ms, small and large")
        print(rig.table(["", *("small", "large", "ratio") * 2],
                        [(name, *each.values()) for name, each in found.items()]))  # fmt: skip


def _sizes(text: str) -> list[int]:
    return sorted(int(each) for each in text.split(","))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="small tables beside large ones")
    parser.add_argument("--sizes", type=_sizes, default=[10_000, 1_000_000], metavar="N,N",
                        help="events of each store (2 kB each)")  # fmt: skip
    parser.add_argument("--databases", type=lambda text: text.split(","),
                        default=["sqlite", "postgres"], metavar="KIND,KIND")  # fmt: skip
    parser.add_argument("--pages", action="store_true",
                        help="compare pages of the console too, with --tables")  # fmt: skip
    parser.add_argument("--nodes", type=_sizes, default=[1, 2, 4], metavar="N,N")
    parser.add_argument("--engines", type=lambda text: text.split(","), metavar="NAME,NAME",
                        default=["threads"], help="threads; celery needs RabbitMQ")  # fmt: skip
    parser.add_argument("--each", type=int, metavar="N",
                        help="give each node N events/s instead of all that it takes")  # fmt: skip
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--connections", type=int, default=32, help="of each receiver")
    parser.add_argument("--events", type=int, default=4000, help="to deliver")
    parser.add_argument("--rounds", type=int, help="default: 3, of tables 200")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed")
    parser.add_argument("--within", type=float, default=9.9, help="exit 1 beyond this ratio")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.rounds = options.rounds or (200 if options.tables else 3)
    return options


if __name__ == "__main__":
    sys.exit(main())
