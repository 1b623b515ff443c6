"""How events, requests, deliveries and nodes look in a terminal, and as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from connectors.base import Connector, DeliveryError
from relay.destinations import Destination
from relay.rules.delivery import State
from relay.rules.recovery import Change, ChangeKind, FoundDelivery, Replay, ReplayStep
from relay.store import Queries
from relay.store.nodes import NodeView
from relay.store.recover import ReasonGroup
from relay.store.values import DeliveryView, EventView, Request

#: Columns of a table that does not go to a terminal.
WIDTH = 200

#: Printed for a change that was not made, because somebody else was faster.
CHANGED = "changed meanwhile: look again"

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
    """Print the nodes that use the store, or did so lately."""
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


def show_stopped(deliveries: Iterable[FoundDelivery], *, as_json: bool) -> None:
    """Print deliveries that are dead or held."""
    if as_json:
        for each in deliveries:
            print_json(stopped_json(each))
        return
    table = table_of(
        "received", "message", "customer", "destination", "state", "reason", "delivery"
    )
    for each in deliveries:
        table.add_row(
            shown_time(each.received_at),
            each.message_id or each.event_id,
            each.customer,
            each.destination,
            f"{each.state}, stops its conversation" if each.parks else each.state,
            each.reason,
            each.id,
        )
    print_table(table, empty="nothing is dead or held")


def show_groups(groups: Sequence[ReasonGroup], *, as_json: bool) -> None:
    """Print stopped deliveries by destination and reason, and how to resend a group."""
    if as_json:
        for group in groups:
            print_json(group_json(group))
        return
    table = table_of("number", "destination", "reason", "oldest", "newest")
    for group in groups:
        oldest, newest = shown_time(group.oldest), shown_time(group.newest)
        table.add_row(f"{group.number:,}", group.destination, group.reason, oldest, newest)
    print_table(table, empty="nothing is dead or held")
    if groups:
        click.echo(
            "\nall of a group: gofax-relay resend --destination NAME --reason 'REASON' [--dry-run]"
        )


def show_change(change: Change, *, done: bool, says: str, as_json: bool) -> None:
    """Print what was done, or would be done, to a delivery."""
    delivery = change.delivery
    if as_json:
        print_json(change_json(change, done=done, says=says))
        return
    message = delivery.message_id or delivery.event_id
    print_lines([f"{delivery.id} ({message} to {delivery.destination}, {delivery.state}): {says}"])


def show_replay(replay: Replay, *, added: Sequence[ReplayStep], as_json: bool) -> None:
    """Print what a replay did, or would do, to an event: its destinations then and now."""
    if as_json:
        print_json(replay_json(replay, added=added))
        return
    print_lines(_replay_lines(replay, added))


def says_of(step: ReplayStep, added: Sequence[ReplayStep]) -> str:
    """Return what happened to a step."""
    return CHANGED if step.adds and step not in added else step.says


def all_say(destinations: Mapping[str, Destination], ask: Callable[[Connector[Any]], str]) -> bool:
    """Ask the connector of each destination, and return whether all went well."""
    good = True
    for name, destination in destinations.items():
        try:
            said = ask(destination.connector)
            click.echo(f"✓ {name}: {said}")
        except DeliveryError as error:
            good = False
            click.echo(f"✗ {name}: {type(error).__name__.lower()}: {error}")
        finally:
            destination.connector.close()
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


def stopped_json(delivery: FoundDelivery) -> dict[str, Any]:
    """Return a delivery as ``dead --json`` prints it."""
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "message_id": delivery.message_id,
        "type": delivery.type,
        "customer": delivery.customer,
        "received_at": delivery.received_at.isoformat(),
        "destination": delivery.destination,
        "state": delivery.state.value,
        "reason": delivery.reason,
        "attempts": delivery.attempts,
        "ended_at": delivery.ended_at and delivery.ended_at.isoformat(),
        "late": delivery.late,
        "parks": delivery.parks,
    }


def group_json(group: ReasonGroup) -> dict[str, Any]:
    """Return a group as ``dead --group --json`` prints it."""
    return {
        "destination": group.destination,
        "reason": group.reason,
        "number": group.number,
        "oldest": group.oldest.isoformat(),
        "newest": group.newest.isoformat(),
    }


def change_json(change: Change, *, done: bool, says: str) -> dict[str, Any]:
    """Return what was done to a delivery, as ``resend --json`` prints it."""
    delivery = change.delivery
    return {
        "delivery_id": delivery.id,
        "event_id": delivery.event_id,
        "message_id": delivery.message_id,
        "destination": delivery.destination,
        "was": delivery.state.value,
        "does": change.kind.value if done else ChangeKind.NOTHING.value,
        "says": says,
    }


def replay_json(replay: Replay, *, added: Sequence[ReplayStep]) -> dict[str, Any]:
    """Return what a replay did to an event, as ``replay --json`` prints it."""
    event = replay.found.event
    return {
        "event_id": event.id,
        "message_id": event.message_id,
        "refused": replay.refused,
        "destinations": [
            {
                "destination": step.destination,
                "then": step.then,
                "now": step.now,
                "delivery_id": step.latest and step.latest.id,
                "was": step.latest and step.latest.state.value,
                "adds": step in added,
                "says": says_of(step, added),
            }
            for step in replay.steps
        ],
    }


def _replay_lines(replay: Replay, added: Sequence[ReplayStep]) -> Iterator[str]:
    event = replay.found.event
    yield f"{event.id} ({event.message_id or 'no messageId'}) {event.type}"
    if replay.refused:
        yield f"  {replay.refused}"
    elif not replay.steps:
        yield "  no route matches today, and none did when it came"
    for step in replay.steps:
        sign = "+" if step in added else " " if step.now else "-"
        yield f"  {sign} {step.destination}: {_then_and_now(step)}; {says_of(step, added)}"


def _then_and_now(step: ReplayStep) -> str:
    if step.then == step.now:
        return "routed then and today" if step.now else "routed neither then nor today"
    return "routed today, not then" if step.now else "routed then, not today"


def _short(delivery: DeliveryView) -> str:
    tries = f" ×{delivery.attempts}" if delivery.attempts > 1 else ""
    return f"{SIGNS[delivery.state]} {delivery.destination}{tries}"


def shown_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ")


def table_of(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def print_table(table: Table, *, empty: str) -> None:
    if table.row_count:
        # A file or a pipe has no edge at which to fold.
        width = None if sys.stdout.isatty() else WIDTH
        Console(width=width, highlight=False, markup=False, emoji=False).print(table)
    else:
        click.echo(empty)


def print_lines(lines: Iterable[str]) -> None:
    """Print text for people, without control characters that others may have written."""
    for line in lines:
        click.echo(line.translate(_CONTROLS))


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))
