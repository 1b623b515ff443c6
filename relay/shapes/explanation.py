"""What happened to an event, why, and what is next: as JSON, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue
from typing_extensions import TypedDict

from connectors.base import Event
from relay.config.endpoints import Endpoint
from relay.config.model import Config, DestinationConfig
from relay.rules import payload
from relay.rules.delivery import State
from relay.rules.health import Pause
from relay.rules.payload import UNREADABLE, Payload
from relay.shapes.actions import ActionJson, action_json
from relay.shapes.events import DeliveryJson, EventFields, delivery_json, event_fields
from relay.shapes.requests import RequestJson, request_json
from relay.shapes.times import ShowTime, full_time, iso
from relay.store import Queries
from relay.store.values import (
    Ahead,
    AttemptView,
    DeliveryView,
    EventView,
    Purged,
)

#: A delivery that has been due for this long suggests that no worker runs.
OVERDUE = timedelta(minutes=1)


class CheckJson(TypedDict):
    """One condition of a route."""

    condition: str
    wanted: str
    saw: str | None
    held: bool


class RouteJson(TypedDict):
    """What a route said of an event."""

    route: str
    matched: bool
    to: list[str]
    checks: list[CheckJson]


class AttemptJson(TypedDict):
    """One call of the connector; without an outcome it runs, or was lost."""

    id: str
    started_at: str
    ended_at: str | None
    outcome: str | None
    detail: str | None
    status: int | None
    repeat: bool
    trigger: str
    node: str


class ExplainedDeliveryJson(DeliveryJson):
    """A delivery with its attempts, and what comes next."""

    trigger: str
    thread: str | None
    waits_for: str | None
    waits_for_message: str | None
    history: list[AttemptJson]
    next: str


class ExplanationJson(EventFields):
    """Everything that is known about an event."""

    deliveries: list[ExplainedDeliveryJson]
    requests: list[RequestJson]
    routes: list[RouteJson]
    why_no_deliveries: str | None
    contradicts: str | None
    contradicted_by: list[str]
    actions: list[ActionJson]


class WholeEventJson(ExplanationJson):
    """An event with all that belongs to it, and what GoFax sent."""

    customer: str | None
    direction: str | None
    payload: JsonValue


class PurgedJson(TypedDict):
    """What is known about a removed event."""

    id: str
    status: str
    received_at: str
    last_at: str
    duplicates: int
    deliveries: list[DeliveryJson]
    why_no_deliveries: str
    actions: list[ActionJson]


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What an explanation depends on, besides the event."""

    now: datetime
    destinations: Mapping[str, DestinationConfig]
    pauses: Mapping[str, Pause]
    #: By destination, the person who paused it.
    pausers: Mapping[str, str]
    #: Writes the times in what is said.
    show_time: ShowTime = full_time

    @classmethod
    def of(
        cls, config: Config, queries: Queries, *, now: datetime, show_time: ShowTime = full_time
    ) -> Circumstances:
        """Return the circumstances of *now*."""
        return cls(
            now=now,
            destinations=config.destinations,
            pauses=queries.pauses(),
            pausers=queries.pausers(),
            show_time=show_time,
        )


def explanation_json(
    view: EventView, around: Circumstances, *, hide_text: bool = False
) -> ExplanationJson:
    """Return everything that is known about an event, as ``explain --json`` prints it."""
    said = event_fields(view)
    if hide_text:
        said["body"] = None
    return {
        **said,
        "deliveries": [explained_delivery_json(each, around) for each in view.deliveries],
        "requests": [request_json(request) for request in view.requests],
        "routes": routes_json(view.routing),
        "why_no_deliveries": None if view.deliveries else why_none(view),
        "contradicts": view.contradicts,
        "contradicted_by": list(view.contradicted_by),
        "actions": [action_json(action) for action in view.actions],
    }


def whole_event_json(view: EventView, around: Circumstances) -> WholeEventJson:
    """Return everything that is known about an event, and what GoFax sent."""
    event = view.event
    return {
        **explanation_json(view, around),
        "customer": event.customer,
        "direction": event.direction,
        "payload": cast(JsonValue, dict(event.payload)),
    }


def purged_json(purged: Purged) -> PurgedJson:
    """Return what is known about a removed event."""
    return {
        "id": purged.event_id,
        "status": "purged",
        "received_at": iso(purged.first_at),
        "last_at": iso(purged.last_at),
        "duplicates": purged.duplicates,
        "deliveries": [],
        "why_no_deliveries": "removed: by the retention, or erased",
        "actions": [action_json(action) for action in purged.actions],
    }


def explained_delivery_json(
    delivery: DeliveryView, around: Circumstances
) -> ExplainedDeliveryJson:
    ahead = delivery.ahead
    return {
        **delivery_json(delivery),
        "trigger": delivery.trigger,
        "thread": delivery.thread,
        "waits_for": ahead.delivery_id if ahead else None,
        "waits_for_message": ahead.message_id if ahead else None,
        "history": [attempt_json(attempt) for attempt in delivery.history],
        "next": what_next(delivery, around),
    }


def routes_json(routing: Sequence[Mapping[str, object]]) -> list[RouteJson]:
    """Return what each route said of an event, as the store keeps it."""
    return cast(list[RouteJson], list(routing))


def attempt_json(attempt: AttemptView) -> AttemptJson:
    return {
        "id": attempt.id,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "outcome": attempt.outcome,
        "detail": attempt.detail,
        "status": attempt.status,
        "repeat": attempt.repeat,
        "trigger": attempt.trigger,
        "node": attempt.node,
    }


def keys_of(name: str, endpoints: Sequence[Endpoint]) -> list[bytes]:
    """Return the key of an event with the messageId *name* at each endpoint."""
    named = Payload(type="", message_id=name)
    return [
        payload.key(named, b"", endpoint=each.name, dedupe_by=each.dedupe_by, query="")
        for each in endpoints
        # Where the key also depends on other fields, those are unknown by now.
        if each.format == "json" and each.dedupe_by == ("messageId",)
    ]


def text_of(event: Event) -> str:
    """Return what an event says, in one line."""
    return "(no text)" if event.body is None else f'"{" ".join(event.body.split())}"'


def what_next(delivery: DeliveryView, around: Circumstances) -> str:
    """Return why a delivery is in its state, and what happens next and when."""
    match delivery.state:
        case State.WAITING:
            unserved = _unserved(delivery, around)
            not_while = f"; nothing goes while {unserved}" if unserved else ""
            return _waits(delivery.ahead, around) + not_while
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
        return standing_of(view)
    if view.event.type == UNREADABLE:
        return "the payload could not be read"
    if not view.routing:
        return "there were no routes when it came; after a change: gofax-relay replay"
    if view.event.test:
        return "it is a test, and no route for tests (when: {test: true}) matched"
    return "no route matched; after a change: gofax-relay replay"


def again(known: EventView | Purged) -> str:
    number = known.duplicates
    return f", came again {'once' if number == 1 else f'{number} times'}" if number else ""


def standing_of(view: EventView) -> str:
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


def _waits(ahead: Ahead | None, around: Circumstances) -> str:
    if ahead is None:
        return "next: nothing, although none is before it; gofax-relay doctor"
    show_time = around.show_time
    name = f"{ahead.delivery_id} (message {ahead.message_id or ahead.event_id})"
    behind = f"next: when {ahead.number} before it in its conversation are done, the first is"
    if ahead.number == 1:
        behind = "next: when the one before it in its conversation is done,"
    if ahead.parks:
        reason = f": {ahead.reason}" if ahead.reason else ""
        return f"{behind} {name}, {ahead.state} until a person decides{reason}"
    due = f", due {show_time(ahead.due_at)}" if ahead.due_at and ahead.state == "pending" else ""
    return f"{behind} {name}, {ahead.state}{due}"


def _next_attempt(delivery: DeliveryView, around: Circumstances) -> str:
    unserved = _unserved(delivery, around)
    due = delivery.due_at or around.now
    if due > around.now:
        not_while = f"; not while {unserved}" if unserved else ""
        at = f"{around.show_time(due)}{_last(delivery, around)}"
        return f"next: {_which(delivery)} at {at}{not_while}"
    if unserved:
        return f"next: nothing while {unserved}"
    overdue = ""
    if around.now - due > OVERDUE:
        overdue = f"; it has been due since {around.show_time(due)}: is a worker running?"
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
    last = delivery.failing_since + settings.policy.window
    return f", given up after {around.show_time(last)}"


def _attempt_runs(delivery: DeliveryView, around: Circumstances) -> str:
    until, node = delivery.lease_until, delivery.node or "a worker"
    if until is not None and until < around.now:
        return (
            f"next: another worker repeats it, because {node} has been silent "
            f"since {around.show_time(until)}; it may have acted"
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
    since = around.show_time(pause.since)
    return f"{name} is paused ({cause}, since {since}{reason}); {_ends(name, pause, around)}"


def _ends(name: str, pause: Pause, around: Circumstances) -> str:
    if pause.until is None:
        return f"until gofax-relay resume {name}"
    if pause.cause == "operator":
        return f"until {around.show_time(pause.until)}, or gofax-relay resume {name}"
    what = "all go on" if pause.cause == "throttled" else "one delivery is tried"
    return f"{what} at {around.show_time(pause.until)}"


def _reason(delivery: DeliveryView) -> str:
    return delivery.error or "no reason was kept"
