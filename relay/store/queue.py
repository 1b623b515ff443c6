"""Claiming deliveries under a lease, and recording what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from relay.delivery import Health, Pause, Result, Standing, State, granted, health_after
from relay.store import schema
from relay.store.database import Database, StoreUnavailable
from relay.store.groups import Group
from relay.store.records import Claim, Record
from relay.store.rows import health_row, load_event, load_health, load_pauses
from relay.units import RateLimit

_deliveries, _lanes, _events = schema.deliveries, schema.lanes, schema.events
_d = _deliveries.c

#: Of the deliveries that may start, every so many-th is the newest one that is due, so that a
#: backlog delays nobody who writes now.
NEWEST_SHARE = 2
#: How many of the newest are looked at for one that is due.
NEWEST_SEEN = 64
#: By how much the clocks of two workers may differ for rates to be exact.
SKEW = timedelta(seconds=5)


class Queue:
    """The deliveries as a worker sees them. *node* names the worker that asks."""

    def __init__(self, database: Database, *, node: str) -> None:
        self._database = database
        self._node = node
        #: Deliveries claimed so far, by destination: whose turn it is.
        self._turns: dict[str, int] = {}
        self._group: Group[Record, None] = Group(
            self._record, name="record", shared=StoreUnavailable
        )

    def due(self, destinations: Sequence[str], now: datetime) -> set[str]:
        """Return which of *destinations* have a delivery that is due."""
        with self._database.reading() as db:
            return {name for name in destinations if db.execute(_due_one(name, now)).first()}

    def claim(
        self,
        destination: str,
        *,
        limit: int,
        rate: RateLimit | None,
        lease: timedelta,
        now: datetime,
    ) -> Sequence[Claim]:
        """Take up to *limit* due deliveries as rate and pauses grant: oldest and newest in turn.

        Claiming counts the attempt, so that an event which kills the worker runs out of attempts.
        """
        self._database.require_room(share=0.5)
        with self._database.writing() as db:
            if rate:
                limit = min(limit, _within(rate, db, destination, now))
            if limit > 0:
                limit = min(limit, _may_start(self._database, db, destination, now, limit))
            if limit <= 0:
                return []
            chosen = self._chosen(db, destination, limit=limit, now=now)
            if not chosen:
                return []
            db.execute(
                sa.update(_deliveries)
                .where(_d.seq.in_(chosen))
                .values(
                    state=State.IN_FLIGHT,
                    attempts=_d.attempts + 1,
                    claims=_d.claims + 1,
                    node=self._node,
                    lease_until=now + lease,
                )
            )
            claims = _load(db, _d.seq.in_(chosen), now=now)
            rows = [_attempt_row(claim, self._node) for claim in claims]
            db.execute(sa.insert(schema.attempts), rows)
            return claims

    def _chosen(
        self, db: sa.Connection, destination: str, *, limit: int, now: datetime
    ) -> Sequence[int]:
        """Choose up to *limit* due deliveries and lock them."""
        turn = self._turns.get(destination, 0)
        newest = (turn + limit) // NEWEST_SHARE - turn // NEWEST_SHARE
        due = sa.select(_d.seq).where(
            _d.destination == destination, schema.PENDING, _d.due_at <= now
        )
        chosen: list[int] = []
        if newest:
            # Bounded, because none of many that wait for another attempt may be due.
            seen = sa.select(_d.seq).where(_d.destination == destination, schema.PENDING)
            seen = seen.order_by(_d.seq.desc()).limit(NEWEST_SEEN)
            wanted = due.where(_d.seq.in_(seen.scalar_subquery())).order_by(_d.seq.desc())
            chosen += db.scalars(wanted.limit(newest).with_for_update(skip_locked=True))
        oldest = due.where(_d.seq.not_in(chosen)).order_by(_d.due_at, _d.seq)
        chosen += db.scalars(oldest.limit(limit - len(chosen)).with_for_update(skip_locked=True))
        self._turns[destination] = turn + len(chosen)
        return chosen

    def record(self, record: Record) -> None:
        """Write how an attempt ended and what follows; a lost lease changes only the attempt."""
        self._group.submit(record)

    def renew(self, delivery_ids: Sequence[str], *, lease: timedelta, now: datetime) -> None:
        """Keep our leases on deliveries that are still being worked on."""
        with self._database.writing_unsynced() as db:
            db.execute(
                sa.update(_deliveries)
                .where(_d.id.in_(delivery_ids), _d.node == self._node, schema.IN_FLIGHT)
                .values(lease_until=now + lease)
            )

    def lost(self, now: datetime, *, limit: int = 100) -> Sequence[Claim]:
        """Return claims whose lease has run out."""
        with self._database.reading() as db:
            return _load(db, schema.IN_FLIGHT, _d.lease_until < now, now=now, limit=limit)

    def abandoned(self, now: datetime) -> Sequence[Claim]:
        """Return the claims that this node still holds from an earlier life."""
        with self._database.reading() as db:
            return _load(db, schema.IN_FLIGHT, _d.node == self._node, now=now)

    def hasten(self, now: datetime) -> None:
        """Make due what no attempt was made at: a later time is one of a clock since put back."""
        with self._database.writing() as db:
            db.execute(
                sa.update(_deliveries)
                .where(schema.PENDING, _d.due_at > now, _d.claims == 0)
                .values(due_at=now)
            )

    def pauses(self) -> Mapping[str, Pause]:
        """Return the destinations that are not being served now."""
        with self._database.reading() as db:
            return load_pauses(db)

    def close(self) -> None:
        """Write what was recorded."""
        self._group.close()

    def _record(self, records: Sequence[Record]) -> Sequence[None]:
        with self._database.writing() as db:
            lock_lanes(db, {record.claim.lane_id for record in records})
            for record in records:
                settled = _settle(db, record)
                _end_attempt(db, record, settled=settled)
                if settled:
                    _remember(db, record)
            _note_health(self._database, db, records)
        return [None] * len(records)


def _due_one(destination: str, now: datetime) -> sa.Select[Any]:
    return (
        sa.select(_d.seq)
        .where(_d.destination == destination, schema.PENDING, _d.due_at <= now)
        .limit(1)
    )


def _may_start(
    database: Database, db: sa.Connection, destination: str, now: datetime, limit: int
) -> int:
    """Return how many of *limit* deliveries the destination's health lets start."""
    table = schema.destinations
    row = db.execute(sa.select(table).where(table.c.name == destination).with_for_update())
    found = row.mappings().first()
    if found is None:
        return limit
    before = load_health(found)
    number, after = granted(before, now=now)
    if after != before:
        _write_health(database, db, destination, after)
    return limit if number is None else number


def _within(rate: RateLimit, db: sa.Connection, destination: str, now: datetime) -> int:
    """Return how many deliveries may start now without more than *rate* in any window."""
    table = schema.attempts.c
    started = sa.select(sa.func.count()).select_from(schema.attempts)
    # What seems to have started in the future did so before the clock was put back.
    window = table.started_at > now - rate.period, table.started_at <= now + SKEW
    started = started.where(table.destination == destination, *window)
    return rate.count - int(db.execute(started).scalar_one())


def _load(
    db: sa.Connection,
    *where: sa.ColumnExpressionArgument[bool],
    now: datetime,
    limit: int | None = None,
) -> list[Claim]:
    wanted = (
        sa.select(_deliveries, _events, _lanes.c.thread)
        .join(_events, _events.c.id == _d.event_id)
        .join(_lanes, _lanes.c.id == _d.lane_id)
        .where(*where)
        .order_by(_d.due_at, _d.seq)
        .limit(limit)
        .set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL)
    )
    return [_claim(row, now) for row in db.execute(wanted).mappings()]


def _claim(row: sa.RowMapping, now: datetime) -> Claim:
    return Claim(
        delivery_id=row["deliveries_id"],
        attempt_id=attempt_id(row["deliveries_id"], row["deliveries_claims"]),
        destination=row["deliveries_destination"],
        lane_id=row["deliveries_lane_id"],
        number=row["deliveries_claims"],
        key=row["deliveries_key"],
        thread=row["lanes_thread"],
        event=load_event(row, prefix="events_"),
        standing=Standing(
            attempts=row["deliveries_attempts"],
            repeat=row["deliveries_repeat"],
            failing_since=row["deliveries_failing_since"],
        ),
        claimed_at=now,
        lease_until=row["deliveries_lease_until"],
        trigger=row["deliveries_trigger"],
    )


def attempt_id(delivery_id: str, number: int) -> str:
    """Name an attempt by its delivery and claim, so that a lost one can be completed too."""
    return f"att_{delivery_id.removeprefix('dlv_')}_{number}"


def _attempt_row(claim: Claim, node: str) -> dict[str, Any]:
    return {
        "id": claim.attempt_id,
        "delivery_id": claim.delivery_id,
        "destination": claim.destination,
        "trigger": claim.trigger,
        "node": node,
        "repeat": claim.standing.repeat,
        "started_at": claim.claimed_at,
    }


def _settle(db: sa.Connection, record: Record) -> bool:
    """Give the delivery its new state; False if the lease was lost and somebody else decides."""
    decision, receipt = record.decision, record.outcome.receipt
    values = {
        "state": decision.state,
        "due_at": decision.due_at,
        "attempts": decision.attempts,
        "repeat": decision.repeat,
        "failing_since": decision.failing_since,
        "node": None,
        "lease_until": None,
        "reason": decision.reason or record.outcome.detail or None,
        "ended_at": record.ended_at if decision.ends else None,
    }
    if receipt is not None:
        values |= {"reference": receipt.reference, "url": receipt.url}
    claim = record.claim
    update = sa.update(_deliveries).where(_d.id == claim.delivery_id).values(values)
    ours = update.where(_d.claims == claim.number, schema.IN_FLIGHT)
    if record.lost:
        # Who renewed the lease since we looked is not lost.
        ours = ours.where(_d.lease_until == claim.lease_until)
    if db.execute(ours).rowcount:
        return True
    if record.outcome.result is not Result.DELIVERED:
        return False
    # The lease was lost, but it did arrive: that settles it, unless somebody is at it again.
    unsettled = (State.PENDING, State.HELD, State.DEAD)
    if not db.execute(update.where(_d.state.in_(unsettled))).rowcount:
        return False
    parked = _lanes.c.id == claim.lane_id, _lanes.c.parked_by == claim.delivery_id
    db.execute(sa.update(_lanes).where(*parked).values(parked_by=None))
    return True


def _end_attempt(db: sa.Connection, record: Record, *, settled: bool) -> None:
    table = schema.attempts
    update = sa.update(table).where(table.c.id == record.claim.attempt_id)
    if not settled:
        # Who comes late may replace "nobody knows" by what happened, never the reverse.
        unknown = sa.or_(table.c.result.is_(None), table.c.result == Result.AMBIGUOUS)
        update = update.where(unknown)
    db.execute(
        update.values(
            ended_at=record.ended_at,
            result=record.outcome.result,
            detail=record.outcome.detail or None,
            status=record.outcome.status,
        )
    )


def _remember(db: sa.Connection, record: Record) -> None:
    """Keep the thread with the lane, and let the next of the conversation go."""
    lane = _lanes.c.id == record.claim.lane_id
    receipt, decision = record.outcome.receipt, record.decision
    if receipt is not None and receipt.thread not in (None, record.claim.thread):
        db.execute(sa.update(_lanes).where(lane).values(thread=receipt.thread))
    if decision.parks:
        # A late delivery is outside of the order: it holds up nobody.
        name = record.claim.delivery_id
        on_time = sa.select(1).where(_d.id == name, ~_d.late).exists()
        db.execute(sa.update(_lanes).where(lane, on_time).values(parked_by=name))
    elif decision.ends:
        promote(db, record.claim.lane_id, now=record.ended_at)


def lock_lanes(db: sa.Connection, lane_ids: Iterable[str]) -> None:
    """Lock lanes in the order of their keys, as everybody does who changes who is at a head."""
    locked = sa.select(_lanes.c.id).where(_lanes.c.id.in_(sorted(lane_ids)))
    db.execute(locked.order_by(_lanes.c.id).with_for_update()).all()


def promote(db: sa.Connection, lane_id: str, *, now: datetime) -> None:
    """Make the next delivery of a lane due, if nothing is at its head."""
    ahead = sa.select(1).select_from(_deliveries).where(_d.lane_id == lane_id, schema.AT_HEAD)
    parked = sa.select(1).where(_lanes.c.id == lane_id, _lanes.c.parked_by.is_not(None))
    following = (
        sa.select(_d.seq)
        .where(_d.lane_id == lane_id, schema.IN_LINE, _d.state == State.WAITING)
        .order_by(_d.seq)
        .limit(1)
    )
    db.execute(
        sa.update(_deliveries)
        .where(_d.seq == following.scalar_subquery(), ~ahead.exists(), ~parked.exists())
        .values(state=State.PENDING, due_at=now)
    )


def _note_health(database: Database, db: sa.Connection, records: Sequence[Record]) -> None:
    """Keep how the destinations of *records* do after them."""
    table = schema.destinations
    names = sorted({record.claim.destination for record in records})
    known = sa.select(table).where(table.c.name.in_(names)).order_by(table.c.name)
    rows = db.execute(known.with_for_update()).mappings()
    before = {row["name"]: load_health(row) for row in rows}
    after = dict(before)
    for record in records:
        name = record.claim.destination
        after[name] = health_after(
            after.get(name, Health()),
            record.outcome,
            claimed_at=record.claim.claimed_at,
            now=record.ended_at,
        )
    for name, health in after.items():
        if health != before.get(name, Health()):
            _write_health(database, db, name, health)


def _write_health(database: Database, db: sa.Connection, name: str, health: Health) -> None:
    table = schema.destinations
    if health == Health():
        db.execute(sa.delete(table).where(table.c.name == name))
        return
    insert = database.insert(table).values(health_row(name, health))
    changed = {each.name: insert.excluded[each.name] for each in table.c if not each.primary_key}
    db.execute(insert.on_conflict_do_update(index_elements=[table.c.name], set_=changed))
