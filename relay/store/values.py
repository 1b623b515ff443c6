"""The values that go into the store and come out of it, and how they become rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal

import sqlalchemy as sa

from connectors.base import Event
from relay.rules import jsontext, payload, routing, text
from relay.rules.delivery import Decision, Outcome, State, Tries
from relay.rules.health import Health, Pause, Ramp
from relay.rules.payload import Format
from relay.rules.routing import Match
from relay.store import schema

#: Where a person acts from who has a shell.
COMMAND_LINE = "command line"

#: What an event is, as the store sees it.
Standing = Literal["accepted", "duplicate", "conflict", "stale"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One call to an endpoint, as the request log keeps it."""

    id: str
    at: datetime
    endpoint: str
    method: str
    remote: str | None
    #: Names and values, credentials removed.
    headers: Mapping[str, str]
    #: 0 until it was answered.
    status: int = 0
    #: accepted, duplicate, conflict, stale or refused.
    outcome: str = ""
    #: What the signature check or the refusal came down to.
    reason: str = ""
    event_id: str | None = None
    message_id: str | None = None
    #: The beginning of a refused body.
    body: bytes | None = None
    #: Of a refused request: whether it carries a signature, and whether its body is here whole.
    signed: bool = False
    whole: bool = False
    #: The query string of a refused request.
    query: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """A person lets in a request that was refused."""

    who: str
    why: str | None
    #: What had become of it, in words.
    was: str
    #: Where that person acts from.
    origin: str = COMMAND_LINE


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A genuine request with everything that one commit has to write."""

    event: Event
    request: Request
    raw: bytes
    query: str
    format: Format
    #: The charset that the request states, for a body that is not UTF-8.
    charset: str | None = None
    #: What a resend of this event is known by, 32 bytes.
    key: bytes
    #: What a duplicate must have in common with the event, the text apart.
    meaning: bytes
    match: Match
    #: What the event is if its key is new; what is stale is stored, and not delivered.
    standing: Literal["accepted", "conflict", "stale"] = "accepted"
    on_duplicate: Literal["revive", "ignore"] = "revive"
    #: The version of the config that has the routes.
    config: str | None = None
    #: Who lets it in, if it was refused when it came.
    admission: Admission | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """What the store made of an arrival; it is on disk when the caller has this."""

    standing: Standing
    #: The event that the arrival is, or is a duplicate of.
    event_id: str
    #: Which duplicate of that event it is; 0: it is the event.
    duplicate: int = 0


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
    tries: Tries
    claimed_at: datetime
    #: When the lease ends that this claim was seen with.
    lease_until: datetime
    #: Whether the relay or a person asked for this series of attempts.
    trigger: str = "scheduled"

    @property
    def names(self) -> dict[str, str | None]:
        """What every log line about it says."""
        return {
            "event_id": self.event.id,
            "message_id": self.event.message_id,
            "delivery_id": self.delivery_id,
            "destination": self.destination,
        }


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
    #: The version of the config whose routes led here.
    config: str | None = None
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
    """An attempt as people see it; no outcome yet means that it runs, or was lost."""

    id: str
    node: str
    repeat: bool
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    detail: str | None
    status: int | None
    trigger: str = "scheduled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionView:
    """What a person did."""

    at: datetime
    who: str
    what: str
    #: Where that person acted from.
    origin: str | None
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


#: Columns that have the value of the event's attribute of the same name.
_SHARED = (
    "id", "endpoint", "message_id", "type", "direction", "customer", "ours", "sender",
    "recipient", "body", "keyword", "sentiment", "account_id", "conversation", "occurred_at",
    "received_at", "test",
)  # fmt: skip
_shared = attrgetter(*_SHARED)
EVENT_COLUMNS = (
    *_SHARED, "standing", "format", "charset", "key", "raw", "query", "routing",
    "request_id", "remote", "reason", "headers", "customer_ending", "kind",
)  # fmt: skip

#: Between the parts of a kind; no cleaned text has it.
_UNIT = "\x1f"
#: Characters of an endpoint's name and of a type that a kind has.
_ENDPOINT, _TYPE = 200, 60

_PLAIN = tuple(each.name for each in fields(Request) if each.name != "headers")
_plain = attrgetter(*_PLAIN)
REQUEST_COLUMNS = (*_PLAIN, "size", "headers")


def event_row(arrival: Arrival) -> dict[str, Any]:
    """Return the row of an arrival's event, with the request that brought it."""
    request = arrival.request
    row: dict[str, Any] = dict(zip(_SHARED, _shared(arrival.event), strict=True))
    row["standing"] = arrival.standing
    row["format"] = arrival.format
    row["charset"] = arrival.charset
    row["key"] = arrival.key
    row["raw"] = arrival.raw
    row["query"] = arrival.query
    row["routing"] = jsontext.dumps(routing.describe(arrival.match.routes))
    row["request_id"] = request.id
    row["remote"] = request.remote
    row["reason"] = request.reason
    row["headers"] = jsontext.dumps(request.headers)
    customer = arrival.event.customer
    row["customer_ending"] = customer and text.ending(customer)
    row["kind"] = kind_of(arrival.standing, arrival.event.endpoint, arrival.event.type)
    return row


def kind_of(standing: str, endpoint: str, type: str) -> str:
    """Join what few events differ in, cut to what an index page holds."""
    return _UNIT.join((standing, endpoint[:_ENDPOINT], type[:_TYPE]))


def type_cut(type: str) -> str:
    """Return as much of a *type* as its kind holds."""
    return type[:_TYPE]


def type_of(kind: str) -> str:
    """Return the type of events of a *kind*, cut as there."""
    return kind.split(_UNIT, 2)[2]


def is_of_kind(
    kind: str, *, standings: Sequence[str], endpoint: str | None, type: str | None
) -> bool:
    """Return whether events of a *kind* may be these; nothing given means any."""
    standing, of_endpoint, of_type = kind.split(_UNIT, 2)
    return (
        (not standings or standing in standings)
        and (endpoint is None or of_endpoint == endpoint[:_ENDPOINT])
        and (type is None or of_type == type[:_TYPE])
    )


def request_row(request: Request) -> dict[str, Any]:
    """Return the row of a request that brought no event."""
    row: dict[str, Any] = dict(zip(_PLAIN, _plain(request), strict=True))
    row["headers"] = headers = jsontext.dumps(request.headers)
    row["size"] = len(headers.encode()) + len(request.body or b"")
    return row


#: What :func:`load_event` needs of an event's row.
LOADED = tuple(schema.events.c[name] for name in (*_SHARED, "raw", "format", "charset", "query"))


def load_event(row: sa.RowMapping) -> Event:
    """Make the event of a row that has at least the columns :data:`LOADED`."""
    columns: Mapping[str, Any] = {name: row[name] for name in _SHARED}
    # What is not in columns is read again: what could be read once can be read now.
    fields = payload.contents(
        row["raw"], format=row["format"], query=row["query"], charset=row["charset"]
    )
    return Event(**columns, metadata=payload.metadata_of(fields), payload=fields)


def load_health(row: sa.RowMapping) -> Health:
    """Make the health of a destination's row."""
    pause, ramp = None, None
    if row["cause"] is not None:
        pause = Pause(
            cause=row["cause"], reason=row["reason"] or "", since=row["since"], until=row["until"]
        )
    if row["room"] is not None:
        ramp = Ramp(room=row["room"], answers=row["answers"])
    return Health(failures=row["failures"], pause=pause, ramp=ramp, back_at=row["back_at"])


def health_row(name: str, health: Health) -> dict[str, Any]:
    """Write the health of the destination *name* as values of its row."""
    pause = health.pause
    return {
        "name": name,
        "failures": health.failures,
        "cause": pause and pause.cause,
        "reason": pause and pause.reason,
        "since": pause and pause.since,
        "until": pause and pause.until,
        "back_at": health.back_at,
        "room": health.ramp and health.ramp.room,
        "answers": health.ramp and health.ramp.answers,
    }


def load_pauses(db: sa.Connection) -> dict[str, Pause]:
    """Read the destinations that are not being served now."""
    table = schema.destinations
    rows = db.execute(sa.select(table).where(table.c.cause.is_not(None))).mappings()
    pauses = {row["name"]: load_health(row).pause for row in rows}
    return {name: pause for name, pause in pauses.items() if pause is not None}


def load_request(row: sa.RowMapping, *, leave_out: Sequence[str] = ()) -> Request:
    """Make the request of a row; *leave_out*: columns that are none of its own."""
    unneeded = "seq", "size", *leave_out
    values = {str(name): value for name, value in row.items() if name not in unneeded}
    return Request(**{**values, "headers": json.loads(row["headers"])})


def request_of(row: sa.RowMapping) -> Request:
    """Make the request that brought the event of a row."""
    return Request(
        id=row["request_id"],
        at=row["received_at"],
        endpoint=row["endpoint"],
        method="POST",
        remote=row["remote"],
        status=200,
        outcome=row["standing"],
        reason=row["reason"],
        headers=json.loads(row["headers"]),
        event_id=row["id"],
        message_id=row["message_id"],
    )
