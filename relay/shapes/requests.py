"""Requests, why one was refused, and what became of it when a person let it in, as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.intake import Examined
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


class AdmittedJson(TypedDict):
    """What became of a refused request that was looked at again."""

    id: str
    time: str
    endpoint: str
    outcome: str
    reason: str
    event_id: str | None


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


def admitted_json(examined: Examined, *, became: str, event_id: str | None) -> AdmittedJson:
    """Return what became of a request as ``requests admit --json`` prints it."""
    request = examined.request
    return {
        "id": request.id,
        "time": iso(request.at),
        "endpoint": examined.endpoint,
        "outcome": became or "refused",
        "reason": examined.reason,
        "event_id": event_id,
    }
