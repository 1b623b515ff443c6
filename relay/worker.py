"""Claim, deliver, decide, record: the process that brings events to their destinations."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random

import structlog

from connectors.base import DeliveryError
from relay.clock import SteadyClock
from relay.delivery import Outcome, Result, decide, delivered, outcome_of
from relay.registry import Outlet
from relay.store import Queue, StoreUnavailable
from relay.store.records import Claim, Record

log = structlog.get_logger()

LEASE = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
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
    #: After the store was away.
    store_away: float = 1.0
    #: For an attempt that overruns its deadline, before its lease is left to run out.
    grace: float = 5.0


class Worker:
    """Serves the destinations until it is stopped; a pool of threads for each of them."""

    def __init__(
        self,
        outlets: Mapping[str, Outlet],
        queue: Queue,
        *,
        clock: Callable[[], datetime] | None = None,
        rng: Random | None = None,
        pace: Pace = Pace(),
    ) -> None:
        self._queue = queue
        self._clock = clock or SteadyClock()
        self._rng = rng or Random()
        self._pace = pace
        self._stop = threading.Event()
        #: Set when there may be something to do before the next poll.
        self._wake = threading.Event()
        self._pools = {
            name: _Pool(outlet, self._attempt, pace.grace, self._wake)
            for name, outlet in outlets.items()
        }
        #: Records that the store could not take yet.
        self._unrecorded: deque[tuple[_Pool, Record]] = deque()
        #: Leases that may be lost, and since when they look it.
        self._suspects: dict[tuple[str, datetime], float] = {}
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def run(self) -> None:
        """Deliver until :meth:`stop` is called."""
        self._until_stopped(self._take_back)
        self._heart.start()
        while not self._stop.is_set():
            try:
                claimed = self.work_once()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                self._stop.wait(self._pace.store_away)
                continue
            finally:
                self._record_again()
            if not claimed:
                self._wake.wait(self._nap())
                self._wake.clear()

    def _nap(self) -> float:
        """Return for how many seconds there is nothing to claim, unless somebody wakes us."""
        rests = [pool.resting for pool in self._pools.values() if pool.has_more and pool.free]
        return min([self._pace.poll, *rests])

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
        while self._running() and time.monotonic() < ends_at:
            self._wake.wait(self._pace.poll)
            self._wake.clear()
            self._record_again()
        return len(self._running())

    def close(self) -> None:
        """Release pools and connectors; attempts that still run are not waited for."""
        for pool in self._pools.values():
            pool.close()

    def _claim(self, pool: _Pool) -> int:
        settings = pool.outlet.settings
        free = pool.free
        claims = self._queue.claim(
            pool.outlet.name,
            limit=free,
            rate=settings.rate,
            lease=LEASE,
            now=self._clock(),
        )
        pool.has_more = len(claims) == free
        if not claims:
            pool.rest(self._pace.not_granted)
        elif pool.has_more:
            pool.rest(self._pace.gather)
        for claim in claims:
            pool.start(claim)
        return len(claims)

    def _attempt(self, outlet: Outlet, claim: Claim) -> None:
        """Make one attempt and have it recorded; runs in a thread of the destination's pool."""
        started = time.monotonic()
        outcome = attempt(outlet, claim)
        record = self._decided(outlet, claim, outcome, seconds=time.monotonic() - started)
        self._have_recorded(self._pools[outlet.name], record)

    def _decided(
        self, outlet: Outlet, claim: Claim, outcome: Outcome, *, seconds: float = 0.0
    ) -> Record:
        now = self._clock()
        policy = outlet.settings.policy
        decision = decide(claim.standing, outcome, policy=policy, now=now, rng=self._rng)
        log.info(
            "delivery.attempted",
            event_id=claim.event.id,
            delivery_id=claim.delivery_id,
            attempt_id=claim.attempt_id,
            destination=claim.destination,
            outcome=outcome.result.value,
            detail=outcome.detail or None,
            state=decision.state.value,
            due_at=decision.due_at and decision.due_at.isoformat(),
            ms=round(seconds * 1000, 1),
        )
        return Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)

    def _have_recorded(self, pool: _Pool, record: Record) -> None:
        """Let the thread go: the record is written with others, and kept here until it is."""

        def then(error: BaseException | None) -> None:
            if isinstance(error, StoreUnavailable):
                self._unrecorded.append((pool, record))
                return
            if error is not None:
                # Its lease will run out.
                log.error("attempt.not_recorded", exc_info=error)
            pool.forget(record.claim)
            if not pool.has_more:
                self._wake.set()

        pool.keep(record.claim)
        try:
            self._queue.record_later(record, then)
        except StoreUnavailable as error:
            then(error)

    def _record_again(self) -> None:
        """Try to write what could not be recorded while the store was away."""
        for _ in range(len(self._unrecorded)):
            self._have_recorded(*self._unrecorded.popleft())

    def _until_stopped(self, act: Callable[[], None]) -> None:
        """Do it, again and again while the store is away: what happened must not be forgotten."""
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                if self._stop.wait(self._pace.store_away):
                    return None

    def _beat(self) -> None:
        while not self._stop.wait(self._pace.heartbeat):
            try:
                self._renew()
                self._reap()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))

    def _renew(self) -> None:
        held = [claim.delivery_id for claim in self._running()]
        if held:
            self._queue.renew(held, lease=LEASE, now=self._clock())

    def _running(self) -> Sequence[Claim]:
        """Return the claims at work, those apart that overran their deadline."""
        return [claim for pool in self._pools.values() for claim in pool.running()]

    def _reap(self) -> None:
        """Settle the claims that somebody lost."""
        now, moment = self._clock(), time.monotonic()
        patience = timedelta(seconds=self._pace.patience)
        found = {
            (claim.attempt_id, claim.lease_until): claim
            for claim in self._queue.lost(now + patience)
        }
        self._suspects = {lease: self._suspects.get(lease, moment) for lease in found}
        lost = [
            claim
            for lease, claim in found.items()
            if claim.lease_until < now and moment - self._suspects[lease] >= self._pace.patience
        ]
        self._settle_lost(lost, "the worker was lost (lease ran out)")

    def _take_back(self) -> None:
        """Settle the claims that this node held when it was killed."""
        now = self._clock()
        self._queue.hasten(now)
        claims = self._queue.abandoned(now)
        self._settle_lost(claims, "the worker was killed in the middle of it")

    def _settle_lost(self, claims: Sequence[Claim], detail: str) -> None:
        outcome = Outcome(result=Result.AMBIGUOUS, detail=detail, lost=True)
        for claim in claims:
            pool = self._pools.get(claim.destination)
            if pool is not None:
                record = self._decided(pool.outlet, claim, outcome)
                self._until_stopped(partial(self._queue.record, record))


def attempt(outlet: Outlet, claim: Claim) -> Outcome:
    """Call the connector once and say how that ended."""
    try:
        receipt = outlet.connector.deliver(
            claim.event,
            key=claim.key,
            thread=claim.thread,
            repeat=claim.standing.repeat,
            deadline=outlet.settings.deadline.total_seconds(),
        )
        return delivered(receipt)
    except DeliveryError as error:
        return outcome_of(error)
    except Exception as error:
        # A connector is other people's code: whatever it raises, we cannot know what it did.
        log.exception("connector.failed", event_id=claim.event.id, destination=claim.destination)
        return outcome_of(error)


@dataclass(slots=True)
class _Running:
    claim: Claim
    overdue_at: float


@dataclass
class _Pool:
    """The threads of one destination, and what they are at."""

    outlet: Outlet
    work: Callable[[Outlet, Claim], None]
    grace: float
    #: Set when there is a free thread again and something to do for it.
    wake: threading.Event
    #: What was claimed and is not recorded yet.
    _at_work: dict[str, _Running] = field(default_factory=dict)
    #: Threads in use; fewer than what is at work, because recording needs none.
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rest_until: float = 0.0
    #: The last claim took all that it could: there is probably more.
    has_more: bool = False

    def __post_init__(self) -> None:
        size = self.outlet.settings.concurrency or self.outlet.connector.default_concurrency
        self._size = size
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=self.outlet.name)

    @property
    def free(self) -> int:
        return self._size - self._busy

    @property
    def is_ready(self) -> bool:
        return self.free > 0 and time.monotonic() >= self._rest_until

    @property
    def resting(self) -> float:
        """Return for how many seconds it is still left alone."""
        return max(self._rest_until - time.monotonic(), 0.001)

    def rest(self, seconds: float) -> None:
        self._rest_until = time.monotonic() + seconds

    def start(self, claim: Claim) -> None:
        patience = self.outlet.settings.deadline.total_seconds() + self.grace
        self._at_work[claim.attempt_id] = _Running(claim, time.monotonic() + patience)
        with self._lock:
            self._busy += 1
        self._threads.submit(self._run, claim)

    def keep(self, claim: Claim) -> None:
        """Keep the lease of what is done until that is recorded, however late it is."""
        self._at_work[claim.attempt_id] = _Running(claim, float("inf"))

    def forget(self, claim: Claim) -> None:
        """Let the lease go: the attempt is recorded, or never will be."""
        self._at_work.pop(claim.attempt_id, None)

    def running(self) -> Sequence[Claim]:
        """Return the claims whose attempts are within their deadline."""
        now = time.monotonic()
        return [each.claim for each in list(self._at_work.values()) if each.overdue_at > now]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.outlet.connector.close()

    def _run(self, claim: Claim) -> None:
        try:
            self.work(self.outlet, claim)
        except Exception as error:
            log.error("attempt.not_recorded", exc_info=error)
            self.forget(claim)
        finally:
            with self._lock:
                was_full = self._busy == self._size
                self._busy -= 1
            if was_full and self.has_more:
                self.wake.set()
