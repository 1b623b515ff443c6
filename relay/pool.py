"""One destination's threads, and what they do: claim, attempt, decide, record, release."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from random import Random

from relay.attempts import NOT_BEGUN, attempt, conclude
from relay.destinations import Destination
from relay.leases import LEASE, Intervals, Leases
from relay.store import Queue
from relay.store.values import Claim

#: Seconds by which claims from a backlog are further apart while every thread has something to do.
WHILE_BUSY = 0.03
#: How many claims, at the most, wait for each thread: what a claim costs, many deliveries share.
AHEAD = 2


class Pool:
    """Claims for one destination, and takes each claim through its steps in a thread."""

    def __init__(
        self,
        destination: Destination,
        queue: Queue,
        leases: Leases,
        *,
        clock: Callable[[], datetime],
        rng: Random,
        intervals: Intervals,
        stop: threading.Event,
        wake: threading.Event,
    ) -> None:
        """*stop*: begin nothing more. *wake* is set when there may be something to claim again."""
        settings = destination.settings
        self.name = destination.name
        self._destination = destination
        self._queue = queue
        self._leases = leases
        self._clock = clock
        self._rng = rng
        self._intervals = intervals
        self._stop = stop
        self._wake = wake
        self._size = settings.concurrency or destination.connector.default_concurrency
        self._threads = ThreadPoolExecutor(self._size, thread_name_prefix=destination.name)
        self._lock = threading.Lock()
        #: Claims that wait for a thread or have one; recording needs none.
        self._busy = 0
        #: Attempts that ended since the last claim.
        self._ended = 0
        # A rate counts claims, and what was claimed by a worker that dies may have happened.
        ahead_is_safe = settings.rate is None and settings.policy.on_ambiguous == "retry"
        self._longest_ahead = AHEAD * self._size if ahead_is_safe else 0
        #: How many may be claimed although no thread is free for them yet.
        self._ahead = 0
        self._rest_until = 0.0
        #: Monotonic time until which nothing need be looked for, because nothing was due.
        self._quiet_until = 0.0
        #: Monotonic time at which something was claimed last.
        self.claimed_at = 0.0
        #: The last claim took all that it could: there is probably more.
        self.has_more = False

    @property
    def is_ready(self) -> bool:
        """Return whether something may be claimed now."""
        return self._free > 0 and self._rests_until <= time.monotonic()

    @property
    def resting(self) -> float | None:
        """Return for how many seconds nothing is claimed here; None if that is open."""
        rest = self._rests_until - time.monotonic()
        if not self._free or (rest <= 0 and not self.has_more):
            return None
        return max(rest, 0.001)

    def stir(self) -> None:
        """Look for work at once, because something may have become due; from any thread."""
        self._quiet_until = 0.0

    def look(self) -> None:
        """Note a look before it begins, so that whoever stirs us meanwhile causes another."""
        self._quiet_until = time.monotonic() + self._intervals.poll

    def fill(self) -> int:
        """Claim for the free threads and start on each claim; return how many claims those are.

        Raises :class:`~relay.store.StoreUnavailable`.
        """
        # A pause or a rate may leave a part of what is due.
        self.stir()
        limit = self._look_ahead()
        if limit < 1:
            return 0
        claims = self._queue.claim(
            self.name,
            limit=limit,
            rate=self._destination.settings.limit,
            connection=self._destination.connection,
            lease=LEASE,
            clock=self._clock,
        )
        self.has_more = len(claims) == limit
        if not claims:
            self._rest_until = time.monotonic() + self._intervals.not_granted
        else:
            self._rest_until = time.monotonic() + self._intervals.gather
            self.claimed_at = time.monotonic()
        for claim in claims:
            # Those before it may take as long as they are allowed to; if they hang, it is lost.
            self._leases.hold(claim, until=self._overdue_at(attempts=1 + AHEAD))
            with self._lock:
                self._busy += 1
            self._threads.submit(self._run, claim)
        return len(claims)

    def close(self) -> None:
        """Release threads and connector; attempts that still run are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._destination.connector.close()

    def _run(self, claim: Claim) -> None:
        try:
            self._deliver(claim)
        except Exception as error:
            self._leases.release(claim, error)

    def _deliver(self, claim: Claim) -> None:
        """Take one claim through its steps; the group commit ends the last one."""
        leases, started = self._leases, time.monotonic()
        with self._one_thread():
            if not leases.is_held(claim):
                # Those before it hung for so long that another worker may have taken it over.
                leases.release(claim)
                return
            leases.hold(claim, until=self._overdue_at())
            outcome = NOT_BEGUN if self._stop.is_set() else attempt(self._destination, claim)
        seconds, now = time.monotonic() - started, self._clock()
        record = conclude(
            self._destination, claim, outcome, now=now, rng=self._rng, seconds=seconds
        )
        leases.hold(claim)
        self._queue.record_later(record, partial(self._recorded, claim))

    def _recorded(self, claim: Claim, error: BaseException | None) -> None:
        """Called by the group commit: the next delivery of this conversation may be due."""
        self._leases.release(claim, error)
        self.stir()
        if not self.has_more:
            self._wake.set()

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Count a thread as free again when its attempt has ended."""
        try:
            yield
        finally:
            with self._lock:
                was_full = self._busy == self._size
                self._busy -= 1
                self._ended += 1
            if was_full and self.has_more:
                self._wake.set()

    def _overdue_at(self, *, attempts: int = 1) -> float:
        """Return when so many attempts, begun now, have overrun their deadlines."""
        deadline = self._destination.settings.deadline.total_seconds()
        return time.monotonic() + attempts * deadline + self._intervals.grace

    @property
    def _free(self) -> int:
        return self._size + self._ahead - self._busy

    def _look_ahead(self) -> int:
        """Return how many to claim now: one for each free thread, and for each that will be soon.

        Those are as many as ended since the last claim: none where calls hang.
        """
        with self._lock:
            self._ahead = min(self._ended, self._longest_ahead)
            if self._free > 0:
                self._ended = 0
            return self._free

    @property
    def _rests_until(self) -> float:
        rest = self._rest_until + (WHILE_BUSY if self._busy >= self._size else 0.0)
        return rest if self.has_more else max(rest, self._quiet_until)
