"""What may a person do about a delivery or an event, and what becomes of it? Pure.

resend   one more series of attempts of one delivery
settle   a person knows how it ended: delivered, or dead
replay   one event through today's routes; adds what is missing
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from connectors.base import Event
from relay.rules.delivery import State

#: A word of four or more characters with a digit in it (an HTTP status is shorter), or a number
#: of attempts.
_PARTICULAR = re.compile(r"\b(?=\w*\d)[\w-]{4,}|(?<=\bafter )\d+(?= attempt)")


class ChangeKind(StrEnum):
    """What is to be done with a delivery."""

    #: Give it a new series of attempts.
    RENEW = "renew"
    #: Make the attempt that waits due now.
    HURRY = "hurry"
    #: Make another one under a key of its own: a second effect.
    COPY = "copy"
    #: Give it the end that a person says it had.
    END = "end"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDelivery:
    """A delivery as a person found it who wants something done about it."""

    id: str
    seq: int
    event_id: str
    message_id: str | None
    type: str
    customer: str | None
    received_at: datetime
    destination: str
    lane_id: str
    state: State
    late: bool
    due_at: datetime | None
    #: How often it was claimed: with the state, what a change insists on.
    claims: int
    reason: str | None
    attempts: int
    ended_at: datetime | None
    #: Its conversation waits for a person because of it.
    parks: bool
    #: The delivery that a person had made of it with --again.
    copy: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is to be done with one delivery, in words too; or why nothing is."""

    delivery: FoundDelivery
    kind: ChangeKind
    says: str
    #: The state that it gets.
    state: State = State.PENDING
    late: bool = False


def resend(delivery: FoundDelivery, *, again: bool, now: datetime) -> Change:
    """Say what a resend does to *delivery*; *again* allows a second effect."""
    match delivery.state:
        case State.DEAD:
            return _renewed(delivery, late=True)
        case State.HELD:
            return _renewed(delivery, late=delivery.late or not delivery.parks)
        case State.PENDING if delivery.due_at is not None and delivery.due_at > now:
            return Change(
                delivery=delivery, kind=ChangeKind.HURRY, says="due now", late=delivery.late
            )
        case State.PENDING:
            return _nothing(delivery, "due already: it goes as soon as its destination takes it")
        case State.IN_FLIGHT:
            return _nothing(delivery, "an attempt is running: wait for its end")
        case State.WAITING:
            return _nothing(delivery, "waits behind an earlier delivery of its conversation")
        case State.DELIVERED if not again:
            return _nothing(delivery, "delivered already; --again makes a second effect")
        case State.DELIVERED if delivery.copy:
            return _nothing(delivery, f"sent again before, as {delivery.copy}")
        case State.DELIVERED:
            says = "a second delivery under a new key, late"
            return Change(delivery=delivery, kind=ChangeKind.COPY, says=says, late=True)


def settle(delivery: FoundDelivery, *, end: Literal[State.DELIVERED, State.DEAD]) -> Change:
    """Say what it does to *delivery* if a person settles it as *end*."""
    if delivery.state is end:
        return _nothing(delivery, f"{end} already")
    match delivery.state:
        case State.HELD | State.PENDING:
            freed = "; its conversation goes on" if not delivery.late else ""
            says = f"settled as {end}{freed}"
            return Change(
                delivery=delivery, kind=ChangeKind.END, state=end, late=delivery.late, says=says
            )
        case State.DEAD:
            says = f"settled as {end}"
            return Change(
                delivery=delivery, kind=ChangeKind.END, state=end, late=delivery.late, says=says
            )
        case State.IN_FLIGHT:
            return _nothing(delivery, "an attempt is running: wait for its end")
        case State.WAITING:
            return _nothing(delivery, "waits behind an earlier delivery of its conversation")
        case State.DELIVERED:
            return _nothing(delivery, "delivered: what has arrived cannot be taken back")


def _renewed(delivery: FoundDelivery, *, late: bool) -> Change:
    place = "late: outside of the order" if late else "in its place: its conversation goes on"
    return Change(delivery=delivery, kind=ChangeKind.RENEW, late=late, says=f"sent again, {place}")


def _nothing(delivery: FoundDelivery, why: str) -> Change:
    return Change(
        delivery=delivery,
        kind=ChangeKind.NOTHING,
        state=delivery.state,
        late=delivery.late,
        says=why,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Latest:
    """The newest delivery of an event to a destination."""

    id: str
    state: State


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundEvent:
    """A stored event as a person found it who wants to replay it."""

    seq: int
    event: Event
    key: bytes
    standing: str
    #: Where its routes sent it when it came.
    then: Sequence[str]
    deliveries: Mapping[str, Latest]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayStep:
    """One destination in a replay: where it stood, and what is done."""

    destination: str
    #: Whether the routes of then, and those of today, name it.
    then: bool
    now: bool
    #: The newest delivery to it; the replay insists that there is no newer one.
    latest: Latest | None
    adds: bool
    says: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What a replay does with one event."""

    found: FoundEvent
    steps: Sequence[ReplayStep]
    #: Why nothing can be done with this event at all.
    refused: str | None = None

    @property
    def adds(self) -> int:
        """Return how many deliveries it makes."""
        return sum(step.adds for step in self.steps)


def replay(
    found: FoundEvent, now: Sequence[str], *, only: Collection[str] = (), again: bool = False
) -> Replay:
    """Compare where *found* went with *now*, the destinations that today's routes name.

    Destinations that are missing are added; *again* adds to those that were delivered to as well;
    *only* leaves all others out.
    """
    if found.standing == "conflict":
        refused = "it contradicts another event under its messageId, and is never delivered"
        return Replay(found=found, steps=(), refused=refused)
    if found.standing == "stale" and not again:
        refused = "stale: it may have been delivered long ago; --again delivers it all the same"
        return Replay(found=found, steps=(), refused=refused)
    names = dict.fromkeys([*now, *found.deliveries, *found.then])
    steps = [
        _step(name, found, now=name in now, again=again)
        for name in names
        if not only or name in only
    ]
    return Replay(found=found, steps=steps)


def _step(name: str, found: FoundEvent, *, now: bool, again: bool) -> ReplayStep:
    latest = found.deliveries.get(name)
    adds, says = _added(latest, again=again) if now else (False, "not routed there today")
    return ReplayStep(
        destination=name, then=name in found.then, now=now, latest=latest, adds=adds, says=says
    )


def _added(latest: Latest | None, *, again: bool) -> tuple[bool, str]:
    """Return whether a delivery is made, and why (not)."""
    if latest is None:
        return True, "missing: added, late"
    match latest.state:
        case State.DELIVERED if again:
            return True, "a second delivery under a new key, late"
        case State.DELIVERED:
            return False, "delivered already; --again makes a second effect"
        case State.DEAD | State.HELD:
            return False, f"{latest.state}: resend or settle {latest.id}"
        case State.WAITING | State.PENDING | State.IN_FLIGHT:
            return False, "on its way"


def kind_of_reason(reason: str | None) -> str:
    """Return what *reason* has in common with others: ids and numbers become ``*``."""
    return _PARTICULAR.sub("*", reason or "")
