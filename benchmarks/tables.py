"""Measures what accept, claim, record and reads cost in stores of several sizes.

The stores are filled and then take turns, so that other load hits all of them alike.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import fill
import pages as console
import psutil
import psycopg
import rig
from fakes import LEASE, delivered, record

from relay.clock import wall
from relay.config.endpoints import Endpoint
from relay.rules.units import RateLimit
from relay.shapes import explanation
from relay.store import Inbox, Queries, Queue, connect
from relay.store.sqlite import LARGE_CACHE
from relay.store.values import Claim

#: Events at a time: one, and as many as a pool of threads takes.
TOGETHER = (1, 32)
#: Never reached, but it makes the query behind `rate` count attempts.
RATE = RateLimit(count=1_000_000, period=LEASE)
#: Most memory of the server: PostgreSQL's manual advises a quarter of the machine's (resource
#: consumption, shared_buffers).
LARGEST_BUFFERS = 8 << 30
#: Rows that a person lists.
LISTED = 20
ENDPOINTS = [Endpoint(path=fill.ENDPOINT, name=fill.ENDPOINT, allow_unsigned=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Times of one step in milliseconds: wall, and CPU including the server's."""

    clock: float
    processor: float


@dataclass
class Store:
    """A filled store and the times measured in it."""

    url: str
    events: int
    #: CPU nanoseconds that a server has spent for it.
    server: Callable[[], int]
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = connect(self.url, cache=LARGE_CACHE)
        self.inbox = Inbox(self.database)
        self.queue = Queue(self.database, node="worker-1")
        self.queries = Queries(self.database)
        self._senders = ThreadPoolExecutor(max(TOGETHER))
        self._rng = Random(0)

    def close(self) -> None:
        self._senders.shutdown()
        self.inbox.close()
        self.queue.close()
        self.database.close()

    def round(self) -> None:
        """Do once what a receiver, a worker and a person do."""
        for many in TOGETHER:
            self._deliver(many)
        self._timed("events", lambda: list(self.queries.events(limit=LISTED)))
        self._timed("requests", lambda: list(self.queries.requests(limit=LISTED)))
        old = self._rng.randrange(self.events)
        self._explain("explain messageId", fill.message_name(old))
        self._explain("explain event", fill.event_name(self._rng.randrange(self.events)))
        self._timed("explain unknown", self._explain_unknown)

    def _deliver(self, many: int) -> None:
        """Accept, claim and record *many* events, most of them of known customers."""
        known = max(1, self.events // fill.PER_CONVERSATION)
        customers = self._rng.sample(range(known + many), many)
        # In no order, as those of the filled store.
        names = (f"{self._rng.getrandbits(128):032x}" for _ in customers)
        come = [fill.arrival(*each) for each in zip(names, customers, strict=True)]
        self._timed(f"accept {many}", lambda: list(self._senders.map(self.inbox.accept, come)))
        self._timed(f"look {many}", lambda: self.queue.due([fill.DESTINATION], wall()))
        claims = self._timed(f"claim {many}", lambda: self._claim(many))
        assert len(claims) == many, f"{len(claims)} of {many} could be claimed"
        self._timed(f"record {many}", lambda: self._record(claims))

    def _claim(self, limit: int) -> Sequence[Claim]:
        return self.queue.claim(fill.DESTINATION, limit=limit, rate=RATE, lease=LEASE, clock=wall)

    def _record(self, claims: Sequence[Claim]) -> None:
        left, done, now = len(claims), threading.Event(), datetime.now(UTC)

        def recorded(error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        for claim in claims:
            self.queue.record_later(record(claim, delivered(), now=now), recorded)
        assert done.wait(60)

    def _explain(self, what: str, name: str) -> None:
        view = self._timed(what, lambda: self.queries.event(name))
        assert view is not None and len(view.deliveries[0].history) == 1, name

    def _explain_unknown(self) -> None:
        name = "nobody-sent-this"
        assert self.queries.event(name) is None
        assert self.queries.purged(name, explanation.keys_of(name, ENDPOINTS)) is None
        assert not self.queries.refused_with(name)

    def _timed(self, name: str, act: Callable[[], Any]) -> Any:
        server, own, clock = self.server(), time.process_time_ns(), time.perf_counter_ns()
        result = act()
        clock, own = time.perf_counter_ns() - clock, time.process_time_ns() - own
        cost = Cost(clock=clock / 1e6, processor=(own + self.server() - server) / 1e6)
        self.costs.setdefault(name, []).append(cost)
        return result


def measure(options: Namespace) -> dict[str, Any]:
    """Compare the sizes on each database asked for."""
    found, pages = {}, {}
    for kind in options.databases:
        with _stores(kind, options.sizes, options.folder) as stores:
            for _ in range(options.rounds):
                for store in stores:
                    store.round()
            found[kind] = {store.events: _medians(store) for store in stores}
            if options.pages:
                ends = [(store.url, store.server) for store in (stores[0], stores[-1])]
                pages[kind] = console.compare(ends, rounds=options.rounds)
    compared = {kind: ratios(sizes) for kind, sizes in found.items()}
    worst = max(ratio for each in compared.values() for ratio in each.values())
    return {
        "tables": found,
        "ratios": compared,
        "cpu_ratios": {kind: ratios(sizes, unit="processor_ms") for kind, sizes in found.items()},
        "worst_ratio": worst,
        "pages": pages,
        "page_cpu_ratios": {
            kind: {name: page["cpu_ratio"] for name, page in each.items()}
            for kind, each in pages.items()
        },
    }


def ratios(sizes: dict[int, Any], *, unit: str = "clock_ms") -> dict[str, float]:
    """Return how much longer each step takes in the largest store than in the smallest."""
    small, large = sizes[min(sizes)], sizes[max(sizes)]
    return {what: round(large[what][unit] / small[what][unit], 2) for what in small}


@contextmanager
def _stores(kind: str, sizes: Sequence[int], folder: Path | None) -> Iterator[Sequence[Store]]:
    """Fill a store of each size, and hold them open."""
    places = _in_files if kind == "sqlite" else _on_server
    with ExitStack() as stack:
        urls, server = stack.enter_context(places(sizes, folder))
        stores = [Store(url, size, server) for url, size in zip(urls, sizes, strict=True)]
        for store in stores:
            stack.callback(store.close)
        yield stores


Places = tuple[Sequence[str], Callable[[], int]]


@contextmanager
def _in_files(sizes: Sequence[int], folder: Path | None) -> Iterator[Places]:
    with tempfile.TemporaryDirectory(prefix="gofax-bench-", dir=folder) as name:
        urls = [f"sqlite:///{name}/{size}.db" for size in sizes]
        _fill(urls, sizes)
        yield urls, lambda: 0


@contextmanager
def _on_server(sizes: Sequence[int], folder: Path | None) -> Iterator[Places]:
    with rig.server(folder) as server:
        server.configure(rig.HASTY)
        server.restart()
        urls = [server.new_database(f"events_{size}") for size in sizes]
        _fill(urls, sizes)
        server.configure({"shared_buffers": f"{_buffers() >> 20}MB"})
        server.restart()
        for url in urls:
            _warm(url)
        os.sync()
        yield urls, partial(rig.nanoseconds, server.process)


def _warm(url: str) -> None:
    """Read the indexes into the server's memory, where a long-running server has them."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE EXTENSION pg_prewarm")
        server.execute(
            "SELECT pg_prewarm(c.oid) FROM pg_class AS c JOIN pg_namespace AS n"
            " ON n.oid = c.relnamespace WHERE c.relkind = 'i' AND n.nspname = 'public'"
        )


def _buffers() -> int:
    return min(psutil.virtual_memory().total // 4, LARGEST_BUFFERS)


def _fill(urls: Sequence[str], sizes: Sequence[int]) -> None:
    for url, size in zip(urls, sizes, strict=True):
        begun = time.monotonic()
        fill.fill(url, events=size)
        print(f"{size:,} events: filled in {time.monotonic() - begun:.0f} s", file=sys.stderr)


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
