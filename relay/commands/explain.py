"""What happened to an event, why, and what is next? As lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.commands.times import shown_time
from relay.shapes.explanation import (
    Circumstances,
    again,
    standing_of,
    text_of,
    what_next,
    why_none,
)
from relay.store.values import ActionView, AttemptView, DeliveryView, EventView, Purged, Request


def lines(view: EventView, around: Circumstances, *, hide_text: bool = False) -> Iterator[str]:
    """Yield everything that is known about an event, for people."""
    event = view.event
    yield f"{event.id}  {event.type}  {event.sender or '-'} → {event.recipient or '-'}"
    yield f"  messageId {event.message_id or '(none: known by its bytes)'}"
    standing = f"{view.standing}{', a test,' if event.test else ''}"
    yield f"  {standing} {shown_time(event.received_at)} at {event.endpoint}{again(view)}"
    if not hide_text:
        yield f"  {text_of(event)}"
    if view.standing != "accepted":
        yield f"  {standing_of(view)}"
    for conflict in view.contradicted_by:
        yield f"  a conflict with it was kept, not delivered: {conflict}"
    yield from map(_request_line, view.requests)
    yield from route_lines(view.routing)
    for delivery in view.deliveries:
        yield from _delivery_lines(delivery, around)
    if not view.deliveries:
        yield f"no deliveries: {why_none(view)}"
    yield from map(_action_line, view.actions)


def purged_lines(name: str, purged: Purged) -> Iterator[str]:
    """Yield what is known about a removed event, for people."""
    yield f"{name} was received {shown_time(purged.first_at)} as {purged.event_id}{again(purged)}"
    yield "  its text and its deliveries have been removed: by the retention, or erased"
    yield "  its key is kept: sent again, it has no second effect"
    yield from map(_action_line, purged.actions)


def unknown(name: str, refused: Sequence[Request]) -> str:
    """Return why there may be no event of this name."""
    if not refused:
        return (
            f'no event "{name}" was accepted; gofax-relay events lists accepted ones, '
            "gofax-relay requests every call, also refused ones"
        )
    calls = "".join(f"\n  {_request_line(request)}" for request in refused)
    return f'no event "{name}" was accepted; refused requests contain it:{calls}'


def _request_line(request: Request) -> str:
    return f"request {shown_time(request.at)} {request.status} {request.outcome}: {request.reason}"


def route_lines(routing: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what each route said of an event, and why."""
    for route in routing:
        to = f" → {', '.join(route['to'])}" if route["matched"] else ""
        yield f"route {route['route']}: {_yes(route['matched'])}{to}"
        for check in route["checks"]:
            saw = "nothing" if check["saw"] is None else check["saw"]
            yield (
                f"  {_yes(check['held'])}: {check['condition']} is {check['wanted']} (saw {saw})"
            )


def _delivery_lines(delivery: DeliveryView, around: Circumstances) -> Iterator[str]:
    late = ", late: outside the order" if delivery.late else ""
    routed = f", routed by config {delivery.config}" if delivery.config else ""
    yield f"delivery {delivery.id} to {delivery.destination}: {delivery.state}{late}{routed}"
    if delivery.thread:
        yield f"  thread {delivery.thread}"
    for attempt in delivery.history:
        yield f"  {_attempt_line(attempt)}"
    yield f"  {what_next(delivery, around)}"


def _attempt_line(attempt: AttemptView) -> str:
    marks = [
        *(["again"] if attempt.repeat else []),
        *(["requested by a person"] if attempt.trigger == "manual" else []),
    ]
    noted = f" ({', '.join(marks)})" if marks else ""
    outcome = attempt.outcome or "running, or lost"
    detail = f": {attempt.detail}" if attempt.detail else ""
    return f"attempt {shown_time(attempt.started_at)} {outcome}{noted}{detail}"


def _action_line(action: ActionView) -> str:
    why = f" ({action.why})" if action.why else ""
    what = " ".join(filter(None, (action.delivery_id or action.destination, action.detail)))
    return f"{action.what} {shown_time(action.at)} by {action.who}{why}: {what}"


def _yes(held: bool) -> str:
    return "yes" if held else "no"
