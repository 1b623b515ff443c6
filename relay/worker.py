"""Claim, deliver, decide, record: the process that brings events to their destinations."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import structlog

from relay.attempts import attempt, decided, not_begun
from relay.clock import SteadyClock
from relay.destinations import Destination
from relay.leases import INTERVALS, LEASE, Intervals, Leases
from relay.store import Queue, StoreUnavailable
from relay.store.values import Claim, Record

log = structlog.get_logger()

#: Seconds by which claims from a backlog are further apart while every thread has something to do.
WHILE_BUSY = 0.03


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
        self._rng = rng or Random()
        self._intervals = intervals
        self._stop = threading.Event()
        #: Set when there may be something to do before the next poll.
        self._wake = threading.Event()
        self._leases = Leases(
            destinations,
            queue,
            clock=self._clock,
            rng=self._rng,
            intervals=intervals,
            stop=self._stop,
        )
        self._pools = {
            name: _Pool(destination, self._attempt, self._have_recorded, self._leases, self._wake)
            for name, destination in destinations.items()
        }
        #: Records that the store could not take yet.
        self._unrecorded: deque[tuple[_Pool, Record]] = deque()

    def run(self) -> None:
        """Deliver until :meth:`stop` is called."""
        self._leases.start()
        while not self._stop.is_set():
            try:
                claimed = self.work_once()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                self._stop.wait(self._intervals.store_away)
                continue
            finally:
                self._record_again()
            if not claimed:
                self._wake.wait(self._nap())
                self._wake.clear()

    def _nap(self) -> float:
        """Return for how many seconds there is nothing to claim, unless somebody wakes us."""
        rests = [pool.resting for pool in self._pools.values() if pool.has_more and pool.free]
        return min([self._intervals.poll, *rests])

    def work_once(self) -> int:
        """Claim what is due and start its attempts; return how many those are."""
        ready = [name for name, pool in self._pools.items() if pool.is_ready]
        asked = [name for name in ready if not self._pools[name].has_more]
        due = self._queue.due(asked, self._clock()) if asked else set()
        return sum(
            self._claim(self._pools[name])
            for name in ready
            if name in due or self._pools[name].has_more
        )

    def stop(self) -> None:
        """Claim nothing more; may be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Look for work now: somebody says that there is some. From any thread."""
        self._wake.set()

    def drain(self, seconds: float) -> int:
        """Wait up to *seconds* for running attempts; return how many are left to their leases."""
        ends_at = time.monotonic() + seconds
        while self._leases.running() and time.monotonic() < ends_at:
            self._wake.wait(self._intervals.poll)
            self._wake.clear()
            self._record_again()
        return len(self._leases.running())

    def close(self) -> None:
        """Release pools and connectors; attempts that still run are not waited for."""
        for pool in self._pools.values():
            pool.close()

    def _claim(self, pool: _Pool) -> int:
        settings = pool.destination.settings
        free = pool.look_ahead()
        if free < 1:
            return 0
        claims = self._queue.claim(
            pool.destination.name,
            limit=free,
            rate=settings.rate,
            lease=LEASE,
            clock=self._clock,
        )
        pool.has_more = len(claims) == free
        if not claims:
            pool.rest(self._intervals.not_granted)
        elif pool.has_more:
            pool.rest(self._intervals.gather)
        for claim in claims:
            pool.start(claim)
        return len(claims)

    def _attempt(self, destination: Destination, claim: Claim) -> Record:
        """Make one attempt; runs in a thread of the destination's pool."""
        if self._stop.is_set():
            return not_begun(claim, now=self._clock())
        started = time.monotonic()
        outcome = attempt(destination, claim)
        seconds = time.monotonic() - started
        now = self._clock()
        return decided(destination, claim, outcome, now=now, rng=self._rng, seconds=seconds)

    def _have_recorded(self, pool: _Pool, record: Record) -> None:
        """Let the thread go: the record is written with others, and kept here until it is."""

        def then(error: BaseException | None) -> None:
            if isinstance(error, StoreUnavailable):
                self._unrecorded.append((pool, record))
                return
            if error is not None:
                # Its lease will run out.
                log.error("attempt.not_recorded", exc_info=error)
            self._leases.forget(record.claim)
            if not pool.has_more:
                self._wake.set()

        self._leases.keep(record.claim)
        try:
            self._queue.record_later(record, then)
        except StoreUnavailable as error:
            then(error)

    def _record_again(self) -> None:
        """Try to write what could not be recorded while the store was away."""
        for _ in range(len(self._unrecorded)):
            self._have_recorded(*self._unrecorded.popleft())


@dataclass
class _Pool:
    """The threads of one destination, and what they are at."""

    destination: Destination
    attempt: Callable[[Destination, Claim], Record]
    have_recorded: Callable[[_Pool, Record], None]
    leases: Leases
    #: Set when there is a free thread again and something to do for it.
    wake: threading.Event
    #: What was claimed and has not ended; more than that is at work, because recording needs no
    #: thread.
    _busy: int = 0
    #: How many may be claimed although no thread is free for them yet.
    _ahead: int = 0
    #: Attempts that ended since the last claim.
    _ended: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rest_until: float = 0.0
    #: The last claim took all that it could: there is probably more.
    has_more: bool = False

    def __post_init__(self) -> None:
        settings = self.destination.settings
        size = settings.concurrency or self.destination.connector.default_concurrency
        self._size = size
        # A rate counts claims, and what was claimed by a worker that dies may have happened.
        ahead_is_safe = settings.rate is None and settings.policy.on_ambiguous == "retry"
        self._longest_ahead = size // 2 if ahead_is_safe else 0
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=self.destination.name)

    @property
    def free(self) -> int:
        """Return how many may be claimed now."""
        return self._size + self._ahead - self._busy

    def look_ahead(self) -> int:
        """Return how many to claim now: one for each free thread, and for each that will be soon.

        Those are as many as ended since the last claim: none where calls hang.
        """
        with self._lock:
            self._ahead = min(self._ended, self._longest_ahead)
            if self.free > 0:
                self._ended = 0
            return self.free

    @property
    def is_ready(self) -> bool:
        return self.free > 0 and self._rests_until <= time.monotonic()

    @property
    def resting(self) -> float:
        """Return for how many seconds it is still left alone."""
        return max(self._rests_until - time.monotonic(), 0.001)

    @property
    def _rests_until(self) -> float:
        return self._rest_until + (WHILE_BUSY if self._busy >= self._size else 0.0)

    def rest(self, seconds: float) -> None:
        self._rest_until = time.monotonic() + seconds

    def start(self, claim: Claim) -> None:
        self.leases.await_turn(claim)
        with self._lock:
            self._busy += 1
        self._threads.submit(self._run, claim)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.destination.connector.close()

    def _run(self, claim: Claim) -> None:
        if not self.leases.keeps(claim):
            # Those before it hung for so long that somebody else may be at it.
            self._count_ended()
            self.leases.forget(claim)
            return
        self.leases.begin(claim)
        try:
            try:
                record = self.attempt(self.destination, claim)
            finally:
                self._count_ended()
            self.have_recorded(self, record)
        except Exception as error:
            log.error("attempt.not_recorded", exc_info=error)
            self.leases.forget(claim)

    def _count_ended(self) -> None:
        with self._lock:
            was_full = self._busy == self._size
            self._busy -= 1
            self._ended += 1
        if was_full and self.has_more:
            self.wake.set()
