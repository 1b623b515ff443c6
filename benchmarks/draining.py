"""Measure accepts while a backlog drains, beside accepts alone.

Fills a store with a backlog for one destination, starts the real ``gofax-relay serve`` on all
cores and posts new events with ``wrk``, in turn while that destination is paused (alone) and while
it drains. The new events are for another destination, which stays paused. Load, stand-in, receiver
and worker share the machine. At the end every event that was answered 200 has to be in the store,
and whatever is delivered there has to have reached the stand-in.

    python benchmarks/draining.py [--backlog 100000] [--seconds 5] [--rounds 5] [--connections 32]
                                  [--json]

``ratio`` is that of accepts per second, draining by alone: the median of the pairs. ``cpu_ratio``
is that of the receiver's CPU time for one accept, alone by draining.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from os import sched_getaffinity
from pathlib import Path
from typing import Any

import psutil
import rig
import sqlalchemy as sa
import wrk
from deliver import Bench

from relay.rules.delivery import State
from relay.store import schema

#: Where the backlog goes, and where new events go.
BACKLOG, NEW = "webhook", "slow"
#: More events than the receiver can accept in a second.
EVENTS_A_SECOND = 6_000
#: Seconds until the worker has noticed a pause or its end, and is at work.
SETTLED = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One load on the receiver."""

    accepts_per_second: float
    cpu_us_per_accept: float
    p50_ms: float
    p99_ms: float
    errors: int
    deliveries_per_second: float


class Accepts:
    """Posts new events, and none of them twice."""

    def __init__(self, bench: Bench, options: argparse.Namespace) -> None:
        self._bench, self._options = bench, options
        self._most = EVENTS_A_SECOND * options.seconds
        self._script = wrk.write_load(bench.folder, self._most * options.rounds * 2)
        self._first = 0
        #: The messageIds that were answered 200.
        self.ids: set[str] = set()

    def measure(self, receiver: psutil.Process) -> Round:
        spent, delivered = rig.cpu_seconds(receiver), self._bench.count()
        load = wrk.post(
            self._script,
            self._bench.port,
            seconds=self._options.seconds,
            connections=self._options.connections,
            first=self._first,
        )
        spent, delivered = rig.cpu_seconds(receiver) - spent, self._bench.count() - delivered
        self._first += self._most
        self.ids |= load.ids
        return Round(
            accepts_per_second=load.count / load.seconds,
            cpu_us_per_accept=spent / load.count * 1e6,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            errors=load.errors,
            deliveries_per_second=delivered / load.seconds,
        )


def compare(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Let rounds alone and rounds beside a draining backlog take turns."""
    bench.fill(options.backlog, conversations=1000, account=BACKLOG)
    for name in (BACKLOG, NEW):
        _set(bench, "pause", name)
    accepts, pairs = Accepts(bench, options), []
    with bench.command("serve", cores=sched_getaffinity(0)) as serve:
        rig.await_url(f"http://127.0.0.1:{bench.port}/livez")
        receiver, *_ = sorted(serve.children(), key=lambda each: each.create_time())
        for _ in range(options.rounds):
            alone = accepts.measure(receiver)
            _set(bench, "resume", BACKLOG)
            pairs.append((alone, accepts.measure(receiver)))
            _set(bench, "pause", BACKLOG)
        left = options.backlog - bench.count()
    return {**_compared(pairs), "backlog_left": left, **_verified(bench, accepts.ids)}


def _set(bench: Bench, command: str, name: str) -> None:
    """Pause or resume a destination, and wait until that shows."""
    rig.run(bench.folder, command, name, "--why", "benchmark", "--config", str(bench.config))
    time.sleep(SETTLED)


def _compared(pairs: list[tuple[Round, Round]]) -> dict[str, Any]:
    ratios = [beside.accepts_per_second / alone.accepts_per_second for alone, beside in pairs]
    costs = [alone.cpu_us_per_accept / beside.cpu_us_per_accept for alone, beside in pairs]
    return {
        "ratio": round(statistics.median(ratios), 2),
        "cpu_ratio": round(statistics.median(costs), 2),
        **{name: _middle([pair[at] for pair in pairs]) for at, name in enumerate(NAMES)},
        "pairs": {
            "ratio": [round(each, 2) for each in ratios],
            "cpu_ratio": [round(each, 2) for each in costs],
        },
    }


NAMES = ("alone", "draining")


def _middle(rounds: list[Round]) -> dict[str, float]:
    each = [asdict(one) for one in rounds]
    return {name: round(statistics.median(one[name] for one in each), 1) for name in each[0]}


def _verified(bench: Bench, answered: set[str]) -> dict[str, int]:
    """Look for every event that was answered 200, and for what is delivered by the store."""
    events, deliveries = schema.events.c, schema.deliveries.c
    with bench.database.reading() as db:
        stored = set(db.scalars(sa.select(events.message_id)))
        arrived = set(
            db.scalars(
                sa.select(events.message_id)
                .join_from(schema.deliveries, schema.events, events.id == deliveries.event_id)
                .where(deliveries.state == State.DELIVERED)
            )
        )
    lost = len(answered - stored) + len(arrived - bench.received().keys())
    if lost:
        raise SystemExit(f"{lost} events were lost")
    return {"answered": len(answered), "delivered": len(arrived), "lost": lost}


def main() -> int:
    options = _options()
    if wrk.missing():
        raise SystemExit("wrk is not installed")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), threads=options.threads)
        try:
            bench.latency(0.0)
            found = compare(bench, options)
        finally:
            bench.close()
    rig.report(found, as_json=options.json)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="pairs to compare")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--threads", type=int, default=8, help="of the destination that drains")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
