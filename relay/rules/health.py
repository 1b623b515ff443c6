"""May a destination be served now? Pauses, probes, breaks and returns, from its attempts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from relay.rules.delivery import Outcome, OutcomeKind, asked_for

#: How often a paused destination is tried with one delivery.
PROBE_EVERY = timedelta(minutes=5)
#: After this many failures in a row the destination is down, not the deliveries.
BREAKS_AFTER = 10
#: The first break and the longest; each one doubles the one before.
SHORTEST_BREAK, LONGEST_BREAK = timedelta(seconds=15), timedelta(minutes=5)
#: A probe that has not ended after this time is lost.
LONGEST_PROBE = timedelta(minutes=1)

#: After this many failures in a row an answer means that the destination is back. The waits after
#: fewer are short, and may be due to a delivery that fails while others would not.
BACK_AFTER = 3
#: After this many answers a destination that is back gets all that it can: five rounds.
ANSWERS_TO_TRUST = 31

#: Why a destination is paused.
Cause = Literal["operator", "unauthorized", "throttled", "failing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Deliveries to the whole destination wait."""

    cause: Cause
    reason: str
    since: datetime
    #: When to try one delivery; None: when a person resumes it.
    until: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """How a destination that is back is given more: the deliveries under way double each round."""

    #: How many deliveries may start now. What ends gives its place back, an answer gives two.
    room: int = 1
    #: Answers since it came back, or since it last failed.
    answers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The condition of a destination, shared by all workers."""

    #: Failed attempts since the last success.
    failures: int = 0
    pause: Pause | None = None
    ramp: Ramp | None = None
    #: The destination came back then: waits that began earlier are over.
    back_at: datetime | None = None


def health_after(
    health: Health, outcome: Outcome, *, claimed_at: datetime, now: datetime
) -> Health:
    """Return the health after an attempt that was claimed at *claimed_at* and ended *now*."""
    pause = health.pause
    if pause is not None and pause.cause == "operator":
        return health
    if outcome.lost or not outcome.begun:
        return _with_room(health)
    # An attempt that began before the pause says nothing about the pause.
    is_earlier = pause is not None and claimed_at < pause.since
    match outcome.kind:
        case OutcomeKind.DELIVERED | OutcomeKind.REFUSED:
            return _answered(health, is_earlier=is_earlier, now=now)
        case OutcomeKind.UNAUTHORIZED:
            return _paused(health, "unauthorized", outcome, now=now, wait=PROBE_EVERY)
        case OutcomeKind.THROTTLED:
            if outcome.scope == "conversation":
                return _with_room(health)
            return _throttled(_slower(health), outcome, is_earlier=is_earlier, now=now)
    failing = health if is_earlier else _slower(replace(health, failures=health.failures + 1))
    if pause is not None and pause.cause == "unauthorized":
        return failing
    if failing.failures < BREAKS_AFTER:
        if not outcome.retry_after:
            return failing
        # A 503 that says how long it lasts: nobody is served meanwhile, as after a 429.
        return _throttled(failing, outcome, is_earlier=is_earlier, now=now)
    if is_earlier:
        return health
    wait = _break_of(failing.failures)
    if outcome.retry_after:
        wait = max(wait, asked_for(outcome))
    return _paused(failing, "failing", outcome, now=now, wait=wait)


def granted(health: Health, *, now: datetime) -> tuple[int | None, Health]:
    """Return how many deliveries may start *now* (None: any number), and the health afterwards.

    When a pause is over, one delivery is tried; if it is lost, another one follows later.
    """
    pause = health.pause
    if pause is None:
        return _room(health), health
    if pause.until is None or pause.until > now:
        return 0, health
    if pause.cause in ("operator", "throttled"):
        served = back(now) if pause.cause == "operator" else replace(health, pause=None)
        return _room(served), served
    wait = PROBE_EVERY if pause.cause == "unauthorized" else LONGEST_PROBE
    return 1, replace(health, pause=replace(pause, until=now + wait))


def back(at: datetime) -> Health:
    """Return the health of a destination that a person has served again since *at*."""
    return Health(ramp=Ramp(), back_at=at)


def after_start(health: Health, number: int) -> Health:
    """Return the health after *number* granted deliveries were started."""
    return _with_room(health, -number)


def _answered(health: Health, *, is_earlier: bool, now: datetime) -> Health:
    pause, is_back = health.pause, health.failures >= BACK_AFTER
    if pause is not None and (pause.cause == "throttled" or is_earlier):
        is_back = is_back and not is_earlier
    elif pause is not None:
        pause, is_back = None, True
    if is_back:
        return Health(pause=pause, ramp=Ramp(room=2, answers=1), back_at=now)
    return Health(pause=pause, ramp=_faster(health.ramp), back_at=health.back_at)


def _faster(ramp: Ramp | None) -> Ramp | None:
    if ramp is None or ramp.answers + 1 >= ANSWERS_TO_TRUST:
        return None
    return Ramp(room=ramp.room + 2, answers=ramp.answers + 1)


def _slower(health: Health) -> Health:
    """Let a ramp begin again."""
    return replace(health, ramp=health.ramp and Ramp())


def _room(health: Health) -> int | None:
    return health.ramp.room if health.ramp else None


def _with_room(health: Health, more: int = 1) -> Health:
    ramp = health.ramp
    return replace(health, ramp=ramp and replace(ramp, room=max(ramp.room + more, 0)))


def _throttled(health: Health, outcome: Outcome, *, is_earlier: bool, now: datetime) -> Health:
    pause = health.pause
    if pause is not None and pause.cause == "unauthorized" and is_earlier:
        return health
    wait = asked_for(outcome)
    if pause is not None and pause.cause == "throttled" and is_earlier and pause.until:
        wait = max(wait, pause.until - now)
    return _paused(health, "throttled", outcome, now=now, wait=wait)


def _break_of(failures: int) -> timedelta:
    """Return how long a destination rests after so many failures."""
    doublings = min(failures - BREAKS_AFTER, 10)
    return min(SHORTEST_BREAK * (1 << doublings), LONGEST_BREAK)


def _paused(
    health: Health, cause: Cause, outcome: Outcome, *, now: datetime, wait: timedelta
) -> Health:
    since = now
    if health.pause is not None and health.pause.cause == cause:
        since = health.pause.since
    pause = Pause(cause=cause, reason=outcome.detail, since=since, until=now + wait)
    if cause == "throttled":
        return replace(health, pause=pause)
    return Health(failures=health.failures, pause=pause)
