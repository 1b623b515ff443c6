"""From values to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from connectors.base import Event
from relay import jsontext
from relay.rules import payload, routing
from relay.rules.health import Health, Pause
from relay.store import schema
from relay.store.values import Arrival, Request

#: What an event and its row have in common.
_SHARED = (
    "id", "endpoint", "message_id", "type", "direction", "customer", "ours", "sender",
    "recipient", "body", "keyword", "sentiment", "account_id", "conversation", "occurred_at",
    "received_at",
)  # fmt: skip
_shared = attrgetter(*_SHARED)
EVENT_COLUMNS = (
    *_SHARED, "standing", "format", "key", "raw", "query", "routing",
    "request_id", "remote", "reason", "headers",
)  # fmt: skip

_PLAIN = tuple(each.name for each in fields(Request) if each.name != "headers")
_plain = attrgetter(*_PLAIN)
REQUEST_COLUMNS = (*_PLAIN, "headers")


def event_row(arrival: Arrival) -> tuple[Any, ...]:
    """Write an arrival as the values of :data:`EVENT_COLUMNS`."""
    request = arrival.request
    return (
        *_shared(arrival.event),
        arrival.standing,
        arrival.format,
        arrival.key,
        arrival.raw,
        arrival.query,
        jsontext.dumps(routing.describe(arrival.match.routes)),
        request.id,
        request.remote,
        request.reason,
        jsontext.dumps(request.headers),
    )


def request_row(request: Request) -> tuple[Any, ...]:
    """Write a request as the values of :data:`REQUEST_COLUMNS`."""
    return (*_plain(request), jsontext.dumps(request.headers))


#: What :func:`load_event` needs of an event's row.
LOADED = tuple(schema.events.c[name] for name in (*_SHARED, "raw", "format", "query"))


def load_event(row: sa.RowMapping) -> Event:
    """Make the event of a row that has at least the columns :data:`LOADED`."""
    columns: Mapping[str, Any] = {name: row[name] for name in _SHARED}
    # What is not in columns is read again: what could be read once can be read now.
    fields = payload.contents(row["raw"], format=row["format"], query=row["query"])
    return Event(**columns, metadata=payload.metadata_of(fields), payload=fields)


def load_health(row: sa.RowMapping) -> Health:
    """Make the health of a destination's row."""
    if row["cause"] is None:
        return Health(failures=row["failures"])
    pause = Pause(
        cause=row["cause"], reason=row["reason"] or "", since=row["since"], until=row["until"]
    )
    return Health(failures=row["failures"], pause=pause)


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
    }


def load_pauses(db: sa.Connection) -> dict[str, Pause]:
    """Read the destinations that are not being served now."""
    table = schema.destinations
    rows = db.execute(sa.select(table).where(table.c.cause.is_not(None))).mappings()
    pauses = {row["name"]: load_health(row).pause for row in rows}
    return {name: pause for name, pause in pauses.items() if pause is not None}


def load_request(row: sa.RowMapping) -> Request:
    """Make the request of a row."""
    values = {str(name): value for name, value in row.items() if name != "seq"}
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
