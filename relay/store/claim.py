"""Claiming deliveries under a lease, and recording how they ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from relay.rules.delivery import State, Tries
from relay.rules.health import Pause, after_start, granted
from relay.rules.units import RateLimit
from relay.store import health, schema
from relay.store.database import Database, StoreUnavailable, once_more
from relay.store.group_commit import Closed, Committed, GroupCommit, Then
from relay.store.lanes import lock_lanes
from relay.store.record import Results
from relay.store.values import LOADED, Claim, Connection, Record, load_event, load_pauses

log = structlog.get_logger()

#: One in this many deliveries that start is the newest that is due, so that a backlog does not
#: delay new messages.
NEWEST_SHARE = 2
#: How many of the newest deliveries are searched for one that is due.
NEWEST_SEEN = 64

#: Seconds for which a record waits for others; only the next of its conversation waits for it.
GATHER = 0.005
#: Seconds between tries to write a record while the store is away.
AGAIN = 1.0

#: A lease that is renewed in time never reaches further into the future.
LONGEST_LEASE = timedelta(minutes=1)

_deliveries, _lanes, _events = schema.deliveries, schema.lanes, schema.events
_d = _deliveries.c

_ATTEMPT_COLUMNS = (
    "id", "delivery_id", "destination", "trigger", "node", "repeat", "started_at",
)  # fmt: skip

_PENDING_HERE = sa.select(_d.seq).where(_d.destination == sa.bindparam("b_name"), schema.PENDING)
_DUE = _PENDING_HERE.where(_d.due_at <= sa.bindparam("b_now", type_=schema.UtcTime()))
_DUE_ONE = _DUE.limit(1)
# Bounded, because many deliveries may wait for another attempt and none of them be due. Joined,
# because SQLite would search everything that is due for `seq IN (…)`.
_seen = _PENDING_HERE.order_by(_d.seq.desc()).limit(NEWEST_SEEN).subquery("newest")
_NEWEST = (
    sa.select(_d.seq)
    .join_from(_seen, _deliveries, _d.seq == _seen.c.seq)
    .where(schema.PENDING, _d.due_at <= sa.bindparam("b_now", type_=schema.UtcTime()))
    .order_by(_d.seq.desc())
    .limit(sa.bindparam("b_limit"))
    .with_for_update(skip_locked=True, of=_deliveries)
)
_OLDEST = (
    _DUE.order_by(_d.due_at, _d.seq)
    .limit(sa.bindparam("b_limit"))
    .with_for_update(skip_locked=True)
)
_THESE = _d.seq.in_(sa.bindparam("b_seqs", expanding=True))
_CLAIM = (
    sa.update(_deliveries)
    .where(_THESE)
    .values(
        state=State.IN_FLIGHT,
        attempts=_d.attempts + 1,
        claims=_d.claims + 1,
        node=sa.bindparam("b_node"),
        lease_until=sa.bindparam("b_until", type_=schema.UtcTime()),
    )
)
# Only what a claim holds: this is read for every attempt.
_CLAIMS = (
    sa.select(
        _d.id.label("delivery_id"),
        _d.key.label("delivery_key"),
        *(_d[name] for name in ("destination", "lane_id", "claims", "attempts", "repeat")),
        *(_d[name] for name in ("failing_since", "lease_until", "trigger")),
        _lanes.c.thread,
        *LOADED,
    )
    .join_from(_deliveries, _events, _events.c.id == _d.event_id)
    .join(_lanes, _lanes.c.id == _d.lane_id)
    .order_by(_d.due_at, _d.seq)
)
_CLAIMED = _CLAIMS.where(_THESE)


class Queue:
    """The deliveries as a worker sees them. *node* is the name of that worker."""

    def __init__(
        self,
        database: Database,
        *,
        node: str,
        again: float = AGAIN,
        committed: Committed | None = None,
        paused: health.Paused = lambda destination, cause: None,
    ) -> None:
        """*again*: seconds between tries to write a record while the store is away.

        *paused* is called with a destination that is paused, and why.
        """
        self._paused = paused
        self._database = database
        self._node = node
        insert = sa.insert(schema.attempts)
        self._attempts = database.prepare(insert, columns=_ATTEMPT_COLUMNS)
        self._results = Results(database)
        #: Deliveries claimed so far by destination, which tell whether the newest is next.
        self._turns: dict[str, int] = {}
        self._group: GroupCommit[Record, bool] = GroupCommit(
            self._record_patiently,
            name="record",
            shared=StoreUnavailable,
            gather=GATHER,
            committed=committed,
        )
        self._again = again
        self._closing = threading.Event()

    def due(self, destinations: Sequence[str], now: datetime) -> set[str]:
        """Return which of *destinations* have a delivery that is due."""
        with self._database.reading() as db:
            return {
                name
                for name in destinations
                if db.execute(_DUE_ONE, {"b_name": name, "b_now": now}).first()
            }

    @once_more
    def claim(
        self,
        destination: str,
        *,
        limit: int,
        rate: RateLimit | None,
        lease: timedelta,
        clock: Callable[[], datetime],
        connection: Connection | None = None,
    ) -> Sequence[Claim]:
        """Take up to *limit* due deliveries, oldest and newest in turn, as rate and pauses allow.

        *connection*: the destinations that share *rate*; by default only this one.
        Claiming counts the attempt, so that an event which kills the worker runs out of attempts.
        """
        self._database.require_room(share=0.5)
        with self._database.writing() as db:
            before = health.locked(db, destination)
            # Read under the lock: a time from before the wait would make a rate count too much.
            now = clock()
            if rate:
                shared = connection or Connection(name=destination, destinations=(destination,))
                room = health.within(self._database, db, rate, shared, now=now)
                limit = min(limit, room)
            most, after = granted(before, now=now)
            limit = limit if most is None else min(limit, most)
            after = health.end_waits(db, destination, after)
            chosen = self._chosen(db, destination, limit=limit, now=now) if limit > 0 else ()
            # A pause that is over stays until something can be tried.
            after = after_start(after, len(chosen)) if chosen or before.pause is None else before
            if after != before:
                health.write(self._database, db, destination, after)
            claims = self._claimed(db, chosen, now=now, until=now + lease) if chosen else []
        turn = health.Turn(destination=destination, before=before, after=after)
        health.say([turn], paused=self._paused)
        return claims

    def _claimed(
        self, db: sa.Connection, chosen: Sequence[int], *, now: datetime, until: datetime
    ) -> Sequence[Claim]:
        """Take the *chosen* deliveries, and write that their attempts begin."""
        db.execute(_CLAIM, {"b_seqs": chosen, "b_node": self._node, "b_until": until})
        rows = db.execute(_CLAIMED, {"b_seqs": chosen}).mappings().all()
        claims = [_claim(row, now) for row in rows]
        self._attempts.many(db, [_attempt_row(claim, self._node) for claim in claims])
        return claims

    def _chosen(
        self, db: sa.Connection, destination: str, *, limit: int, now: datetime
    ) -> Sequence[int]:
        """Choose up to *limit* due deliveries and lock them."""
        turn = self._turns.get(destination, 0)
        newest = (turn + limit) // NEWEST_SHARE - turn // NEWEST_SHARE
        where = {"b_name": destination, "b_now": now}
        chosen = list(db.scalars(_NEWEST, {**where, "b_limit": newest})) if newest else []
        oldest = db.scalars(_OLDEST, {**where, "b_limit": limit}).all()
        chosen += [seq for seq in oldest if seq not in chosen][: limit - len(chosen)]
        self._turns[destination] = turn + len(chosen)
        return chosen

    def record(self, record: Record) -> bool:
        """Write how an attempt ended and what follows; without its lease only the attempt changes.

        Return whether its destination came back, so that others became due. Waits while the store
        is away. Raises :class:`StoreUnavailable` after the queue was closed.
        """
        try:
            return self._group.submit(record)
        except Closed as error:
            raise StoreUnavailable("shutting down") from error

    def record_later(self, record: Record, then: Then) -> None:
        """Record in the background, and then call *then* with None or with the error.

        Raises :class:`StoreUnavailable` after the queue was closed.
        """
        try:
            self._group.submit_later(record, then)
        except Closed as error:
            raise StoreUnavailable("shutting down") from error

    @once_more
    def renew(self, delivery_ids: Sequence[str], *, lease: timedelta, now: datetime) -> None:
        """Extend our leases on deliveries that are still at work."""
        ours = _d.id.in_(delivery_ids), _d.node == self._node, schema.IN_FLIGHT
        with self._database.writing_unsynced() as db:
            # In the order in which recording locks them.
            held = sa.select(_d.seq).where(*ours).order_by(_d.seq).with_for_update()
            seqs = db.scalars(held).all()
            kept = sa.update(_deliveries).where(_d.seq.in_(seqs))
            db.execute(kept.values(lease_until=now + lease))

    def lost(
        self, destinations: Sequence[str], now: datetime, *, limit: int = 100
    ) -> Sequence[Claim]:
        """Return claims at *destinations* whose lease has run out."""
        with self._database.reading() as db:
            run_out = schema.IN_FLIGHT, _d.lease_until < now, _d.destination.in_(destinations)
            wanted = _CLAIMS.where(*run_out).limit(limit)
            return [_claim(row, now) for row in db.execute(wanted).mappings()]

    def abandoned(self, now: datetime) -> Sequence[Claim]:
        """Return the claims that this node still holds from before it was restarted."""
        with self._database.reading() as db:
            wanted = _CLAIMS.where(schema.IN_FLIGHT, _d.node == self._node)
            return [_claim(row, now) for row in db.execute(wanted).mappings()]

    def hasten(self, now: datetime) -> None:
        """Undo the effect of a clock that was ahead and has been set back.

        Deliveries without an attempt, or with one in the future, become due; a pause that began
        in the future ends, and a lease that ends far in the future ends soon unless renewed.
        """
        attempts, health_ = schema.attempts.c, schema.destinations
        ahead = sa.select(1).where(attempts.delivery_id == _d.id, attempts.ended_at > now)
        with self._database.writing() as db:
            db.execute(
                sa.update(_deliveries)
                .where(schema.PENDING, _d.due_at > now, sa.or_(_d.claims == 0, ahead.exists()))
                .values(due_at=now)
            )
            db.execute(
                sa.update(health_)
                .where(health_.c.since > now, health_.c.until.is_not(None))
                .where(health_.c.cause != "operator")
                .values(since=now, until=now)
            )
            db.execute(
                sa.update(_deliveries)
                .where(schema.IN_FLIGHT, _d.lease_until > now + LONGEST_LEASE)
                .values(lease_until=now + LONGEST_LEASE)
            )

    def pauses(self) -> Mapping[str, Pause]:
        """Return the destinations that are not being served now."""
        with self._database.reading() as db:
            return load_pauses(db)

    def close(self) -> None:
        """Write what was recorded, or give it up if the store is away."""
        self._closing.set()
        self._group.close()

    def _record_patiently(self, records: Sequence[Record]) -> Sequence[bool]:
        """Record, and try again while the store is away: an outcome must not be lost."""
        while True:
            try:
                return self._record(records)
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                if self._closing.wait(self._again):
                    raise

    @once_more
    def _record(self, records: Sequence[Record]) -> Sequence[bool]:
        with self._database.writing() as db:
            lock_lanes(db, {record.claim.lane_id for record in records})
            self._results.record(db, records)
            turns = health.note(self._database, db, records)
        health.say(turns, paused=self._paused)
        back = {turn.destination for turn in turns if turn.is_back}
        return [record.claim.destination in back for record in records]


def _claim(row: sa.RowMapping, now: datetime) -> Claim:
    delivery_id, number = row["delivery_id"], row["claims"]
    return Claim(
        delivery_id=delivery_id,
        attempt_id=attempt_id(delivery_id, number),
        destination=row["destination"],
        lane_id=row["lane_id"],
        number=number,
        key=row["delivery_key"],
        thread=row["thread"],
        event=load_event(row),
        tries=Tries(
            attempts=row["attempts"], repeat=row["repeat"], failing_since=row["failing_since"]
        ),
        claimed_at=now,
        lease_until=row["lease_until"],
        trigger=row["trigger"],
    )


def attempt_id(delivery_id: str, number: int) -> str:
    """Name an attempt by its delivery and claim, so that others can complete a lost one."""
    return f"att_{delivery_id.removeprefix('dlv_')}_{number}"


def _attempt_row(claim: Claim, node: str) -> dict[str, Any]:
    return {
        "id": claim.attempt_id,
        "delivery_id": claim.delivery_id,
        "destination": claim.destination,
        "trigger": claim.trigger,
        "node": node,
        "repeat": claim.tries.repeat,
        "started_at": claim.claimed_at,
    }
