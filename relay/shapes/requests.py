"""Requests as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.values import Request


class RequestJson(TypedDict):
    """A call to an endpoint."""

    id: str
    time: str
    endpoint: str
    method: str
    remote: str | None
    status: int
    outcome: str
    reason: str
    event_id: str | None
    message_id: str | None
    headers: dict[str, str]
    body: str | None


def request_json(request: Request) -> RequestJson:
    """Return a request as ``requests --json`` prints it."""
    body = request.body
    return {
        "id": request.id,
        "time": iso(request.at),
        "endpoint": request.endpoint,
        "method": request.method,
        "remote": request.remote,
        "status": request.status,
        "outcome": request.outcome,
        "reason": request.reason,
        "event_id": request.event_id,
        "message_id": request.message_id,
        "headers": dict(request.headers),
        "body": None if body is None else body.decode("utf-8", "replace"),
    }
