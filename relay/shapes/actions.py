"""What people did, as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.actions import Entry
from relay.store.values import ActionView


class ActionJson(TypedDict):
    """What a person did."""

    at: str
    who: str
    what: str
    origin: str | None
    why: str | None
    delivery_id: str | None
    destination: str | None
    detail: str


class EntryJson(ActionJson):
    """A line of the audit log."""

    number: int
    act: str | None
    event_id: str | None


def action_json(action: ActionView) -> ActionJson:
    return {
        "at": iso(action.at),
        "who": action.who,
        "what": action.what,
        "origin": action.origin,
        "why": action.why,
        "delivery_id": action.delivery_id,
        "destination": action.destination,
        "detail": action.detail,
    }


def entry_json(entry: Entry) -> EntryJson:
    """Return a line of the audit log."""
    return {
        **action_json(entry.action),
        "number": entry.seq,
        "act": entry.act,
        "event_id": entry.event_id,
    }
