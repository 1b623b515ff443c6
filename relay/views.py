"""How events, requests and reasons look in a terminal, and as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from connectors.base import Connector, DeliveryError
from relay.config import Config, Endpoint
from relay.delivery import Pause, State
from relay.registry import Outlet
from relay.store import Ledger
from relay.store.records import (
    AttemptView,
    DeliveryView,
    EventView,
    Request,
)

#: Columns of a table that no terminal bounds.
WIDTH = 200

SIGNS = {
    State.DELIVERED: "✓",
    State.DEAD: "✗",
    State.HELD: "?",
    State.PENDING: "…",
    State.IN_FLIGHT: "→",
    State.WAITING: "·",
}


def show_events(ledger: Ledger, *, as_json: bool, limit: int | None) -> None:
    """Print the newest *limit* events, oldest first."""
    views = ledger.events(limit=limit)
    if as_json:
        for view in views:
            _print_json(event_json(view))
        return
    table = _table("received", "message", "type", "from", "to", "again", "deliveries")
    for view in views:
        event = view.event
        table.add_row(
            _time(event.received_at),
            event.message_id or event.id,
            event.type if view.standing == "accepted" else f"{event.type} ({view.standing})",
            event.sender,
            event.recipient,
            str(view.duplicates or ""),
            "  ".join(_short(delivery) for delivery in view.deliveries) or "no route matched",
        )
    _print_table(table, empty="no events yet")


def show_requests(ledger: Ledger, *, as_json: bool, limit: int | None) -> None:
    """Print the newest *limit* requests, oldest first."""
    requests = ledger.requests(limit=limit)
    if as_json:
        for request in requests:
            _print_json(request_json(request))
        return
    table = _table("time", "status", "outcome", "endpoint", "remote", "message", "reason")
    for request in requests:
        table.add_row(
            _time(request.at),
            str(request.status),
            request.outcome,
            request.endpoint,
            request.remote,
            request.message_id,
            request.reason,
        )
    _print_table(table, empty="no requests yet")


def explain(view: EventView, *, pauses: Mapping[str, Pause], as_json: bool) -> None:
    """Print everything that is known of an event."""
    if as_json:
        _print_json(_explanation(view, pauses))
        return
    event = view.event
    click.echo(f"{event.id}  {event.type}  {event.sender or '-'} → {event.recipient or '-'}")
    click.echo(f"  messageId {event.message_id or '(none: known by its bytes)'}")
    click.echo(f"  accepted {_time(event.received_at)}, {view.duplicates} duplicates")
    if view.standing == "conflict":
        click.echo("  a conflict: its messageId was used before for something else; not delivered")
    for request in view.requests:
        click.echo(
            f"request {_time(request.at)} {request.status} {request.outcome}: {request.reason}"
        )
    _explain_routes(view)
    for delivery in view.deliveries:
        _explain_delivery(delivery, pauses.get(delivery.destination))
    if not view.deliveries:
        click.echo("no deliveries: " + _why_none(view))


def plan(config: Config) -> str:
    """Say what the config does, endpoint by endpoint and route by route."""
    lines = [f"store {config.store}", f"listens on {config.server.listen}"]
    lines += [f"endpoint {each.path}: {_guard(each)}" for each in config.endpoints]
    for name, destination in config.destinations.items():
        pace = f", at most {destination.rate}" if destination.rate else ""
        lines.append(f"destination {name}: {destination.connector}{pace}")
    for route in config.routes:
        when = route.when.model_dump(by_alias=True, exclude_none=True)
        lines.append(
            f"route {route.name}: {json.dumps(when) if when else 'every event'}"
            f" → {', '.join(route.to)}{' (stop)' if route.stop else ''}"
        )
    if not config.routes:
        lines.append("no routes: events are stored, and delivered nowhere")
    unused = set(config.destinations) - {name for route in config.routes for name in route.to}
    lines += [f"note: no route leads to {name}" for name in sorted(unused)]
    return "\n".join(lines)


def check_live(outlets: Mapping[str, Outlet]) -> bool:
    """Ask each destination whether we may come in; return whether all said yes."""
    return _all_say(outlets, lambda connector: connector.check())


def set_up(outlets: Mapping[str, Outlet]) -> bool:
    """Make in each destination what its connector relies on; return whether all went well."""
    return _all_say(outlets, lambda connector: connector.setup())


def _all_say(outlets: Mapping[str, Outlet], ask: Callable[[Connector[Any]], str]) -> bool:
    good = True
    for name, outlet in outlets.items():
        try:
            said = ask(outlet.connector)
            click.echo(f"✓ {name}: {said}")
        except DeliveryError as error:
            good = False
            click.echo(f"✗ {name}: {type(error).__name__.lower()}: {error}")
        finally:
            outlet.connector.close()
    return good


def event_json(view: EventView) -> dict[str, Any]:
    """Return an event as ``events --json`` prints it."""
    event = view.event
    return {
        "id": event.id,
        "message_id": event.message_id,
        "type": event.type,
        "from": event.sender,
        "to": event.recipient,
        "received_at": event.received_at.isoformat(),
        "status": view.standing,
        "endpoint": event.endpoint,
        "conversation": event.conversation,
        "body": event.body,
        "keyword": event.keyword,
        "sentiment": event.sentiment,
        "duplicates": view.duplicates,
        "deliveries": [_delivery_json(delivery) for delivery in view.deliveries],
    }


def request_json(request: Request) -> dict[str, Any]:
    """Return a request as ``requests --json`` prints it."""
    body = request.body
    return {
        "id": request.id,
        "time": request.at.isoformat(),
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


def _delivery_json(delivery: DeliveryView) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "destination": delivery.destination,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "reference": delivery.reference,
        "url": delivery.url,
        "error": delivery.error,
        "due_at": delivery.due_at and delivery.due_at.isoformat(),
        "late": delivery.late,
    }


def _attempt_json(attempt: AttemptView) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "started_at": attempt.started_at.isoformat(),
        "ended_at": attempt.ended_at and attempt.ended_at.isoformat(),
        "outcome": attempt.result,
        "detail": attempt.detail,
        "status": attempt.status,
        "repeat": attempt.repeat,
        "node": attempt.node,
    }


def _explanation(view: EventView, pauses: Mapping[str, Pause]) -> dict[str, Any]:
    deliveries = [
        {
            **_delivery_json(each),
            "history": [_attempt_json(attempt) for attempt in each.history],
            "next": _next(each, pauses.get(each.destination)),
        }
        for each in view.deliveries
    ]
    return {
        **event_json(view),
        "requests": [request_json(request) for request in view.requests],
        "routes": list(view.routing),
        "deliveries": deliveries,
        "why_no_deliveries": None if deliveries else _why_none(view),
    }


def _explain_routes(view: EventView) -> None:
    for verdict in view.routing:
        to = f" → {', '.join(verdict['to'])}" if verdict["matched"] else ""
        click.echo(f"route {verdict['route']}: {_yes(verdict['matched'])}{to}")
        for check in verdict["checks"]:
            click.echo(
                f"  {_yes(check['held'])}: {check['condition']} is {check['wanted']}"
                f" (saw {check['saw'] if check['saw'] is not None else 'nothing'})"
            )


def _explain_delivery(delivery: DeliveryView, pause: Pause | None) -> None:
    late = ", late" if delivery.late else ""
    click.echo(f"delivery to {delivery.destination}: {delivery.state.value}{late}")
    for attempt in delivery.history:
        again = " (again)" if attempt.repeat else ""
        result = attempt.result or "running, or lost"
        detail = f": {attempt.detail}" if attempt.detail else ""
        click.echo(f"  attempt {_time(attempt.started_at)} {result}{again}{detail}")
    click.echo(f"  {_next(delivery, pause)}")


def _next(delivery: DeliveryView, pause: Pause | None) -> str:
    """Say what happens next, and when."""
    if pause is not None and delivery.state in (State.PENDING, State.WAITING):
        again = (
            f"one delivery is tried at {_time(pause.until)}" if pause.until else "until resumed"
        )
        return (
            f"next: nothing while {delivery.destination} is paused ({pause.cause}, since "
            f"{_time(pause.since)}); {again}"
        )
    match delivery.state:
        case State.WAITING:
            return "next: when the deliveries before it in its conversation are done"
        case State.PENDING:
            due = delivery.due_at
            when = "now" if due is None or due <= datetime.now(UTC) else f"at {_time(due)}"
            return f"next: an attempt {when}"
        case State.IN_FLIGHT:
            return "next: the answer of the attempt that runs"
        case State.DELIVERED:
            where = f" ({delivery.url})" if delivery.url else ""
            return f"done: {delivery.reference}{where}"
        case State.DEAD:
            return f"dead: {delivery.error}"
        case State.HELD:
            return f"held until a person settles it: {delivery.error}"


def _why_none(view: EventView) -> str:
    if view.standing != "accepted":
        return f"the event is a {view.standing}"
    if not view.routing:
        return "there were no routes to ask, or the payload could not be read"
    return "no route matched"


def _guard(endpoint: Endpoint) -> str:
    guards = []
    if endpoint.signing_secrets:
        guards.append(f"signed ({len(endpoint.signing_secrets)} secrets)")
    if endpoint.basic_auth:
        guards.append("Basic authentication")
    return f"{endpoint.format}, {' and '.join(guards) or 'UNSIGNED: anybody may post'}"


def _short(delivery: DeliveryView) -> str:
    tries = f" ×{delivery.attempts}" if delivery.attempts > 1 else ""
    return f"{SIGNS[delivery.state]} {delivery.destination}{tries}"


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print_table(table: Table, *, empty: str) -> None:
    if table.row_count:
        # What goes to a file or another program has no edge at which to fold.
        width = None if sys.stdout.isatty() else WIDTH
        Console(width=width, highlight=False, markup=False, emoji=False).print(table)
    else:
        click.echo(empty)


def _print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))
