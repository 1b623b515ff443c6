"""The ring of refused requests: bounded in rows and in bytes, the oldest make room."""

from __future__ import annotations

import sqlalchemy as sa

from relay.store import schema
from relay.store.database import Database

#: How many refused requests are kept, and how many bytes of their headers and bodies.
ROWS_KEPT, BYTES_KEPT = 10_000, 64 << 20
#: Below what share of the disk's reserve none is noted any more, and below which the oldest go.
SHARE, EVICTED_BELOW = 1.5, 1.25
#: Rows that are read at once.
PAGE = 200

_requests = schema.requests


def evict(
    database: Database, db: sa.Connection, *, rows: int = ROWS_KEPT, size: int = BYTES_KEPT
) -> int:
    """Remove the oldest refused requests beyond *rows* and *size*; return how many those were."""
    kept = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_requests.c.size), 0))
    number, total = db.execute(kept.where(schema.REFUSED)).one()
    if number <= rows and total <= size:
        return 0
    # A second node that evicts the same rows would only wait for the first.
    if not database.try_exclusive(db, "evict"):
        return 0
    last = _last_to_go(db, rows=number - rows, size=total - size)
    return db.execute(sa.delete(_requests).where(schema.REFUSED, _requests.c.seq <= last)).rowcount


def evict_oldest(database: Database, db: sa.Connection, rows: int) -> int:
    """Remove the *rows* oldest refused requests; return how many there were."""
    if not database.try_exclusive(db, "evict"):
        return 0
    last = _last_to_go(db, rows=rows, size=0)
    return db.execute(sa.delete(_requests).where(schema.REFUSED, _requests.c.seq <= last)).rowcount


def _last_to_go(db: sa.Connection, *, rows: int, size: int) -> int:
    """Return the last of the oldest refused requests that are so many rows and bytes."""
    last = 0
    oldest = sa.select(_requests.c.seq, _requests.c.size).where(schema.REFUSED)
    # Few go, of many that there are: neither database reads them all for that.
    paged = {"yield_per": PAGE}
    with db.execute(oldest.order_by(_requests.c.seq), execution_options=paged) as found:
        for row in found:
            last, rows, size = row.seq, rows - 1, size - row.size
            if rows <= 0 and size <= 0:
                break
    return last
