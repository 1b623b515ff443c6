"""How events, requests and reasons look in a terminal, and as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from connectors.base import Connector, DeliveryError, Rolls
from relay.config.model import Config, Endpoint, without_password
from relay.destinations import Destination
from relay.rules.delivery import State
from relay.store import Queries
from relay.store.nodes import NodeView
from relay.store.values import DeliveryView, EventView, Request

#: Columns of a table that no terminal bounds.
WIDTH = 200

_CONTROLS = {number: " " for number in (*range(32), *range(127, 160))}

SIGNS = {
    State.DELIVERED: "✓",
    State.DEAD: "✗",
    State.HELD: "?",
    State.PENDING: "…",
    State.IN_FLIGHT: "→",
    State.WAITING: "·",
}


def show_events(queries: Queries, *, as_json: bool, limit: int | None) -> None:
    """Print the newest *limit* events, oldest first."""
    views = queries.events(limit=limit)
    if as_json:
        for view in views:
            print_json(event_json(view))
        return
    table = table_of("received", "message", "type", "from", "to", "again", "deliveries")
    for view in views:
        event = view.event
        table.add_row(
            shown_time(event.received_at),
            event.message_id or event.id,
            event.type if view.standing == "accepted" else f"{event.type} ({view.standing})",
            event.sender,
            event.recipient,
            str(view.duplicates or ""),
            "  ".join(_short(delivery) for delivery in view.deliveries) or "no route matched",
        )
    print_table(table, empty="no events yet")


def show_requests(queries: Queries, *, as_json: bool, limit: int | None) -> None:
    """Print the newest *limit* requests, oldest first."""
    requests = queries.requests(limit=limit)
    if as_json:
        for request in requests:
            print_json(request_json(request))
        return
    table = table_of("time", "status", "outcome", "endpoint", "remote", "message", "reason")
    for request in requests:
        table.add_row(
            shown_time(request.at),
            str(request.status),
            request.outcome,
            request.endpoint,
            request.remote,
            request.message_id,
            request.reason,
        )
    print_table(table, empty="no requests yet")


def show_nodes(nodes: Iterable[NodeView], *, as_json: bool) -> None:
    """Print who is, or was lately, at work on a store."""
    if as_json:
        for view in nodes:
            print_json(node_json(view))
        return
    table = table_of("role", "name", "host", "version", "started", "last beat", "leases", "state")
    for view in nodes:
        node = view.node
        table.add_row(
            node.role if node else "",
            view.name,
            node.host if node else "",
            node.version if node else "",
            shown_time(node.started_at) if node and node.started_at else "",
            shown_time(view.beat_at) if view.beat_at else "",
            str(view.leases or ""),
            view.state,
        )
    print_table(table, empty="no nodes: neither receiver nor worker runs")


def plan(config: Config) -> str:
    """Say what the config does, endpoint by endpoint and route by route."""
    lines = [f"store {config.store_name}", f"listens on {config.server.listen}"]
    if config.engine.celery:
        broker = config.engine.celery.broker.get_secret_value()
        lines.insert(1, f"engine celery, told by {without_password(broker)}")
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


def check_live(outlets: Mapping[str, Destination]) -> bool:
    """Ask each destination whether we may come in; return whether all said yes."""
    return _all_say(outlets, lambda connector: connector.check())


def set_up(outlets: Mapping[str, Destination]) -> bool:
    """Make in each destination what its connector relies on; return whether all went well."""
    return _all_say(outlets, lambda connector: connector.setup())


def roll(archives: Mapping[str, Rolls], *, before: date) -> bool:
    """Put together the closed days of each archive; return whether all went well."""
    good = True
    for name, archive in archives.items():
        count = 0
        try:
            for count, said in enumerate(archive.roll(before=before), 1):  # noqa: B007
                click.echo(f"✓ {name}: {said}")
        except DeliveryError as error:
            good = False
            click.echo(f"✗ {name}: {type(error).__name__.lower()}: {error}")
            continue
        if not count:
            click.echo(f"✓ {name}: nothing to roll before {before}")
    return good


def _all_say(outlets: Mapping[str, Destination], ask: Callable[[Connector[Any]], str]) -> bool:
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
        "deliveries": [delivery_json(delivery) for delivery in view.deliveries],
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


def node_json(view: NodeView) -> dict[str, Any]:
    """Return a node as ``nodes --json`` prints it."""
    node = view.node
    return {
        "name": view.name,
        "role": node and node.role,
        "host": node and node.host,
        "pid": node and node.pid,
        "version": node and node.version,
        "started_at": node and node.started_at and node.started_at.isoformat(),
        "beat_at": view.beat_at and view.beat_at.isoformat(),
        "leases": view.leases,
        "state": view.state,
    }


def delivery_json(delivery: DeliveryView) -> dict[str, Any]:
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


def shown_time(shown_time: datetime) -> str:
    return shown_time.strftime("%Y-%m-%d %H:%M:%SZ")


def table_of(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def print_table(table: Table, *, empty: str) -> None:
    if table.row_count:
        # What goes to a file or another program has no edge at which to fold.
        width = None if sys.stdout.isatty() else WIDTH
        Console(width=width, highlight=False, markup=False, emoji=False).print(table)
    else:
        click.echo(empty)


def print_lines(lines: Iterable[str]) -> None:
    """Print what is meant for people; what others wrote steers no terminal and makes no lines."""
    for line in lines:
        click.echo(line.translate(_CONTROLS))


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))
