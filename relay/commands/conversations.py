"""Everything with one customer, in the order in which it came, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from relay.commands.explain import text_of
from relay.commands.output import SIGNS, event_json
from relay.commands.tables import count, shown_time
from relay.store.values import DeliveryView, EventView


def lines(customer: str, views: Sequence[EventView], *, hide_text: bool) -> Iterator[str]:
    """Yield the events of a customer, with what became of each, for people."""
    yield f"{customer}: {count(len(views), 'event', 'events')}"
    for view in views:
        event = view.event
        arrow = "←" if event.customer == event.recipient else "→"
        standing = "" if view.standing == "accepted" else f" ({view.standing})"
        standing += " (test)" if event.test else ""
        yield ""
        ours = event.ours or "-"
        yield f"{shown_time(event.received_at)}  {arrow} {ours}  {event.type}{standing}"
        if not hide_text:
            yield f"  {text_of(event)}"
        yield f"  {event.id}"
        yield from map(_delivery, view.deliveries)


def as_json(view: EventView) -> dict[str, Any]:
    """Return an event of a conversation, for programs."""
    return {**event_json(view), "customer": view.event.customer, "direction": view.event.direction}


def _delivery(delivery: DeliveryView) -> str:
    where = delivery.url or delivery.reference or delivery.error or ""
    return f"  {SIGNS[delivery.state]} {delivery.destination} {delivery.state}: {where}".rstrip(
        ": "
    )
