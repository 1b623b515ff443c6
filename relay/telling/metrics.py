"""What is counted: the families of metrics, and the places where the relay counts them.

No label has a value from outside: endpoints and destinations are those of the config, all else is
a word of ours. `docs/watching.md` lists the same families, and a test compares.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from relay.telling.counts import Page, Series, alone

#: The endpoint of requests whose path is none of ours.
NO_ENDPOINT = "(none)"
#: The outcome of our own requests, which write nothing.
PROBE = "probe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Metrics that differ by the values of their labels only."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...] = ()
    help: str
    #: Of a histogram, where its buckets end, without the last.
    buckets: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers a series has: of a histogram its buckets and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


REQUESTS = Family(
    name="gofax_relay_requests_total",
    kind="counter",
    labels=("endpoint", "status", "outcome"),
    help="Requests that were answered, by HTTP status and outcome.",
)
ACCEPT_SECONDS = Family(
    name="gofax_relay_accept_seconds",
    kind="histogram",
    labels=("endpoint",),
    help="Time from a request to its 200, which the event is on disk before.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
COMMIT_SIZE = Family(
    name="gofax_relay_commit_size",
    kind="histogram",
    labels=("kind",),
    help="How many events (accept) or attempts (record) one commit wrote.",
    buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0),
)
COMMIT_SECONDS = Family(
    name="gofax_relay_commit_seconds",
    kind="histogram",
    labels=("kind",),
    help="How long one commit took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
ATTEMPTS = Family(
    name="gofax_relay_attempts_total",
    kind="counter",
    labels=("destination", "outcome"),
    help="Attempts to deliver, by how they ended.",
)
ATTEMPT_SECONDS = Family(
    name="gofax_relay_attempt_seconds",
    kind="histogram",
    labels=("destination",),
    help="How long a connector took for one attempt.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0),
)
DELIVERIES = Family(
    name="gofax_relay_deliveries_total",
    kind="counter",
    labels=("destination", "state"),
    help="Deliveries that an attempt ended: delivered, dead or held.",
)
PAUSES = Family(
    name="gofax_relay_pauses_total",
    kind="counter",
    labels=("destination", "cause"),
    help="Pauses of destinations that an attempt caused.",
)
THREADS_USED = Family(
    name="gofax_relay_threads_used",
    kind="gauge",
    labels=("role", "destination"),
    help="Threads at work now: with requests (web), or in a destination's connector (worker).",
)

BUILD_INFO = Family(
    name="gofax_relay_build_info",
    kind="gauge",
    labels=("version",),
    help="1, with the version that answers.",
)
THREADS = Family(
    name="gofax_relay_threads",
    kind="gauge",
    labels=("role", "destination"),
    help="Threads that may be at work in one process.",
)
STORE_UP = Family(
    name="gofax_relay_store_up", kind="gauge", help="1 if the store could be read, otherwise 0."
)
STORE_BACKLOG = Family(
    name="gofax_relay_store_backlog",
    kind="gauge",
    labels=("destination",),
    help="Deliveries that have not ended: waiting, pending or in flight.",
)
STORE_OLDEST = Family(
    name="gofax_relay_store_oldest_seconds",
    kind="gauge",
    labels=("destination",),
    help="Age of the oldest delivery that has not ended.",
)
STORE_PAUSED = Family(
    name="gofax_relay_store_paused",
    kind="gauge",
    labels=("destination",),
    help="1 while a destination is paused, otherwise 0.",
)
STORE_STOPPED = Family(
    name="gofax_relay_store_stopped",
    kind="gauge",
    labels=("destination", "state"),
    help="Deliveries that may need a person: dead or held.",
)
STORE_EVENTS = Family(
    name="gofax_relay_store_events",
    kind="gauge",
    labels=("standing",),
    help="Events that are kept, by their standing.",
)
STORE_BYTES = Family(
    name="gofax_relay_store_bytes", kind="gauge", help="Bytes that the store takes."
)

#: What is counted by processes.
COUNTED = (
    REQUESTS,
    ACCEPT_SECONDS,
    COMMIT_SIZE,
    COMMIT_SECONDS,
    ATTEMPTS,
    ATTEMPT_SECONDS,
    DELIVERIES,
    PAUSES,
    THREADS_USED,
)
#: What is read when somebody asks.
ASKED = (
    BUILD_INFO,
    THREADS,
    STORE_UP,
    STORE_BACKLOG,
    STORE_OLDEST,
    STORE_PAUSED,
    STORE_STOPPED,
    STORE_EVENTS,
    STORE_BYTES,
)

#: States in which a delivery is not tried again by itself.
ENDS = frozenset({"delivered", "dead", "held"})


class Metrics:
    """Where a process counts; by default, for nobody."""

    def __init__(self, page: Page | None = None) -> None:
        self._page = page or alone()
        self._requests: dict[tuple[str, int, str], Series] = {}
        self._accepts: dict[str, _Histogram] = {}
        #: Counts the threads with a request: a context.
        self.serving = _InUse(self._series(THREADS_USED, "web", ""))

    def answered(self, endpoint: str, status: int, outcome: str, seconds: float = 0.0) -> None:
        """Count a request; *seconds*: what it took."""
        key = endpoint, status, outcome
        requests = self._requests.get(key)
        if requests is None:
            requests = self._series(REQUESTS, endpoint, str(status), outcome)
            self._requests[key] = requests
        requests.add()
        if status == 200 and outcome != PROBE:
            accepts = self._accepts.get(endpoint)
            if accepts is None:
                accepts = self._accepts[endpoint] = self._histogram(ACCEPT_SECONDS, endpoint)
            accepts.observe(seconds)

    def paused(self, destination: str, cause: str) -> None:
        """Count a pause of a destination that an attempt caused."""
        self._series(PAUSES, destination, cause).add()

    def committed(self, kind: Literal["accept", "record"]) -> Callable[[int, float], None]:
        """Return what counts commits of one *kind*."""
        sizes = self._histogram(COMMIT_SIZE, kind)
        times = self._histogram(COMMIT_SECONDS, kind)

        def count(items: int, seconds: float) -> None:
            sizes.observe(items)
            times.observe(seconds)

        return count

    def of_destination(self, name: str) -> DestinationMetrics:
        return DestinationMetrics(
            name=name,
            find=self._series,
            seconds=self._histogram(ATTEMPT_SECONDS, name),
            busy=self._series(THREADS_USED, "worker", name),
        )

    def _series(self, family: Family, *labels: str) -> Series:
        name = family.name, *labels
        return self._page.find(name, size=family.size, is_own=family.kind == "gauge")

    def _histogram(self, family: Family, *labels: str) -> _Histogram:
        return _Histogram(family.buckets, self._series(family, *labels))


class DestinationMetrics:
    """Where the attempts of one destination are counted."""

    def __init__(
        self, *, name: str, find: Callable[..., Series], seconds: _Histogram, busy: Series
    ) -> None:
        self._name = name
        self._find = find
        self._seconds = seconds
        self._busy = _InUse(busy)

    @contextmanager
    def attempting(self) -> Iterator[None]:
        """Count this thread as one in the connector, and how long it was there."""
        started = time.monotonic()
        try:
            with self._busy:
                yield
        finally:
            self._seconds.observe(time.monotonic() - started)

    def attempted(self, outcome: str, state: str) -> None:
        """Count an attempt by its *outcome*, and its delivery if *state* is an end."""
        self._find(ATTEMPTS, self._name, outcome).add()
        if state in ENDS:
            self._find(DELIVERIES, self._name, state).add()


@dataclass(frozen=True, slots=True)
class _InUse:
    """Counts threads while they are in a block."""

    series: Series

    def __enter__(self) -> None:
        self.series.add(1)

    def __exit__(self, *error: object) -> None:
        self.series.add(-1)


@dataclass(frozen=True, slots=True)
class _Histogram:
    buckets: tuple[float, ...]
    series: Series

    def observe(self, value: float) -> None:
        self.series.observe(bisect_left(self.buckets, value), value)


def bounds(family: Family) -> Iterator[str]:
    """Yield where the buckets of a histogram end, as Prometheus writes it."""
    yield from (repr(bound) for bound in family.buckets)
    yield f"+{math.inf}".replace("inf", "Inf")
