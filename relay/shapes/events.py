"""Events and their deliveries as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.values import DeliveryView, EventView


class DeliveryJson(TypedDict):
    """A delivery in an event."""

    id: str
    destination: str
    state: str
    attempts: int
    reference: str | None
    url: str | None
    error: str | None
    due_at: str | None
    late: bool
    config: str | None


#: What an event says itself. Two of its keys are words of Python.
EventFields = TypedDict(
    "EventFields",
    {
        "id": str,
        "message_id": str | None,
        "type": str,
        "from": str | None,
        "to": str | None,
        "received_at": str,
        "status": str,
        "test": bool,
        "endpoint": str,
        "conversation": str,
        "body": str | None,
        "keyword": str | None,
        "sentiment": str | None,
        "duplicates": int,
    },
)


class EventJson(EventFields):
    """An event with its deliveries."""

    deliveries: list[DeliveryJson]


class SpokenJson(EventJson):
    """An event in a conversation."""

    customer: str | None
    direction: str | None


def event_json(view: EventView) -> EventJson:
    """Return an event as ``events --json`` prints it."""
    deliveries = [delivery_json(delivery) for delivery in view.deliveries]
    return {**event_fields(view), "deliveries": deliveries}


def event_fields(view: EventView) -> EventFields:
    """Return what an event says itself."""
    event = view.event
    return {
        "id": event.id,
        "message_id": event.message_id,
        "type": event.type,
        "from": event.sender,
        "to": event.recipient,
        "received_at": iso(event.received_at),
        "status": view.standing,
        "test": event.test,
        "endpoint": event.endpoint,
        "conversation": event.conversation,
        "body": event.body,
        "keyword": event.keyword,
        "sentiment": event.sentiment,
        "duplicates": view.duplicates,
    }


def spoken_json(view: EventView) -> SpokenJson:
    """Return an event as ``conversation --json`` prints it."""
    event = view.event
    return {**event_json(view), "customer": event.customer, "direction": event.direction}


def delivery_json(delivery: DeliveryView) -> DeliveryJson:
    return {
        "id": delivery.id,
        "destination": delivery.destination,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "reference": delivery.reference,
        "url": delivery.url,
        "error": delivery.error,
        "due_at": iso(delivery.due_at),
        "late": delivery.late,
        "config": delivery.config,
    }
