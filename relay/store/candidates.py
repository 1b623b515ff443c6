"""Which events may match a filter? Reads the one index that leaves the fewest of them.

A database that plans a query with many conditions guesses how many rows each leaves, and a wrong
guess reads the whole table. So one condition is answered by its index, in the order of arrival,
and :class:`~relay.store.read.Queries` tests the others on the events found, page by page.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from typing import Any, Protocol

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import schema
from relay.store.database import Database
from relay.store.search import Filter, ends_with
from relay.store.texts import Texts
from relay.store.values import is_of_kind

#: Entries of an index that are read together.
PAGE = 200
#: Entries up to which the ways through the indexes are compared.
COUNTED = 1000
#: Events with the words looked for among which the newest that match everything are.
LOOKED_AT = 5000

#: Is told what a person should know of a search; the time is one to be shown.
Tell = Callable[[str, datetime | None], None]
#: What a search may tell.
TOO_WIDE = (
    "many events have these words: only the newest {number:,} of them were looked at;"
    " give more words or another option"
)
NOT_INDEXED = "texts of events before {time} are not indexed yet: they are found later"

_d, _e = schema.deliveries.c, schema.events.c
#: By the columns of the indexes, what tells a place in them.
_PLACED = {"seq": "seq", "event_id": "id", "received_at": "received_at"}
_LISTED: sa.ColumnElement[str] = sa.literal_column(schema.LISTED.text, sa.Text())


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an event stands in each order in which events are walked through."""

    seq: int
    id: str
    received_at: datetime


def place_of(db: sa.Connection, seq: int) -> Place | None:
    """Return the place of the event numbered *seq*, or of the next one; None: that of no event."""
    columns = _e.seq, _e.id, _e.received_at
    row = db.execute(sa.select(*columns).where(_e.seq >= seq).order_by(_e.seq).limit(1)).first()
    return None if row is None else Place(seq=row.seq, id=row.id, received_at=row.received_at)


@dataclass(frozen=True, kw_only=True)
class _Range:
    """A part of an index, in the order of *columns*."""

    columns: tuple[sa.Column[Any], ...]
    where: tuple[sa.ColumnElement[bool], ...]

    def size(self, db: sa.Connection) -> int:
        """Return how many entries there are, up to the number that is counted."""
        some = sa.select(self.columns[0]).where(*self.where).limit(COUNTED).subquery()
        return db.scalar(sa.select(sa.func.count()).select_from(some)) or 0

    def walk(
        self, database: Database, *, newest_first: bool, before: Place | None = None
    ) -> Iterator[Any]:
        """Yield the entries, page by page; newest first, only those *before* a place, if given."""
        order = [each.desc() if newest_first else each for each in self.columns]
        wanted = sa.select(*self.columns).where(*self.where).order_by(*order).limit(PAGE)
        after: sa.ColumnElement[bool] = sa.true()
        if before is not None:
            after = self._beyond([getattr(before, _PLACED[each.name]) for each in self.columns])
        while True:
            with database.reading() as db:
                rows = db.execute(wanted.where(after)).all()
            yield from rows
            if len(rows) < PAGE:
                return
            after = self._beyond(rows[-1], newest_first=newest_first)

    def _beyond(
        self, values: Sequence[Any], *, newest_first: bool = True
    ) -> sa.ColumnElement[bool]:
        last = [sa.literal(value, c.type) for value, c in zip(values, self.columns, strict=True)]
        mine, that = sa.tuple_(*self.columns), sa.tuple_(*last)
        return mine < that if newest_first else mine > that


@dataclass(frozen=True, kw_only=True)
class _WithWords:
    """The events whose texts may have the words that *wanted* looks for."""

    database: Database
    wanted: Filter

    def size(self, db: sa.Connection) -> int:
        some = islice(self.walk(self.database), COUNTED)
        return sum(1 for _ in some)

    def walk(
        self, database: Database, *, newest_first: bool = True, before: Place | None = None
    ) -> Iterator[Any]:
        assert self.wanted.wording is not None and newest_first
        found = Texts(database).find(
            self.wanted.wording,
            since=self.wanted.since,
            until=self.wanted.until,
            before=None if before is None else before.seq,
        )
        return ((seq,) for seq in found)


class _Part(Protocol):
    def size(self, db: sa.Connection) -> int: ...

    def walk(
        self, database: Database, *, newest_first: bool, before: Place | None
    ) -> Iterator[Any]: ...


#: Parts of one index that together hold every match, and whether they name events by their ids.
_Way = tuple[Sequence[_Part], bool]


def pages(
    database: Database,
    wanted: Filter,
    *,
    newest_first: bool,
    size: int = PAGE,
    look_at: int = LOOKED_AT,
    before: Place | None = None,
    tell: Tell = lambda said, time: None,
) -> Iterator[Sequence[int]]:
    """Yield the numbers of the events that *wanted* may match, *size* by *size*.

    *before*: with the newest first, only those that come after this place.

    If it looks for words, the newest come first in any case, and no more than *look_at*; *tell* is
    told if there are more.
    """
    newest_first = newest_first or wanted.wording is not None
    if (few := _few(wanted)) is not None:
        with database.reading() as db:
            earlier = sa.true() if before is None else _e.seq < before.seq
            few_seqs = db.scalars(sa.select(_e.seq).where(few, earlier))
            seqs = sorted(few_seqs, reverse=newest_first)
        yield from _batches(iter(seqs), size)
        return
    with database.reading() as db:
        # The first of equals is taken: texts are bounded, a span of time ends where its events do.
        by_all = (
            _by_words(database, wanted),
            _by_time(wanted),
            _by_delivery(db, wanted),
            _by_kind(db, wanted),
        )
        ways = [way for way in by_all if way is not None]
        way = _narrowest(db, ways)
    if wanted.wording is not None and (older := Texts(database).lag().older) is not None:
        tell(NOT_INDEXED, older)
    parts, by_id = way
    walks = [each.walk(database, newest_first=newest_first, before=before) for each in parts]
    entries = heapq.merge(*walks, reverse=newest_first)
    names = (name for name, _ in groupby(entry[-1] for entry in entries))
    some = names if wanted.wording is None else islice(names, look_at)
    for page in _batches(some, size):
        yield _seqs(database, page) if by_id else page
    if next(names, None) is not None:
        tell(TOO_WIDE.format(number=look_at), None)


def listed(db: sa.Connection) -> Iterator[tuple[str, State]]:
    """Yield each destination with each state in which it has deliveries."""
    for each in distinct(db, _LISTED, schema.deliveries):
        name, _, state = each.rpartition("/")
        yield name, State(state)


def attempted(db: sa.Connection) -> Iterator[str]:
    """Yield each destination that was ever tried, as far as its attempts are kept."""
    return distinct(db, schema.attempts.c.destination, schema.attempts)


def is_listed(name: str, state: State) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery has this destination and state, for its index."""
    return sa.literal(f"{name}/{state.value}") == _LISTED


def _few(wanted: Filter) -> sa.ColumnElement[bool] | None:
    """Return a condition that few events meet."""
    if wanted.message_id is not None:
        return _e.message_id == wanted.message_id
    return None if wanted.ending is None else ends_with(wanted.ending)


def _narrowest(db: sa.Connection, ways: Sequence[_Way]) -> _Way:
    """Return the way that leaves the fewest events."""
    if len(ways) < 2:
        return ways[0] if ways else _ALL
    return min(ways, key=lambda way: sum(each.size(db) for each in way[0]))


def _by_words(database: Database, wanted: Filter) -> _Way | None:
    if wanted.wording is None:
        return None
    return [_WithWords(database=database, wanted=wanted)], False


def _by_delivery(db: sa.Connection, wanted: Filter) -> _Way | None:
    if not (wanted.destinations or wanted.states):
        return None
    ranges = [
        _Range(columns=(_d.event_id,), where=(is_listed(name, state),))
        for name, state in listed(db)
        if not wanted.destinations or name in wanted.destinations
        if not wanted.states or state in wanted.states
    ]
    return ranges, True


def _by_kind(db: sa.Connection, wanted: Filter) -> _Way | None:
    if not (wanted.standings or wanted.endpoint or wanted.type):
        return None
    asked = partial(
        is_of_kind, standings=wanted.standings, endpoint=wanted.endpoint, type=wanted.type
    )
    kinds = filter(asked, distinct(db, _e.kind, schema.events))
    return [_Range(columns=(_e.seq,), where=(_e.kind == each,)) for each in kinds], False


def _by_time(wanted: Filter) -> _Way | None:
    bounds = [
        *([] if wanted.since is None else [_e.received_at >= wanted.since]),
        *([] if wanted.until is None else [_e.received_at < wanted.until]),
    ]
    columns = _e.received_at, _e.seq
    return ([_Range(columns=columns, where=tuple(bounds))], False) if bounds else None


_ALL: _Way = [_Range(columns=(_e.seq,), where=())], False


def distinct(db: sa.Connection, column: sa.ColumnElement[str], table: sa.Table) -> Iterator[str]:
    """Yield the different values of an index's first column, which are few, without the rest."""
    least = sa.select(sa.func.min(column)).select_from(table)
    value = db.scalar(least)
    while value is not None:
        yield value
        value = db.scalar(least.where(column > value))


def _seqs(database: Database, ids: Sequence[str]) -> Sequence[int]:
    """Return the numbers of events in the order of *ids*."""
    with database.reading() as db:
        found = {
            row.id: row.seq for row in db.execute(sa.select(_e.id, _e.seq).where(_e.id.in_(ids)))
        }
    return [found[each] for each in ids if each in found]


def _batches(names: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield *size* names, then more and more together: whoever goes on found few among them."""
    while page := list(islice(names, size)):
        yield page
        size = max(size, min(2 * size, PAGE))
