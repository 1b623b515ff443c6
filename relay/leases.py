"""The leases of a node: renewed on what it works on, and settled where a worker has lost one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random

import structlog

from relay.attempts import conclude
from relay.destinations import Destination
from relay.every import Every
from relay.rules.delivery import Outcome, OutcomeKind
from relay.store import Queue, StoreUnavailable
from relay.store.values import Claim

log = structlog.get_logger()

LEASE = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """How long a worker waits for what, in seconds."""

    #: Between renewals of leases, and between looks for lost ones.
    heartbeat: float = 5.0
    #: For which a lease that has run out must not have been renewed, to be lost: longer than a
    #: heartbeat, so that a clock that was put forward takes no lease from anybody.
    patience: float = 12.0
    #: Between looks for due deliveries when there was nothing to do.
    poll: float = 0.05
    #: Between claims for one destination: a claim costs so much more than a delivery in it.
    gather: float = 0.004
    #: Before a destination is asked again that granted nothing: paused, or at its rate.
    not_granted: float = 0.1
    #: For which a Celery worker serves one hint before it makes way for others.
    per_hint: float = 5.0
    #: After the store was away.
    store_away: float = 1.0
    #: For an attempt that overruns its deadline, before its lease is left to run out.
    grace: float = 5.0


#: What suits a worker that looks for work by itself.
INTERVALS = Intervals()


class Leases:
    """The claims of this node that are not recorded yet.

    A loop renews their leases, and settles the claims of workers that are not heard of any more.
    """

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        clock: Callable[[], datetime],
        rng: Random,
        intervals: Intervals,
    ) -> None:
        self._destinations = destinations
        self._queue = queue
        self._clock = clock
        self._rng = rng
        self._intervals = intervals
        #: Claims by attempt, and until when each is held.
        self._held: dict[str, tuple[Claim, float]] = {}
        #: Leases that may be lost, and since when they look it.
        self._suspects: dict[tuple[str, datetime], float] = {}
        self._loop = Every("leases", intervals.heartbeat, self._keep, away=StoreUnavailable)

    def start(self, stop: threading.Event) -> None:
        """Settle what this node held when it was killed, and keep its leases from now on.

        While the store is away, try again until *stop* is set.
        """
        while not stop.is_set():
            try:
                self._take_back()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                stop.wait(self._intervals.store_away)
            else:
                self._loop.start()
                return

    def close(self) -> None:
        """Renew nothing more."""
        self._loop.close(0.0)

    def hold(self, claim: Claim, *, until: float = math.inf) -> None:
        """Keep the lease of *claim* until a moment of the monotonic clock, or its release."""
        self._held[claim.attempt_id] = (claim, until)

    def is_held(self, claim: Claim) -> bool:
        """Return whether the lease is still kept; otherwise another worker may take it over."""
        _, until = self._held.get(claim.attempt_id, (claim, 0.0))
        return until > time.monotonic()

    def release(self, claim: Claim, error: BaseException | None = None) -> None:
        """Let the lease go: the attempt is recorded, or because of *error* never will be."""
        self._held.pop(claim.attempt_id, None)
        if error is not None:
            # Its lease will run out.
            log.error("attempt.not_recorded", **claim.names, exc_info=error)

    def running(self) -> Sequence[Claim]:
        """Return the claims that are held, except those past their time."""
        now = time.monotonic()
        return [claim for claim, until in list(self._held.values()) if until > now]

    def __len__(self) -> int:
        """Return how many claims are not recorded, including those past their time."""
        return len(self._held)

    def _keep(self) -> None:
        if held := [claim.delivery_id for claim in self.running()]:
            self._queue.renew(held, lease=LEASE, now=self._clock())
        self._settle_lost()

    def _settle_lost(self) -> None:
        """Settle the claims of workers that are not heard of any more."""
        now, moment = self._clock(), time.monotonic()
        patience = timedelta(seconds=self._intervals.patience)
        found = {
            (claim.attempt_id, claim.lease_until): claim
            for claim in self._queue.lost(list(self._destinations), now + patience)
        }
        self._suspects = {lease: self._suspects.get(lease, moment) for lease in found}
        for lease, claim in found.items():
            waited = moment - self._suspects[lease]
            if claim.lease_until < now and waited >= self._intervals.patience:
                self._settle(claim, "the worker was lost (lease ran out)")

    def _take_back(self) -> None:
        """Settle the claims that this node held when it was killed."""
        now = self._clock()
        self._queue.hasten(now)
        for claim in self._queue.abandoned(now):
            self._settle(claim, "the worker was killed in the middle of it")

    def _settle(self, claim: Claim, detail: str) -> None:
        destination = self._destinations.get(claim.destination)
        if destination is None:
            return
        outcome = Outcome(kind=OutcomeKind.AMBIGUOUS, detail=detail, lost=True)
        now = self._clock()
        record = conclude(destination, claim, outcome, now=now, rng=self._rng, seconds=0.0)
        self._queue.record_later(record, partial(self.release, claim))
