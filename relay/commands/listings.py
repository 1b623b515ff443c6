"""Listings of events and requests: as tables, JSON lines and CSV, once or as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from relay.commands.filters import Format
from relay.commands.output import SIGNS, print_json, short_ids
from relay.commands.tables import Column, is_terminal, print_lines, print_table, table_time
from relay.commands.times import zone
from relay.shapes import spreadsheet
from relay.shapes.events import event_json
from relay.shapes.requests import request_json
from relay.store import Queries
from relay.store.ids import brief_ids
from relay.store.search import Filter
from relay.store.values import DeliveryView, EventView, Request

T = TypeVar("T")

#: Seconds between two looks for what came, and how many of the newest are looked at.
LOOK, AMONG = 1.0, 1000
#: How many are shown before what comes, unless told otherwise.
BEFORE = 10

_EVENTS = (
    Column(name="received"),
    Column(name="event", extra=1),
    Column(name="message", extra=2, least=12),
    Column(name="type", extra=3, least=9),
    Column(name="from"),
    Column(name="to", extra=5),
    Column(name="again", extra=4),
    Column(name="deliveries", least=37, wraps=True),
)
_REQUESTS = (
    Column(name="time"),
    Column(name="request"),
    Column(name="status"),
    Column(name="outcome"),
    Column(name="endpoint", extra=2, least=16),
    Column(name="remote", extra=1),
    Column(name="message", least=12),
    Column(name="reason", least=30),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listing(Generic[T]):
    """What is listed, and how."""

    columns: Sequence[Column]
    #: Rows for people.
    rows: Callable[[Sequence[T]], Sequence[Mapping[str, str]]]
    #: A row for a spreadsheet, and an object for programs.
    cells: Callable[[T], Mapping[str, Any]]
    as_json: Callable[[T], Mapping[str, Any]]
    id_of: Callable[[T], str]
    empty: str


def show_events(queries: Queries, which: Filter, *, format: Format, limit: int | None) -> None:
    """Print the newest *limit* events that *which* matches, oldest first."""
    shown = _show(_events(queries), queries.events(which, limit=limit), format)
    if is_terminal() and format == "table":
        _show_legend(shown)


def show_requests(queries: Queries, which: Filter, *, format: Format, limit: int | None) -> None:
    """Print the newest *limit* requests that *which* matches, oldest first."""
    _show(_requests(), queries.requests(which, limit=limit), format)


def follow_events(queries: Queries, which: Filter, *, format: Format, limit: int | None) -> None:
    """Print events that *which* matches as they come, or come to match, after the newest."""

    def look() -> Sequence[EventView]:
        return queries.recent(which, among=AMONG)

    _follow(_events(queries), look, format, before=limit)


def follow_requests(queries: Queries, which: Filter, *, format: Format, limit: int | None) -> None:
    """Print requests that *which* matches as they come, after the newest."""

    def look() -> Sequence[Request]:
        return queries.recent_requests(which, among=AMONG)

    _follow(_requests(), look, format, before=limit)


def _show(listing: _Listing[T], found: Iterable[T], format: Format) -> Sequence[T]:
    """Print all of *found*, and return it if it was printed as a table."""
    match format:
        case "json":
            for each in found:
                print_json(listing.as_json(each))
        case "csv":
            _print_csv(map(listing.cells, found), header=True)
        case "table":
            shown = list(found)
            print_table(listing.columns, listing.rows(shown), empty=listing.empty)
            return shown
    return ()


def _follow(
    listing: _Listing[T], look: Callable[[], Sequence[T]], format: Format, *, before: int | None
) -> None:
    first = look()
    known = {listing.id_of(each) for each in first}
    _print_more(listing, first[-(BEFORE if before is None else before) :], format, header=True)
    while True:
        time.sleep(LOOK)
        seen = look()
        new = [each for each in seen if listing.id_of(each) not in known]
        known |= {listing.id_of(each) for each in new}
        _print_more(listing, new, format, header=False)


def _print_more(listing: _Listing[T], new: Sequence[T], format: Format, *, header: bool) -> None:
    """Print a part of a listing that has no end: there is no table to fit."""
    match format:
        case "json":
            for each in new:
                print_json(listing.as_json(each))
        case "csv":
            _print_csv(map(listing.cells, new), header=header)
        case "table":
            print_lines("  ".join(filter(None, row.values())) for row in listing.rows(new))


def _events(queries: Queries) -> _Listing[EventView]:
    def rows(views: Sequence[EventView]) -> Sequence[Mapping[str, str]]:
        ids = short_ids(queries, [view.event.id for view in views])
        return [
            {
                "received": table_time(view.event.received_at),
                "event": ids[view.event.id],
                "message": view.event.message_id or "",
                "type": _type(view),
                "from": view.event.sender or "",
                "to": view.event.recipient or "",
                "again": str(view.duplicates or ""),
                "deliveries": _deliveries(view),
            }
            for view in views
        ]

    return _Listing(
        columns=_EVENTS,
        rows=rows,
        cells=lambda view: spreadsheet.event_cells(view, zone=zone()),
        as_json=event_json,
        id_of=lambda view: view.event.id,
        empty="no events yet",
    )


def _requests() -> _Listing[Request]:
    def rows(requests: Sequence[Request]) -> Sequence[Mapping[str, str]]:
        refused = [request.id for request in requests if request.outcome == "refused"]
        ids = brief_ids(refused) if is_terminal() else {each: each for each in refused}
        return [
            {
                "time": table_time(request.at),
                "request": ids.get(request.id, ""),
                "status": str(request.status),
                "outcome": request.outcome,
                "endpoint": request.endpoint,
                "remote": request.remote or "",
                "message": request.message_id or "",
                "reason": request.reason,
            }
            for request in requests
        ]

    return _Listing(
        columns=_REQUESTS,
        rows=rows,
        cells=lambda request: spreadsheet.request_cells(request, zone=zone()),
        as_json=request_json,
        id_of=lambda request: request.id,
        empty="no requests yet",
    )


def _print_csv(rows: Iterable[Mapping[str, Any]], *, header: bool) -> None:
    for line in spreadsheet.lines(rows, header=header):
        click.echo(line, nl=False)


def _type(view: EventView) -> str:
    noted = ["test"] if view.event.test else []
    noted += [] if view.standing == "accepted" else [view.standing]
    return view.event.type + (f" ({', '.join(noted)})" if noted else "")


def _deliveries(view: EventView) -> str:
    return "  ".join(map(_short, view.deliveries)) or "no route matched"


def _short(delivery: DeliveryView) -> str:
    # A line of a terminal ends at a blank.
    gap = "" if is_terminal() else " "
    tries = f"{gap}×{delivery.attempts}" if delivery.attempts > 1 else ""
    return f"{SIGNS[delivery.state]}{gap}{delivery.destination}{tries}"


def _show_legend(views: Iterable[EventView]) -> None:
    """Say what the marks of deliveries mean, as far as they were used."""
    deliveries = [delivery for view in views for delivery in view.deliveries]
    used = {delivery.state for delivery in deliveries}
    said = [f"{SIGNS[each]} {each.replace('_', ' ')}" for each in SIGNS if each in used]
    if any(delivery.attempts > 1 for delivery in deliveries):
        said.append("×2 after two attempts")
    if said:
        print_lines(["", "   ".join(said)])
