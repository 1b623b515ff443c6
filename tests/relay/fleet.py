"""A worker of the fleet without a broker: a queue in memory brings it its hints."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog

from relay.cluster.member import Member
from relay.destinations import Destination
from relay.leases import Intervals
from relay.store import Queue, StoreUnavailable


class Fleet:
    """Looks from outside like a worker with threads of its own; each turn is one attempt."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        intervals: Intervals,
        **options: Any,
    ) -> None:
        seats = {name: each.settings.concurrency or 4 for name, each in destinations.items()}
        self._seats = seats
        self._intervals = intervals
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(sum(seats.values()))
        self._runs = False
        self._member = Member(
            destinations,
            seats,
            queue,
            intervals=replace(intervals, per_hint=0.0),
            hint=self._hint,
            **options,
        )

    def run(self) -> None:
        self._runs = True
        self._member.start()
        while not self._stop.is_set():
            try:
                self._member.sweep()
            except StoreUnavailable as error:
                structlog.get_logger().warning("store.unavailable", error=str(error))
            self._stop.wait(self._intervals.poll)

    def work_once(self) -> int:
        """Let every seat take its turn; return how many attempts were made."""
        turns = [
            self._threads.submit(self._member.serve, name)
            for name, count in self._seats.items()
            for _ in range(count)
        ]
        return sum(turn.result() for turn in turns)

    def stop(self) -> None:
        self._stop.set()
        self._member.stop()

    def drain(self, seconds: float) -> int:
        return self._member.drain(seconds)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._member.close()

    def _hint(self, counts: Mapping[str, int]) -> None:
        if self._stop.is_set() or not self._runs:
            return  # as a broker may lose them
        for name, count in counts.items():
            for _ in range(count):
                self._threads.submit(self._member.serve, name)
