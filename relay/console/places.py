"""Where a page of a listing begins, as its address says it."""

from __future__ import annotations

from flask import abort, request

#: The largest number of a row.
_LARGEST = 2**63 - 1


def number_of(name: str) -> int | None:
    """Return the number *name* of the address; None if it is not there."""
    given = request.args.get(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:20]) <= _LARGEST):
        abort(400, f"{name}: a number that the page before gave")
    return int(given)
