"""What happened to an event, why, and what is next? As lines for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from connectors.base import Event
from relay.commands.output import delivery_json, event_json, request_json
from relay.commands.tables import shown_time
from relay.config.endpoints import Endpoint
from relay.config.model import DestinationConfig
from relay.rules import payload
from relay.rules.delivery import State
from relay.rules.health import Pause
from relay.rules.payload import UNREADABLE, Payload
from relay.store.values import (
    ActionView,
    Ahead,
    AttemptView,
    DeliveryView,
    EventView,
    Purged,
    Request,
)

#: A delivery that has been due for this long suggests that no worker runs.
OVERDUE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What an explanation depends on, besides the event."""

    now: datetime
    destinations: Mapping[str, DestinationConfig]
    pauses: Mapping[str, Pause]
    #: By destination, the person who paused it.
    pausers: Mapping[str, str]


def lines(view: EventView, around: Circumstances, *, hide_text: bool = False) -> Iterator[str]:
    """Yield everything that is known about an event, for people."""
    event = view.event
    yield f"{event.id}  {event.type}  {event.sender or '-'} → {event.recipient or '-'}"
    yield f"  messageId {event.message_id or '(none: known by its bytes)'}"
    standing = f"{view.standing}{', a test,' if event.test else ''}"
    yield f"  {standing} {shown_time(event.received_at)} at {event.endpoint}{_again(view)}"
    if not hide_text:
        yield f"  {text_of(event)}"
    if view.standing != "accepted":
        yield f"  {_standing(view)}"
    for conflict in view.contradicted_by:
        yield f"  a conflict with it was kept, not delivered: {conflict}"
    yield from map(_request_line, view.requests)
    yield from route_lines(view.routing)
    for delivery in view.deliveries:
        yield from _delivery_lines(delivery, around)
    if not view.deliveries:
        yield f"no deliveries: {why_none(view)}"
    yield from map(_action_line, view.actions)


def text_of(event: Event) -> str:
    """Return what an event says, in one line."""
    return "(no text)" if event.body is None else f'"{" ".join(event.body.split())}"'


def as_json(view: EventView, around: Circumstances, *, hide_text: bool = False) -> dict[str, Any]:
    """Return everything that is known about an event, for programs."""
    return {
        **event_json(view),
        **({"body": None} if hide_text else {}),
        "requests": [request_json(request) for request in view.requests],
        "routes": list(view.routing),
        "deliveries": [_delivery_json(each, around) for each in view.deliveries],
        "why_no_deliveries": None if view.deliveries else why_none(view),
        "contradicts": view.contradicts,
        "contradicted_by": list(view.contradicted_by),
        "actions": [_action_json(action) for action in view.actions],
    }


def purged_lines(name: str, purged: Purged) -> Iterator[str]:
    """Yield what is known about a removed event, for people."""
    yield f"{name} was received {shown_time(purged.first_at)} as {purged.event_id}{_again(purged)}"
    yield "  its text and its deliveries have been removed: by the retention, or erased"
    yield "  its key is kept: sent again, it has no second effect"
    yield from map(_action_line, purged.actions)


def purged_json(purged: Purged) -> dict[str, Any]:
    """Return what is known about a removed event, for programs."""
    return {
        "id": purged.event_id,
        "status": "purged",
        "received_at": purged.first_at.isoformat(),
        "last_at": purged.last_at.isoformat(),
        "duplicates": purged.duplicates,
        "deliveries": [],
        "why_no_deliveries": "removed: by the retention, or erased",
        "actions": [_action_json(action) for action in purged.actions],
    }


def unknown(name: str, refused: Sequence[Request]) -> str:
    """Return why there may be no event of this name."""
    if not refused:
        return (
            f'no event "{name}" was accepted; gofax-relay events lists accepted ones, '
            "gofax-relay requests every call, also refused ones"
        )
    calls = "".join(f"\n  {_request_line(request)}" for request in refused)
    return f'no event "{name}" was accepted; refused requests contain it:{calls}'


def keys_of(name: str, endpoints: Sequence[Endpoint]) -> list[bytes]:
    """Return the key of an event with the messageId *name* at each endpoint."""
    named = Payload(type="", message_id=name)
    return [
        payload.key(named, b"", endpoint=each.name, dedupe_by=each.dedupe_by, query="")
        for each in endpoints
        # Where the key also depends on other fields, those are unknown by now.
        if each.format == "json" and each.dedupe_by == ("messageId",)
    ]


def what_next(delivery: DeliveryView, around: Circumstances) -> str:
    """Return why a delivery is in its state, and what happens next and when."""
    match delivery.state:
        case State.WAITING:
            unserved = _unserved(delivery, around)
            return _waits(delivery.ahead) + (f"; nothing goes while {unserved}" * bool(unserved))
        case State.PENDING:
            return _next_attempt(delivery, around)
        case State.IN_FLIGHT:
            return _attempt_runs(delivery, around)
        case State.DELIVERED:
            where = f" ({delivery.url})" if delivery.url else ""
            what = delivery.reference or "a person settled it as delivered"
            return f"done: {what}{where}"
        case State.DEAD:
            return f"dead: {_reason(delivery)}; try again: gofax-relay resend {delivery.id}"
        case State.HELD:
            stops = "; its conversation waits for that" if delivery.parks else ""
            return (
                f"held until a person decides{stops}: {_reason(delivery)}; "
                f"gofax-relay resend {delivery.id}, or settle {delivery.id} --as delivered|dead"
            )


def why_none(view: EventView) -> str:
    """Return why an event has no deliveries."""
    if view.standing != "accepted":
        return _standing(view)
    if view.event.type == UNREADABLE:
        return "the payload could not be read"
    if not view.routing:
        return "there were no routes when it came; after a change: gofax-relay replay"
    if view.event.test:
        return "it is a test, and no route for tests (when: {test: true}) matched"
    return "no route matched; after a change: gofax-relay replay"


def _again(known: EventView | Purged) -> str:
    number = known.duplicates
    return f", came again {'once' if number == 1 else f'{number} times'}" if number else ""


def _request_line(request: Request) -> str:
    return f"request {shown_time(request.at)} {request.status} {request.outcome}: {request.reason}"


def _standing(view: EventView) -> str:
    match view.standing:
        case "conflict":
            what = view.contradicts or "another event"
            return (
                f"a conflict: its messageId was used before for something else ({what}); "
                "kept, never delivered"
            )
        case "stale":
            return (
                "stale: older than dedupe_horizon, so it may have been delivered long ago; "
                "kept, not delivered (gofax-relay replay --again delivers it)"
            )
    return f"the event is {view.standing}"


def _waits(ahead: Ahead | None) -> str:
    if ahead is None:
        return "next: nothing, although none is before it; gofax-relay doctor"
    name = f"{ahead.delivery_id} (message {ahead.message_id or ahead.event_id})"
    behind = f"next: when {ahead.number} before it in its conversation are done, the first is"
    if ahead.number == 1:
        behind = "next: when the one before it in its conversation is done,"
    if ahead.parks:
        reason = f": {ahead.reason}" if ahead.reason else ""
        return f"{behind} {name}, {ahead.state} until a person decides{reason}"
    due = f", due {shown_time(ahead.due_at)}" if ahead.due_at and ahead.state == "pending" else ""
    return f"{behind} {name}, {ahead.state}{due}"


def _next_attempt(delivery: DeliveryView, around: Circumstances) -> str:
    unserved = _unserved(delivery, around)
    due = delivery.due_at or around.now
    if due > around.now:
        not_while = f"; not while {unserved}" if unserved else ""
        return f"next: {_which(delivery)} at {shown_time(due)}{_last(delivery, around)}{not_while}"
    if unserved:
        return f"next: nothing while {unserved}"
    overdue = ""
    if around.now - due > OVERDUE:
        overdue = f"; it has been due since {shown_time(due)}: is a worker running?"
    return f"next: {_which(delivery)} now{overdue}"


def _which(delivery: DeliveryView) -> str:
    again = f"attempt {delivery.attempts + 1}" if delivery.attempts else "an attempt"
    failed = f" after: {delivery.error}," if delivery.error else ""
    return again + failed


def _last(delivery: DeliveryView, around: Circumstances) -> str:
    """Return until when it is tried."""
    settings = around.destinations.get(delivery.destination)
    if settings is None or delivery.failing_since is None:
        return ""
    return f", given up after {shown_time(delivery.failing_since + settings.policy.window)}"


def _attempt_runs(delivery: DeliveryView, around: Circumstances) -> str:
    until, node = delivery.lease_until, delivery.node or "a worker"
    if until is not None and until < around.now:
        return (
            f"next: another worker repeats it, because {node} has been silent "
            f"since {shown_time(until)}; it may have acted"
        )
    return f"next: the end of the attempt that {node} is making"


def _unserved(delivery: DeliveryView, around: Circumstances) -> str:
    """Return why its destination is not served now; empty if it is."""
    name = delivery.destination
    if name not in around.destinations:
        return f"{name} is not in the config"
    pause = around.pauses.get(name)
    if pause is None:
        return ""
    cause = (
        f"by {around.pausers.get(name, 'a person')}" if pause.cause == "operator" else pause.cause
    )
    reason = f": {pause.reason}" if pause.reason else ""
    since = shown_time(pause.since)
    return f"{name} is paused ({cause}, since {since}{reason}); {_ends(name, pause)}"


def _ends(name: str, pause: Pause) -> str:
    if pause.until is None:
        return f"until gofax-relay resume {name}"
    if pause.cause == "operator":
        return f"until {shown_time(pause.until)}, or gofax-relay resume {name}"
    what = "all go on" if pause.cause == "throttled" else "one delivery is tried"
    return f"{what} at {shown_time(pause.until)}"


def _reason(delivery: DeliveryView) -> str:
    return delivery.error or "no reason was kept"


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
    what = action.delivery_id or action.destination
    return f"{action.what} {shown_time(action.at)} by {action.who}{why}: {what} {action.detail}"


def _delivery_json(delivery: DeliveryView, around: Circumstances) -> dict[str, Any]:
    ahead = delivery.ahead
    return {
        **delivery_json(delivery),
        "trigger": delivery.trigger,
        "thread": delivery.thread,
        "waits_for": ahead and ahead.delivery_id,
        "waits_for_message": ahead and ahead.message_id,
        "history": [_attempt_json(attempt) for attempt in delivery.history],
        "next": what_next(delivery, around),
    }


def _attempt_json(attempt: AttemptView) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "started_at": attempt.started_at.isoformat(),
        "ended_at": attempt.ended_at and attempt.ended_at.isoformat(),
        "outcome": attempt.outcome,
        "detail": attempt.detail,
        "status": attempt.status,
        "repeat": attempt.repeat,
        "trigger": attempt.trigger,
        "node": attempt.node,
    }


def _action_json(action: ActionView) -> dict[str, Any]:
    return {
        "at": action.at.isoformat(),
        "who": action.who,
        "what": action.what,
        "why": action.why,
        "delivery_id": action.delivery_id,
        "destination": action.destination,
        "detail": action.detail,
    }


def _yes(held: bool) -> str:
    return "yes" if held else "no"
