"""The values that go into the store and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from connectors.base import Event
from relay.delivery import Decision, Outcome, Standing, State
from relay.payload import Format
from relay.routing import Match

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
    standing: Standing
    claimed_at: datetime
    #: When the lease ends that this claim was seen with.
    lease_until: datetime
    #: Whether the relay or a person asked for this series of attempts.
    trigger: str = "scheduled"


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
    history: Sequence[AttemptView] = ()


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
