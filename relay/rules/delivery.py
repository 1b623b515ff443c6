"""What happens to a delivery after an attempt? Every rule about retries is here, and pure.

    waiting ──► pending ──► in_flight ──► delivered
                  ▲             │    ├──► dead
                  └── backoff ──┘    └──► held      (a person settles it)

A ``waiting`` delivery is behind an earlier one of its conversation, a ``pending`` one is due at a
time, and an ``in_flight`` one is claimed under a lease.
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
    ContractError,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
    checked_error,
    checked_receipt,
)
from relay.rules.payload import clean

#: Waits between attempts; the last one repeats. Close to what large webhook senders use.
DEFAULT_SCHEDULE = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800))
#: Attempts continue for this long after the first failure.
DEFAULT_WINDOW = timedelta(days=3)
#: A Retry-After is honoured within these bounds.
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(hours=24)
#: After this time a system that may still be acting has acted or has given up.
CERTAIN_AFTER = timedelta(minutes=1)
#: The wait when a destination throttles without saying for how long.
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
    """How an attempt ended: delivered, or what the connector raised."""

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    AMBIGUOUS = "ambiguous"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"


_KINDS = {
    Throttled: OutcomeKind.THROTTLED,
    Transient: OutcomeKind.TRANSIENT,
    Refused: OutcomeKind.REFUSED,
    Unauthorized: OutcomeKind.UNAUTHORIZED,
    Ambiguous: OutcomeKind.AMBIGUOUS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one attempt ended."""

    kind: OutcomeKind
    #: The reason, in words for people; empty if there is none.
    detail: str = ""
    #: HTTP status of the answer, if there was one.
    status: int | None = None
    #: The wait that the destination asked for.
    retry_after: timedelta | None = None
    scope: Literal["conversation", "destination"] = "destination"
    receipt: Receipt | None = None
    #: The worker was lost before the end, which says nothing about the destination.
    lost: bool = False
    #: Whether the connector was called at all.
    begun: bool = True
    #: The connector did a part of it before it failed.
    acted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a destination treats failed attempts."""

    schedule: Sequence[timedelta] = DEFAULT_SCHEDULE
    window: timedelta = DEFAULT_WINDOW
    on_ambiguous: Literal["retry", "hold"] = "retry"
    on_dead: Literal["skip", "hold"] = "skip"

    def backoff(self, failures: int, rng: Random, *, doubtful: bool = False) -> timedelta:
        """Return the wait after the *failures*-th failure: full jitter below the schedule.

        After a *doubtful* failure the wait is at least half of that: the system may still be
        acting, and a look-up before it has acted would find nothing.
        """
        cap = self.schedule[min(failures, len(self.schedule)) - 1]
        least = cap / 2 if doubtful else timedelta()
        return least + (cap - least) * rng.random()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tries:
    """What is known about a delivery when an attempt at it ends."""

    #: Attempts that counted, including this one.
    attempts: int
    #: An earlier attempt may have acted.
    repeat: bool
    #: When the first attempt of this series failed; None if none has.
    failing_since: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the store must write after an attempt."""

    state: State
    #: When the next attempt is due; None if there is to be none.
    due_at: datetime | None = None
    #: From when on it need not wait for that if its destination answers again. Later than now if
    #: the destination asked for a wait or may still be acting; None if the whole wait stays.
    hurry_from: datetime | None = None
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


def delivered(receipt: object) -> Outcome:
    """Return the outcome of a successful attempt, its receipt cleaned for the store.

    Raises ContractError if it is not a receipt.
    """
    receipt = checked_receipt(receipt)
    kept = Receipt(
        reference=clean(receipt.reference),
        url=receipt.url and clean(receipt.url),
        thread=receipt.thread and clean(receipt.thread),
    )
    return Outcome(kind=OutcomeKind.DELIVERED, receipt=kept)


def outcome_of(error: DeliveryError) -> Outcome:
    """Translate what a connector raised. Raises ContractError if that breaks the contract."""
    error = checked_error(error)
    kind = next((kind for class_, kind in _KINDS.items() if isinstance(error, class_)), None)
    if kind is None:
        raise ContractError(f"raised {type(error).__name__}, which does not say what happened")
    return Outcome(
        kind=kind,
        # Other systems' words may hold characters that no database takes.
        detail=clean(str(error)) or type(error).__name__,
        status=error.status,
        retry_after=error.retry_after,
        scope=error.scope if isinstance(error, Throttled) else "destination",
        acted=bool(error.acted),
    )


def bug(error: BaseException, *, where: str) -> Outcome:
    """Return the outcome of an attempt in which the connector broke the contract, at *where*."""
    # The text of other errors was not written for people, and may hold a secret.
    said = str(error) if isinstance(error, ContractError) else type(error).__name__
    detail = clean(f"bug in the connector ({where}): {said}")
    return Outcome(kind=OutcomeKind.AMBIGUOUS, detail=detail)


def decide(
    tries: Tries, outcome: Outcome, *, policy: Policy, now: datetime, rng: Random
) -> Decision:
    """Decide what happens to a delivery whose attempt ended in *outcome* at *now*."""
    if not outcome.begun:
        return _unharmed(tries, due_at=now)
    if outcome.acted or outcome.kind is OutcomeKind.AMBIGUOUS:
        # Even after the last attempt: a person may resend it.
        tries = replace(tries, repeat=True)
    match outcome.kind:
        case OutcomeKind.DELIVERED:
            return _end(State.DELIVERED, tries)
        case OutcomeKind.REFUSED:
            return _dead(tries, policy, f"refused: {outcome.detail}")
        case OutcomeKind.THROTTLED:
            return _wait(tries, outcome, now=now)
        case OutcomeKind.UNAUTHORIZED:
            return _unharmed(tries, due_at=now)
        case OutcomeKind.AMBIGUOUS if policy.on_ambiguous == "hold":
            reason = f"ambiguous: {outcome.detail}"
            return _end(State.HELD, tries, reason=reason)
    return _retry(tries, outcome, policy=policy, now=now, rng=rng)


def _retry(
    tries: Tries, outcome: Outcome, *, policy: Policy, now: datetime, rng: Random
) -> Decision:
    since = tries.failing_since or now
    if now - since >= policy.window:
        reason = f"exhausted after {tries.attempts} attempts: {outcome.detail}"
        return _dead(tries, policy, reason)
    doubtful = outcome.kind is OutcomeKind.AMBIGUOUS
    wait = policy.backoff(tries.attempts, rng, doubtful=doubtful)
    least = asked_for(outcome) if outcome.retry_after else timedelta()
    wait = max(wait, least)
    if doubtful:
        least = max(least, min(wait, CERTAIN_AFTER))
    return Decision(
        state=State.PENDING,
        due_at=now + wait,
        hurry_from=now + least if least < wait else None,
        attempts=tries.attempts,
        repeat=tries.repeat,
        failing_since=since,
    )


def _wait(tries: Tries, outcome: Outcome, *, now: datetime) -> Decision:
    return _unharmed(tries, due_at=now + asked_for(outcome))


def asked_for(outcome: Outcome) -> timedelta:
    """Return the wait that a destination asked for, within bounds."""
    return min(max(outcome.retry_after or DEFAULT_WAIT, SHORTEST_WAIT), LONGEST_WAIT)


def _unharmed(tries: Tries, *, due_at: datetime) -> Decision:
    return Decision(
        state=State.PENDING,
        due_at=due_at,
        attempts=tries.attempts - 1,
        repeat=tries.repeat,
        failing_since=tries.failing_since,
    )


def _dead(tries: Tries, policy: Policy, reason: str) -> Decision:
    if policy.on_dead == "hold":
        return replace(_end(State.HELD, tries, reason=reason), parks=True)
    return _end(State.DEAD, tries, reason=reason)


def _end(state: State, tries: Tries, *, reason: str = "") -> Decision:
    return Decision(state=state, attempts=tries.attempts, repeat=tries.repeat, reason=reason)
