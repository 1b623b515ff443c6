"""Deliveries that are dead or held as JSON, one by one and by their reasons, and as cells."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from typing_extensions import TypedDict

from relay.rules.recovery import FoundDelivery
from relay.shapes import spreadsheet
from relay.shapes.times import iso
from relay.store.recover import ReasonGroup


class StoppedJson(TypedDict):
    """A delivery that is dead or held."""

    id: str
    event_id: str
    message_id: str | None
    type: str
    customer: str | None
    received_at: str
    destination: str
    state: str
    reason: str | None
    attempts: int
    ended_at: str | None
    late: bool
    parks: bool


class GroupJson(TypedDict):
    """Stopped deliveries of one destination and reason."""

    destination: str
    reason: str
    number: int
    oldest: str
    newest: str


def stopped_json(delivery: FoundDelivery) -> StoppedJson:
    """Return a delivery as ``dead --json`` prints it."""
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "message_id": delivery.message_id,
        "type": delivery.type,
        "customer": delivery.customer,
        "received_at": iso(delivery.received_at),
        "destination": delivery.destination,
        "state": delivery.state.value,
        "reason": delivery.reason,
        "attempts": delivery.attempts,
        "ended_at": iso(delivery.ended_at),
        "late": delivery.late,
        "parks": delivery.parks,
    }


def group_json(group: ReasonGroup) -> GroupJson:
    """Return a group as ``dead --group --json`` prints it."""
    return {
        "destination": group.destination,
        "reason": group.reason,
        "number": group.number,
        "oldest": iso(group.oldest),
        "newest": iso(group.newest),
    }


def stopped_cells(delivery: FoundDelivery, *, zone: tzinfo) -> dict[str, Any]:
    """Return the cells of a delivery that is dead or held."""
    return {
        "received": spreadsheet.time_cell(delivery.received_at, zone),
        "stopped": spreadsheet.time_cell(delivery.ended_at, zone) if delivery.ended_at else "",
        "destination": delivery.destination,
        "state": delivery.state.value,
        "customer": delivery.customer,
        "type": delivery.type,
        "message_id": delivery.message_id,
        "event": delivery.event_id,
        "delivery": delivery.id,
        "attempts": delivery.attempts,
        "reason": delivery.reason,
    }
