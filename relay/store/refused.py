"""The refused requests: those that carry a signature, to be let in later, and a ring of others.

Each kind is bounded, in bytes or in rows as well. Among those that carry a signature no stranger
pushes genuine ones out: the address with most bytes loses its oldest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules import addresses
from relay.store import schema
from relay.store.database import Database
from relay.store.values import Request, load_request

#: Below what share of the disk's reserve none is noted any more, and below which the oldest go.
SHARE, EVICTED_BELOW = 1.5, 1.25
#: How many refused requests without a signature are kept, and how many bytes of them.
ROWS_KEPT, RING_BYTES = 10_000, 64 << 20
#: Bytes of those that carry one, unless the config says otherwise.
BYTES_KEPT = 64 << 20
#: Rows that are read at once.
PAGE = 200
#: Answers after which a request is never let in: its method, its time or its length was wrong.
NEVER_ADMITTED = (405, 408, 413)
#: The mark that counts those that carried a signature and had to go.
EVICTED = "requests_evicted"

_table = schema.requests
_c = _table.c
_SIGNED = sa.and_(schema.REFUSED, _c.signed)
_OTHERS = sa.and_(schema.REFUSED, ~_c.signed)


class Refused:
    """Reads the refused requests that a person may let in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def admissible(
        self,
        *,
        ids: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Request]:
        """Yield what carries a signature and is here whole, in the order in which it came."""
        wanted = [_SIGNED, _c.whole, _c.status.not_in(NEVER_ADMITTED)]
        wanted += [_c.id.in_(ids)] if ids else []
        wanted += [_c.at >= since] if since else []
        wanted += [_c.at < until] if until else []
        last = 0
        while rows := self._page(*wanted, _c.seq > last):
            yield from (load_request(row) for row in rows)
            last = rows[-1]["seq"]

    def named(self, name: str) -> Sequence[Request]:
        """Return the refused requests whose id begins with *name*, two at the most."""
        with self._database.reading() as db:
            found = db.execute(
                sa.select(_table)
                .where(schema.REFUSED, _c.id.startswith(name, autoescape=True))
                .order_by(_c.seq)
                .limit(2)
            )
            return [load_request(row) for row in found.mappings()]

    def evicted(self) -> int:
        """Return how many that carried a signature had to make room, since the store began."""
        with self._database.reading() as db:
            return _evicted(db)

    def _page(self, *where: sa.ColumnElement[bool]) -> Sequence[sa.RowMapping]:
        with self._database.reading() as db:
            wanted = sa.select(_table).where(*where).order_by(_c.seq).limit(PAGE)
            return db.execute(wanted).mappings().all()


def evict(
    database: Database,
    db: sa.Connection,
    *,
    rows: int = ROWS_KEPT,
    size: int = RING_BYTES,
    keep: int = BYTES_KEPT,
) -> int:
    """Remove what is too much of either kind; return how many requests those were.

    *rows* and *size* bound the requests without a signature, *keep* the bytes of the others.
    """
    number, total = _held(db, _OTHERS)
    signed = _held(db, _SIGNED)[1]
    if number <= rows and total <= size and signed <= keep:
        return 0
    # A second node that evicts the same rows would only wait for the first.
    if not database.try_exclusive(db, "evict"):
        return 0
    gone = 0
    if number > rows or total > size:
        gone += _remove_oldest(db, _OTHERS, rows=number - rows, size=total - size)
    if signed > keep:
        evicted = _evict_signed(db, excess=signed - keep)
        _count_evicted(database, db, evicted)
        gone += evicted
    return gone


def evict_oldest(database: Database, db: sa.Connection, rows: int) -> int:
    """Remove the *rows* oldest without a signature, of others about as many; return the number."""
    if not database.try_exclusive(db, "evict"):
        return 0
    if gone := _remove_oldest(db, _OTHERS, rows=rows, size=0):
        return gone
    number, total = _held(db, _SIGNED)
    if not number:
        return 0
    evicted = _evict_signed(db, excess=-(-total * min(rows, number) // number))
    _count_evicted(database, db, evicted)
    return evicted


def shares(held: Mapping[str, int], excess: int) -> Mapping[str, int]:
    """Return the bytes that each address has to give so that *excess* go: the largest give first.

    >>> shares({"a": 10, "b": 6, "c": 1}, 6)
    {'a': 5, 'b': 1}
    """
    order = sorted(held.values(), reverse=True)
    level = 0
    for number in range(1, len(order) + 1):
        # The largest *number* of them may give down to the size of the one that follows.
        following = order[number] if number < len(order) else 0
        if sum(order[:number]) - number * following >= excess:
            level = (sum(order[:number]) - excess) // number
            break
    return {who: size - level for who, size in held.items() if size > level}


def _held(db: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[int, int]:
    """Return how many requests there are, and their bytes."""
    counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_c.size), 0)).where(which)
    number, total = db.execute(counted).one()
    return int(number), int(total)


def _evict_signed(db: sa.Connection, *, excess: int) -> int:
    sizes = sa.select(_c.remote, sa.func.sum(_c.size).label("size")).where(_SIGNED)
    held: Counter[str] = Counter()
    members: dict[str, list[str | None]] = {}
    for remote, size in db.execute(sizes.group_by(_c.remote)):
        who = addresses.holder(remote or "")
        held[who] += int(size)
        members.setdefault(who, []).append(remote)
    return sum(
        _remove_oldest(db, sa.and_(_SIGNED, _of(members[who])), rows=0, size=size)
        for who, size in shares(held, excess).items()
    )


def _of(remotes: Sequence[str | None]) -> sa.ColumnElement[bool]:
    return sa.or_(_c.remote.in_([each for each in remotes if each]), *_nobody(remotes))


def _nobody(remotes: Sequence[str | None]) -> Iterator[sa.ColumnElement[bool]]:
    if None in remotes:
        yield _c.remote.is_(None)


def _remove_oldest(
    db: sa.Connection, which: sa.ColumnElement[bool], *, rows: int, size: int
) -> int:
    """Remove the oldest that are so many rows and bytes; return how many went."""
    last = 0
    oldest = sa.select(_c.seq, _c.size).where(which).order_by(_c.seq)
    # Few go, of many that there are: neither database reads them all for that.
    with db.execute(oldest, execution_options={"yield_per": PAGE}) as found:
        for row in found:
            last, rows, size = row.seq, rows - 1, size - row.size
            if rows <= 0 and size <= 0:
                break
    return db.execute(sa.delete(_table).where(which, _c.seq <= last)).rowcount


def _count_evicted(database: Database, db: sa.Connection, number: int) -> None:
    total = str(_evicted(db) + number).encode()
    marks = schema.marks
    db.execute(
        database.insert(marks).on_conflict_do_update(
            index_elements=[marks.c.name], set_={"value": total}
        ),
        [{"name": EVICTED, "value": total}],
    )


def _evicted(db: sa.Connection) -> int:
    wanted: Any = sa.select(schema.marks.c.value).where(schema.marks.c.name == EVICTED)
    return int(bytes(db.scalar(wanted) or b"0"))
