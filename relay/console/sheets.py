"""Listings to take away: CSV, bounded, written while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from flask import Response, stream_with_context

from relay.shapes import spreadsheet

#: Rows of a file, and how many are read at a time.
MOST, STEP = 10_000, 500


def download(rows: Iterable[Mapping[str, Any]], *, name: str, order: str) -> Response:
    """Answer *rows* as a file; *order*: which of them it has if there are too many."""
    answer = Response(stream_with_context(_bounded(rows, order=order)), mimetype="text/csv")
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return answer


def _bounded(rows: Iterable[Mapping[str, Any]], *, order: str) -> Iterator[str]:
    # Spreadsheets take what has no mark for something else than UTF-8.
    yield "\ufeff"
    left = iter(rows)
    yield from spreadsheet.lines(islice(left, MOST))
    if next(left, None) is not None:
        yield f"only the {order} {MOST} are here: narrow down what you ask for\r\n"
