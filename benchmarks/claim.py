"""Measure whether a claim costs more when a million deliveries wait behind others.

Fills stores by bulk SQL: one with a backlog in few conversations, one with a backlog in as many
conversations as deliveries. In each, and in one without a backlog, events of new conversations
come in, and a worker looks, claims, and records. The stores take turns, so that other load hits
all of them alike. Wall time includes the sync of the commit; CPU time does not.

    python benchmarks/claim.py [--deliveries 1000000] [--rounds 200] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Arrivals and backlogs are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "relay"))

from backlog import fill
from fakes import LEASE, arrival, customer, finish

from relay import migrations
from relay.clock import wall
from relay.store import Inbox, Queue, connect
from relay.store.values import Claim

FEW = 10
#: Deliveries of a claim: one, and as many as a pool of threads takes.
LIMITS = (1, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Times of one step, in milliseconds."""

    clock: float
    processor: float


@dataclass
class Store:
    """A store with or without a backlog, and the times measured in it."""

    path: Path
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = connect(f"sqlite:///{self.path}")
        self.inbox = Inbox(self.database)
        self.queue = Queue(self.database, node="worker-1")

    def close(self) -> None:
        self.inbox.close()
        self.queue.close()
        self.database.close()

    def round(self, number: int, *, limit: int) -> None:
        """Accept an event of each of *limit* new conversations, claim as many, and record them."""
        for who in range(limit):
            name = f"{limit}-{number}-{who}"
            come = arrival(name, customer=customer(50_000_000 + who), at=wall())
            self.inbox.accept(come)
        self._timed(f"look, {limit}", lambda: self.queue.due(["crm"], wall()))
        claims = self._timed(f"claim, {limit}", lambda: self._claim(limit))
        assert len(claims) == limit
        for claim in claims:
            finish(self.queue, claim, now=wall())

    def _claim(self, limit: int) -> Sequence[Claim]:
        return self.queue.claim("crm", limit=limit, rate=None, lease=LEASE, clock=wall)

    def _timed(self, name: str, act: Callable[[], Any]) -> Any:
        clock, processor = time.perf_counter(), time.thread_time()
        result = act()
        cost = Cost(
            clock=(time.perf_counter() - clock) * 1000,
            processor=(time.thread_time() - processor) * 1000,
        )
        self.costs.setdefault(name, []).append(cost)
        return result


@contextmanager
def stores(folder: Path, deliveries: int) -> Any:
    backlogs = {
        "no backlog": None,
        f"{deliveries:,} in {FEW}": FEW,
        f"{deliveries:,} in {deliveries:,}": deliveries,
    }
    opened = {}
    for number, (name, conversations) in enumerate(backlogs.items()):
        path = folder / f"{number}.db"
        database = connect(f"sqlite:///{path}")
        migrations.upgrade(database)
        database.close()
        if conversations:
            fill(path, deliveries=deliveries, conversations=conversations)
            print(f"{name} conversations: {path.stat().st_size >> 20} MiB", file=sys.stderr)
        opened[name] = Store(path)
    try:
        yield opened
    finally:
        for store in opened.values():
            store.close()


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with stores(folder, options.deliveries) as opened:
        for number in range(options.rounds):
            for limit in LIMITS:
                for store in opened.values():
                    store.round(number, limit=limit)
        return {name: _medians(store) for name, store in opened.items()}


def _medians(store: Store) -> dict[str, Any]:
    # The first rounds fill caches.
    costs = {what: each[len(each) // 10 :] for what, each in store.costs.items()}
    return {
        what: {
            "clock_ms": round(statistics.median(cost.clock for cost in each), 3),
            "processor_ms": round(statistics.median(cost.processor for cost in each), 3),
        }
        for what, each in costs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="claim-") as folder:
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
        return
    base = found["no backlog"]
    print(f"{'backlog':28}{'':12}{'clock':>10}{'':>8}{'processor':>13}")
    for name, costs in found.items():
        for what, cost in costs.items():
            ratios = [cost[unit] / base[what][unit] for unit in ("clock_ms", "processor_ms")]
            print(
                f"{name:28}{what:12}{cost['clock_ms']:7.2f} ms {ratios[0]:6.2f}×"
                f"{cost['processor_ms']:8.2f} ms {ratios[1]:6.2f}×"
            )


if __name__ == "__main__":
    main()
