"""A Celery worker's deliveries: each message makes a thread serve one destination for a while."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random

import structlog

from relay.attempts import NOT_BEGUN, attempt, conclude
from relay.destinations import Destination
from relay.every import Every
from relay.leases import INTERVALS, LEASE, Intervals, Leases
from relay.store import Queue, StoreUnavailable
from relay.store.values import Claim

log = structlog.get_logger()

#: Asks the fleet to serve so many deliveries of each destination.
Hint = Callable[[Mapping[str, int]], None]


class HintedWorker:
    """Serves the destinations in Celery's threads."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        concurrency: Mapping[str, int],
        hint: Hint,
        clock: Callable[[], datetime],
        rng: Random | None = None,
        intervals: Intervals = INTERVALS,
    ) -> None:
        """*concurrency*: how many deliveries go to each destination at one time."""
        self._queue = queue
        self._concurrency = concurrency
        self._hint = hint
        self._clock = clock
        self._intervals = intervals
        self._stop = threading.Event()
        #: Threads that serve a destination.
        self._busy: set[int] = set()
        rng = rng or Random()
        self._leases = Leases(destinations, queue, clock=clock, rng=rng, intervals=intervals)
        self._sweeps = Every("sweep", intervals.heartbeat, self.sweep, away=StoreUnavailable)
        self._pools = {
            name: HintedPool(
                destination,
                queue,
                self._leases,
                size=concurrency[name],
                hint=hint,
                clock=clock,
                rng=rng,
                intervals=intervals,
                stop=self._stop,
            )
            for name, destination in destinations.items()
        }

    def start(self) -> None:
        """Take over what was lost, now and from now on."""
        self._leases.start(self._stop)
        self._sweeps.start()

    def serve(self, name: str) -> int:
        """Deliver what is due at *name*, in this thread; return how many attempts that were.

        It ends when nothing is due, when a hint's time is over, or at :meth:`stop`.
        """
        pool = self._pools.get(name)
        if pool is None:
            return 0
        self._busy.add(threading.get_ident())
        try:
            return pool.serve()
        finally:
            self._busy.discard(threading.get_ident())

    def sweep(self) -> None:
        """Give hints for all that is due. Raises StoreUnavailable."""
        due = self._queue.due(list(self._pools), self._clock())
        if due:
            self._hint({name: self._concurrency[name] for name in due})

    def stop(self) -> None:
        """Claim nothing more; may be called from a signal handler."""
        self._stop.set()

    def drain(self, seconds: float) -> int:
        """Wait up to *seconds* for running attempts; return how many are left to their leases."""
        ends_at = time.monotonic() + seconds
        while self.is_busy and time.monotonic() < ends_at:
            time.sleep(self._intervals.poll)
        return len(self._leases)

    @property
    def is_busy(self) -> bool:
        """Return whether a thread is in a connector, or waits for the store."""
        return bool(self._busy)

    def close(self) -> None:
        """Release the connectors; attempts that still run are not waited for."""
        self._sweeps.close(0.0)
        self._leases.close()
        for pool in self._pools.values():
            pool.close()


class HintedPool:
    """Claims for one destination, and takes each claim through its steps.

    Its threads come from outside, up to *size* at a time; one of them claims for all.
    """

    def __init__(
        self,
        destination: Destination,
        queue: Queue,
        leases: Leases,
        *,
        size: int,
        hint: Hint,
        clock: Callable[[], datetime],
        rng: Random,
        intervals: Intervals,
        stop: threading.Event,
    ) -> None:
        self._destination = destination
        self._queue = queue
        self._leases = leases
        self._hint = hint
        self._clock = clock
        self._rng = rng
        self._intervals = intervals
        self._stop = stop
        self._size = size
        self._free = threading.Semaphore(size)
        #: A hint came since a thread last began to look.
        self._is_wanted = False
        self._claiming = threading.Lock()
        self._claimed: deque[Claim] = deque()
        #: Threads that want a claim, including the one that is claiming.
        self._waiting = 0
        self._lock = threading.Lock()

    def serve(self) -> int:
        """Deliver what is due, for as long as a hint lasts; return how many attempts that were."""
        attempts = 0
        self._is_wanted = True
        # A thread inside looks once more if a hint came meanwhile that found no free one.
        while self._is_wanted and self._free.acquire(blocking=False):
            self._is_wanted = False
            try:
                attempts += self._deliver_due()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
            finally:
                self._free.release()
        return attempts

    def close(self) -> None:
        self._destination.connector.close()

    def _deliver_due(self) -> int:
        attempts, ends_at = 0, time.monotonic() + self._intervals.per_hint
        while claim := self._next(ends_at):
            self._deliver(claim)
            attempts += 1
            if time.monotonic() >= ends_at:
                self._hint({self._destination.name: 1})
                break
        return attempts

    def _next(self, ends_at: float) -> Claim | None:
        """Return a claim. One thread claims for all that wait behind it."""
        with self._lock:
            self._waiting += 1
        with self._claiming:
            try:
                while not (self._claimed or self._stop.is_set()) and self._claim():
                    if time.monotonic() >= ends_at:
                        self._hint({self._destination.name: 1})
                        break
                return self._claimed.popleft() if self._claimed else None
            finally:
                with self._lock:
                    self._waiting -= 1

    def _claim(self) -> bool:
        """Claim for all that wait; return whether to try again if that gave nothing."""
        name, settings, now = self._destination.name, self._destination.settings, self._clock()
        claims = self._queue.claim(
            name,
            limit=self._waiting,
            rate=settings.limit,
            connection=self._destination.connection,
            lease=LEASE,
            clock=self._clock,
        )
        overdue_at = time.monotonic() + settings.deadline.total_seconds() + self._intervals.grace
        for claim in claims:
            self._leases.hold(claim, until=overdue_at)
        self._claimed.extend(claims)
        if not claims and self._queue.due([name], now):
            # Paused, at its rate, or another node claims.
            self._stop.wait(self._intervals.not_granted)
            return True
        return False

    def _deliver(self, claim: Claim) -> None:
        """Take one claim through its steps: attempt, decide, record, release."""
        error = None
        try:
            started = time.monotonic()
            outcome = NOT_BEGUN if self._stop.is_set() else attempt(self._destination, claim)
            seconds, now = time.monotonic() - started, self._clock()
            record = conclude(
                self._destination, claim, outcome, now=now, rng=self._rng, seconds=seconds
            )
            self._leases.hold(claim)
            if self._queue.record(record) or not outcome.begun:
                # What waited, or was given back, is due, and only this thread knows.
                self._hint({self._destination.name: self._size})
        except Exception as raised:
            error = raised
        self._leases.release(claim, error)
