"""Listings as CSV for a spreadsheet, in which nothing that customers write is a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Any

from relay.rules import jsontext
from relay.store.values import EventView, Request

#: Cells that a spreadsheet would evaluate as a formula, behind blanks and in full width too; a
#: phone number is not one.
_FORMULA = re.compile(r"\s*(?:[=@\uff1d\uff20\uff0b\uff0d]|[+-](?![0-9 ]*$))")


def lines(rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> Iterator[str]:
    """Yield rows as lines of CSV, the first of which has the names of the columns."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for number, row in enumerate(rows):
        if header and number == 0:
            writer.writerow(row)
        writer.writerow([cell(value) for value in row.values()])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def cell(value: Any) -> str:
    """Return what a cell has.

    >>> cell("=1+1"), cell("+61 400 000 001"), cell(None)
    ("'=1+1", '+61 400 000 001', '')
    """
    text = "" if value is None else jsontext.plain(str(value))
    return f"'{text}" if _FORMULA.match(text) else text


def event_cells(view: EventView, *, zone: tzinfo) -> dict[str, Any]:
    """Return the cells of an event with its deliveries."""
    event = view.event
    return {
        "received": time_cell(event.received_at, zone),
        "event": event.id,
        "message_id": event.message_id,
        "type": event.type,
        "standing": view.standing,
        "test": "test" if event.test else "",
        "endpoint": event.endpoint,
        "from": event.sender,
        "to": event.recipient,
        "text": event.body,
        "duplicates": view.duplicates,
        "deliveries": "; ".join(f"{each.destination} {each.state}" for each in view.deliveries),
        "links": " ".join(each.url for each in view.deliveries if each.url),
    }


def request_cells(request: Request, *, zone: tzinfo) -> dict[str, Any]:
    """Return the cells of a request."""
    return {
        "time": time_cell(request.at, zone),
        "request": request.id,
        "status": request.status,
        "outcome": request.outcome,
        "endpoint": request.endpoint,
        "remote": request.remote,
        "message_id": request.message_id,
        "event": request.event_id,
        "reason": request.reason,
    }


def time_cell(time: datetime, zone: tzinfo) -> str:
    """Write a time for a cell."""
    return time.astimezone(zone).isoformat(timespec="seconds")
