"""From values to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from connectors.base import Event
from relay import payload, routing
from relay.store.records import Arrival, Request

#: What an event and its row have in common.
_EVENT_COLUMNS = (
    "id", "endpoint", "message_id", "type", "direction", "customer", "ours", "sender",
    "recipient", "body", "keyword", "account_id", "conversation", "occurred_at", "received_at",
)  # fmt: skip

_REQUEST_COLUMNS = tuple(each.name for each in fields(Request))


def event_row(arrival: Arrival, standing: str) -> dict[str, Any]:
    """Write an arrival as a row of ``events``."""
    columns = {name: getattr(arrival.event, name) for name in _EVENT_COLUMNS}
    return columns | {
        "standing": standing,
        "format": arrival.format,
        "key": arrival.key,
        "raw": arrival.raw,
        "query": arrival.query,
        "routing": json.dumps(routing.describe(arrival.match.verdicts)),
    }


def load_event(row: sa.RowMapping, *, prefix: str = "") -> Event:
    """Make the event of a row; *prefix* stands before the names of its columns."""
    columns: Mapping[str, Any] = {name: row[prefix + name] for name in _EVENT_COLUMNS}
    # What is not in columns is read again: what could be read once can be read now.
    read = payload.read(
        row[prefix + "raw"], format=row[prefix + "format"], query=row[prefix + "query"]
    )
    return Event(**columns, metadata=read.metadata, payload=read.fields)


def request_row(request: Request) -> dict[str, Any]:
    """Write a request as a row of ``requests``."""
    columns = {name: getattr(request, name) for name in _REQUEST_COLUMNS}
    return columns | {"headers": json.dumps(dict(request.headers))}


def load_request(row: sa.RowMapping) -> Request:
    """Make the request of a row."""
    values = {str(name): value for name, value in row.items() if name != "seq"}
    return Request(**{**values, "headers": json.loads(row["headers"])})
