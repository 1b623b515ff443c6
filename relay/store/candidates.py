"""Which events may match a filter? Reads the one index that leaves the fewest of them.

A database that plans a query with many conditions guesses how many rows each leaves, and a wrong
guess reads the whole table. So one condition is answered by its index, in the order of arrival,
and :class:`~relay.store.read.Queries` tests the others on the events found, page by page.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import schema
from relay.store.database import Database
from relay.store.search import Filter, ends_with
from relay.store.values import is_of_kind

#: Entries of an index that are read together.
PAGE = 200
#: Entries up to which the ways through the indexes are compared.
COUNTED = 1000

_d, _e = schema.deliveries.c, schema.events.c
_LISTED: sa.ColumnElement[str] = sa.literal_column(schema.LISTED.text, sa.Text())


@dataclass(frozen=True, kw_only=True)
class _Range:
    """A part of an index, in the order of *columns*."""

    columns: tuple[sa.Column[Any], ...]
    where: tuple[sa.ColumnElement[bool], ...]

    def size(self, db: sa.Connection) -> int:
        """Return how many entries there are, up to the number that is counted."""
        some = sa.select(self.columns[0]).where(*self.where).limit(COUNTED).subquery()
        return db.scalar(sa.select(sa.func.count()).select_from(some)) or 0

    def walk(self, database: Database, *, newest_first: bool) -> Iterator[Any]:
        """Yield the entries, page by page."""
        order = [each.desc() if newest_first else each for each in self.columns]
        wanted = sa.select(*self.columns).where(*self.where).order_by(*order).limit(PAGE)
        after: sa.ColumnElement[bool] = sa.true()
        while True:
            with database.reading() as db:
                rows = db.execute(wanted.where(after)).all()
            yield from rows
            if len(rows) < PAGE:
                return
            last = [
                sa.literal(value, c.type) for value, c in zip(rows[-1], self.columns, strict=True)
            ]
            mine, that = sa.tuple_(*self.columns), sa.tuple_(*last)
            after = mine < that if newest_first else mine > that


#: Ranges of one index that together hold every match; the last column names the event.
_Way = Sequence[_Range]


def pages(
    database: Database, wanted: Filter, *, newest_first: bool, size: int = PAGE
) -> Iterator[Sequence[int]]:
    """Yield the numbers of the events that *wanted* may match, *size* by *size*."""
    if (few := _few(wanted)) is not None:
        with database.reading() as db:
            seqs = sorted(db.scalars(sa.select(_e.seq).where(few)), reverse=newest_first)
        yield from _batches(iter(seqs), size)
        return
    with database.reading() as db:
        # The first of equals is taken: a span of time ends where its events do.
        by_all = _by_time(wanted), _by_delivery(db, wanted), _by_kind(db, wanted)
        ways = [way for way in by_all if way is not None]
        way = min(ways, key=lambda way: sum(each.size(db) for each in way), default=_ALL)
    walks = [each.walk(database, newest_first=newest_first) for each in way]
    entries = heapq.merge(*walks, reverse=newest_first)
    names = (name for name, _ in groupby(entry[-1] for entry in entries))
    by_id = bool(way) and way[0].columns[-1] is _d.event_id
    for page in _batches(names, size):
        yield _seqs(database, page) if by_id else page


def listed(db: sa.Connection) -> Iterator[tuple[str, State]]:
    """Yield each destination with each state in which it has deliveries."""
    for each in _distinct(db, _LISTED, schema.deliveries):
        name, _, state = each.rpartition("/")
        yield name, State(state)


def is_listed(name: str, state: State) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery has this destination and state, for its index."""
    return sa.literal(f"{name}/{state.value}") == _LISTED


def _few(wanted: Filter) -> sa.ColumnElement[bool] | None:
    """Return a condition that few events meet."""
    if wanted.message_id is not None:
        return _e.message_id == wanted.message_id
    return None if wanted.ending is None else ends_with(wanted.ending)


def _by_delivery(db: sa.Connection, wanted: Filter) -> _Way | None:
    if not (wanted.destinations or wanted.states):
        return None
    return [
        _Range(columns=(_d.event_id,), where=(is_listed(name, state),))
        for name, state in listed(db)
        if not wanted.destinations or name in wanted.destinations
        if not wanted.states or state in wanted.states
    ]


def _by_kind(db: sa.Connection, wanted: Filter) -> _Way | None:
    if not (wanted.standings or wanted.endpoint or wanted.type):
        return None
    asked = partial(
        is_of_kind, standings=wanted.standings, endpoint=wanted.endpoint, type=wanted.type
    )
    kinds = filter(asked, _distinct(db, _e.kind, schema.events))
    return [_Range(columns=(_e.seq,), where=(_e.kind == each,)) for each in kinds]


def _by_time(wanted: Filter) -> _Way | None:
    bounds = [
        *([] if wanted.since is None else [_e.received_at >= wanted.since]),
        *([] if wanted.until is None else [_e.received_at < wanted.until]),
    ]
    return [_Range(columns=(_e.received_at, _e.seq), where=tuple(bounds))] if bounds else None


_ALL: _Way = [_Range(columns=(_e.seq,), where=())]


def _distinct(db: sa.Connection, column: sa.ColumnElement[str], table: sa.Table) -> Iterator[str]:
    """Yield the different values of an index's first column, which are few, without the rest."""
    least = sa.select(sa.func.min(column)).select_from(table)
    value = db.scalar(least)
    while value is not None:
        yield value
        value = db.scalar(least.where(column > value))


def _seqs(database: Database, ids: Sequence[str]) -> Sequence[int]:
    with database.reading() as db:
        return db.scalars(sa.select(_e.seq).where(_e.id.in_(ids))).all()


def _batches(names: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while page := list(islice(names, size)):
        yield page
