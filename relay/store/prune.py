"""Removing what is old or is to be erased, in small steps that delay nobody."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.mentions import Mentions
from relay.store import backup, refused, schema, traces
from relay.store.candidates import distinct
from relay.store.database import Database, OutOfRoom
from relay.store.lanes import forget_empty, lock_lanes, promote
from relay.store.texts import MERGE_EVERY, Texts
from relay.store.traces import Elsewhere
from relay.store.values import type_cut, type_of

#: Rows that one transaction looks at.
STEP = 200

_events, _deliveries, _requests = schema.events, schema.deliveries, schema.requests
_UNFINISHED = [each for each in State if each not in (State.DELIVERED, State.DEAD)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """How many rows of each kind were removed, or would be."""

    events: int = 0
    deliveries: int = 0
    requests: int = 0
    keys: int = 0
    #: Acts of people whose words were blanked.
    words: int = 0
    #: What destinations hold of events that were erased.
    elsewhere: tuple[Elsewhere, ...] = ()

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            events=self.events + other.events,
            deliveries=self.deliveries + other.deliveries,
            requests=self.requests + other.requests,
            keys=self.keys + other.keys,
            words=self.words + other.words,
            elsewhere=tuple(dict.fromkeys((*self.elsewhere, *other.elsewhere))),
        )


class Pruning:
    """Removes events, requests and keys. *dry_run*: only counts what would be removed."""

    def __init__(
        self,
        database: Database,
        *,
        dry_run: bool = False,
        clock: Callable[[], datetime] | None = None,
        step: int = STEP,
    ) -> None:
        """*clock*: replaces the clock of the store."""
        self._database = database
        self._texts = Texts(database)
        self._dry_run = dry_run
        self._size = step
        self._clock = clock or database.clock

    def prune(
        self,
        *,
        before: datetime,
        types_before: Mapping[str, datetime] | None = None,
        refused_before: datetime | None = None,
        keys_before: datetime | None = None,
    ) -> Iterator[Removed]:
        """Remove what is older than *before*, yielding after each step.

        Events of a type in *types_before* go when they are older than that instead. Events with
        unfinished deliveries stay. Refused requests go when they are older than *refused_before*,
        too. Keys stay for ever, or until *keys_before*.
        """
        if types_before:
            yield from self._prune_by_type(before, types_before)
        else:
            yield from self._prune_events(before)
        yield from self._prune_requests(before)
        if refused_before is not None:
            yield from self._prune_refused(refused_before)
        if keys_before is not None:
            yield from self._prune_keys(keys_before)
        yield from self._forget_words(every=MERGE_EVERY)

    def erase(self, number: str) -> Iterator[Removed]:
        """Remove every event of the customer *number*, delivered or not, yielding after each step.

        Refused requests that mention the customer or one of the texts are removed too, and words
        of people that do are blanked. An event that is being delivered stays: erase again later.
        """
        mentions = Mentions(number, self._texts_of(number))
        # Events go last, because an interrupted erasure needs their texts to find the rest.
        yield from self._erase_refused(mentions)
        yield from self._erase_words(mentions)
        yield from self._erase_events(number)
        yield from self._forget_words()

    def _forget_words(self, *, every: timedelta = timedelta()) -> Iterator[Removed]:
        """Take removed words out of the full-text index, unless that was done lately."""
        if not self._dry_run:
            for _ in self._texts.merge(every=every):
                yield Removed()

    def _texts_of(self, number: str) -> set[str]:
        """Return the texts of the customer's events."""
        texts: set[str] = set()
        after = 0
        while True:
            with self._database.reading() as db:
                found = traces.texts(db, number, after=after, limit=self._size)
            if not found:
                return texts
            after = found[-1].seq
            texts.update(row.body for row in found if row.body)

    def _erase_events(self, number: str) -> Iterator[Removed]:
        c = _events.c
        after = 0
        while True:
            wanted = sa.select(c.seq, c.id).where(c.customer == number, c.seq > after)
            wanted = wanted.order_by(c.seq)
            with self._step() as db:
                found = db.execute(wanted.limit(self._size)).all()
                ids = [row.id for row in found]
                removed = self._remove(db, ids, keep=[State.IN_FLIGHT], tell=True)
            if not found:
                return
            after = found[-1].seq
            yield removed

    def _erase_refused(self, mentions: Mentions) -> Iterator[Removed]:
        last = -1
        while last:
            with self._database.reading() as db:
                last, found = traces.refused(db, mentions, after=max(last, 0), limit=self._size)
            if found:
                with self._step() as db:
                    requests = self._delete(db, _requests, _requests.c.seq.in_(found))
                yield Removed(requests=requests)

    def _erase_words(self, mentions: Mentions) -> Iterator[Removed]:
        last = -1
        while last:
            with self._database.reading() as db:
                last, left = traces.words(db, mentions, after=max(last, 0), limit=self._size)
            if not left:
                continue
            if not self._dry_run:
                with self._step() as db:
                    traces.blank_words(db, left)
            yield Removed(words=len(left))
        if not self._dry_run:
            with self._step() as db:
                traces.blank_pauses(db, mentions)

    def make_room(self) -> Iterator[int]:
        """Remove the oldest refused requests while the disk is short; yield each step's number."""
        while not self._has_room():
            with self._database.writing_unsynced() as db:
                gone = refused.evict_oldest(self._database, db, self._size)
            # Overwriting has made the log grow.
            self._database.truncate_log()
            if not gone:
                return
            yield gone

    def rebuild_texts(self) -> Generator[None, None, None]:
        """Take removed words out of a server, once a day; yield meanwhile."""
        return self._texts.rebuild(every=MERGE_EVERY)

    def expire_backups(self, *, before: datetime) -> Iterator[Path]:
        """Do what :func:`relay.store.backup.expire` does."""
        return backup.expire(self._database, before=before)

    def truncate_log(self, *, above: int = 0) -> str:
        """Do what :meth:`Database.truncate_log` does."""
        return self._database.truncate_log(above=above)

    def _has_room(self) -> bool:
        try:
            self._database.require_room(share=refused.EVICTED_BELOW)
        except OutOfRoom:
            return False
        return True

    def _prune_by_type(
        self, before: datetime, types_before: Mapping[str, datetime]
    ) -> Iterator[Removed]:
        # Kind by kind: what is kept longer would otherwise be walked over every hour.
        folded = {type_cut(name).casefold(): moment for name, moment in types_before.items()}
        with self._database.reading() as db:
            kinds = list(distinct(db, _events.c.kind, _events))
        for kind in kinds:
            yield from self._prune_events(
                folded.get(type_of(kind).casefold(), before), _events.c.kind == kind
            )

    def _prune_events(self, before: datetime, *where: sa.ColumnElement[bool]) -> Iterator[Removed]:
        c = _events.c
        after = 0
        while True:
            # In the order of arrival, so that the first young one ends the search.
            wanted = sa.select(c.seq, c.id, c.received_at).where(*where, c.seq > after)
            wanted = wanted.order_by(c.seq)
            with self._step() as db:
                found = db.execute(wanted.limit(self._size)).all()
                old = [row.id for row in found if row.received_at < before]
                removed = self._remove(db, old, keep=_UNFINISHED)
            if not old:
                return
            after = found[-1].seq
            yield removed

    def _prune_requests(self, before: datetime) -> Iterator[Removed]:
        c = _requests.c
        after = 0
        while True:
            wanted = sa.select(c.seq, c.at, c.event_id).where(c.seq > after).order_by(c.seq)
            with self._step() as db:
                found = db.execute(wanted.limit(self._size)).all()
                old = [row for row in found if row.at < before]
                # Requests of events stay or go with those.
                named = {row.event_id for row in old if row.event_id}
                there = set(db.scalars(sa.select(_events.c.id).where(_events.c.id.in_(named))))
                alone = [row.seq for row in old if row.event_id not in there]
                self._delete(db, _requests, c.seq.in_(alone))
            if not old:
                return
            after = found[-1].seq
            yield Removed(requests=len(alone))

    def _prune_refused(self, before: datetime) -> Iterator[Removed]:
        c = _requests.c
        for signed in (True, False):
            after = 0
            while True:
                wanted = sa.select(c.seq, c.at).where(schema.REFUSED, c.signed.is_(signed))
                wanted = wanted.where(c.seq > after).order_by(c.seq).limit(self._size)
                with self._step() as db:
                    found = db.execute(wanted).all()
                    old = [row.seq for row in found if row.at < before]
                    self._delete(db, _requests, c.seq.in_(old))
                if not old:
                    break
                after = found[-1].seq
                yield Removed(requests=len(old))

    def _prune_keys(self, before: datetime) -> Iterator[Removed]:
        c = schema.keys.c
        after = b""
        while True:
            wanted = (
                sa.select(c.key, c.last_at).where(c.key > after).order_by(c.key).limit(self._size)
            )
            with self._step() as db:
                found = db.execute(wanted).all()
                old = [row.key for row in found if row.last_at < before]
                self._delete(db, schema.keys, c.key.in_(old))
            if not found:
                return
            after = found[-1].key
            yield Removed(keys=len(old))

    def _step(self) -> Any:
        return self._database.reading() if self._dry_run else self._database.writing_unsynced()

    def _remove(
        self,
        db: sa.Connection,
        event_ids: Sequence[str],
        *,
        keep: Sequence[State],
        tell: bool = False,
    ) -> Removed:
        """Remove events and all that belongs to them, except those with a delivery in *keep*.

        *tell*: say where their deliveries went.
        Keys stay. Others claim, record and resend at the same time, so the states are read again
        once everything is locked, in the order in which the others lock it.
        """
        likely = set(event_ids) - self._kept(db, event_ids, keep)
        if likely and not self._dry_run:
            self._texts.hold(db)
        lane_ids = {row.lane_id for row in self._hanging(db, likely)}
        kept: set[str] = set()
        if not self._dry_run:
            lock_lanes(db, lane_ids)
            _lock(db, _events, _events.c.id.in_(likely))
            _lock(db, _deliveries, _deliveries.c.event_id.in_(likely))
            kept = self._kept(db, likely, keep)
        rows = self._hanging(db, likely - kept)
        # An event that was routed meanwhile has a delivery in a lane that is not locked.
        kept |= {row.event_id for row in rows if row.lane_id not in lane_ids}
        going = likely - kept
        if not going:
            return Removed()
        elsewhere = traces.elsewhere(db, going) if tell else []
        rows = [row for row in rows if row.event_id in going]
        delivery_ids = [row.id for row in rows]
        self._delete(db, schema.attempts, schema.attempts.c.delivery_id.in_(delivery_ids))
        self._delete(db, _deliveries, _deliveries.c.id.in_(delivery_ids))
        if not self._dry_run:
            traces.forget_undo(db, going)
            these = sa.select(_events.c.seq).where(_events.c.id.in_(going))
            self._texts.remove(db, db.scalars(these).all())
        requests = self._delete(db, _requests, _requests.c.event_id.in_(going))
        self._delete(db, _events, _events.c.id.in_(going))
        if not self._dry_run:
            _tidy(db, sorted({row.lane_id for row in rows}), now=self._clock())
        return Removed(
            events=len(going),
            deliveries=len(rows),
            requests=requests,
            elsewhere=tuple(elsewhere),
        )

    def _kept(
        self, db: sa.Connection, event_ids: Iterable[str], states: Sequence[State]
    ) -> set[str]:
        """Return which of the events have a delivery in one of *states*."""
        c = _deliveries.c
        wanted = sa.select(c.event_id).where(c.event_id.in_(event_ids), c.state.in_(states))
        return set(db.scalars(wanted))

    def _hanging(self, db: sa.Connection, event_ids: Iterable[str]) -> Sequence[Any]:
        """Return the deliveries of events, with their lanes."""
        c = _deliveries.c
        return db.execute(
            sa.select(c.id, c.event_id, c.lane_id).where(c.event_id.in_(event_ids))
        ).all()

    def _delete(self, db: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
        if self._dry_run:
            return int(
                db.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar_one()
            )
        return db.execute(sa.delete(table).where(where)).rowcount


def _lock(db: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> None:
    db.execute(sa.select(table.c.seq).where(where).order_by(table.c.seq).with_for_update()).all()


def _tidy(db: sa.Connection, lane_ids: Sequence[str], *, now: datetime) -> None:
    """Remove empty lanes, and promote in those that lost their head."""
    forget_empty(db, lane_ids)
    lanes = schema.lanes
    these = lanes.c.id.in_(lane_ids)
    there = sa.select(1).where(_deliveries.c.id == lanes.c.parked_by).exists()
    parked = lanes.c.parked_by.is_not(None)
    db.execute(sa.update(lanes).where(these, parked, ~there).values(parked_by=None))
    for lane_id in db.scalars(sa.select(lanes.c.id).where(these).order_by(lanes.c.id)).all():
        promote(db, lane_id, now=now)
