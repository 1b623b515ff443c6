"""The full-text index: which events have these words?

A node indexes events behind their accepts (:class:`Texts`), the newest first. The index only says
which events may match: :meth:`~relay.rules.wording.Wording.is_in` tests them.

Each word stands in the index with the number of its block, a run of events. So a search begins
with the newest block and ends where it has enough, however many events have the word; and a
beginning of a word is looked up among the words of one block.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import sqlalchemy as sa

from relay.rules.wording import Wording, words
from relay.store import schema
from relay.store.database import Database

#: Events that are indexed together, and of one block (as a power of two).
BATCH, BLOCK = 1000, 16
#: Blocks that one query looks at, at the most, and matches that it gives.
MOST_BLOCKS, MOST_MATCHES = 16, 5000
#: New events that are not indexed yet of which a search looks at the texts.
MOST_NEW = 5000
#: Words by which the index is asked; the longest are the rarest.
MOST_ASKED = 6
#: Seconds after which no transaction is open any more that has taken an event's number.
SETTLED_AFTER = 60.0
#: Events that may have been numbered in these seconds by a store that was never indexed.
UNSETTLED = 10_000
#: Pages of the index that one step merges, and how often removed words are merged away.
MERGED, MERGE_EVERY = 100, timedelta(hours=20)

#: Marks: what is indexed; the last removal of words that are still in the files;
#: when the files last forgot them.
INDEXED, REMOVED, MERGED_AT = "texts", "texts_removed", "texts_merged"
#: The marks that belong to the index of one store.
MARKS = (INDEXED, REMOVED, MERGED_AT)
#: What only one node does at a time: indexing, and removing from the index.
LOCK = "texts"

_e, _marks = schema.events.c, schema.marks


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """The events that are indexed, by their numbers."""

    #: From and to.
    first: int
    last: int
    #: Up to here every number is settled: no transaction can bring such an event any more.
    settled: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """What is not indexed."""

    #: Whether older events are still to be indexed, and when the newest of them was received.
    older: datetime | None
    #: When the oldest of the new events was received that is not indexed.
    newer: datetime | None


class Texts:
    """The index of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Times, by our monotonic clock, with the newest number that was seen then.
        self._seen: deque[tuple[float, int]] = deque()

    def index(self, *, limit: int = BATCH) -> int:
        """Index up to *limit* events, the new ones first; return how many it looked at.

        If these are fewer, none are left.
        """
        with self._database.reading() as db:
            known = _extent(db)
            newest = _newest(db)
            extent = known or self._first_extent(newest)
            rows, after = self._next(db, extent, newest, limit=limit)
        if not rows and (after == known or not newest):
            return 0
        terms = {row.seq: terms_of(row.seq, row.body) for row in rows if row.body}
        with self._database.writing_unsynced() as db:
            if not self._database.try_exclusive(db, LOCK) or _extent(db) != known:
                return 0  # another node is at it
            # What was removed since it was read stays removed.
            there = set(db.scalars(sa.select(_e.seq).where(_e.seq.in_(terms))))
            self._insert(db, {seq: said for seq, said in terms.items() if seq in there})
            _set_mark(self._database, db, INDEXED, json.dumps(asdict(after)))
        return len(rows)

    def lag(self) -> Lag:
        """Return what is not indexed."""
        with self._database.reading() as db:
            extent = _extent(db) or Extent(first=1, last=0, settled=0)
            older = sa.select(_e.received_at).where(_e.seq < extent.first)
            newer = sa.select(_e.received_at).where(_e.seq > extent.last)
            return Lag(
                older=db.scalar(older.order_by(_e.seq.desc()).limit(1)),
                newer=db.scalar(newer.order_by(_e.seq).limit(1)),
            )

    def find(
        self,
        wording: Wording,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
    ) -> Iterator[int]:
        """Yield the numbers of events that may have *wording*, the newest first.

        New events that are not indexed yet may all have it. What lies out of the order of time
        comes last. *before*: only events with lower numbers.
        """
        with self._database.reading() as db:
            extent = _extent(db) or Extent(first=1, last=0, settled=0)
            low, high = _span(db, extent, since, until)
        last = extent.last if before is None else min(extent.last, before - 1)
        high = min(high, last >> BLOCK)
        found = chain(
            self._not_indexed(extent),
            self._of_blocks(wording, low, high),
            self._of_blocks(wording, high + 1, last >> BLOCK),
        )
        yield from (seq for seq in found if before is None or seq < before)

    def remove(self, db: sa.Connection, seqs: Collection[int]) -> None:
        """Remove events from the index, in the transaction that removes them."""
        if not seqs:
            return
        these = _key(self._database).in_(seqs)
        if db.execute(sa.delete(_texts).where(these)).rowcount:
            now = self._database.clock().isoformat()
            _set_mark(self._database, db, REMOVED, now)

    def hold(self, db: sa.Connection) -> None:
        """Let nothing be indexed until *db* commits, so that what it removes stays removed."""
        self._database.hold_exclusive(db, LOCK)

    def merge(self, *, every: timedelta = timedelta()) -> Generator[None, None, None]:
        """Take removed words out of a file, unless that was done lately; yield after each step.

        SQLite only notes that a row was removed, and forgets its words when it merges the parts of
        the index. (Its ``secure-delete`` would remove them at once, and leave a file that its
        versions before 3.42 cannot read.)
        """
        if self._is_sqlite:
            yield from self._forget(self._merged(), every=every)

    def rebuild(self, *, every: timedelta = timedelta()) -> Generator[None, None, None]:
        """Take removed words out of a server, unless that was done lately; yield meanwhile.

        Its index keeps each word that it ever had, until it is built again.
        """
        if not self._is_sqlite:
            yield from self._forget(self._database.rebuild_texts(), every=every)

    def _forget(
        self, steps: Generator[None, None, bool], *, every: timedelta
    ) -> Generator[None, None, None]:
        """Take *steps*, which return whether they were all taken, if any words were removed."""
        with self._database.reading() as db:
            removed, merged = _mark(db, REMOVED), _mark(db, MERGED_AT)
        now = self._database.clock()
        if removed is None or (merged and now - datetime.fromisoformat(merged) < every):
            return
        if not (yield from steps):
            return
        with self._database.writing_unsynced() as db:
            value = removed.encode()
            db.execute(sa.delete(_marks).where(_marks.c.name == REMOVED, _marks.c.value == value))
            _set_mark(self._database, db, MERGED_AT, now.isoformat())

    def _merged(self) -> Generator[None, None, bool]:
        # A negative number gathers all parts, and the others go on with that.
        pages = -MERGED
        while self._merge_some(pages):
            pages = MERGED
            yield
        return True

    def _merge_some(self, pages: int) -> bool:
        """Merge some pages; return whether anything was left to do."""
        with self._database.writing_unsynced() as db:
            driver: Any = db.connection.driver_connection
            before = driver.total_changes
            step = "INSERT INTO texts (texts, rank) VALUES ('merge', :pages)"
            db.execute(sa.text(step), {"pages": pages})
            # Its own note of it is one.
            return bool(driver.total_changes - before > 1)

    @property
    def _is_sqlite(self) -> bool:
        return self._database.file is not None

    def _first_extent(self, newest: int) -> Extent:
        settled = newest if self._is_sqlite else max(0, newest - UNSETTLED)
        return Extent(first=settled + 1, last=newest, settled=settled)

    def _next(
        self, db: sa.Connection, extent: Extent, newest: int, *, limit: int
    ) -> tuple[Sequence[Any], Extent]:
        """Return the events to index next, and what is indexed then."""
        settled = self._settled(newest)
        new = self._events(db, _e.seq > extent.last, _e.seq.asc(), limit)
        last = new[-1].seq if new else extent.last
        late = self._late(db, extent, limit - len(new))
        if len(new) + len(late) < limit:
            settled = min(last, max(settled, extent.settled))
        else:
            settled = extent.settled
        left = limit - len(new) - len(late)
        old = self._events(db, _e.seq < extent.first, _e.seq.desc(), left) if left else []
        first = extent.first if not left else old[-1].seq if len(old) == left else 1
        return [*new, *late, *old], Extent(first=first, last=last, settled=settled)

    def _settled(self, newest: int) -> int:
        """Return the number up to which every event is here."""
        if self._is_sqlite:
            return newest  # it has one writer at a time
        now = time.monotonic()
        if not self._seen or self._seen[-1][0] < now - 1:
            self._seen.append((now, newest))
        while len(self._seen) > 1 and self._seen[1][0] <= now - SETTLED_AFTER:
            self._seen.popleft()
        at, seen = self._seen[0]
        return seen if at <= now - SETTLED_AFTER else 0

    def _late(self, db: sa.Connection, extent: Extent, limit: int) -> Sequence[Any]:
        """Return events that were committed after others with higher numbers."""
        if self._is_sqlite or limit <= 0 or extent.settled >= extent.last:
            return []
        missing = ~sa.select(1).where(_texts.c.seq == _e.seq).correlate(schema.events).exists()
        unsettled = sa.and_(_e.seq > extent.settled, _e.seq <= extent.last, missing)
        return self._events(db, sa.and_(unsettled, _e.body != ""), _e.seq.asc(), limit)

    def _events(
        self,
        db: sa.Connection,
        where: sa.ColumnElement[bool],
        order: sa.ColumnElement[int],
        limit: int,
    ) -> Sequence[Any]:
        wanted = sa.select(_e.seq, _e.body).where(where).order_by(order).limit(limit)
        return db.execute(wanted).all()

    def _insert(self, db: sa.Connection, terms: Mapping[int, str]) -> None:
        if not terms:
            return
        if self._is_sqlite:
            rows = [(seq, said) for seq, said in sorted(terms.items()) if said]
            if rows:
                # Past SQLAlchemy, whose part of it would be a third.
                db.exec_driver_sql(_INSERT_SQLITE, rows)
            return
        db.execute(_INSERT_POSTGRES, {"seqs": [*terms], "words": [*terms.values()]})

    def _of_blocks(self, wording: Wording, low: int, high: int) -> Iterator[int]:
        for some in _groups(low, high):
            asked = _query(wording, some, is_sqlite=self._is_sqlite)
            before: int | None = None
            while found := self._ask(asked, before=before):
                yield from found
                if len(found) < MOST_MATCHES:
                    break
                before = found[-1]

    def _ask(self, asked: str, *, before: int | None) -> Sequence[int]:
        key = _key(self._database)
        wanted = sa.select(key.label("seq")).where(_matches(self._database, asked))
        if before is not None:
            wanted = wanted.where(key < before)
        with self._database.reading() as db:
            if not self._is_sqlite:
                db.execute(_PLAINLY)
                found = wanted.cte("found").prefix_with("MATERIALIZED")
                wanted = sa.select(found.c.seq)
            return db.scalars(wanted.order_by(sa.desc("seq")).limit(MOST_MATCHES)).all()

    def _not_indexed(self, extent: Extent) -> Sequence[int]:
        """Return the numbers of the newest events that are not indexed yet."""
        wanted = sa.select(_e.seq).where(_e.seq > extent.last).order_by(_e.seq.desc())
        with self._database.reading() as db:
            return db.scalars(wanted.limit(MOST_NEW)).all()


def terms_of(seq: int, body: str) -> str:
    """Return what stands in the index for a text: each word with the number of the block."""
    block = _name(seq >> BLOCK)
    return " ".join(block + word for word in words(body))


def _name(block: int) -> str:
    """Write the number of a block in front of a word, at a length that all have."""
    return f"{block:06x}"


def _groups(low: int, high: int) -> Iterator[Sequence[int]]:
    """Yield the blocks from *high* down to *low*: one, then more and more together."""
    size = 1
    while high >= low:
        yield range(high, max(low, high - size + 1) - 1, -1)
        high, size = high - size, min(2 * size, MOST_BLOCKS)


def _span(
    db: sa.Connection, extent: Extent, since: datetime | None, until: datetime | None
) -> tuple[int, int]:
    """Return the first and the last block that events of this time are in, except late ones."""
    first = db.scalar(sa.select(sa.func.min(_e.seq))) or extent.first
    last = extent.last
    by_time = sa.select(_e.seq).limit(1)
    if since is not None:
        begin = by_time.where(_e.received_at >= since).order_by(_e.received_at, _e.seq)
        found = db.scalar(begin)
        # Clocks of several nodes may differ a little.
        first = last if found is None else max(first, found - (1 << BLOCK))
    if until is not None:
        end = by_time.where(_e.received_at < until)
        found = db.scalar(end.order_by(_e.received_at.desc(), _e.seq.desc()))
        last = min(last, found or first)
    return max(first, extent.first) >> BLOCK, last >> BLOCK


def _query(wording: Wording, blocks: Sequence[int], *, is_sqlite: bool) -> str:
    """Write what the index is asked."""
    # Words are letters and digits, so that none of them ends its quotes.
    longest = sorted(wording.whole, key=len, reverse=True)[:MOST_ASKED]
    quote, every, either, more = (
        ('"', " AND ", " OR ", "*") if is_sqlite else ("'", "&", "|", ":*")
    )

    def of_block(block: int) -> str:
        name = _name(block)
        whole = [f"{quote}{name}{word}{quote}" for word in longest]
        return every.join([*whole, f"{quote}{name}{wording.beginning}{quote}{more}"])

    return either.join(f"({of_block(block)})" for block in blocks)


def _key(database: Database) -> sa.ColumnClause[int]:
    return _texts.c.rowid if database.file is not None else _texts.c.seq


def _matches(database: Database, asked: str) -> sa.TextClause:
    is_sqlite = database.file is not None
    matches = "texts MATCH :asked" if is_sqlite else "words @@ CAST(:asked AS tsquery)"
    return sa.text(matches).bindparams(asked=asked)


def _newest(db: sa.Connection) -> int:
    return db.scalar(sa.select(sa.func.max(_e.seq))) or 0


def _extent(db: sa.Connection) -> Extent | None:
    found = _mark(db, INDEXED)
    return None if found is None else Extent(**json.loads(found))


def _mark(db: sa.Connection, name: str) -> str | None:
    value = db.scalar(sa.select(_marks.c.value).where(_marks.c.name == name))
    return None if value is None else bytes(value).decode()


def _set_mark(database: Database, db: sa.Connection, name: str, value: str) -> None:
    insert = database.insert(_marks).values(name=name, value=value.encode())
    changed = {"value": insert.excluded["value"]}
    db.execute(insert.on_conflict_do_update(index_elements=[_marks.c.name], set_=changed))


# A virtual table in SQLite, and a table in PostgreSQL: made by the migration, as no expression of
# SQLAlchemy could.
_texts = sa.table("texts", sa.column("rowid", sa.Integer), sa.column("seq", sa.BigInteger),
                  sa.column("words"))  # fmt: skip
_INSERT_SQLITE = "INSERT OR REPLACE INTO texts (rowid, words) VALUES (?, ?)"
# The server's guess of how many rows have a word is far off: for it, to read them all, or to read
# back from the newest, would take minutes, and to compile the query longer than to run it.
_PLAINLY = sa.text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),"
    " set_config('max_parallel_workers_per_gather', '0', true)"
)
_INSERT_POSTGRES = sa.text(
    "INSERT INTO texts (seq, words)"
    " SELECT seq, array_to_tsvector(string_to_array(words, ' '))"
    " FROM unnest(CAST(:seqs AS bigint[]), CAST(:words AS text[])) AS given (seq, words)"
    " ON CONFLICT DO NOTHING"
)
