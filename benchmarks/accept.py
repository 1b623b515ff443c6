"""Measure what a durable accept costs, beside a receiver that does less or something else.

Starts the real receiver (``gofax-relay web``) and what it is compared with. Both run on one core,
the load (``wrk``) on the other; the rounds alternate, so that other load hits both alike. Several
receivers share all cores with the load, and so does the one that they are compared with. CPU time
is that of process trees, a database server's included. At the end every event that was answered
200 has to be in the store.

    python benchmarks/accept.py [--seconds 5] [--rounds 3] [--connections 64] [--json]
    python benchmarks/accept.py --against wait|commit  more than verify, less than the relay
    python benchmarks/accept.py --against webhook      Debian's webhook with HMAC, for /bin/true
    python benchmarks/accept.py --postgres --against sqlite     a private server; or --store URL
    python benchmarks/accept.py --receivers 2 [--postgres] --against one      several processes
    python benchmarks/accept.py --texts    in further rounds beside an indexer of texts

Without ``--against`` that is a Flask view on the same server (``verify``), which only checks the
HMAC and parses the JSON; see bare.py for it and for those that do a little more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import rig
import sqlalchemy as sa
import wrk
from sides import SERVER_CORE, Bench, Side, until_idle

from relay.store import connect, schema

#: More events than any server here can accept, so that none comes twice as a duplicate.
EVENTS_A_SECOND = 12_000
#: The steps of bare.py.
BARE = ("verify", "wait", "commit")

INDEXER = """\
import sys, time
from relay.node import Indexer
from relay.store import connect
from relay.store.texts import Texts

database = connect(sys.argv[1])
Indexer(Texts(database)).start()
for line in sys.stdin:
    lag = Texts(database).lag()
    while lag.newer or lag.older:
        time.sleep(0.1)
        lag = Texts(database).lag()
    print("done", flush=True)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One load on one server."""

    requests_per_second: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float
    errors: int
    #: Of the CPU time what a database server took.
    server_us: float = 0.0
    #: Of the CPU time what a process beside the server took.
    beside_us: float = 0.0


def main() -> int:
    options = _options()
    # Servers have to end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if wrk.missing():
        print("wrk is needed (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        report = measure(Bench(Path(name), options, stack), options)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    if report["lost"]:
        print(f"{report['lost']} events were answered 200 and are not stored", file=sys.stderr)
        return 1
    return 0 if report["ratio"] >= options.at_least else 1


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Load both sides by turns, and compare them."""
    ours = bench.relay("accept", store=options.store, receivers=options.receivers)
    other = {
        **{step: partial(bench.bare, step) for step in BARE},
        "webhook": bench.webhook,
        "sqlite": partial(bench.relay, "other", store="sqlite", receivers=options.receivers),
        "one": partial(bench.relay, "other", store=options.store, receivers=1),
    }[options.against]()
    memory = sum(each.memory_full_info().pss for each in rig.family(ours.process)) / 2**20
    rounds: dict[str, list[Round]] = {options.against: [], "accept": []}
    if options.texts:
        rounds["indexed"] = []
    share = options.seconds * EVENTS_A_SECOND
    # Rounds that go into a store where others have been need events of their own.
    later = [name for name in rounds if name == "indexed" or
             (name == options.against and other.store == ours.store)]  # fmt: skip
    places = {name: later.index(name) + 1 if name in later else 0 for name in rounds}
    script = wrk.write_load(bench.folder, share * options.rounds * (1 + len(later)))
    for number in range(options.rounds):
        # By turns first, because the second of two rounds finds a larger store.
        for name in [*rounds][:: 1 if number % 2 else -1]:
            side = other if name == options.against else ours
            first = share * (number + options.rounds * places[name])
            beside = _indexer(ours.store) if name == "indexed" else nullcontext()
            with beside as indexer:
                done = _load(script, side, options, first=first, beside=indexer)
            rounds[name].append(done)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {p: version(p) for p in ("flask", "granian", "sqlalchemy", "gofax-relay")},
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        "against": options.against,
        **_compared(rounds[options.against], rounds["accept"]),
        "web_pss_mib": round(memory, 1),
        **checked([ours, other]),
        **_texts_cost(rounds),
        **{name: asdict(_median(each)) for name, each in rounds.items()},
        "rounds": {name: [asdict(each) for each in all_] for name, all_ in rounds.items()},
    }


def _compared(others: Sequence[Round], accepts: Sequence[Round]) -> dict[str, Any]:
    """Return the medians of the pairs' ratios, and the pairs.

    *ratio* is how many of ours can be had for the CPU time of one of the others, *cost* its
    inverse; *speed* compares requests a second.
    """
    pairs = list(zip(others, accepts, strict=True))
    ratios = [other.cpu_us_per_request / ours.cpu_us_per_request for other, ours in pairs]
    speeds = [ours.requests_per_second / other.requests_per_second for other, ours in pairs]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "cost": round(1 / statistics.median(ratios), 3),
        "speed": round(statistics.median(speeds), 3),
        "pairs": {
            "ratio": [round(each, 3) for each in ratios],
            "speed": [round(each, 3) for each in speeds],
        },
    }


def checked(sides: Sequence[Side]) -> dict[str, Any]:
    """Compare what was answered 200 with what is stored."""
    stores = [side for side in sides if side.store]
    return {
        "stored": _counted(stores[0].store),
        "answered": len(stores[0].answered),
        "lost": sum(len(side.answered - _stored(side.store)) for side in stores),
    }


def _stored(url: str) -> set[str]:
    with closing(connect(url)) as database, database.reading() as db:
        return set(db.scalars(sa.select(schema.events.c.message_id)))


def _counted(url: str) -> Mapping[str, int]:
    """Count the events, deliveries and duplicates that the accepted requests left."""
    count = sa.func.count()
    questions = {
        "events": sa.select(count).select_from(schema.events),
        "deliveries": sa.select(count).select_from(schema.deliveries),
        "duplicates": sa.select(sa.func.sum(schema.keys.c.duplicates)),
    }
    with closing(connect(url)) as database, database.reading() as db:
        return {name: int(db.scalar(asked) or 0) for name, asked in questions.items()}


def _texts_cost(rounds: Mapping[str, Sequence[Round]]) -> dict[str, float]:
    """Return CPU time and speed beside an indexer, as shares of those in the round without."""
    if "indexed" not in rounds:
        return {}
    found = _compared(rounds["accept"], rounds["indexed"])
    return {"texts_cpu": found["cost"], "texts_speed": found["speed"]}


@contextmanager
def _indexer(store: str) -> Iterator[psutil.Process]:
    """Run an indexer on the server's core, which has caught up with what is there."""
    process = psutil.Popen(
        [sys.executable, "-c", INDEXER, store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE),
    )
    try:
        process.stdin.write(b"catch up\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"
        yield process
    finally:
        process.kill()
        process.wait(timeout=15)


def _load(
    script: Path,
    side: Side,
    options: argparse.Namespace,
    *,
    first: int = 0,
    beside: psutil.Process | None = None,
) -> Round:
    """Post the prepared events from number *first* on, none of them twice.

    The CPU time of *beside*, another process on the server's core, counts as well.
    """
    before = [_cpu_seconds(each) for each in (side.process, side.server, beside)]
    done = wrk.post(
        script, side.port, seconds=options.seconds, connections=options.connections, first=first,
        cores=side.load_cores,
    )  # fmt: skip
    assert done.count, "nothing was answered"
    assert not side.store or len(done.ids) + done.errors >= done.count, "answers name no event"
    until_idle(side.process)
    after = [_cpu_seconds(each) for each in (side.process, side.server, beside)]
    side.answered |= done.ids
    spent = [(now - then) / done.count * 1e6 for now, then in zip(after, before, strict=True)]
    return Round(
        requests_per_second=round(done.count / done.seconds, 1),
        cpu_us_per_request=round(sum(spent), 1),
        server_us=round(spent[1], 1),
        beside_us=round(spent[2], 1),
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        errors=done.errors,
    )


def _cpu_seconds(process: psutil.Process | None) -> float:
    return rig.cpu_seconds(process) if process else 0.0


def _median(rounds: Sequence[Round]) -> Round:
    fields: Mapping[str, float] = {
        name: statistics.median(getattr(each, name) for each in rounds)
        for name in (
            "requests_per_second",
            "cpu_us_per_request",
            "p50_ms",
            "p99_ms",
            "server_us",
            "beside_us",
        )
    }
    return Round(**fields, errors=sum(each.errors for each in rounds))


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['date']}  python {report['python']}  {report['versions']}")
    rows = [(name, *(report[name][each] for each in Round.__slots__)) for name in report["rounds"]]
    print(rig.table(("", *Round.__slots__), rows))
    print(f"stored: {report['stored']}; answered 200: {report['answered']}, "
          f"of which {report['lost']} are not stored")  # fmt: skip
    if "texts_cpu" in report:
        print(
            f"with an index of texts: CPU × {report['texts_cpu']}, speed ×"
            f" {report['texts_speed']}; the indexer: {report['indexed']['beside_us']:.1f} µs"
        )
    print(
        f"CPU per request, {report['against']} / accept: {report['ratio']}   "
        f"requests/s, accept / {report['against']}: {report['speed']}   "
        f"receiver idle: {report['web_pss_mib']} MiB PSS"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--against", default="verify", help="what it is compared with",
                        choices=(*BARE, "webhook", "sqlite", "one"))  # fmt: skip
    store = parser.add_mutually_exclusive_group()
    store.add_argument("--store", default="sqlite", metavar="URL",
                       help="a migrated, empty store; CPU without its server's")  # fmt: skip
    store.add_argument("--postgres", action="store_const", const="postgres", dest="store",
                       help="a PostgreSQL server for this run")  # fmt: skip
    parser.add_argument("--receivers", type=int, default=1, metavar="N",
                        help="processes of the receiver")  # fmt: skip
    parser.add_argument("--at-least", type=float, default=0.0, help="exit 1 below this ratio")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--texts", action="store_true", help="index texts in further rounds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
