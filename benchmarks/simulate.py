"""Simulate how long events would queue at up to 100,000 a second, on more machines than we have.

A queueing model in SimPy. What an event costs is measured (``scale.py --json``, ``--figures``);
how many processors a database has, how even its neighbours are and what a broker costs are
assumptions, which the table repeats. Arrivals are random (Poisson). There are as many receivers
and workers as keep each at most 60 % busy: they hold no state, so only money limits them.

    python benchmarks/simulate.py [--figures scale.json] [--cores 8] [--databases 16] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import rig
import simpy

Steps = Generator[simpy.Event, Any, None]

RATES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
#: A receiver or a worker uses one processor: Python's threads share one.
BUSY_NODE = 0.6
#: Beyond this a queue is said to grow without end.
STABLE = 0.97
#: How many events one commit of a receiver takes at most, and one claim of a worker.
ACCEPTED_TOGETHER, CLAIMED_TOGETHER = 256, 32
#: Share of a delivery's cost in the database that comes before the call, which is the claim.
CLAIM_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured, in microseconds of processors for an event, unless it says otherwise."""

    #: When and on what.
    measured: str = "2026-11-28, two quiet cores under load"
    receiver: float = 576.0
    #: Of the database's server, for accepting and for delivering.
    accepting: float = 166.0
    worker: float = 855.0
    delivering: float = 290.0
    #: Of the database's disk, for the sync of a commit, however many share it.
    sync: float = 1500.0
    #: By how much a large table costs more than a small one.
    growth: float = 1.1

    @classmethod
    def read(cls, path: Path) -> Figures:
        """Read a report of ``scale.py --json``."""
        report = json.loads(path.read_text())
        costs = report["nodes"]
        accept, deliver = (costs[what]["postgres, 1 node"] for what in ("accepts", "deliveries"))
        return cls(
            measured=f"{report['date']}, {path.name}",
            receiver=accept["relay_us"],
            accepting=accept["server_us"],
            worker=deliver["relay_us"],
            delivering=deliver["server_us"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """What stands behind the receivers."""

    name: str
    #: Databases, each on a machine of its own, and the share of all events at the busiest one.
    databases: int = 1
    busiest: float = 1.0
    #: By how much its tables slow it down.
    growth: float = 1.0
    #: Events are answered for by a broker, and go to the database afterwards.
    broker: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """What is assumed of the machines."""

    cores: int = 8
    #: Microseconds of a broker's one queue for an event, and of its disk for a sync.
    broker: float = 15.0
    broker_sync: float = 1500.0


@dataclass(kw_only=True)
class Delays:
    """Seconds of each event: until its 2xx, and from there until the destination has it."""

    accepted: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)


class Station:
    """So many servers and one line: what a customer does here takes *service* seconds."""

    def __init__(self, env: simpy.Environment, servers: int, service: Callable[[], float]) -> None:
        self._env, self._service = env, service
        self._servers = simpy.Resource(env, capacity=servers)

    def visit(self, times: float = 1.0) -> Steps:
        with self._servers.request() as turn:
            yield turn
            yield self._env.timeout(self._service() * times)


class Gathering:
    """One commit at a time, for all who wait when it begins, up to a limit."""

    def __init__(
        self, env: simpy.Environment, commit: Callable[[int], Steps], *, limit: int
    ) -> None:
        self._env, self._commit, self._limit = env, commit, limit
        self._line: list[simpy.Event] = []
        self._busy = False

    def join(self) -> simpy.Event:
        """Stand in line; the event happens when the commit has ended that one was part of."""
        done = self._env.event()
        self._line.append(done)
        if not self._busy:
            self._busy = True
            self._env.process(self._run())
        return done

    def _run(self) -> Steps:
        while self._line:
            group, self._line = self._line[: self._limit], self._line[self._limit :]
            yield from self._commit(len(group))
            for done in group:
                done.succeed()
        self._busy = False


class World:
    """The busiest database of a design, with its share of receivers and workers."""

    def __init__(
        self, design: Design, figures: Figures, machines: Machines, rate: float, rng: Random
    ) -> None:
        self.env = env = simpy.Environment()
        self._design, self._figures, self._rng = design, figures, rng
        #: Whether its processors keep up. Work that they cannot do stays in the queue; the broker
        #: answers all the same.
        self._keeps_up = busy(design, figures, machines, rate) <= STABLE
        self.rate = rate * design.busiest
        self.delays = Delays()
        one = lambda: 1e-6  # noqa: E731
        receivers, workers = nodes(self.rate, figures)
        self._cores = Station(env, machines.cores, one)
        self._disk = Gathering(env, lambda _: self._sleep(figures.sync), limit=10**6)
        self._broker = Gathering(
            env, lambda n: self._sleep(machines.broker_sync + machines.broker * n), limit=10**6
        )
        self._receivers = [Station(env, 1, one) for _ in range(receivers)]
        self._workers = [Station(env, 1, one) for _ in range(workers)]
        gather = partial(Gathering, env)
        accepting = partial(self._commit, figures.accepting)
        claiming = partial(self._commit, figures.delivering * CLAIM_SHARE)
        recording = partial(self._commit, figures.delivering * (1 - CLAIM_SHARE))
        self._accepts = [gather(accepting, limit=ACCEPTED_TOGETHER) for _ in self._receivers]
        self._claims = [gather(claiming, limit=CLAIMED_TOGETHER) for _ in self._workers]
        self._records = [gather(recording, limit=ACCEPTED_TOGETHER) for _ in self._workers]

    def run(self, events: int) -> Delays:
        self.env.process(self._arrive(events))
        self.env.run()
        return self.delays

    def _arrive(self, events: int) -> Steps:
        for number in range(events):
            yield self.env.timeout(self._rng.expovariate(self.rate))
            self.env.process(self._event(number, warm=number >= events // 5))

    def _event(self, number: int, *, warm: bool) -> Steps:
        come, chosen = self.env.now, self._rng.randrange(len(self._receivers))
        yield from self._receivers[chosen].visit(self._figures.receiver)
        if self._design.broker:
            yield self._broker.join()
        else:
            yield self._accepts[chosen].join()
        answered = self.env.now
        if warm:
            self.delays.accepted.append(answered - come)
        if not self._keeps_up:
            return
        if self._design.broker:
            yield self._accepts[chosen].join()
        worker = self._rng.randrange(len(self._workers))
        yield self._claims[worker].join()
        yield from self._workers[worker].visit(self._figures.worker)
        if warm:
            self.delays.received.append(self.env.now - answered)
        yield self._records[worker].join()

    def _commit(self, cost: float, events: int) -> Steps:
        """Compute on one of the server's cores, then wait for its disk, with others."""
        yield from self._cores.visit(cost * self._design.growth * events)
        yield self._disk.join()

    def _sleep(self, microseconds: float) -> Steps:
        yield self.env.timeout(microseconds * 1e-6)


def nodes(rate: float, figures: Figures) -> tuple[int, int]:
    """Return how many receivers and workers it takes, two of each at least."""
    needed = (rate * cost * 1e-6 / BUSY_NODE for cost in (figures.receiver, figures.worker))
    receivers, workers = (max(2, math.ceil(each)) for each in needed)
    return receivers, workers


def busy(design: Design, figures: Figures, machines: Machines, rate: float) -> float:
    """Return how busy the processors of the busiest database are."""
    cost = (figures.accepting + figures.delivering) * design.growth * 1e-6
    return rate * design.busiest * cost / machines.cores


def broker_busy(design: Design, machines: Machines, rate: float) -> float:
    """Return how busy the one queue is that the busiest database is behind."""
    return rate * design.busiest * machines.broker * 1e-6


def simulate(
    design: Design, figures: Figures, machines: Machines, rate: float, *, events: int, seed: int
) -> dict[str, Any]:
    """Return what a design does at a rate: how busy it is and, if it can, how long events take."""
    load = busy(design, figures, machines, rate)
    receivers, workers = nodes(rate, figures)
    found: dict[str, Any] = {
        "design": design.name, "rate": rate, "receivers": receivers, "workers": workers,
        "database_busy": round(load, 3),
    }  # fmt: skip
    answered_by = broker_busy(design, machines, rate) if design.broker else load
    if answered_by > STABLE:
        return found
    delays = World(design, figures, machines, rate, Random(seed)).run(events)
    return found | _quantiles("accept", delays.accepted) | _quantiles("receipt", delays.received)


def _quantiles(what: str, seconds: Sequence[float]) -> dict[str, float]:
    wanted = {"p50": 0.50, "p99": 0.99} if seconds else {}
    return {f"{what}_{name}_ms": round(at(seconds, q) * 1000, 1) for name, q in wanted.items()}


def at(values: Sequence[float], quantile: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))]


def designs(figures: Figures, *, databases: int, skew: float) -> list[Design]:
    """Return what may stand behind the receivers, one step after the other."""
    busiest = min(1.0, (1 + skew) / databases)
    return [
        Design(name="one PostgreSQL", growth=figures.growth),
        Design(name="partitioned by month"),
        Design(name="a broker in front", broker=True),
        Design(name=f"{databases} databases", databases=databases, busiest=busiest),
        Design(name=f"{databases} databases, brokers", databases=databases, busiest=busiest,
               broker=True),
    ]  # fmt: skip


def main() -> int:
    options = _options()
    figures = Figures.read(options.figures) if options.figures else Figures()
    given = {name: getattr(options, name) for name in ("sync", "growth")}
    figures = replace(figures, **{name: each for name, each in given.items() if each is not None})
    machines = Machines(cores=options.cores, broker=options.broker)
    chosen = designs(figures, databases=options.databases, skew=options.skew)
    found = [
        simulate(design, figures, machines, rate, events=options.events, seed=options.seed)
        for design in chosen
        for rate in options.rates
    ]
    report = {"command": " ".join(["python", *sys.argv]), "figures": asdict(figures),
              "machines": asdict(machines), "skew": options.skew, "found": found}  # fmt: skip
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    return 0


def _show(report: dict[str, Any]) -> None:
    print("measured:", ", ".join(f"{name} {each}" for name, each in report["figures"].items()))
    print("assumed:", ", ".join(f"{name} {each}" for name, each in report["machines"].items()),
          f"skew {report['skew']}")  # fmt: skip
    times = ("accept_p50_ms", "accept_p99_ms", "receipt_p50_ms", "receipt_p99_ms")
    columns = ["design", "events/s", "receivers", "workers", "database busy",
               *(each.replace("_", " ") for each in times)]  # fmt: skip
    rows = [
        (each["design"], f"{each['rate']:,}", each["receivers"], each["workers"],
         f"{each['database_busy']:.0%}", *(each.get(name, "grows") for name in times))
        for each in report["found"]
    ]  # fmt: skip
    print(rig.table(columns, rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", type=Path, help="a report of scale.py --json")
    parser.add_argument("--sync", type=float, help="microseconds of a commit's sync")
    parser.add_argument("--growth", type=float, help="cost in a large table to that in a small")
    parser.add_argument("--cores", type=int, default=8, help="of each database's machine")
    parser.add_argument("--databases", type=int, default=16)
    parser.add_argument("--skew", type=float, default=0.5,
                        help="by how much the busiest database is above the mean")  # fmt: skip
    parser.add_argument("--broker", type=float, default=15.0,
                        help="microseconds of a broker's queue for an event")  # fmt: skip
    parser.add_argument("--rates", type=lambda text: [int(each) for each in text.split(",")],
                        default=RATES, metavar="N,N")  # fmt: skip
    parser.add_argument("--events", type=int, default=20_000, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
