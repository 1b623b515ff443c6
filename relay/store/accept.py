"""Accepting events: request, event, key and deliveries in one synced transaction."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from relay.rules.delivery import State
from relay.rules.restoring import Window, caution
from relay.store import refused, restored, schema
from relay.store.database import (
    Blocked,
    Database,
    Prepared,
    RowRefused,
    StoreUnavailable,
    once_more,
)
from relay.store.group_commit import Closed, Committed, GroupCommit, Late
from relay.store.line_up import Batch, InLane, LineUp
from relay.store.secret import store_secret
from relay.store.values import (
    EVENT_COLUMNS,
    REQUEST_COLUMNS,
    Acceptance,
    Arrival,
    Request,
    event_row,
    request_row,
)

log = structlog.get_logger()

#: Called after the commit with the number of new deliveries at each destination. Must not wait.
Tell = Callable[[Mapping[str, int]], None]

#: Seconds after which a sender learns that its event could not be stored; it waits for 5.
LONGEST_WAIT = 4.5
#: How many duplicates of an event are kept as requests; the rest is only counted. A captured
#: genuine request can be sent for ever.
DUPLICATES_KEPT = 5


class Inbox:
    """Stores arrivals, many per commit."""

    def __init__(
        self,
        database: Database,
        *,
        tell: Tell | None = None,
        keep: int = refused.BYTES_KEPT,
        looking: Collection[str] = (),
        committed: Committed | None = None,
    ) -> None:
        """*tell* is called when something has become due; by default it wakes the workers.

        *keep*: bytes of refused requests that carry a signature. *looking*: destinations that find
        earlier work before they write; after a restore, what may have been delivered is held for a
        person at all others.
        """
        self._database = database
        self._keep = keep
        self._looking = frozenset(looking)
        #: The store's own secret; empty until the store could be read once.
        self._secret = b""
        #: What a restored store does not know of; restoring needs every node stopped.
        self._window: Window | None = None
        with suppress(StoreUnavailable):
            self._read_marks()
        self._tell = tell or (lambda _: database.notify())
        self._sql = _Statements.of(database)
        self._lines = LineUp(database)
        self._group: GroupCommit[Arrival, Acceptance] = GroupCommit(
            self._accept,
            name="accept",
            shared=StoreUnavailable,
            patience=LONGEST_WAIT,
            committed=committed,
        )

    def accept(self, arrival: Arrival) -> Acceptance:
        """Store *arrival*, or recognise it, and return when that is on disk.

        Raises :class:`StoreUnavailable` if nothing was stored, and
        :class:`~relay.store.database.RowRefused` if only this event could not be.
        """
        try:
            return self._group.submit(arrival)
        except Closed as error:
            raise StoreUnavailable("shutting down") from error
        except Late as error:
            raise StoreUnavailable(f"no commit within {LONGEST_WAIT} s") from error

    def probe(self) -> None:
        """Raise :class:`StoreUnavailable` unless an event could be written now; write none."""
        self._database.require_room()
        with self._database.writing_unsynced() as db:
            # A store that was moved, or has become read-only, refuses the statement as such.
            for nothing in _NOTHING:
                db.execute(nothing)

    @property
    def secret(self) -> bytes:
        """The store's own secret. Raises :class:`StoreUnavailable` before it could be read."""
        self._read_marks()
        return self._secret

    def refuse(self, requests: Sequence[Request]) -> None:
        """Note refused requests in their ring; not synced, because nobody was told 200.

        One that the database cannot hold is left out. They stop before events do, so that no
        stranger can fill the disk for those. Raises :class:`StoreUnavailable`.
        """
        self._database.require_room(share=refused.SHARE)
        try:
            self._note_refused(requests)
        except RowRefused as error:
            if len(requests) == 1:
                log.warning("requests.not_kept", count=1, error=str(error))
                return
            for request in requests:
                self.refuse([request])

    def _note_refused(self, requests: Sequence[Request]) -> None:
        with self._database.writing_unsynced() as db:
            self._sql.requests.many(db, map(request_row, requests))
            refused.evict(self._database, db, keep=self._keep)

    def close(self) -> None:
        """Accept nothing more, and commit what was submitted."""
        self._group.close()

    def _accept(self, arrivals: Sequence[Arrival]) -> Sequence[Acceptance]:
        self._database.require_room()
        self._read_marks()
        acceptances, due = self._commit(arrivals)
        self._database.require_present()
        if due:
            self._tell(due)
        return acceptances

    def _read_marks(self) -> None:
        """Read what the store says of itself, once."""
        if not self._secret:
            self._window = restored.window_of(self._database)
            self._secret = store_secret(self._database)

    @once_more
    def _commit(
        self, arrivals: Sequence[Arrival]
    ) -> tuple[Sequence[Acceptance], Mapping[str, int]]:
        """Store *arrivals* in one transaction; return also the new deliveries by destination.

        Other nodes accept at the same time, so locks are taken in one order: new keys, known
        keys, lanes, each kind in the order of its keys.
        """
        with self._database.writing() as db:
            # If keys in a batch are equal, the first is the event and the others are duplicates.
            first = {arrival.key: arrival for arrival in reversed(arrivals)}
            new = self._insert_keys(db, [first[key] for key in sorted(first)])
            fresh = [a for a in arrivals if first[a.key] is a and a.key in new]
            self._insert_events(db, fresh)
            batch = Batch(
                new={a.event.id: a for a in fresh if a.standing == "accepted"},
                looking=self._looking,
            )
            if self._window:
                occurred = {name: each.event.occurred_at for name, each in batch.new.items()}
                batch.doubtful |= {n for n, at in occurred.items() if self._window.may_hide(at)}
            settled = {id(a): Acceptance(standing=a.standing, event_id=a.event.id) for a in fresh}
            known = [a for a in arrivals if id(a) not in settled]
            settled |= self._accept_known(db, known, batch)
            self._lines.add(db, batch)
            acceptances = [settled[id(arrival)] for arrival in arrivals]
            self._let_in(db, arrivals, acceptances)
            self._note_requests(db, arrivals, acceptances)
            return acceptances, batch.due()

    def _let_in(
        self, db: sa.Connection, arrivals: Sequence[Arrival], acceptances: Sequence[Acceptance]
    ) -> None:
        """Take what a person lets in off the refused requests, and note who did that."""
        table = schema.requests
        for arrival, acceptance in zip(arrivals, acceptances, strict=True):
            if (admission := arrival.admission) is None:
                continue
            # Another person who lets it in at the same time has made it a duplicate, no more.
            mine = sa.delete(table).where(schema.REFUSED, table.c.id == arrival.request.id)
            if db.execute(mine).rowcount:
                action = {
                    "at": self._database.clock(),
                    "who": admission.who,
                    "what": "admit",
                    "origin": admission.origin,
                    "why": admission.why,
                    "event_id": acceptance.event_id,
                    "detail": f"{acceptance.standing}; was refused with {admission.was}",
                }
                db.execute(sa.insert(schema.actions), [action])

    def _note_requests(
        self, db: sa.Connection, arrivals: Sequence[Arrival], acceptances: Sequence[Acceptance]
    ) -> None:
        """Keep the first duplicates of each event; a request that brought one is kept with it."""
        known = [
            replace(
                arrival.request,
                message_id=arrival.event.message_id,
                outcome=acceptance.standing,
                event_id=acceptance.event_id,
            )
            for arrival, acceptance in zip(arrivals, acceptances, strict=True)
            if 0 < acceptance.duplicate <= DUPLICATES_KEPT
        ]
        if known:
            self._sql.requests.many(db, map(request_row, known))

    def _accept_known(
        self, db: sa.Connection, arrivals: Sequence[Arrival], batch: Batch
    ) -> dict[int, Acceptance]:
        """Treat arrivals with known keys; add to *batch* what must be delivered after all."""
        rows = _known(db, {arrival.key for arrival in arrivals})
        return {
            id(arrival): self._accept_again(db, arrival, rows[arrival.key], batch)
            for arrival in sorted(arrivals, key=lambda arrival: arrival.key)
        }

    def _accept_again(
        self, db: sa.Connection, arrival: Arrival, known: Any, batch: Batch
    ) -> Acceptance:
        """Treat an arrival with a known key: it is a duplicate or a conflict."""
        meaning, mark = self._digests(arrival)
        same_text = None in (known.text_digest, mark) or known.text_digest == mark
        if known.meaning != meaning or not same_text:
            return self._accept_conflict(db, arrival, meaning, mark, known.event_id)
        counted = _count_duplicate(db, arrival.key, arrival)
        if known.event_id not in batch.new:
            self._deliver_after_all(db, arrival, known.event_id, batch)
        return Acceptance(
            standing="duplicate", event_id=known.event_id, duplicate=counted.duplicates
        )

    def _accept_conflict(
        self,
        db: sa.Connection,
        arrival: Arrival,
        meaning: bytes,
        mark: bytes | None,
        event_id: str,
    ) -> Acceptance:
        """Keep an arrival that contradicts a known event, once, under its own key, undelivered."""
        key = hashlib.sha256(arrival.key + meaning + (mark or b"")).digest()
        conflicting = replace(arrival, key=key, standing="conflict")
        if self._insert_keys(db, [conflicting]):
            self._insert_events(db, [conflicting])
            return Acceptance(standing="conflict", event_id=arrival.event.id)
        counted = _count_duplicate(db, key, arrival)
        if counted is None:
            # Its key was pruned a moment ago.
            return Acceptance(standing="conflict", event_id=event_id, duplicate=1)
        return Acceptance(
            standing="conflict", event_id=counted.event_id, duplicate=counted.duplicates
        )

    def _deliver_after_all(
        self, db: sa.Connection, arrival: Arrival, event_id: str, batch: Batch
    ) -> None:
        """Plan what a resend causes: new deliveries if there are none, or revived ones."""
        table = schema.deliveries.c
        columns = table.seq, table.lane_id, table.destination, table.state, table.ended_at
        found = db.execute(sa.select(*columns).where(table.event_id == event_id)).all()
        if not found:
            # A stale or purged event has no effect. A test remains one, although the routes that
            # this arrival has met may be those for other events, and the other way round.
            events = schema.events.c
            stored = sa.select(events.received_at).where(
                events.id == event_id,
                events.standing == "accepted",
                events.test == arrival.event.test,
            )
            if (received_at := db.scalar(stored)) is not None:
                batch.new[event_id] = arrival
                if self._is_forgotten(received_at):
                    batch.doubtful.add(event_id)
        elif arrival.on_duplicate == "revive":
            batch.dead |= {
                row.seq: InLane(
                    lane_id=row.lane_id,
                    destination=row.destination,
                    arrival=arrival,
                    caution=caution(
                        doubtful=self._is_forgotten(row.ended_at),
                        looks=row.destination in self._looking,
                    ),
                )
                for row in found
                if row.state == State.DEAD
            }

    def _is_forgotten(self, at: datetime | None) -> bool:
        """Return whether more may have happened since *at* than a restored store knows."""
        return self._window is not None and (at is None or at <= self._window.until)

    def _insert_keys(self, db: sa.Connection, arrivals: Iterable[Arrival]) -> set[bytes]:
        """Insert the keys that are new, and return those."""
        rows = [self._key_row(arrival) for arrival in arrivals]
        keys = [row["key"] for row in rows]
        if self._sql.keys.many(db, rows) == len(rows):
            return set(keys)
        found = db.execute(_KEYS, {"keys": keys})
        ours = {row["event_id"] for row in rows}
        return {row.key for row in found if row.event_id in ours}

    def _insert_events(self, db: sa.Connection, arrivals: Sequence[Arrival]) -> None:
        if arrivals:
            self._sql.events.many(db, map(event_row, arrivals))

    def _key_row(self, arrival: Arrival) -> dict[str, Any]:
        meaning, text = self._digests(arrival)
        at = arrival.event.received_at
        return {
            "key": arrival.key,
            "event_id": arrival.event.id,
            "meaning": meaning,
            "text_digest": text,
            "duplicates": 0,
            "first_at": at,
            "last_at": at,
        }

    def _digests(self, arrival: Arrival) -> tuple[bytes, bytes | None]:
        """Digest meaning and text under a key, so that the digests may outlive the event."""
        meaning = hmac.digest(self._secret, arrival.meaning, "sha256")
        body = arrival.event.body
        return meaning, body and hmac.digest(self._secret, body.encode(), "sha256") or None


def _count_duplicate(db: sa.Connection, key: bytes, arrival: Arrival) -> Any:
    """Count *arrival* at *key*; return its event and how many there are, None without the key."""
    table = schema.keys
    return db.execute(
        sa.update(table)
        .where(table.c.key == key)
        .values(duplicates=table.c.duplicates + 1, last_at=arrival.event.received_at)
        .returning(table.c.event_id, table.c.duplicates)
    ).one_or_none()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Statements:
    """The statements of every batch, in the dialect of its database."""

    keys: Prepared
    events: Prepared
    requests: Prepared

    @classmethod
    def of(cls, database: Database) -> _Statements:
        keys = database.insert(schema.keys).on_conflict_do_nothing()
        return cls(
            keys=database.prepare(keys, columns=_KEY_COLUMNS),
            events=database.prepare(sa.insert(schema.events), columns=EVENT_COLUMNS),
            requests=database.prepare(sa.insert(schema.requests), columns=REQUEST_COLUMNS),
        )


_KEY_COLUMNS = (
    "key", "event_id", "meaning", "text_digest", "duplicates", "first_at", "last_at",
)  # fmt: skip

#: Inserts that insert no row.
_NOTHING = [
    sa.insert(column.table).from_select([column.name], sa.select(column).where(sa.false()))
    for column in (schema.keys.c.key, schema.events.c.id, schema.deliveries.c.id)
]

_KEYS = sa.select(schema.keys.c.key, schema.keys.c.event_id).where(
    schema.keys.c.key.in_(sa.bindparam("keys", expanding=True))
)

_KNOWN = (
    sa.select(*(schema.keys.c[name] for name in ("key", "event_id", "meaning", "text_digest")))
    .where(schema.keys.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(schema.keys.c.key)
    .with_for_update()
)


def _known(db: sa.Connection, keys: Collection[bytes]) -> dict[bytes, Any]:
    """Return the rows of *keys*, locked in their order."""
    if not keys:
        return {}
    rows = {bytes(row.key): row for row in db.execute(_KNOWN, {"keys": sorted(keys)})}
    if len(rows) < len(keys):
        raise Blocked("keys were pruned while they were looked up")
    return rows
