"""A worker of the fleet: it serves a destination when it is told to, and then looks for more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random

import structlog

from relay.attempts import attempt, decided
from relay.destinations import Destination
from relay.leases import INTERVALS, LEASE, Intervals, Leases
from relay.store import Queue, StoreUnavailable
from relay.store.values import Claim

log = structlog.get_logger()


class Member:
    """Serves destinations in the threads of those who ask for it."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        seats: Mapping[str, int],
        queue: Queue,
        *,
        clock: Callable[[], datetime],
        hint: Callable[[Mapping[str, int]], None],
        rng: Random | None = None,
        intervals: Intervals = INTERVALS,
    ) -> None:
        """*seats*: how many deliveries go to each at one time; *hint* asks the fleet for more."""
        self._destinations = destinations
        self._seats = seats
        self._queue = queue
        self._clock = clock
        self._hint = hint
        self._rng = rng or Random()
        self._intervals = intervals
        self._stop = threading.Event()
        #: Threads that serve somebody.
        self._busy: set[int] = set()
        self._gates = {name: _Gate(threading.Semaphore(seats[name])) for name in destinations}
        self._leases = Leases(
            destinations,
            queue,
            clock=clock,
            rng=self._rng,
            intervals=intervals,
            stop=self._stop,
            then=self.sweep,
        )

    def start(self) -> None:
        """Take over what was lost, now and from now on."""
        self._leases.start()

    def serve(self, name: str) -> int:
        """Deliver what is due at *name*, until nothing is, the turn is over, or we stop.

        Return how many attempts that were.
        """
        gate = self._gates.get(name)
        if gate is None:
            return 0
        gate.knocks = True
        self._busy.add(threading.get_ident())
        try:
            return self._serve(self._destinations[name], gate)
        finally:
            self._busy.discard(threading.get_ident())

    def _serve(self, destination: Destination, gate: _Gate) -> int:
        attempts = 0
        # Who has a seat looks once more if somebody came meanwhile who found none.
        while gate.knocks and gate.seats.acquire(blocking=False):
            gate.knocks = False
            try:
                attempts += self._take_turn(destination, gate)
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
            finally:
                gate.seats.release()
        return attempts

    def sweep(self) -> None:
        """Give hints for all that is due. Raises StoreUnavailable."""
        due = self._queue.due(list(self._destinations), self._clock())
        if due:
            self._hint({name: self._seats[name] for name in due})

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
        """Return whether somebody is still at it: in a connector, or waiting for the store."""
        return bool(self._busy)

    def close(self) -> None:
        for destination in self._destinations.values():
            destination.connector.close()

    def _take_turn(self, destination: Destination, gate: _Gate) -> int:
        """Make attempts; return how many. Hints at what is left when the turn is over."""
        attempts, ends_at = 0, time.monotonic() + self._intervals.per_hint
        while claim := self._next(destination, gate, ends_at):
            self._attempt(destination, claim)
            attempts += 1
            if time.monotonic() >= ends_at:
                self._hint({destination.name: 1})
                break
        return attempts

    def _next(self, destination: Destination, gate: _Gate, ends_at: float) -> Claim | None:
        """Return a claim. One thread claims for all that wait behind it."""
        with gate.line:
            gate.waiting += 1
        with gate.claiming:
            try:
                while not (gate.claimed or self._stop.is_set()) and self._claim(destination, gate):
                    if time.monotonic() >= ends_at:
                        self._hint({destination.name: 1})
                        break
                return gate.claimed.popleft() if gate.claimed else None
            finally:
                with gate.line:
                    gate.waiting -= 1

    def _claim(self, destination: Destination, gate: _Gate) -> bool:
        """Claim for all who wait; return whether to try again if that gave nothing."""
        now = self._clock()
        claims = self._queue.claim(
            destination.name,
            limit=gate.waiting,
            rate=destination.settings.rate,
            lease=LEASE,
            clock=self._clock,
        )
        for claim in claims:
            self._leases.begin(claim)
        gate.claimed.extend(claims)
        if not claims and self._queue.due([destination.name], now):
            # Paused, at its rate, or another node claims.
            self._stop.wait(self._intervals.not_granted)
            return True
        return False

    def _attempt(self, destination: Destination, claim: Claim) -> None:
        started = time.monotonic()
        outcome = attempt(destination, claim)
        seconds, now = time.monotonic() - started, self._clock()
        record = decided(destination, claim, outcome, now=now, rng=self._rng, seconds=seconds)
        self._leases.keep(claim)
        try:
            self._leases.until_stopped(partial(self._queue.record, record))
        except Exception as error:
            # Its lease will run out.
            log.error("attempt.not_recorded", exc_info=error)
        finally:
            self._leases.forget(claim)


@dataclass
class _Gate:
    """Where the threads that serve a destination get in, and what is claimed for them."""

    seats: threading.Semaphore
    #: Somebody asked for the destination since somebody last began to look.
    knocks: bool = False
    claiming: threading.Lock = field(default_factory=threading.Lock)
    line: threading.Lock = field(default_factory=threading.Lock)
    #: Threads that want a claim, the one included that is at it.
    waiting: int = 0
    claimed: deque[Claim] = field(default_factory=deque)
