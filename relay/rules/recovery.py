"""What may a person do about a delivery or an event, and with what effect? Pure.

resend   start one more series of attempts of one delivery
settle   say how a delivery ended: delivered, or dead
replay   send one event through today's routes, which adds missing deliveries
undo     take one of these back, where nothing was sent and nothing else changed since
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from connectors.base import Event
from relay.rules.delivery import State

#: A word of four or more characters with a digit (an HTTP status is shorter), or a number of
#: attempts.
_PARTICULAR = re.compile(r"\b(?=\w*\d)[\w-]{4,}|(?<=\bafter )\d+(?= attempt)")


class ChangeKind(StrEnum):
    """What a command changes about a delivery."""

    #: Give it a new series of attempts.
    RENEW = "renew"
    #: Make the waiting attempt due now.
    HURRY = "hurry"
    #: Add another delivery under its own key: a second effect.
    COPY = "copy"
    #: End it as a person says it ended.
    END = "end"
    #: Give it back the state that it had before a person's change.
    RESTORE = "restore"
    #: Remove it: a person added it.
    REMOVE = "remove"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDelivery:
    """A delivery as a person found it before changing it."""

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
    #: How often it was claimed. A change requires that this and the state are unchanged.
    claims: int
    reason: str | None
    attempts: int
    ended_at: datetime | None
    #: It stops its conversation until a person decides.
    parks: bool
    #: The delivery that a person made from it with --again.
    copy: str | None
    trigger: str = "scheduled"
    failing_since: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a command does to one delivery, or why it does nothing."""

    delivery: FoundDelivery
    kind: ChangeKind
    says: str
    #: Its new state.
    state: State = State.PENDING
    late: bool = False
    #: What an undo restores.
    before: Before | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """A delivery before a person's change; kept with the action, so that it can be undone."""

    #: What was done, and to which delivery; COPY: which one was added.
    kind: ChangeKind
    delivery_id: str
    #: The state in which the change left it; a renewed one may also wait behind other late ones.
    left: State
    claims: int = 0
    state: State = State.PENDING
    late: bool = False
    due_at: datetime | None = None
    attempts: int = 0
    failing_since: datetime | None = None
    trigger: str = "scheduled"
    reason: str | None = None
    ended_at: datetime | None = None
    parks: bool = False

    @classmethod
    def of(cls, change: Change) -> Before:
        """Return what *change* changes."""
        kept = {name: getattr(change.delivery, name) for name in _KEPT}
        return cls(kind=change.kind, delivery_id=change.delivery.id, left=change.state, **kept)

    @classmethod
    def added(cls, delivery_id: str) -> Before:
        """Return that there was no delivery."""
        return cls(kind=ChangeKind.COPY, delivery_id=delivery_id, left=State.PENDING)

    @classmethod
    def from_json(cls, text: str) -> Before:
        values = json.loads(text)
        for name in ("due_at", "failing_since", "ended_at"):
            values[name] = values[name] and datetime.fromisoformat(values[name])
        kinds = {"kind": ChangeKind(values["kind"])}
        states = {name: State(values[name]) for name in ("left", "state")}
        return cls(**values | kinds | states)

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


_KEPT = (
    "claims", "state", "late", "due_at", "attempts", "failing_since", "trigger", "reason",
    "ended_at", "parks",
)  # fmt: skip


def undo(delivery: FoundDelivery, before: Before) -> Change:
    """Decide whether *delivery* becomes again what it was *before*."""
    if delivery.claims != before.claims:
        return _nothing(delivery, "tried since: what was sent cannot be taken back")
    left = (before.left, State.WAITING) if before.left is State.PENDING else (before.left,)
    if delivery.state not in left:
        return _nothing(delivery, "changed since")
    if before.kind is ChangeKind.COPY:
        return Change(delivery=delivery, kind=ChangeKind.REMOVE, says="removed: it was not sent")
    return Change(
        delivery=delivery,
        kind=ChangeKind.RESTORE,
        state=before.state,
        late=before.late,
        says=f"{before.state} again",
        before=before,
    )


def resend(delivery: FoundDelivery, *, again: bool, now: datetime) -> Change:
    """Decide what a resend does to *delivery*; *again* allows a second effect."""
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
    """Decide what settling as *end* does to *delivery*."""
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
    place = "late: outside the order" if late else "in its place: its conversation goes on"
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
    """A stored event as a person found it before replaying it."""

    seq: int
    event: Event
    key: bytes
    standing: str
    #: The destinations of its routes when it came.
    then: Sequence[str]
    deliveries: Mapping[str, Latest]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayStep:
    """One destination in a replay: its state, and what the replay adds."""

    destination: str
    #: Whether the routes named it when the event came, and name it now.
    then: bool
    now: bool
    #: The newest delivery to it; the replay requires that there is no newer one.
    latest: Latest | None
    adds: bool
    says: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What a replay does to one event."""

    found: FoundEvent
    steps: Sequence[ReplayStep]
    #: Why the event cannot be replayed at all.
    refused: str | None = None

    @property
    def adds(self) -> int:
        """Return how many deliveries it adds."""
        return sum(step.adds for step in self.steps)


def replay(
    found: FoundEvent, now: Sequence[str], *, only: Collection[str] = (), again: bool = False
) -> Replay:
    """Compare where *found* went with *now*, the destinations of today's routes.

    Missing destinations are added. *again* also adds those that were delivered to; *only* names
    the destinations to consider.
    """
    if found.standing == "conflict":
        refused = "it contradicts another event with its messageId, and is never delivered"
        return Replay(found=found, steps=(), refused=refused)
    if found.standing == "stale" and not again:
        refused = "stale: it may have been delivered long ago; --again delivers it anyway"
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
    """Return whether a delivery is added, and why or why not."""
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
    """Return *reason* with ``*`` for ids and numbers, so that like reasons are equal."""
    return _PARTICULAR.sub("*", reason or "")
