"""A worker of the fleet without a broker: a queue in memory brings it its hints."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog

from relay.cluster.worker import HintedWorker
from relay.destinations import Destination
from relay.leases import Intervals
from relay.store import Queue, StoreUnavailable


class Hinted:
    """Has the methods of a worker with threads of its own; each hint is good for one attempt."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        intervals: Intervals,
        **options: Any,
    ) -> None:
        self._concurrency = {
            name: each.settings.concurrency or 4 for name, each in destinations.items()
        }
        self._intervals = intervals
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(sum(self._concurrency.values()))
        self._runs = False
        self._worker = HintedWorker(
            destinations,
            queue,
            concurrency=self._concurrency,
            intervals=replace(intervals, per_hint=0.0),
            hint=self._hint,
            **options,
        )

    def wake(self) -> None:
        """Do nothing: it looks at every destination each time."""

    def run(self) -> None:
        self._runs = True
        self._worker.start()
        while not self._stop.is_set():
            try:
                self._worker.sweep()
            except StoreUnavailable as error:
                structlog.get_logger().warning("store.unavailable", error=str(error))
            self._stop.wait(self._intervals.poll)

    def fill(self) -> int:
        """Give every hint that can be of use; return how many attempts were made."""
        served = [
            self._threads.submit(self._worker.serve, name)
            for name, count in self._concurrency.items()
            for _ in range(count)
        ]
        return sum(each.result() for each in served)

    def stop(self) -> None:
        self._stop.set()
        self._worker.stop()

    def drain(self, seconds: float) -> int:
        return self._worker.drain(seconds)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._worker.close()

    def _hint(self, counts: Mapping[str, int]) -> None:
        if self._stop.is_set() or not self._runs:
            return  # as a broker may lose them
        for name, count in counts.items():
            for _ in range(count):
                self._threads.submit(self._worker.serve, name)
