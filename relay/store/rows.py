"""From values to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from connectors.base import Event
from relay import payload, routing
from relay.store import schema
from relay.store.records import Acceptance, Arrival, DestinationPause, Request

#: What an event and its row have in common.
_SHARED = (
    "id", "endpoint", "message_id", "type", "direction", "customer", "ours", "sender",
    "recipient", "body", "keyword", "sentiment", "account_id", "conversation", "occurred_at",
    "received_at",
)  # fmt: skip
_shared = attrgetter(*_SHARED)
EVENT_COLUMNS = (*_SHARED, "standing", "format", "key", "raw", "query", "routing")

_SETTLED = ("outcome", "event_id", "headers")
_PLAIN = tuple(each.name for each in fields(Request) if each.name not in _SETTLED)
_plain = attrgetter(*_PLAIN)
REQUEST_COLUMNS = (*_PLAIN, *_SETTLED)


def event_row(arrival: Arrival, standing: str) -> tuple[Any, ...]:
    """Write an arrival as the values of :data:`EVENT_COLUMNS`."""
    return (
        *_shared(arrival.event),
        standing,
        arrival.format,
        arrival.key,
        arrival.raw,
        arrival.query,
        json.dumps(routing.describe(arrival.match.verdicts)),
    )


def request_row(request: Request) -> tuple[Any, ...]:
    """Write a request as the values of :data:`REQUEST_COLUMNS`."""
    return (*_plain(request), request.outcome, request.event_id, json.dumps(request.headers))


def accepted_row(request: Request, acceptance: Acceptance) -> tuple[Any, ...]:
    """Write a request of which it is known now what came of it."""
    headers = json.dumps(request.headers)
    return (*_plain(request), acceptance.status, acceptance.event_id, headers)


def load_event(row: sa.RowMapping, *, prefix: str = "") -> Event:
    """Make the event of a row; *prefix* stands before the names of its columns."""
    columns: Mapping[str, Any] = {name: row[prefix + name] for name in _SHARED}
    # What is not in columns is read again: what could be read once can be read now.
    read = payload.read(
        row[prefix + "raw"], format=row[prefix + "format"], query=row[prefix + "query"]
    )
    return Event(**columns, metadata=read.metadata, payload=read.fields)


def load_pauses(db: sa.Connection) -> dict[str, DestinationPause]:
    """Read the destinations that are not being served now."""
    rows = db.execute(sa.select(schema.destinations)).mappings()
    return {row["name"]: DestinationPause(**row) for row in rows}


def load_request(row: sa.RowMapping) -> Request:
    """Make the request of a row."""
    values = {str(name): value for name, value in row.items() if name != "seq"}
    return Request(**{**values, "headers": json.loads(row["headers"])})
