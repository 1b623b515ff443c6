"""The leases of a node: kept on what it is at, and settled where somebody has lost one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random

import structlog

from relay.attempts import decided
from relay.destinations import Destination
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
    #: Between claims from a backlog: a claim costs so much more than a delivery in it.
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
    """What this node has claimed and not recorded yet, and the heart that beats for it.

    *stop* ends all waiting; *then* is called at every beat.
    """

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        queue: Queue,
        *,
        clock: Callable[[], datetime],
        rng: Random,
        intervals: Intervals,
        stop: threading.Event,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._destinations = destinations
        self._queue = queue
        self._clock = clock
        self._rng = rng
        self._intervals = intervals
        self._stop = stop
        self._then = then
        #: Claims by attempt, and when each has overrun its deadline.
        self._at_work: dict[str, tuple[Claim, float]] = {}
        #: Leases that may be lost, and since when they look it.
        self._suspects: dict[tuple[str, datetime], float] = {}
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Settle what this node held when it was killed, and keep its leases from now on."""
        self.until_stopped(self._take_back)
        self._heart.start()

    def begin(self, claim: Claim) -> None:
        """Keep the lease of an attempt that begins, as long as it is within its deadline."""
        deadline = self._destinations[claim.destination].settings.deadline.total_seconds()
        overdue_at = time.monotonic() + deadline + self._intervals.grace
        self._at_work[claim.attempt_id] = (claim, overdue_at)

    def await_turn(self, claim: Claim) -> None:
        """Keep the lease of what waits for a thread, unless those before it hang."""
        deadline = self._destinations[claim.destination].settings.deadline.total_seconds()
        overdue_at = time.monotonic() + 2 * deadline + self._intervals.grace
        self._at_work[claim.attempt_id] = (claim, overdue_at)

    def keeps(self, claim: Claim) -> bool:
        """Return whether a claim's lease is still kept: nobody else may have taken it over."""
        found = self._at_work.get(claim.attempt_id)
        return found is not None and found[1] > time.monotonic()

    def keep(self, claim: Claim) -> None:
        """Keep the lease of what is done until that is recorded, however late it is."""
        self._at_work[claim.attempt_id] = (claim, float("inf"))

    def forget(self, claim: Claim) -> None:
        """Let the lease go: the attempt is recorded, or never will be."""
        self._at_work.pop(claim.attempt_id, None)

    def __len__(self) -> int:
        """Return how many claims are not recorded, those included that overran their deadline."""
        return len(self._at_work)

    def running(self) -> Sequence[Claim]:
        """Return the claims at work, those apart that overran their deadline."""
        now = time.monotonic()
        return [claim for claim, overdue_at in list(self._at_work.values()) if overdue_at > now]

    def until_stopped(self, act: Callable[[], None]) -> None:
        """Do it, again and again while the store is away: what happened must not be forgotten."""
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                if self._stop.wait(self._intervals.store_away):
                    return None

    def _beat(self) -> None:
        while not self._stop.wait(self._intervals.heartbeat):
            try:
                self._renew()
                self._reap()
                self._then()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
            except Exception:
                # Without this heart every lease of the node would run out.
                log.exception("leases.not_kept")

    def _renew(self) -> None:
        held = [claim.delivery_id for claim in self.running()]
        if held:
            self._queue.renew(held, lease=LEASE, now=self._clock())

    def _reap(self) -> None:
        """Settle the claims that somebody lost."""
        now, moment = self._clock(), time.monotonic()
        patience = timedelta(seconds=self._intervals.patience)
        found = {
            (claim.attempt_id, claim.lease_until): claim
            for claim in self._queue.lost(list(self._destinations), now + patience)
        }
        self._suspects = {lease: self._suspects.get(lease, moment) for lease in found}
        lost = [
            claim
            for lease, claim in found.items()
            if claim.lease_until < now
            and moment - self._suspects[lease] >= self._intervals.patience
        ]
        self._settle_lost(lost, "the worker was lost (lease ran out)")

    def _take_back(self) -> None:
        """Settle the claims that this node held when it was killed."""
        now = self._clock()
        self._queue.hasten(now)
        claims = self._queue.abandoned(now)
        self._settle_lost(claims, "the worker was killed in the middle of it")

    def _settle_lost(self, claims: Sequence[Claim], detail: str) -> None:
        outcome = Outcome(kind=OutcomeKind.AMBIGUOUS, detail=detail, lost=True)
        for claim in claims:
            destination = self._destinations.get(claim.destination)
            if destination is not None:
                now = self._clock()
                record = decided(destination, claim, outcome, now=now, rng=self._rng, seconds=0.0)
                self.until_stopped(partial(self._queue.record, record))
