"""The process that delivers: it fills the pool of each destination with what is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random

import structlog

from relay.clock import SteadyClock
from relay.destinations import Destination
from relay.leases import INTERVALS, Intervals, Leases
from relay.pool import Pool
from relay.store import Queue, StoreUnavailable

log = structlog.get_logger()


class Worker:
    """Serves the destinations until it is stopped; a pool of threads for each of them."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        clock: Callable[[], datetime] | None = None,
        rng: Random | None = None,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._queue = queue
        self._clock = clock or SteadyClock()
        self._intervals = intervals
        self._stop = threading.Event()
        #: Set when there may be something to do before the next poll.
        self._wake = threading.Event()
        rng = rng or Random()
        self._leases = Leases(destinations, queue, clock=self._clock, rng=rng, intervals=intervals)
        self._pools = [
            Pool(
                destination,
                queue,
                self._leases,
                clock=self._clock,
                rng=rng,
                intervals=intervals,
                stop=self._stop,
                wake=self._wake,
            )
            for destination in destinations.values()
        ]

    def run(self) -> None:
        """Deliver until :meth:`stop` is called."""
        self._leases.start(self._stop)
        while not self._stop.is_set():
            try:
                started = self.fill()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                self._stir()
                self._stop.wait(self._intervals.store_away)
                continue
            if not started:
                self._wake.wait(self._nap())
                self._wake.clear()

    def fill(self) -> int:
        """Fill the pools with what is due; return how many attempts that starts.

        Those where nothing was due a moment ago are left out, unless they were stirred since.
        Raises :class:`~relay.store.StoreUnavailable`.
        """
        # Of those that share a rate, the one that has waited longest goes first.
        in_turn = sorted(self._pools, key=lambda pool: pool.claimed_at)
        ready = [pool for pool in in_turn if pool.is_ready]
        asked = [pool for pool in ready if not pool.has_more]
        for pool in asked:
            pool.look()
        due = self._queue.due([pool.name for pool in asked], self._clock()) if asked else set()
        return sum(pool.fill() for pool in ready if pool.has_more or pool.name in due)

    def stop(self) -> None:
        """Claim nothing more; may be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Look for work now; may be called from any thread."""
        self._stir()
        self._wake.set()

    def drain(self, seconds: float) -> int:
        """Wait up to *seconds* for running attempts; return how many are left to their leases."""
        ends_at = time.monotonic() + seconds
        while self._leases.running() and time.monotonic() < ends_at:
            self._wake.wait(self._intervals.poll)
            self._wake.clear()
        return len(self._leases.running())

    def close(self) -> None:
        """Release pools and connectors; attempts that still run are not waited for."""
        self._leases.close()
        for pool in self._pools:
            pool.close()

    def _stir(self) -> None:
        for pool in self._pools:
            pool.stir()

    def _nap(self) -> float:
        """Return for how many seconds there is nothing to claim, unless somebody wakes us."""
        rests = [pool.resting for pool in self._pools]
        return min([self._intervals.poll, *(rest for rest in rests if rest is not None)])
