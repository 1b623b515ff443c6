"""Destinations as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.overview import DestinationView


class DestinationJson(TypedDict):
    """How a destination stands."""

    name: str
    state: str
    cause: str | None
    reason: str | None
    since: str | None
    until: str | None
    backlog: int
    oldest: str | None
    dead: int
    held: int
    per_minute: float
    last_success: str | None
    last_error: str | None
    error: str | None


def destination_json(view: DestinationView) -> DestinationJson:
    """Return a destination as ``destinations --json`` prints it."""
    pause = view.pause
    return {
        "name": view.name,
        "state": view.state,
        "cause": pause.cause if pause else None,
        "reason": pause.reason if pause else None,
        "since": iso(pause.since if pause else None),
        "until": iso(pause.until if pause else None),
        "backlog": view.backlog,
        "oldest": iso(view.oldest),
        "dead": view.dead,
        "held": view.held,
        "per_minute": view.rate,
        "last_success": iso(view.last_success),
        "last_error": iso(view.last_error),
        "error": view.error,
    }


def why(view: DestinationView) -> str:
    """Return why it is paused, or why the last attempt failed if none succeeded since."""
    if view.pause is not None:
        return view.pause.reason
    failed = view.last_error and (view.last_success or view.last_error) <= view.last_error
    return (view.error or "") if failed else ""
