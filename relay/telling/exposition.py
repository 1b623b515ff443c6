"""The metrics as Prometheus reads them: what processes counted, and what the store says now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay.config.model import Config
from relay.store import StoreUnavailable
from relay.store.figures import Figures
from relay.telling import metrics
from relay.telling.counts import Counts
from relay.telling.metrics import Family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: The store is asked for at most one part in so many of the time, however often it is scraped.
SHARE = 20

#: Values of the labels, and the number.
Sample = tuple[tuple[str, ...], float]


class Exposition(Collector):
    """What ``/metrics`` answers."""

    def __init__(self, config: Config, counts: Counts, read: Callable[[], Figures]) -> None:
        """*read* asks the store, and raises :class:`~relay.store.StoreUnavailable`."""
        self._config = config
        self._counts = counts
        self._figures = Seldom(read)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._of_processes()
        yield _gauges(metrics.BUILD_INFO, [((metadata.version("gofax-relay"),), 1)])
        yield _gauges(metrics.THREADS, self._threads())
        try:
            figures = self._figures()
        except StoreUnavailable:
            yield _gauges(metrics.STORE_UP, [((), 0)])
            return
        yield _gauges(metrics.STORE_UP, [((), 1)])
        yield from self._of_store(figures)

    def _of_processes(self) -> Iterator[Metric]:
        total = self._counts.total()
        for family in metrics.COUNTED:
            samples = {
                name[1:]: numbers
                for name, numbers in sorted(total.items())
                # Another version may have counted with other labels or buckets.
                if (name[0], len(name) - 1, len(numbers))
                == (family.name, len(family.labels), family.size)
            }
            match family.kind:
                case "counter":
                    yield _counters(family, [(key, n[0]) for key, n in samples.items()])
                case "gauge":
                    yield _gauges(family, [(key, n[0]) for key, n in samples.items()])
                case "histogram":
                    yield _histograms(family, samples)

    def _threads(self) -> Iterator[Sample]:
        yield ("web", ""), self._config.server.threads
        for name, each in self._config.destinations.items():
            if each.concurrency:
                yield ("worker", name), each.concurrency

    def _of_store(self, figures: Figures) -> Iterator[Metric]:
        # Those that are no longer in the config may still have deliveries.
        names = sorted({*self._config.destinations, *figures.backlog, *figures.paused})
        backlog, oldest = figures.backlog, figures.oldest_seconds
        yield _gauges(metrics.STORE_BACKLOG, [((n,), backlog.get(n, 0)) for n in names])
        yield _gauges(metrics.STORE_OLDEST, [((n,), oldest.get(n, 0)) for n in names])
        yield _gauges(metrics.STORE_PAUSED, [((n,), n in figures.paused) for n in names])
        yield _gauges(metrics.STORE_STOPPED, figures.stopped.items())
        yield _gauges(
            metrics.STORE_EVENTS, [((standing,), n) for standing, n in figures.events.items()]
        )
        yield _gauges(metrics.STORE_BYTES, [((), figures.size)])


class Seldom:
    """Reads again only when the last reading is 20 times as old as it took."""

    def __init__(
        self, read: Callable[[], Figures], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Figures | None = None
        self._again_at = 0.0

    def __call__(self) -> Figures:
        with self._lock:
            started = self._clock()
            if self._last is None or started >= self._again_at:
                self._last = None
                self._last = self._read()
                ended = self._clock()
                self._again_at = ended + SHARE * (ended - started)
            return self._last


def _counters(family: Family, samples: Iterable[Sample]) -> Metric:
    made = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        made.add_metric(labels, value)
    return made


def _gauges(family: Family, samples: Iterable[Sample]) -> Metric:
    made = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        made.add_metric(labels, float(value))
    return made


def _histograms(family: Family, samples: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    made = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, numbers in samples.items():
        *buckets, total = numbers
        sums, reached = [], 0.0
        for bound, number in zip(metrics.bounds(family), buckets, strict=True):
            reached += number
            sums.append((bound, reached))
        made.add_metric(labels, sums, sum_value=total)
    return made
