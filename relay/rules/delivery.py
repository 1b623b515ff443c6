"""What becomes of a delivery after an attempt? Every rule about retries is here, and pure.

    waiting ──► pending ──► in_flight ──► delivered
                  ▲             │    ├──► dead
                  └── backoff ──┘    └──► held      (a person settles it)

``waiting`` is behind an earlier delivery of its conversation; ``pending`` is due at a time;
``in_flight`` is claimed under a lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Literal

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from relay.rules.payload import clean

#: Waits between attempts, the last one repeated; close to what large senders of webhooks use.
DEFAULT_SCHEDULE = tuple(
    timedelta(seconds=s) for s in (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)
)
#: How long attempts go on after the first failure.
DEFAULT_WINDOW = timedelta(days=3)
#: How often a paused destination is tried with one delivery.
PROBE_EVERY = timedelta(minutes=5)
#: So many attempts in a row that fail mean that the destination is down, not the deliveries.
BREAKS_AFTER = 10
#: How long it is then left alone: at first, and at most, doubled in between.
SHORTEST_BREAK, LONGEST_BREAK = timedelta(seconds=15), timedelta(minutes=5)
#: A probe that was not heard of for so long is lost.
LONGEST_PROBE = timedelta(minutes=1)
#: A Retry-After is believed within these bounds.
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(hours=24)
#: The wait when a destination throttles and does not say for how long.
DEFAULT_WAIT = timedelta(seconds=10)


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"


class OutcomeKind(StrEnum):
    """What an attempt came to: delivered, or what the connector raised."""

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    AMBIGUOUS = "ambiguous"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one attempt ended."""

    result: OutcomeKind
    #: Words for people: the reason, or nothing.
    detail: str = ""
    #: HTTP status of the answer, if there was one.
    status: int | None = None
    #: What a throttling destination asked for.
    retry_after: timedelta | None = None
    scope: Literal["conversation", "destination"] = "destination"
    receipt: Receipt | None = None
    #: Nobody saw the end: the worker was lost, which says nothing about the destination.
    lost: bool = False
    #: Whether the connector was called at all.
    begun: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What a destination says about failed attempts."""

    schedule: Sequence[timedelta] = DEFAULT_SCHEDULE
    window: timedelta = DEFAULT_WINDOW
    on_ambiguous: Literal["retry", "hold"] = "retry"
    on_dead: Literal["skip", "hold"] = "skip"

    def backoff(self, failures: int, rng: Random, *, doubtful: bool = False) -> timedelta:
        """Return the wait after the *failures*-th failure: full jitter below the schedule.

        After a *doubtful* one it is at least half of that: a system may still be at what it was
        asked for, and who looks before it has acted finds nothing.
        """
        cap = self.schedule[min(failures, len(self.schedule)) - 1]
        least = cap / 2 if doubtful else timedelta()
        return least + (cap - least) * rng.random()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tries:
    """What is known of a delivery when an attempt at it ends."""

    #: Attempts that counted, this one included.
    attempts: int
    #: An earlier attempt may have acted.
    repeat: bool
    #: When the first attempt of this series failed; None if none has.
    failing_since: datetime | None


#: Why a destination is not being served.
Cause = Literal["operator", "unauthorized", "throttled", "failing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """The whole destination has to wait."""

    cause: Cause
    reason: str
    since: datetime
    #: When to try with one delivery; None: when a person says so.
    until: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """How a destination does, as all workers know it."""

    #: Attempts that failed one after the other, with no success in between.
    failures: int = 0
    pause: Pause | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the store has to write after an attempt."""

    state: State
    #: When the next attempt is due; None if there is none.
    due_at: datetime | None = None
    #: Attempts that count so far.
    attempts: int
    repeat: bool
    failing_since: datetime | None = None
    #: Why it is dead or held.
    reason: str = ""
    #: Its conversation waits until a person has settled it.
    parks: bool = False

    @property
    def ends(self) -> bool:
        """Return whether this series of attempts is over."""
        return self.state in (State.DELIVERED, State.DEAD, State.HELD)


def delivered(receipt: Receipt) -> Outcome:
    """Return the outcome of an attempt that arrived, with what can be stored of its receipt."""
    kept = replace(
        receipt,
        reference=clean(receipt.reference),
        url=receipt.url and clean(receipt.url),
        thread=receipt.thread and clean(receipt.thread),
    )
    return Outcome(result=OutcomeKind.DELIVERED, receipt=kept)


def outcome_of(error: BaseException) -> Outcome:
    """Translate what a connector raised; what is not in the contract counts as ambiguous."""
    name = type(error).__name__
    if not isinstance(error, DeliveryError):
        # Its text is not written for people, and may hold what must not be shown.
        return Outcome(result=OutcomeKind.AMBIGUOUS, detail=f"bug in the connector: {name}")
    # Words from other systems: what cannot be stored must not keep the outcome from being stored.
    detail, status = clean(str(error)) or name, error.status
    match error:
        case Throttled():
            return Outcome(
                result=OutcomeKind.THROTTLED,
                detail=detail,
                status=status,
                retry_after=error.retry_after,
                scope=error.scope,
            )
        case Transient():
            result = OutcomeKind.TRANSIENT
        case Refused():
            result = OutcomeKind.REFUSED
        case Unauthorized():
            result = OutcomeKind.UNAUTHORIZED
        case Ambiguous():
            result = OutcomeKind.AMBIGUOUS
        case _:
            return Outcome(result=OutcomeKind.AMBIGUOUS, detail=f"bug in the connector: {name}")
    return Outcome(result=result, detail=detail, status=status)


def decide(
    standing: Tries, outcome: Outcome, *, policy: Policy, now: datetime, rng: Random
) -> Decision:
    """Say what becomes of a delivery whose attempt ended in *outcome* at *now*."""
    if outcome.result is OutcomeKind.AMBIGUOUS:
        # Also if this was the last attempt: a person may resend it.
        standing = replace(standing, repeat=True)
    match outcome.result:
        case OutcomeKind.DELIVERED:
            return _end(State.DELIVERED, standing)
        case OutcomeKind.REFUSED:
            return _dead(standing, policy, f"refused: {outcome.detail}")
        case OutcomeKind.THROTTLED:
            return _wait(standing, outcome, now=now)
        case OutcomeKind.UNAUTHORIZED:
            return _unharmed(standing, due_at=now)
        case OutcomeKind.AMBIGUOUS if policy.on_ambiguous == "hold":
            reason = f"ambiguous: {outcome.detail}"
            return _end(State.HELD, standing, reason=reason)
    return _retry(standing, outcome, policy=policy, now=now, rng=rng)


def given_back(standing: Tries, *, now: datetime) -> Decision:
    """Say what becomes of a delivery that was claimed, and whose attempt was not begun."""
    return _unharmed(standing, due_at=now)


def _retry(
    standing: Tries, outcome: Outcome, *, policy: Policy, now: datetime, rng: Random
) -> Decision:
    since = standing.failing_since or now
    if now - since >= policy.window:
        reason = f"exhausted after {standing.attempts} attempts: {outcome.detail}"
        return _dead(standing, policy, reason)
    doubtful = outcome.result is OutcomeKind.AMBIGUOUS
    return Decision(
        state=State.PENDING,
        due_at=now + policy.backoff(standing.attempts, rng, doubtful=doubtful),
        attempts=standing.attempts,
        repeat=standing.repeat,
        failing_since=since,
    )


def _wait(standing: Tries, outcome: Outcome, *, now: datetime) -> Decision:
    return _unharmed(standing, due_at=now + _asked_for(outcome))


def _asked_for(outcome: Outcome) -> timedelta:
    """Return how long a throttling destination wants to be left alone, within reason."""
    return min(max(outcome.retry_after or DEFAULT_WAIT, SHORTEST_WAIT), LONGEST_WAIT)


def _unharmed(standing: Tries, *, due_at: datetime) -> Decision:
    return Decision(
        state=State.PENDING,
        due_at=due_at,
        attempts=standing.attempts - 1,
        repeat=standing.repeat,
        failing_since=standing.failing_since,
    )


def _dead(standing: Tries, policy: Policy, reason: str) -> Decision:
    if policy.on_dead == "hold":
        return replace(_end(State.HELD, standing, reason=reason), parks=True)
    return _end(State.DEAD, standing, reason=reason)


def _end(state: State, standing: Tries, *, reason: str = "") -> Decision:
    return Decision(state=state, attempts=standing.attempts, repeat=standing.repeat, reason=reason)


def health_after(
    health: Health, outcome: Outcome, *, claimed_at: datetime, now: datetime
) -> Health:
    """Say how the destination does after an attempt, claimed at *claimed_at*, that ended *now*."""
    pause = health.pause
    if outcome.lost or not outcome.begun or (pause is not None and pause.cause == "operator"):
        return health
    # What was begun before the pause says nothing about what is behind it.
    is_earlier = pause is not None and claimed_at < pause.since
    match outcome.result:
        case OutcomeKind.DELIVERED | OutcomeKind.REFUSED:
            outlasts = pause is not None and (pause.cause == "throttled" or is_earlier)
            return Health(pause=pause if outlasts else None)
        case OutcomeKind.UNAUTHORIZED:
            return _paused(health, "unauthorized", outcome, now=now, wait=PROBE_EVERY)
        case OutcomeKind.THROTTLED:
            if outcome.scope == "conversation":
                return health
            if pause is not None and pause.cause == "unauthorized" and is_earlier:
                return health
            wait = _asked_for(outcome)
            if pause is not None and pause.cause == "throttled" and is_earlier and pause.until:
                wait = max(wait, pause.until - now)
            return _paused(health, "throttled", outcome, now=now, wait=wait)
    if is_earlier:
        return health
    failing = replace(health, failures=health.failures + 1)
    if failing.failures < BREAKS_AFTER:
        return failing
    if pause is not None and pause.cause == "unauthorized":
        return failing
    wait = _break_of(failing.failures)
    return _paused(failing, "failing", outcome, now=now, wait=wait)


def granted(health: Health, *, now: datetime) -> tuple[int | None, Health]:
    """Return how many deliveries may start *now* (None: any number), and the health after that.

    When a pause is over, one delivery is tried; if it is never heard of, another one later.
    """
    pause = health.pause
    if pause is None:
        return None, health
    if pause.until is None or pause.until > now:
        return 0, health
    if pause.cause == "throttled":
        return None, replace(health, pause=None)
    wait = PROBE_EVERY if pause.cause == "unauthorized" else LONGEST_PROBE
    return 1, replace(health, pause=replace(pause, until=now + wait))


def _break_of(failures: int) -> timedelta:
    """Return how long a destination is left alone that failed so often."""
    doublings = min(failures - BREAKS_AFTER, 10)
    return min(SHORTEST_BREAK * (1 << doublings), LONGEST_BREAK)


def _paused(
    health: Health, cause: Cause, outcome: Outcome, *, now: datetime, wait: timedelta
) -> Health:
    since = now
    if health.pause is not None and health.pause.cause == cause:
        since = health.pause.since
    pause = Pause(cause=cause, reason=outcome.detail, since=since, until=now + wait)
    return replace(health, pause=pause)
