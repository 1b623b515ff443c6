"""The values that go into the store and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from connectors.base import Event
from relay.rules.delivery import Decision, Outcome, State, Tries
from relay.rules.payload import Format
from relay.rules.routing import Match

#: What an accepted request turned out to be.
Status = Literal["accepted", "duplicate", "conflict", "stale"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One call to an endpoint, as the request log keeps it."""

    id: str
    at: datetime
    endpoint: str
    method: str
    remote: str | None
    status: int
    #: accepted, duplicate, conflict, stale or refused.
    outcome: str
    #: What the signature check or the refusal came down to.
    reason: str
    #: Names and values, credentials removed.
    headers: Mapping[str, str]
    event_id: str | None = None
    message_id: str | None = None
    #: The beginning of a refused body.
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A genuine request with everything that one commit has to write."""

    event: Event
    request: Request
    raw: bytes
    query: str
    format: Format
    #: What a resend of this event is known by, 32 bytes.
    key: bytes
    #: What a duplicate must have in common with the event, the text apart.
    meaning: bytes
    match: Match
    #: What the event is if its key is new; what is stale is stored, and not delivered.
    standing: Literal["accepted", "conflict", "stale"] = "accepted"
    on_duplicate: Literal["revive", "ignore"] = "revive"


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """What the store made of an arrival; it is on disk when the caller has this."""

    status: Status
    #: The event that the arrival is, or is a duplicate of.
    event_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A delivery taken under a lease, with what the connector has to be given."""

    delivery_id: str
    attempt_id: str
    destination: str
    lane_id: str
    #: Which claim of this delivery it is: the fence of its record.
    number: int
    key: str
    thread: str | None
    event: Event
    standing: Tries
    claimed_at: datetime
    #: When the lease ends that this claim was seen with.
    lease_until: datetime
    #: Whether the relay or a person asked for this series of attempts.
    trigger: str = "scheduled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What a rate is counted for: the destinations that name one connection of their vendor's."""

    name: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """How an attempt ended and what follows from it."""

    claim: Claim
    outcome: Outcome
    decision: Decision
    ended_at: datetime

    @property
    def lost(self) -> bool:
        """Return whether this settles the claim of a worker that nobody hears of any more."""
        return self.outcome.lost


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryView:
    """A delivery as people see it."""

    id: str
    destination: str
    state: State
    attempts: int
    reference: str | None
    url: str | None
    #: Why the last attempt failed, or why it is dead or held.
    error: str | None
    due_at: datetime | None
    late: bool
    #: Who asked for this series of attempts: the relay (``scheduled``) or a person (``manual``).
    trigger: str = "scheduled"
    #: Since when attempts of this series fail.
    failing_since: datetime | None = None
    #: Who is at work on it, and until when that is believed.
    node: str | None = None
    lease_until: datetime | None = None
    ended_at: datetime | None = None
    history: Sequence[AttemptView] = ()
    #: The remote ticket or contact of its conversation.
    thread: str | None = None
    #: What its conversation waits for, if it waits.
    ahead: Ahead | None = None
    #: Its conversation waits for a person because of it.
    parks: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """What a delivery waits for: the head of its conversation."""

    delivery_id: str
    message_id: str | None
    event_id: str
    state: State
    due_at: datetime | None
    reason: str | None
    #: The conversation goes on only when a person has decided about it.
    parks: bool
    #: How many are before the one that waits, this one included.
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptView:
    """An attempt as people see it; no result yet means that it is running, or was lost."""

    id: str
    node: str
    repeat: bool
    started_at: datetime
    ended_at: datetime | None
    result: str | None
    detail: str | None
    status: int | None
    trigger: str = "scheduled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionView:
    """What a person did about an event."""

    at: datetime
    who: str
    what: str
    why: str | None
    delivery_id: str | None
    destination: str | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Purged:
    """What is left of an event that was removed: that it was here."""

    event_id: str
    first_at: datetime
    last_at: datetime
    duplicates: int
    actions: Sequence[ActionView]


@dataclass(frozen=True, kw_only=True, slots=True)
class EventView:
    """An event with its deliveries, as people see it."""

    event: Event
    standing: str
    duplicates: int
    deliveries: Sequence[DeliveryView]
    #: What each route said when the event came.
    routing: Sequence[Mapping[str, Any]]
    requests: Sequence[Request] = ()
    #: What people did about it, the oldest first.
    actions: Sequence[ActionView] = ()
    #: The event that a conflict contradicts.
    contradicts: str | None = None
    #: The conflicts that contradict this event.
    contradicted_by: Sequence[str] = ()
