"""Everything with one customer, in the order in which it came, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay.commands.output import SIGNS
from relay.commands.times import shown_time
from relay.shapes.explanation import text_of
from relay.shapes.words import count
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


def _delivery(delivery: DeliveryView) -> str:
    where = delivery.url or delivery.reference or delivery.error or ""
    return f"  {SIGNS[delivery.state]} {delivery.destination} {delivery.state}: {where}".rstrip(
        ": "
    )
